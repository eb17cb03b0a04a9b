//! How the database of a dump was made: the options of its `CREATE DATABASE`.

use super::statement::Token;
use crate::domain::inventory::DatabaseFacts;

/// A database that nothing is known of: what a plain dump without `--create` tells, which is nothing.
pub fn unknown(name: &str, encoding: &str) -> DatabaseFacts {
    DatabaseFacts {
        name: name.to_owned(),
        owner: String::new(),
        encoding: encoding.to_owned(),
        locale_provider: "libc".to_owned(),
        collate: "C".to_owned(),
        ctype: "C".to_owned(),
        icu_locale: None,
        icu_rules: None,
        lc_monetary: "C".to_owned(),
        tablespace: "pg_default".to_owned(),
        connection_limit: -1,
        is_template: false,
        comment: None,
        acl: Vec::new(),
        settings: Vec::new(),
    }
}

/// The facts in the tokens of a `CREATE DATABASE` statement; encoding and locale alone are read.
pub(super) fn facts(tokens: &[Token]) -> DatabaseFacts {
    let value = |wanted: &str| {
        let at = |triple: &&[Token]| {
            matches!(&triple[0], Token::Word(name) if name == wanted)
                && triple[1] == Token::Sign(b'=')
        };
        tokens.windows(3).find(at).and_then(|triple| triple[2].value()).map(str::to_owned)
    };
    let name = tokens.get(2).and_then(Token::value).unwrap_or_default();
    let mut facts = unknown(name, &value("encoding").unwrap_or_else(|| "UTF8".to_owned()));
    let locale = value("locale");
    facts.collate = value("lc_collate").or_else(|| locale.clone()).unwrap_or(facts.collate);
    facts.ctype = value("lc_ctype").or(locale).unwrap_or(facts.ctype);
    facts.locale_provider = value("locale_provider").unwrap_or(facts.locale_provider);
    facts.icu_locale = value("icu_locale").or_else(|| value("builtin_locale"));
    facts.icu_rules = value("icu_rules");
    facts
}

/// The database that the words after `\connect` name, as `pg_dump` writes them: `shop`, `"Shop"`, or
/// `-reuse-previous=on "dbname='my shop'"`.
pub(super) fn connected(words: &str) -> Option<String> {
    let words = words.trim();
    let reuse = words.strip_prefix("-reuse-previous=on");
    let word = reuse.unwrap_or(words).trim();
    let text = match word.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.replace("\"\"", "\""),
        None if word.is_empty() || word.contains([' ', '\t', '\'']) => return None,
        None => word.to_owned(),
    };
    if reuse.is_none() {
        return Some(text);
    }
    let quoted = text.strip_prefix("dbname='")?.strip_suffix('\'')?;
    let mut name = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        name.push(if character == '\\' { characters.next()? } else { character });
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_after_connect_are_read_as_pg_dump_writes_them() {
        assert_eq!(connected(" shop").as_deref(), Some("shop"));
        assert_eq!(connected(" \"Shop\"").as_deref(), Some("Shop"));
        let odd = " -reuse-previous=on \"dbname='it\\'s \"\"my\"\" \\\\ shop'\"";
        assert_eq!(connected(odd).as_deref(), Some("it's \"my\" \\ shop"));
        for words in ["", " a b", " -reuse-previous=on \"host=elsewhere\""] {
            assert_eq!(connected(words), None, "{words}");
        }
    }
}
