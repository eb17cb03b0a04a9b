//! A command as it may be shown and recorded: what may be a secret in its arguments is masked, and more rather than less.

use crate::config::{MASK, mask_connection};

/// Parts of names whose values nobody should see.
const SECRET: [&str; 10] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "identity",
    "auth",
    "cookie",
    "session",
];

/// Variables whose values are no secrets; those of all others may be.
const PLAIN: [&str; 20] = [
    "APP_ENV",
    "CI",
    "DEBUG",
    "DJANGO_SETTINGS_MODULE",
    "FLASK_APP",
    "FLASK_ENV",
    "LANG",
    "LC_ALL",
    "NODE_ENV",
    "PATH",
    "PGDATABASE",
    "PGHOST",
    "PGPORT",
    "PGSSLMODE",
    "PGUSER",
    "PORT",
    "RACK_ENV",
    "RAILS_ENV",
    "TZ",
    "VERSION",
];

/// The words of a command, with their secrets masked.
pub(super) fn masked(words: &[String]) -> Vec<String> {
    let mut masking = Masking::default();
    words.iter().map(|word| masking.word(word)).collect()
}

/// Goes from piece to piece: a script in one word is looked at as its words would be.
#[derive(Default)]
struct Masking {
    next_is_secret: bool,
    next_is_script: bool,
    in_script: bool,
}

impl Masking {
    fn word(&mut self, word: &str) -> String {
        if std::mem::take(&mut self.next_is_secret) && !word.starts_with('-') {
            return MASK.to_owned();
        }
        let outer = self.in_script;
        let script = std::mem::take(&mut self.next_is_script);
        // Blanks in the value of a word that is no script belong to it.
        if !script && let Some((name, _)) = assignment(word).filter(|(name, _)| hides(name)) {
            return format!("{name}={MASK}");
        }
        self.in_script |= script;
        let (mut shown, mut rest) = (String::new(), word);
        while let Some(first) = rest.chars().next() {
            if self.ends_piece(first, "") {
                shown.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (piece, more) = rest.split_at(self.end_of_piece(rest));
            if is_header(piece) {
                // Its value goes on, however many blanks are in it.
                let name = piece.split(':').next().unwrap_or_default();
                shown.extend([name, ": ", MASK]);
                break;
            }
            shown.push_str(&self.piece(piece));
            rest = more;
        }
        self.in_script = outer;
        shown
    }

    fn piece(&mut self, text: &str) -> String {
        if std::mem::take(&mut self.next_is_secret) && !text.starts_with('-') {
            return MASK.to_owned();
        }
        if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let (inner, more) = text[1..].rsplit_once(quote).unwrap_or((&text[1..], ""));
            return format!("{quote}{}{quote}{more}", self.word(inner));
        }
        if let Some((name, value)) = assignment(text) {
            if hides(name) {
                return format!("{name}={MASK}");
            }
            // `--env=NAME=value`, `-url=postgres://…`.
            return format!("{name}={}", self.word(value));
        }
        self.next_is_secret =
            text.starts_with('-') && (is_secret(text) || matches!(text, "-H" | "--header"));
        // `-c`, `-lc`.
        let flags = text.strip_prefix('-').filter(|flags| !flags.starts_with('-'));
        self.next_is_script = flags.is_some_and(|flags| flags.len() <= 3 && flags.ends_with('c'));
        masked_address(text)
    }

    /// Where a piece ends: outside quotes. One in the middle of a word is an apostrophe.
    fn end_of_piece(&self, text: &str) -> usize {
        let (mut quote, mut last) = (None, None);
        for (at, c) in text.char_indices() {
            match quote {
                Some(open) if c == open && last != Some('\\') => quote = None,
                None if matches!(c, '"' | '\'')
                    && matches!(last, None | Some('=' | '"' | '\'')) =>
                {
                    quote = Some(c);
                }
                None if self.ends_piece(c, &text[..at]) => return at,
                Some(_) | None => {}
            }
            last = Some(c);
        }
        text.len()
    }

    fn ends_piece(&self, c: char, before: &str) -> bool {
        // An address may hold any of them.
        let parts = matches!(c, ';' | '&' | '|' | '(' | ')' | '`');
        c.is_whitespace() || self.in_script && parts && !before.contains("://")
    }
}

/// A name and its value: `NAME=value`, `--name=value`, `name.part=value`.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let named = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.is_empty() && !value.is_empty() && name.chars().all(named)).then_some((name, value))
}

/// Whether the value of that name is not to be seen: of a variable never, but for those that are known.
fn hides(name: &str) -> bool {
    let variable = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_secret(name) || variable && !PLAIN.contains(&name)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// `Authorization: …`, `X-Api-Key:…`.
fn is_header(text: &str) -> bool {
    let Some((name, value)) = text.split_once(':') else { return false };
    let named = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(named);
    is_name && is_secret(name) && !value.starts_with("//")
}

/// Of a connection string its secrets, of every other address whoever logs in with it.
fn masked_address(text: &str) -> String {
    let Some(at) = text.find("://") else { return text.to_owned() };
    let begin = text[..at].rfind(['=', '"', '\'']).map_or(0, |at| at + 1);
    let shown = format!("{}{}", &text[..begin], mask_connection(&text[begin..]));
    if text[begin..at].ends_with("postgres") || text[begin..at].ends_with("postgresql") {
        return shown;
    }
    // A token may stand in the name's place.
    match shown[at + 3..].rsplit_once('@') {
        Some((_, host)) => format!("{}{MASK}@{host}", &shown[..at + 3]),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &[&str]) -> String {
        masked(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn what_may_be_a_secret_is_masked_wherever_it_stands() {
        for (line, expected) in [
            (
                &["migrate", "-database", "postgres://u:p@ss@h:5432/d?sslmode=disable", "up"][..],
                "migrate -database postgres://u:***@h:5432/d?sslmode=disable up",
            ),
            (&["env", "PGPASSWORD=hunter2", "psql"], "env PGPASSWORD=*** psql"),
            (&["flyway", "-password=hunter2", "migrate"], "flyway -password=*** migrate"),
            (&["x", "--db-password", "hunter2", "up"], "x --db-password *** up"),
            (&["x", "--password-stdin", "--yes"], "x --password-stdin --yes"),
            (
                &["sh", "-c", "A=b\nPGPASSWORD='hunter2' x\nB=postgres://u:hunter2@h/d y"],
                "sh -c A=***\nPGPASSWORD=*** x\nB=*** y",
            ),
            (
                &[
                    "docker",
                    "run",
                    "-e",
                    "X=hunter2 hunter2",
                    "--env",
                    "Y=hunter2",
                    "--env=Z=hunter2",
                    "i",
                ],
                "docker run -e X=*** --env Y=*** --env=Z=*** i",
            ),
            (&["env", "NODE_ENV=production", "CI=1", "x"], "env NODE_ENV=production CI=1 x"),
            (
                &["x", "--api-key", "hunter2", "--identity=hunter2", "-auth", "hunter2", "up"],
                "x --api-key *** --identity=*** -auth *** up",
            ),
            (
                &["curl", "-H", "Authorization: Bearer hunter2", "--header", "X: hunter2", "h"],
                "curl -H *** --header *** h",
            ),
            (&["x", "Authorization: Bearer hunter2"], "x Authorization: ***"),
            (
                &[
                    "sh",
                    "-c",
                    "true;PW='hunter2 hunter2' x --token \"hunter2 a\" && y 'P=hunter2 b' c",
                ],
                "sh -c true;PW=*** x --token *** && y 'P=***' c",
            ),
            (
                &["sh", "-c", "curl -H 'X-Key: hunter2 a' h; bash -c \"x --password hunter2\""],
                "sh -c curl -H *** h; bash -c \"x --password ***\"",
            ),
            (
                &["git", "clone", "https://hunter2@h/r", "mysql://u:hunter2@h/d", "https://h/r"],
                "git clone https://***@h/r mysql://***@h/d https://h/r",
            ),
            (
                &["x", "TOKEN=postgres://hunter2", "--token=https://hunter2"],
                "x TOKEN=*** --token=***",
            ),
            (
                &["x", "-url=postgres://u:hunter2@h/d", "postgres://u:a;hunter2@h/d"],
                "x -url=postgres://u:***@h/d postgres://u:***@h/d",
            ),
            (
                &["psql", "postgres://h/d?user=u&password=a"],
                "psql postgres://h/d?user=u&password=***",
            ),
            (&["npx", "prisma", "migrate", "deploy"], "npx prisma migrate deploy"),
        ] {
            assert_eq!(shown(line), expected);
            assert!(!shown(line).contains("hunter2"));
        }
    }
}
