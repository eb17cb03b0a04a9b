//! What one statement of a plain dump says that a loader must know: whose roles it names, which extension it
//! wants, whether it is better left out.

use std::collections::BTreeSet;

/// A token of a statement, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// An unquoted word, in lower case, or a number.
    Word(String),
    /// A quoted identifier.
    Quoted(String),
    /// A string constant.
    Text(String),
    /// Any other character.
    Sign(u8),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    /// The name that it is as an identifier.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            Self::Text(_) | Self::Sign(_) => None,
        }
    }

    /// The value that it is as a setting.
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Text(text) => Some(text),
            Self::Sign(_) => None,
        }
    }
}

/// What a statement is to a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To be run as it is.
    Plain,
    /// `CREATE DATABASE`.
    CreateDatabase,
    /// What else is said of the database itself.
    OfDatabase,
    /// `REFRESH MATERIALIZED VIEW`.
    Refresh,
    /// `SET default_tablespace` to one that a scratch cluster has not.
    Tablespace,
    /// What only `pg_dumpall` writes.
    OfServer,
}

/// Whether its tokens are worth keeping: rows as INSERT statements are not.
pub(super) fn matters(first: &str) -> bool {
    matches!(
        first,
        "alter" | "comment" | "copy" | "create" | "drop" | "grant" | "refresh" | "revoke" | "set"
    )
}

fn begins(tokens: &[Token], words: &[&str]) -> bool {
    tokens.len() >= words.len() && words.iter().zip(tokens).all(|(word, token)| token.is(word))
}

/// What it is.
pub(super) fn kind(tokens: &[Token]) -> Kind {
    let of = |words: &[&str]| begins(tokens, words);
    let on_database = || {
        let privileges = tokens.windows(2).any(|pair| pair[0].is("on") && pair[1].is("database"));
        (of(&["grant"]) || of(&["revoke"])) && privileges
    };
    if of(&["create", "database"]) {
        Kind::CreateDatabase
    } else if of(&["alter", "database"])
        || of(&["comment", "on", "database"])
        || in_database(tokens).is_some()
        || on_database()
    {
        Kind::OfDatabase
    } else if of(&["refresh", "materialized", "view"]) {
        Kind::Refresh
    } else if of(&["create", "role"]) || of(&["create", "tablespace"]) {
        Kind::OfServer
    } else if setting(tokens, "default_tablespace").is_some_and(|value| !value.is_empty()) {
        Kind::Tablespace
    } else {
        Kind::Plain
    }
}

/// Whether it makes something of the type `money`, whose text means different things in different locales.
pub(super) fn names_money(tokens: &[Token]) -> bool {
    begins(tokens, &["create"]) && tokens.iter().any(|token| token.is("money"))
}

/// The role, where this is `ALTER ROLE … IN DATABASE`.
fn in_database(tokens: &[Token]) -> Option<&str> {
    let there = begins(tokens, &["alter", "role"]) && begins(tokens.get(3..)?, &["in", "database"]);
    tokens.get(2)?.name().filter(|_| there)
}

/// The value, where this is `SET name = value`.
pub(super) fn setting<'a>(tokens: &'a [Token], name: &str) -> Option<&'a str> {
    match tokens {
        [set, own, between, value] if set.is("set") && own.is(name) => {
            let assigns = between.is("to") || *between == Token::Sign(b'=');
            value.value().filter(|_| assigns)
        }
        _ => None,
    }
}

/// What it sets `standard_conforming_strings` to, in whatever words.
pub(super) fn conforming_strings(tokens: &[Token]) -> Option<bool> {
    let (first, value) = (tokens.first()?, tokens.last()?.value()?);
    let about = tokens.iter().any(|token| token.value() == Some("standard_conforming_strings"));
    let off = |word: &&str| value.eq_ignore_ascii_case(word);
    (first.is("set") && about).then(|| !["off", "false", "no", "0", "f", "n", "of"].iter().any(off))
}

/// Whether it is `SET search_path`.
pub(super) fn sets_search_path(tokens: &[Token]) -> bool {
    begins(tokens, &["set", "search_path"])
}

/// The extension, where this is `CREATE EXTENSION`.
pub(super) fn extension(tokens: &[Token]) -> Option<&str> {
    let after = [&["create", "extension", "if", "not", "exists"][..], &["create", "extension"]];
    let words = after.into_iter().find(|words| begins(tokens, words))?;
    tokens.get(words.len())?.name()
}

/// Adds the roles that it names.
pub(super) fn roles(tokens: &[Token], found: &mut BTreeSet<String>) {
    if let [set, session, authorization, role] = tokens
        && set.is("set")
        && session.is("session")
        && authorization.is("authorization")
    {
        add(role.value(), found);
        return;
    }
    add(in_database(tokens), found);
    let Some(Token::Word(first)) = tokens.first() else { return };
    let defaults = begins(tokens, &["alter", "default", "privileges"]);
    let grants = first == "grant" || first == "revoke" || defaults;
    let policy = begins(tokens, &["create", "policy"]) || begins(tokens, &["alter", "policy"]);
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign(b'(') => depth += 1,
            Token::Sign(b')') => depth -= 1,
            _ => {}
        }
        if depth > 0 || at == 0 {
            continue;
        }
        let before = |word: &str| tokens[at - 1].is(word);
        let names = (token.is("to") && (grants || policy || before("owner")))
            || (token.is("from") && grants)
            || (token.is("by") && before("granted"))
            || (token.is("authorization") && first == "create")
            || (token.is("for") && before("mapping"))
            || ((token.is("role") || token.is("user")) && defaults && before("for"));
        if names {
            list(&tokens[at + 1..], found);
        }
    }
}

/// `a, "B", GROUP c …`.
fn list(tokens: &[Token], found: &mut BTreeSet<String>) {
    let mut rest = tokens;
    loop {
        if let [group, after @ ..] = rest
            && group.is("group")
            && after.first().is_some_and(|token| token.name().is_some())
        {
            rest = after;
        }
        let Some((name, after)) = rest.split_first() else { return };
        add(name.name(), found);
        match after.split_first() {
            Some((Token::Sign(b','), after)) => rest = after,
            _ => return,
        }
    }
}

fn add(name: Option<&str>, found: &mut BTreeSet<String>) {
    let nobody = ["public", "current_user", "current_role", "session_user", "default", "none"];
    if let Some(name) = name.filter(|name| !nobody.contains(name)) {
        found.insert(name.to_owned());
    }
}
