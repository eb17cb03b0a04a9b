//! The two files libpq reads: services (`pg_service.conf`) and passwords (`.pgpass`).

use std::path::Path;

use super::parameters;
use super::{ConnectionError, Secret};

/// The settings of `[name]` in a service file, or none when the file does not define it.
pub(super) fn service(
    text: &str,
    path: &Path,
    name: &str,
) -> Result<Option<Vec<(String, String)>>, ConnectionError> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut inside = false;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            // The first section of a name counts, as in libpq.
            inside = section == name && found.is_none();
            if inside {
                found = Some(Vec::new());
            }
        } else if inside {
            let problem = |problem| ConnectionError::ServiceFile {
                path: path.to_path_buf(),
                line: number,
                problem,
            };
            if line.starts_with("ldap") && line.contains("://") {
                return Err(problem("a look-up over LDAP, which pgkeep does not do"));
            }
            let (keyword, value) = line.split_once('=').ok_or_else(|| problem("no `=`"))?;
            let keyword = keyword.trim();
            if matches!(keyword, "service" | "servicefile") {
                return Err(problem("a service that names a service"));
            }
            if parameters::parameter(keyword).is_none() {
                return Err(problem("a parameter that libpq does not know"));
            }
            if let Some(settings) = &mut found
                && !settings.iter().any(|(known, _)| known == keyword)
            {
                settings.push((keyword.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(found)
}

/// One line of a passfile: `host:port:database:user:password`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassfileEntry {
    fields: [Pattern; 4],
    password: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    Exactly(String),
}

impl PassfileEntry {
    /// The password, if the line is for this server, database and user.
    pub(super) fn matching(&self, wanted: [&str; 4]) -> Option<&Secret> {
        let fits = |(pattern, value): (&Pattern, &str)| match pattern {
            Pattern::Any => true,
            Pattern::Exactly(text) => text == value,
        };
        self.fields.iter().zip(wanted).all(fits).then_some(&self.password)
    }
}

/// The lines of a passfile; those that are none are passed over, as in libpq.
pub(super) fn passfile(text: &str) -> Vec<PassfileEntry> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect()
}

fn entry(line: &str) -> Option<PassfileEntry> {
    let mut rest = line;
    let mut field = || {
        let (raw, after) = until_colon(rest)?;
        rest = after;
        Some(if raw == "*" { Pattern::Any } else { Pattern::Exactly(unescaped(raw)) })
    };
    let fields = [field()?, field()?, field()?, field()?];
    // libpq takes the password up to an unescaped colon or the line's end.
    let raw = until_colon(rest).map_or(rest, |(raw, _)| raw);
    Some(PassfileEntry { fields, password: Secret::new(unescaped(raw)) })
}

fn until_colon(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

/// A line for every server, database and user.
pub(super) fn passfile_line(host: &str, port: &str, password: &str) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let host = if host == "*" { "*".to_owned() } else { escaped(host) };
    format!("{host}:{port}:*:*:{}\n", escaped(password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "# ours\n[other]\nhost=x\n\n[shop]\n host=db.example \nport=6000\nport=7\n[shop]\nuser=late\n";

    #[test]
    fn a_service_is_its_first_section_and_its_first_values() {
        let found = service(FILE, Path::new("f"), "shop").unwrap().unwrap();
        assert_eq!(
            found,
            [("host".to_owned(), "db.example".to_owned()), ("port".to_owned(), "6000".to_owned())]
        );
        assert_eq!(service(FILE, Path::new("f"), "none").unwrap(), None);
    }

    #[test]
    fn a_bad_line_is_named_by_file_and_number() {
        let error = service("[a]\nhost=x\nnonsense\n", Path::new("/x/s.conf"), "a").unwrap_err();
        assert!(
            error.to_string().contains("/x/s.conf") && error.to_string().contains('3'),
            "{error}"
        );
        assert!(service("[a]\nservice=b\n", Path::new("f"), "a").is_err());
        assert!(service("[a]\nhots=b\n", Path::new("f"), "a").is_err());
        assert!(service("[b]\nnonsense\n[a]\n", Path::new("f"), "a").is_ok());
    }

    fn look_up(text: &str, wanted: [&str; 4]) -> Option<String> {
        passfile(text)
            .iter()
            .find_map(|entry| entry.matching(wanted))
            .map(|s| s.expose().to_owned())
    }

    #[test]
    fn the_first_fitting_line_of_a_passfile_gives_the_password() {
        let text =
            "# c\nbad line\nh:5432:db:u:one\n*:*:*:u:t\\:w\\\\o:rest\nwith\\:colon:*:*:*:three\n";
        assert_eq!(look_up(text, ["h", "5432", "db", "u"]).as_deref(), Some("one"));
        assert_eq!(look_up(text, ["h", "5433", "db", "u"]).as_deref(), Some("t:w\\o"));
        assert_eq!(look_up(text, ["with:colon", "1", "x", "y"]).as_deref(), Some("three"));
        assert_eq!(look_up(text, ["h", "5432", "db", "v"]), None);
    }

    proptest! {
        #[test]
        fn a_written_line_reads_back(password in "[^\\r\\n\\x00]{1,30}", host in "[a-z/:\\\\]{1,10}") {
            let line = passfile_line(&host, "5432", &password);
            prop_assert_eq!(look_up(&line, [&host, "5432", "any", "one"]), Some(password));
        }

        #[test]
        fn any_file_is_read_without_panic(text in "[\\PC\\n]{0,200}") {
            let _ = passfile(&text);
            let _ = service(&text, Path::new("f"), "a");
        }
    }
}
