//! `key=value` connection strings, in libpq's grammar.

use super::ConnectionError;

/// Reads `host=/tmp dbname='my db'` into pairs, in order.
///
/// Values may stand in single quotes; a backslash takes the next character as it is, inside quotes and
/// outside (`conninfo_parse` in libpq's fe-connect.c). Errors tell no part of the text: it may be a password.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, ConnectionError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .ok_or(ConnectionError::Malformed("a keyword without `=`"))?;
        let keyword = &rest[..end];
        rest = rest[end..]
            .trim_start()
            .strip_prefix('=')
            .ok_or(ConnectionError::Malformed("a keyword without `=`"))?
            .trim_start();
        let (value, after) = value(rest)?;
        found.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(found)
}

fn value(text: &str) -> Result<(String, &str), ConnectionError> {
    let quoted = text.starts_with('\'');
    let body = if quoted { &text[1..] } else { text };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                if let Some((_, next)) = characters.next() {
                    value.push(next);
                }
            }
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        Err(ConnectionError::Malformed("a quote that is not closed"))
    } else {
        Ok((value, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        pairs(text).unwrap()
    }
    fn pair(keyword: &str, value: &str) -> (String, String) {
        (keyword.to_owned(), value.to_owned())
    }

    #[test]
    fn quotes_and_backslashes_are_read_as_libpq_reads_them() {
        assert_eq!(
            read(r" host = /tmp dbname='my \'db\\' password=a\ b user='' "),
            [
                pair("host", "/tmp"),
                pair("dbname", r"my 'db\"),
                pair("password", "a b"),
                pair("user", "")
            ]
        );
        assert_eq!(read("a=b'c"), [pair("a", "b'c")]);
        assert_eq!(read(""), []);
    }

    #[test]
    fn an_open_quote_and_a_lonely_word_are_refused_without_being_repeated() {
        for bad in ["password='s3cret", "password=x s3cret", "s3cret"] {
            let error = pairs(bad).unwrap_err();
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
