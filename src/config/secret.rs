//! How values that may hold a secret are shown.

use std::ops::Range;

/// What stands for a secret in anything that is shown.
pub const MASK: &str = "***";

/// A connection string as it may be shown: every password in it is masked.
///
/// Where the text cannot be told apart with certainty, more is masked rather than less: an `@` may stand in a password
/// before the host or in one of the query, so what is a password by either reading is masked.
pub fn mask_connection(text: &str) -> String {
    let of_uri = text.split_once("://").filter(|(scheme, _)| !scheme.contains('='));
    let Some((scheme, rest)) = of_uri else {
        return mask_keywords(text);
    };
    let mut secrets = query_secrets(rest);
    secrets.extend(login_secret(rest));
    secrets.sort_by_key(|secret| secret.start);
    let (mut shown, mut at) = (format!("{scheme}://"), 0);
    for secret in secrets {
        if secret.start >= at {
            shown.extend([&rest[at..secret.start], MASK]);
        }
        at = at.max(secret.end);
    }
    shown + &rest[at..]
}

/// What stands between the first `:` and the last `@`.
fn login_secret(rest: &str) -> Option<Range<usize>> {
    let end = rest.rfind('@')?;
    let colon = rest[..end].find(':')?;
    Some(colon + 1..end)
}

/// The values of the parameters whose names hold a secret. A piece without a name is of the value before it, where a raw
/// `?` or `&` stood.
fn query_secrets(rest: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let Some(mut at) = rest.find(['?', '&']) else { return found };
    let mut goes_on = false;
    for piece in rest[at + 1..].split(['?', '&']) {
        let begin = at + 1;
        at = begin + piece.len();
        if let Some(equals) = piece.find('=') {
            goes_on = holds_secret(&piece[..equals]);
            found.extend(goes_on.then_some(begin + equals + 1..at));
        } else if goes_on && let Some(secret) = found.last_mut() {
            secret.end = at;
        }
    }
    found
}

/// Whether a connection string carries a password of its own.
pub fn connection_has_password(text: &str) -> bool {
    mask_connection(text) != text
}

fn holds_secret(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name.contains("password") || name.contains('%') || name.contains("secret")
}

/// `host=… password='…'`: libpq's other form.
fn mask_keywords(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if !lower.contains("password") && !lower.contains("secret") {
        return text.to_owned();
    }
    let (mut shown, mut masked) = (String::new(), false);
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let end = value_end(after);
        masked |= holds_secret(name);
        let value = if holds_secret(name) { MASK } else { &after[..end] };
        shown.extend([name, "=", value]);
        rest = &after[end..];
    }
    // A path may hold such a word, too.
    if masked { shown } else { text.to_owned() }
}

fn value_end(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted && at > 0 => return at + 1,
            c if !quoted && c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_for_a_password_is_masked() {
        for (text, shown) in [
            ("postgres://u:p@h/d", "postgres://u:***@h/d"),
            ("postgres://u:p@ss:w@h/d?schema=x", "postgres://u:***@h/d?schema=x"),
            ("postgres://u:a/b?c@h/d", "postgres://u:***@h/d"),
            ("postgres://h/d?user=u&password=p", "postgres://h/d?user=u&password=***"),
            ("postgres://h/d?sslpassword=p&x=1", "postgres://h/d?sslpassword=***&x=1"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            // An `@` behind the `?` may end a login, or stand in a value.
            ("postgres://h/d?user=u&password=p@ss", "postgres://h/d?user=u&password=***"),
            (
                "postgres://h/d?user=me@srv&password=hunter2",
                "postgres://h/d?user=me@srv&password=***",
            ),
            (
                "postgres://h:5432/d?user=me@srv&password=hunter2",
                "postgres://h:***@srv&password=***",
            ),
            ("postgres://h:5432/d?user=u&password=p@ss", "postgres://h:***"),
            ("postgres://h/d?password=a&b?c&x=1", "postgres://h/d?password=***&x=1"),
            ("postgres://h/d&password=p", "postgres://h/d&password=***"),
            ("host=h password='a \\' b' dbname=d", "host=h password=*** dbname=d"),
            ("password = x host=h", "password =*** host=h"),
            ("host=h password=a://b dbname=d", "host=h password=*** dbname=d"),
            ("host=h oauth_client_secret=x", "host=h oauth_client_secret=***"),
            ("host=h dbname=d", "host=h dbname=d"),
            ("/srv/secrets", "/srv/secrets"),
        ] {
            assert_eq!(mask_connection(text), shown);
        }
    }
}
