//! A command as it may be shown and recorded: what may be a secret in its arguments is masked, and more rather than less.

use crate::config::{MASK, mask_connection};

/// Parts of names whose values nobody should see.
const SECRET: [&str; 8] =
    ["pass", "pwd", "secret", "token", "apikey", "api_key", "api-key", "credential"];

/// The words of a command, with their secrets masked.
pub(super) fn masked(words: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(words.len());
    let mut next_is_secret = false;
    for word in words {
        if std::mem::take(&mut next_is_secret) && !word.starts_with('-') {
            shown.push(MASK.to_owned());
            continue;
        }
        next_is_secret = word.starts_with('-') && !word.contains('=') && is_secret(word);
        // A script in one word is looked at piece by piece.
        shown.push(word.split_inclusive(char::is_whitespace).map(spaced).collect());
    }
    shown
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// A piece, and the blank that ends it.
fn spaced(text: &str) -> String {
    let bare = text.trim_end();
    format!("{}{}", piece(bare), &text[bare.len()..])
}

fn piece(text: &str) -> String {
    if let Some(at) = text.find("://") {
        // `NAME=postgres://…` is a connection string behind its name.
        let begin = text[..at].rfind(['=', '"', '\'']).map_or(0, |at| at + 1);
        return format!("{}{}", &text[..begin], mask_connection(&text[begin..]));
    }
    match text.split_once('=') {
        Some((name, value)) if is_secret(name) && !value.is_empty() => format!("{name}={MASK}"),
        _ => text.to_owned(),
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
                "sh -c A=b\nPGPASSWORD=*** x\nB=postgres://u:***@h/d y",
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
