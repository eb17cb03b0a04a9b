//! Roles as `pg_dumpall --globals-only` writes them, read so that the missing ones can be made.
//!
//! A role that is there keeps what it has: its password may be the one that somebody logs in with. Databases'
//! own settings come with the databases; tablespaces are directories of another machine and are not made.

use std::collections::BTreeSet;

/// The statements of a globals part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    of: Of,
    sql: String,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Of {
    /// `CREATE ROLE`.
    Role(String),
    /// What else a role has: attributes, settings, a comment, a security label.
    Attribute(String),
    /// `GRANT role TO member … [GRANTED BY grantor]`.
    Member { role: String, member: String, grantor: Option<String> },
}

/// What makes the roles that are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingRoles {
    /// Their names, in order.
    pub names: Vec<String>,
    /// `CREATE ROLE` for each: without them nothing goes on.
    pub create: Vec<String>,
    /// Attributes, settings and memberships, in order. One that fails is told.
    pub complete: Vec<String>,
}

impl Globals {
    /// Reads the output of `pg_dumpall`. What is not about roles is passed over.
    pub fn parse(text: &str) -> Self {
        let statements = statements(text).into_iter();
        Self {
            statements: statements
                .filter_map(|sql| Some(Statement { of: classify(&sql)?, sql }))
                .collect(),
        }
    }

    /// What makes those roles that are not among `there`.
    pub fn missing(&self, there: &BTreeSet<String>) -> MissingRoles {
        let mut found = MissingRoles::default();
        let mut made = BTreeSet::new();
        for Statement { of, sql } in &self.statements {
            if let Of::Role(name) = of
                && !there.contains(name)
                && made.insert(name.as_str())
            {
                found.names.push(name.clone());
                found.create.push(sql.clone());
            }
        }
        let known = |name: &String| there.contains(name) || made.contains(name.as_str());
        for Statement { of, sql } in &self.statements {
            match of {
                Of::Attribute(name) if made.contains(name.as_str()) => {
                    found.complete.extend(without_defaults(sql));
                }
                Of::Member { role, member, grantor }
                    if made.contains(role.as_str()) || made.contains(member.as_str()) =>
                {
                    // The bootstrap superuser has another name on many servers.
                    let foreign = grantor.as_ref().is_some_and(|name| !known(name));
                    let end = if foreign { sql.rfind(" GRANTED BY ") } else { None };
                    found.complete.push(sql[..end.unwrap_or(sql.len())].to_owned());
                }
                _ => {}
            }
        }
        found
    }
}

/// What a new role has anyway. To say so takes a superuser on older servers.
const DEFAULTS: [&str; 7] = [
    "NOSUPERUSER",
    "INHERIT",
    "NOCREATEROLE",
    "NOCREATEDB",
    "NOLOGIN",
    "NOREPLICATION",
    "NOBYPASSRLS",
];

/// `ALTER ROLE x WITH …` with what differs from a new role; none when nothing does.
fn without_defaults(sql: &str) -> Option<String> {
    let mut words = Words { rest: sql };
    let attributes = words.eat("ALTER") && words.eat("ROLE") && words.identifier().is_some();
    if !attributes || !words.eat("WITH") {
        return Some(sql.to_owned());
    }
    let head = &sql[..sql.len() - words.rest.len()];
    let mut kept = String::new();
    while let Some(word) = words.peek() {
        if matches!(word, "PASSWORD" | "VALID" | "CONNECTION") {
            // From here on there are values, which are not looked into.
            kept.push(' ');
            kept.push_str(words.rest.trim_start());
            break;
        }
        if !DEFAULTS.contains(&word) {
            kept.push(' ');
            kept.push_str(word);
        }
        words.eat(word);
    }
    (!kept.is_empty()).then(|| format!("{head}{kept}"))
}

fn classify(sql: &str) -> Option<Of> {
    let mut words = Words { rest: sql };
    if words.eat("CREATE") {
        return if words.eat("ROLE") { words.identifier().map(Of::Role) } else { None };
    }
    if words.eat("ALTER") {
        return if words.eat("ROLE") { words.identifier().map(Of::Attribute) } else { None };
    }
    if words.eat("COMMENT") {
        let of_role = words.eat("ON") && words.eat("ROLE");
        return if of_role { words.identifier().map(Of::Attribute) } else { None };
    }
    if !words.eat("GRANT") {
        return None;
    }
    let role = words.identifier()?;
    if !words.eat("TO") {
        return None;
    }
    let member = words.identifier()?;
    let grantor =
        sql.rsplit_once(" GRANTED BY ").and_then(|(_, name)| Words { rest: name }.identifier());
    Some(Of::Member { role, member, grantor })
}

/// Takes words off the front of a statement.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.rest.split_whitespace().next()
    }

    fn eat(&mut self, word: &str) -> bool {
        if self.peek() != Some(word) {
            return false;
        }
        self.rest = &self.rest.trim_start()[word.len()..];
        true
    }

    /// A name as `pg_dumpall` quotes it.
    fn identifier(&mut self) -> Option<String> {
        let rest = self.rest.trim_start();
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(rest.len());
            self.rest = &rest[end..];
            return (end > 0).then(|| rest[..end].to_owned());
        };
        let mut name = String::new();
        let mut characters = quoted.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if character != '"' {
                name.push(character);
            } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                name.push('"');
            } else {
                self.rest = &quoted[at + 1..];
                return Some(name);
            }
        }
        None
    }
}

/// Cuts a script at the semicolons that are in no quotes; without comments and psql's own commands.
fn statements(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut now = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '-' if rest.starts_with("--") => line(rest),
            '\\' if now.trim().is_empty() => line(rest),
            '\'' => {
                let escapes = now.ends_with('E') || now.ends_with('e');
                let length = quoted(rest, '\'', escapes);
                now.push_str(&rest[..length]);
                length
            }
            '"' => {
                let length = quoted(rest, '"', false);
                now.push_str(&rest[..length]);
                length
            }
            ';' => {
                found.push(std::mem::take(&mut now).trim().to_owned());
                1
            }
            other => {
                now.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    found
}

fn line(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// Length of what begins with `quote`; a doubled one goes on.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' && escapes {
            characters.next();
        } else if character == quote {
            return at + 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 writes it, shortened.
    const TEXT: &str = r#"--
-- PostgreSQL database cluster dump
--

\restrict O82tZupQhv;esKix

SET client_encoding = 'UTF8';

CREATE ROLE "Odd ""r; x";
ALTER ROLE "Odd ""r; x" WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 3 PASSWORD 'SCRAM-SHA-256$4096:I NOLOGIN''; --' VALID UNTIL '2030-01-01 00:00:00+00';
CREATE ROLE grp;
ALTER ROLE grp WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
COMMENT ON ROLE grp IS E'multi
line; ''q'' \\';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS PASSWORD 'x';

--
-- User Config "grp"
--

ALTER ROLE grp SET search_path TO 'a', 'b c';
GRANT grp TO "Odd ""r; x" WITH ADMIN OPTION GRANTED BY postgres;
GRANT pg_monitor TO postgres GRANTED BY postgres;
CREATE TABLESPACE fast OWNER grp LOCATION '/fast';
\unrestrict O82tZupQhvesKix
"#;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn missing_roles_get_what_they_had_and_the_others_are_left_alone() {
        let missing = Globals::parse(TEXT).missing(&set(&["postgres", "pg_monitor"]));
        assert_eq!(missing.names, ["Odd \"r; x", "grp"]);
        assert_eq!(missing.create, ["CREATE ROLE \"Odd \"\"r; x\"", "CREATE ROLE grp"]);
        assert_eq!(
            missing.complete,
            [
                "ALTER ROLE \"Odd \"\"r; x\" WITH CREATEDB LOGIN CONNECTION LIMIT 3 PASSWORD \
                 'SCRAM-SHA-256$4096:I NOLOGIN''; --' VALID UNTIL '2030-01-01 00:00:00+00'",
                "COMMENT ON ROLE grp IS E'multi\nline; ''q'' \\\\'",
                "ALTER ROLE grp SET search_path TO 'a', 'b c'",
                "GRANT grp TO \"Odd \"\"r; x\" WITH ADMIN OPTION GRANTED BY postgres",
            ]
        );
    }

    #[test]
    fn a_grantor_that_is_not_there_is_left_out() {
        let text = "CREATE ROLE a; CREATE ROLE b; GRANT a TO b WITH INHERIT TRUE GRANTED BY boss;";
        let missing = Globals::parse(text).missing(&BTreeSet::new());
        assert_eq!(missing.complete, ["GRANT a TO b WITH INHERIT TRUE"]);
        let missing = Globals::parse(text).missing(&set(&["boss", "a", "b"]));
        assert_eq!(missing, MissingRoles::default());
    }

    #[test]
    fn text_that_is_cut_anywhere_never_panics() {
        for end in (0..TEXT.len()).filter(|end| TEXT.is_char_boundary(*end)) {
            Globals::parse(&TEXT[..end]).missing(&BTreeSet::new());
        }
    }
}
