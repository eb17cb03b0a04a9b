//! The end of what a program says: a bounded piece of its stderr, and the lines of it that matter.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

/// How much of stderr is kept.
const KEPT_BYTES: usize = 64 << 10;
/// How much of it an error shows.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARACTERS: usize = 600;

/// The last 64 KiB of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail(Mutex<VecDeque<u8>>);

impl Tail {
    /// Reads to the end, so that the program never waits for us.
    pub(super) fn drain(&self, mut source: impl Read) {
        let mut buffer = [0; 4096];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => self.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let over = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..over);
    }

    pub(super) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }
}

/// The last lines that say something, without the program's name, on one line, and with no password in them.
pub(super) fn last_words(stderr: &str, program: &str) -> String {
    let prefix = format!("{program}: ");
    let lines: Vec<&str> = stderr
        .lines()
        .map(|line| line.trim().strip_prefix(&prefix).unwrap_or(line.trim()))
        // The name of our private file helps no one.
        .filter(|line| !line.is_empty() && !line.starts_with("password retrieved from file"))
        .collect();
    // A first error explains more than what follows from it: with many lines, it begins the excerpt.
    let errors: Vec<&str> = lines.iter().copied().filter(|line| is_error(line)).collect();
    let chosen = if errors.is_empty() { &lines } else { &errors };
    let shown: Vec<String> = if chosen.len() <= SHOWN_LINES {
        let from = chosen.first().and_then(|first| lines.iter().position(|line| line == first));
        let all = &lines[from.unwrap_or(0)..];
        all.iter().take(SHOWN_LINES.max(chosen.len())).map(|line| masked(line)).collect()
    } else {
        chosen[chosen.len() - SHOWN_LINES..].iter().map(|line| masked(line)).collect()
    };
    let joined = shown.join(" | ");
    if joined.chars().count() > SHOWN_CHARACTERS {
        let cut: String = joined.chars().take(SHOWN_CHARACTERS).collect();
        return format!("{cut}…");
    }
    joined
}

fn is_error(line: &str) -> bool {
    let lower = line.to_lowercase();
    ["error:", "fatal:", "panic:"].iter().any(|word| lower.contains(word))
}

/// Hides what follows `password`: a statement that failed is shown with its text.
fn masked(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut shown = String::with_capacity(line.len());
    let mut from = 0;
    while let Some(at) = lower[from..].find("password").map(|at| from + at + "password".len()) {
        shown.push_str(&line[from..at]);
        from = at;
        let rest = &line[at..];
        let body = rest.trim_start_matches([' ', '=', ':']);
        if let Some(quoted) = body.strip_prefix('\'') {
            let mut end = quoted.len();
            let mut characters = quoted.char_indices().peekable();
            while let Some((index, character)) = characters.next() {
                if character == '\'' {
                    if characters.peek().is_some_and(|(_, next)| *next == '\'') {
                        characters.next();
                    } else {
                        end = index + 1;
                        break;
                    }
                }
            }
            shown.push_str(" '…'");
            from = line.len() - quoted.len() + end;
        } else if rest.starts_with('=') {
            let end = body.find(|c: char| c.is_whitespace() || c == '&').unwrap_or(body.len());
            shown.push_str("=…");
            from = line.len() - body.len() + end;
        }
    }
    shown.push_str(&line[from..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_end_is_kept() {
        let tail = Tail::default();
        tail.drain(&vec![b'a'; KEPT_BYTES + 10][..]);
        tail.drain(&b"end"[..]);
        let text = tail.text();
        assert_eq!(text.len(), KEPT_BYTES);
        assert!(text.ends_with("aend"));
    }

    #[test]
    fn an_error_shows_the_lines_that_say_what_happened() {
        let stderr = "pg_dump: warning: x\npg_dump: error: query failed: ERROR:  permission denied for table a\npg_dump: detail: Query was: LOCK TABLE a\n";
        assert_eq!(
            last_words(stderr, "pg_dump"),
            "error: query failed: ERROR:  permission denied for table a | detail: Query was: LOCK TABLE a"
        );
        assert_eq!(last_words("\n\n", "pg_dump"), "");
        assert_eq!(last_words("killed\n", "sh"), "killed");
    }

    #[test]
    fn passwords_in_statements_are_hidden() {
        let line = "error: ALTER ROLE a WITH LOGIN PASSWORD 'SCRAM''x' VALID";
        assert_eq!(last_words(line, "psql"), "error: ALTER ROLE a WITH LOGIN PASSWORD '…' VALID");
        assert_eq!(masked("host=h password=s3cret&x=y"), "host=h password=…&x=y");
        assert_eq!(
            masked("FATAL: password authentication failed"),
            "FATAL: password authentication failed"
        );
    }

    proptest! {
        #[test]
        fn any_words_are_shown_without_panic(text in "(password|'|=| |\\PC|\n){0,40}") {
            let _ = last_words(&text, "x");
        }
    }
}
