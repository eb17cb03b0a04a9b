//! What the words of a command say of where it works. It is led to the copy by variables alone, so a word that names a
//! server leads it past the copy. Pure.

/// Flags whose address is another database's by design: it is made and dropped by the tool.
const OF_OTHERS: [&str; 2] = ["shadow", "dev-url"];

/// Variables that a word may set.
const OF_PLACE: [&str; 5] = ["PGHOST=", "PGHOSTADDR=", "PGPORT=", "PGSERVICE=", "PGPASSFILE="];

/// Client programs that take a server as flags.
const CLIENTS: [&str; 8] =
    ["createdb", "dropdb", "pg_restore", "psql", "reindexdb", "vacuumdb", "pg_dump", "clusterdb"];

/// Whether any word names a server.
pub(super) fn name_a_server(command: &[String]) -> bool {
    let mut flag = "";
    let mut words = Vec::new();
    for word in command {
        let own = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let of_others = |flag: &str| OF_OTHERS.iter().any(|part| flag.contains(part));
        if !(of_others(flag) || own.starts_with('-') && of_others(own)) {
            words.push(word.as_str());
        }
        flag = if word.starts_with('-') && !word.contains('=') { word } else { "" };
    }
    if words.iter().any(|word| is_address(word)) {
        return true;
    }
    let pieces = pieces(&words);
    let has_client = pieces.iter().any(|piece| CLIENTS.contains(&file_name(piece)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    pieces.iter().enumerate().any(|(at, piece)| {
        let flag = ["-h", "--host", "--port"].contains(piece)
            || piece.starts_with("--host=")
            || piece.starts_with("--port=");
        let glued = piece.starts_with("-h") && piece.len() > 2 && !piece.starts_with("-help");
        // `mkdir -p` in the same script means no port.
        let port = piece.strip_prefix("-p").is_some_and(|rest| {
            let next = pieces.get(at + 1).filter(|_| rest.is_empty());
            digits(next.unwrap_or(&rest))
        });
        has_client && (flag || glued || port) || OF_PLACE.iter().any(|name| piece.starts_with(name))
    })
}

/// A program that runs others elsewhere, or without our variables.
pub(super) fn forwarder(command: &[String]) -> Option<&str> {
    const PROGRAMS: [&str; 9] =
        ["docker", "docker-compose", "kubectl", "nerdctl", "podman", "ssh", "doas", "su", "sudo"];
    if let Some(first) = command.first().map(|word| file_name(word))
        && PROGRAMS.contains(&first)
    {
        return Some(first);
    }
    // A word with blanks is a script; another one that is called so may be anything.
    let scripts: Vec<&str> =
        command.iter().map(String::as_str).filter(|word| word.contains(' ')).collect();
    pieces(&scripts).into_iter().map(file_name).find(|name| PROGRAMS.contains(name))
}

fn is_address(word: &str) -> bool {
    let after = |name: &str| {
        let at = word.find(name)?;
        word[at..].find("://").filter(|end| *end < 24)
    };
    let keywords = word.contains("dbname=") && word.contains("host");
    after("postgres").is_some() || keywords
}

fn pieces<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let parts =
        |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '(' | ')' | '"' | '\'');
    words.iter().flat_map(|word| word.split(parts)).filter(|piece| !piece.is_empty()).collect()
}

fn file_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn words_that_name_a_server_are_seen_in_scripts_too() {
        for command in [
            &["psql", "postgres://u@db/shop"][..],
            &["flyway", "-url=jdbc:postgresql://db/shop", "migrate"],
            &["sh", "-c", "exec psql postgresql://u@db/shop -f x.sql"],
            &["alembic", "-x", "url=postgresql+psycopg2://u@db/shop"],
            &["psql", "-h", "db", "-f", "x.sql"],
            &["sh", "-c", "cd x && /usr/bin/psql --host=db"],
            &["sh", "-c", "PGHOST=db ./migrate"],
            &["env", "PGSERVICE=live", "./migrate"],
            &["psql", "-p", "5432", "-f", "x.sql"],
            &["sh", "-c", "psql -p5432 -f x.sql"],
            &["env", "PGPORT=5432", "./migrate"],
            &["goose", "postgres", "host=db user=u dbname=shop", "up"],
        ] {
            assert!(name_a_server(&words(command)), "{command:?}");
        }
        for command in [
            &["npx", "prisma", "migrate", "deploy"][..],
            &["sh", "-c", "psql \"$DATABASE_URL\" -f x.sql"],
            &["atlas", "schema", "apply", "--dev-url", "postgres://u@dev/scratch"],
            &["atlas", "schema", "apply", "--dev-url=postgres://u@dev/scratch"],
            &["psql", "-f", "postgres.sql"],
            &["sh", "-c", "mkdir -p out && psql -f x.sql"],
            &["./migrate", "-h"],
        ] {
            assert!(!name_a_server(&words(command)), "{command:?}");
        }
    }

    #[test]
    fn a_script_that_runs_others_elsewhere_is_seen() {
        assert_eq!(forwarder(&words(&["sh", "-c", "set -e; ssh db ./migrate"])), Some("ssh"));
        assert_eq!(forwarder(&words(&["sh", "-c", "./migrate docker"])), Some("docker"));
        assert_eq!(forwarder(&words(&["./migrate", "docker"])), None);
        assert_eq!(forwarder(&words(&["/usr/bin/sudo", "./migrate"])), Some("sudo"));
    }
}
