//! `postgres://` connection strings, as libpq and Prisma users write them.
//!
//! Where the two differ (an unescaped `@` in the password) the last `@` wins, as in Prisma. A raw `/` or
//! `?` in the password is understood where only one reading makes sense; where two do, it is refused
//! rather than guessed: a wrong guess would send the password to another host.

use super::{ConnectionError, parameters};

/// The parts of a URI, percent-decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Host and port texts; either may be empty.
    pub(super) hosts: Vec<(String, String)>,
    pub(super) database: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
}

/// One way to cut the text after `postgres://`.
#[derive(Debug, Clone, Copy)]
struct Cut<'a> {
    userinfo: Option<&'a str>,
    hosts: &'a str,
    database: Option<&'a str>,
    query: Option<&'a str>,
}

/// Reads what follows `postgres://`.
pub(super) fn parts(rest: &str) -> Result<Parts, ConnectionError> {
    decode(choose(rest)?)
}

fn choose(rest: &str) -> Result<Cut<'_>, ConnectionError> {
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let plain = cut(rest, authority.rfind('@'));
    let plain_reads = plain.well_formed();
    let doubtful = plain.database.is_some_and(|name| name.contains('@')) || plain.asks_oddly();
    if plain_reads && !doubtful {
        return Ok(plain);
    }
    // A raw `/` or `?` in the password: the split is at a later `@`.
    let later = || {
        rest.rmatch_indices('@')
            .map(|(at, _)| at)
            .take_while(|at| *at >= authority.len())
            .map(|at| cut(rest, Some(at)))
            .filter(|other| {
                other.well_formed() && other.database.is_none_or(|name| !name.contains(['@', '/']))
            })
    };
    let other = later().find(|other| other.database.is_some()).or_else(|| later().next());
    match (plain_reads, other) {
        (true, None) => Ok(plain),
        (false, Some(other)) => Ok(other),
        // Database names that hold both `@` and `/` are not met in practice; passwords are.
        (true, Some(other)) if plain.database.is_some_and(|name| name.contains('/')) => Ok(other),
        (true, Some(_)) => Err(ConnectionError::Ambiguous),
        (false, None) => Err(ConnectionError::Malformed(
            "not of the form postgres://user:password@host:port/database",
        )),
    }
}

fn cut(rest: &str, at: Option<usize>) -> Cut<'_> {
    let (userinfo, rest) = match at {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (hosts, database) = match rest.split_once('/') {
        Some((hosts, database)) => (hosts, Some(database)),
        None => (rest, None),
    };
    Cut { userinfo, hosts, database, query }
}

impl Cut<'_> {
    fn well_formed(&self) -> bool {
        let query = self.query.unwrap_or_default();
        self.hosts.split(',').all(|one| host_and_port(one).is_some())
            && query.split('&').all(|pair| pair.is_empty() || pair.contains('='))
    }

    /// An unknown parameter with an `@` in it: the `?` may stand in a password.
    fn asks_oddly(&self) -> bool {
        let odd = |pair: &str| {
            let keyword = pair.split('=').next().unwrap_or_default();
            pair.contains('@') && !parameters::is_known(keyword)
        };
        self.query.unwrap_or_default().split('&').any(odd)
    }
}

/// Splits `host`, `host:port`, `[::1]:port`; none when it is none of them.
fn host_and_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            if host.is_empty()
                || !host.bytes().all(|b| b.is_ascii_hexdigit() || b":.%".contains(&b))
            {
                return None;
            }
            (host, if rest.is_empty() { "" } else { rest.strip_prefix(':')? })
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let in_host = |c: char| c.is_alphanumeric() || "._-~%:".contains(c);
    let good =
        host.chars().all(in_host) && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    good.then_some((host, port))
}

fn decode(cut: Cut<'_>) -> Result<Parts, ConnectionError> {
    let mut parts = Parts::default();
    if let Some(userinfo) = cut.userinfo {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        parts.user = Some(percent_decoded(user, "the user name")?);
        parts.password = password.map(password_decoded).transpose()?;
    }
    for one in cut.hosts.split(',') {
        let (host, port) = host_and_port(one).ok_or(ConnectionError::Malformed("a host"))?;
        // A zone (`fe80::1%eth0`) is written raw inside brackets.
        let host =
            if one.starts_with('[') { host.to_owned() } else { percent_decoded(host, "the host")? };
        parts.hosts.push((host, port.to_owned()));
    }
    parts.database =
        cut.database.map(|name| percent_decoded(name, "the database name")).transpose()?;
    for pair in cut.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) =
            pair.split_once('=').ok_or(ConnectionError::Malformed("a parameter without `=`"))?;
        let keyword = percent_decoded(keyword, "a parameter's name")?;
        let value = if keyword == "password" {
            password_decoded(value)?
        } else {
            percent_decoded(value, "a parameter's value")?
        };
        parts.parameters.push((keyword, value));
    }
    Ok(parts)
}

/// As libpq: every `%` begins two hex digits, and none of them are `00`.
fn percent_decoded(text: &str, part: &'static str) -> Result<String, ConnectionError> {
    let (bytes, stray) = unescape(text);
    if stray || bytes.contains(&0) {
        return Err(ConnectionError::PercentEncoding { part });
    }
    String::from_utf8(bytes).map_err(|_| ConnectionError::PercentEncoding { part })
}

/// As Prisma: a `%` that begins no two hex digits stands for itself.
fn password_decoded(text: &str) -> Result<String, ConnectionError> {
    String::from_utf8(unescape(text).0)
        .map_err(|_| ConnectionError::PercentEncoding { part: "the password" })
}

/// The bytes, and whether a `%` stood without two hex digits.
fn unescape(text: &str) -> (Vec<u8>, bool) {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let source = text.as_bytes();
    let (mut bytes, mut stray, mut at) = (Vec::with_capacity(source.len()), false, 0);
    while at < source.len() {
        let escaped = if source[at] == b'%' {
            digit(source.get(at + 1)).zip(digit(source.get(at + 2)))
        } else {
            None
        };
        if let Some((high, low)) = escaped {
            bytes.push(u8::try_from(high * 16 + low).expect("two hex digits"));
            at += 3;
        } else {
            stray |= source[at] == b'%';
            bytes.push(source[at]);
            at += 1;
        }
    }
    (bytes, stray)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(rest: &str) -> Parts {
        parts(rest).unwrap()
    }
    fn host(host: &str, port: &str) -> Vec<(String, String)> {
        vec![(host.to_owned(), port.to_owned())]
    }

    fn encoded(text: &str) -> String {
        text.bytes().flat_map(|byte| format!("%{byte:02X}").into_bytes()).map(char::from).collect()
    }

    #[test]
    fn a_raw_at_sign_in_the_password_splits_at_the_last_one() {
        let found = read("icmsdev:dev@123@localhost:5432/icmslocal?schema=public");
        assert_eq!(found.user.as_deref(), Some("icmsdev"));
        assert_eq!(found.password.as_deref(), Some("dev@123"));
        assert_eq!(found.hosts, host("localhost", "5432"));
        assert_eq!(found.database.as_deref(), Some("icmslocal"));
        assert_eq!(found.parameters, [("schema".to_owned(), "public".to_owned())]);
    }

    #[test]
    fn every_awkward_password_is_read_raw_and_encoded() {
        for password in
            ["a@b", "a:b", "a/b", "a%b", "a'b", r"a\b", "a?b", "a@b/c", "p/@:%'\\?#", "100%sure"]
        {
            let raw = read(&format!("u:{password}@h:1/db?sslmode=require"));
            assert_eq!(raw.password.as_deref(), Some(password), "raw");
            assert_eq!(raw.hosts, host("h", "1"));
            let encoded = encoded(password);
            let found = read(&format!("u:{encoded}@h:1/db"));
            assert_eq!(found.password.as_deref(), Some(password), "encoded");
        }
    }

    #[test]
    fn an_at_sign_after_the_host_is_no_password() {
        let found = read("u:p@h/db?application_name=a@b");
        assert_eq!(found.hosts, host("h", ""));
        assert_eq!(found.parameters, [("application_name".to_owned(), "a@b".to_owned())]);
        assert_eq!(read("u:p/x@h/db?options=a@b").hosts, host("h", ""));
        assert_eq!(read("h:5432/db?user=a@b").hosts, host("h", "5432"));
    }

    #[test]
    fn two_readings_are_refused_and_not_guessed() {
        assert_eq!(parts("u:p@h/db@x"), Err(ConnectionError::Ambiguous));
        assert_eq!(parts("h:5432/db@x"), Err(ConnectionError::Ambiguous));
    }

    #[test]
    fn hosts_may_be_many_or_none_or_a_directory() {
        let many = read("u@a:1,b,[::1]:3/db");
        let expected =
            [("a", "1"), ("b", ""), ("::1", "3")].map(|(h, p)| (h.to_owned(), p.to_owned()));
        assert_eq!(many.hosts, expected);
        assert_eq!(read("/db").hosts, host("", ""));
        assert_eq!(read("").hosts, host("", ""));
        assert_eq!(read("%2Fvar%2Frun:6000/db").hosts, host("/var/run", "6000"));
        for bad in ["::1/db", "h:x/db", "a b/db", "[::1/db", "h:123456/db"] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_escapes_outside_the_password_are_refused() {
        for bad in ["u%zz@h/db", "u@h/d%", "u@h/db?user=%4", "u@h/d%00b", "u@h/d%ff"] {
            assert!(matches!(parts(bad), Err(ConnectionError::PercentEncoding { .. })), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".*", more in "[@:/?%&=,\\[\\]a1]{0,24}") {
            let _ = parts(&text);
            let _ = parts(&more);
        }

        #[test]
        fn any_encoded_password_reads_back(password in "\\PC{0,20}") {
            let encoded = encoded(&password);
            let found = parts(&format!("u:{encoded}@h/db")).unwrap();
            prop_assert_eq!(found.password, Some(password));
        }

        #[test]
        fn a_raw_password_never_moves_the_host(password in "[g-z@:'%\\\\]{1,12}") {
            let found = parts(&format!("u:{password}@db.example:5432/shop?schema=public")).unwrap();
            prop_assert_eq!(found.hosts, host("db.example", "5432"));
        }
    }
}
