//! How values that may hold a secret are shown.

/// What stands for a secret in anything that is shown.
pub const MASK: &str = "***";

/// A connection string as it may be shown: every password in it is masked.
///
/// Where the text cannot be told apart with certainty, more is masked rather than less.
pub fn mask_connection(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return mask_keywords(text);
    };
    let (rest, query) = match rest
        .rfind('@')
        .map_or_else(|| rest.find('?'), |at| rest[at..].find('?').map(|question| at + question))
    {
        Some(question) => (&rest[..question], Some(&rest[question + 1..])),
        None => (rest, None),
    };
    let mut shown = format!("{scheme}://");
    match rest.rsplit_once('@') {
        Some((login, place)) => {
            match login.split_once(':') {
                Some((user, _)) => shown.extend([user, ":", MASK]),
                None => shown.push_str(login),
            }
            shown.extend(["@", place]);
        }
        None => shown.push_str(rest),
    }
    if let Some(query) = query {
        let masked = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if holds_secret(name) => format!("{name}={MASK}"),
            _ => pair.to_owned(),
        });
        shown.push('?');
        shown.push_str(&masked.collect::<Vec<_>>().join("&"));
    }
    shown
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
    if !text.to_ascii_lowercase().contains("password") {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let end = value_end(after);
        let value = if holds_secret(name) { MASK } else { &after[..end] };
        shown.extend([name, "=", value]);
        rest = &after[end..];
    }
    shown
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
            ("host=h password='a \\' b' dbname=d", "host=h password=*** dbname=d"),
            ("password = x host=h", "password =*** host=h"),
            ("host=h dbname=d", "host=h dbname=d"),
        ] {
            assert_eq!(mask_connection(text), shown);
        }
    }
}
