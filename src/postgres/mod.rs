//! Floor 1: sessions, client programs and what the catalog says.

pub mod catalog;
pub mod child;
pub mod dumped;
pub mod error;
pub mod hold;
pub mod pooler;
pub mod preflight;
pub mod present;
pub mod programs;
pub mod server_facts;
pub mod session;
pub mod sources;
mod tls;

pub use error::PostgresError;

/// `name` as an identifier in SQL, whatever characters it holds.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a literal in SQL, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_names_and_texts_are_doubled() {
        assert_eq!(quote_ident("a\"b c"), "\"a\"\"b c\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\'b"), r" E'a\\''b'");
    }
}
