//! `--env-file`: `KEY=VALUE` lines with the quoting of dotenv files.
//!
//! `export ` before a name is passed over, `#` begins a comment on a line of its own or after white space,
//! single quotes are literal, double quotes know `\n \r \t \\ \" \$`, and a quoted value may span lines.
//! Variables in values are not expanded: a password may hold a `$`.

/// Where a file stopped making sense: the line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DotenvError(pub(super) usize);

/// The pairs in the order of the file; the last of one name wins with the caller.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
    pairs(text).collect()
}

/// The pairs of a project's own file, which other programs read with rules of their own: what is not understood is passed
/// over.
pub fn pairs_of(text: &str) -> Vec<(String, String)> {
    pairs(text).filter_map(Result::ok).collect()
}

/// Pair by pair; after a line that makes no sense it goes on with the next.
fn pairs(text: &str) -> impl Iterator<Item = Result<(String, String), DotenvError>> + '_ {
    let text = text.trim_start_matches('\u{feff}');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let start = at;
            let end = text[start..].find('\n').map_or(text.len(), |found| start + found);
            at = end + 1;
            let line = text[start..end].trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((pair, next)) = pair(text, start, end) else {
                return Some(Err(DotenvError(text[..start].matches('\n').count() + 1)));
            };
            at = next;
            return Some(Ok(pair));
        }
        None
    })
}

/// The pair whose line lies there, and where the next line begins.
fn pair(text: &str, start: usize, end: usize) -> Option<((String, String), usize)> {
    let equals = start + text[start..end].find('=')?;
    let name = text[start..equals].trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim);
    let (value, next) = is_name(name).then(|| value(text, equals + 1))??;
    Some(((name.to_owned(), value), next))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The value that begins at `from`, and where the next line begins.
fn value(text: &str, from: usize) -> Option<(String, usize)> {
    let end = text[from..].find('\n').map_or(text.len(), |found| from + found);
    let start = from + (text[from..end].len() - text[from..end].trim_start().len());
    let quote = text[start..end].chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let line = &text[start..end];
        let comment = line
            .char_indices()
            .find(|&(at, c)| {
                c == '#' && (at == 0 || line[..at].ends_with(|c: char| c.is_whitespace()))
            })
            .map_or(line.len(), |(at, _)| at);
        return Some((line[..comment].trim_end().to_owned(), end + 1));
    };
    let mut value = String::new();
    let mut chars = text[start + 1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                let after = start + 1 + at + 1;
                let end = text[after..].find('\n').map_or(text.len(), |found| after + found);
                let rest = text[after..end].trim();
                return (rest.is_empty() || rest.starts_with('#')).then_some((value, end + 1));
            }
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('\\' | '"' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        parse(text).expect("parses").pop().expect("a pair").1
    }

    #[test]
    fn values_are_read_as_dotenv_writes_them() {
        assert_eq!(one("A=b"), "b");
        assert_eq!(one("export A = b # c\r\n"), "b");
        assert_eq!(one("A=b#c"), "b#c");
        assert_eq!(one("A='b # \\n c' # d"), "b # \\n c");
        assert_eq!(one("A=\"x\\n\\\"y\\\"$Z\""), "x\n\"y\"$Z");
        assert_eq!(one("A=\"two\nlines\"\n"), "two\nlines");
        assert_eq!(one("A=postgres://u:p@h/d?a=b"), "postgres://u:p@h/d?a=b");
        assert_eq!(one("A="), "");
    }

    #[test]
    fn what_is_no_pair_is_refused_with_its_line() {
        assert_eq!(parse("A=1\n\n# c\nnonsense\n"), Err(DotenvError(4)));
        assert_eq!(parse("A='open\n"), Err(DotenvError(1)));
        assert_eq!(parse("A='x' y\n"), Err(DotenvError(1)));
        assert_eq!(parse("1A=x"), Err(DotenvError(1)));
    }

    #[test]
    fn several_lines_keep_their_order() {
        let pairs = parse("A=1\nB=\"2\n2\"\nA=3").expect("parses");
        let names: Vec<_> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "A"]);
    }
}
