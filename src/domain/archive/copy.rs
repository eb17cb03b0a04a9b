//! The COPY statement that goes with a table's rows: its target and its columns.

/// What `COPY "s"."t" ("a", b) FROM stdin;` names, unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTarget {
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
    /// Columns in the order of the rows' fields; generated ones are not among them.
    pub columns: Vec<String>,
}

/// Understands the statement as `pg_dump` writes it; none if it is another.
pub fn parse_copy(statement: &str) -> Option<CopyTarget> {
    let mut rest = statement.strip_prefix("COPY ")?;
    let schema = identifier(&mut rest)?;
    rest = rest.strip_prefix('.')?;
    let name = identifier(&mut rest)?;
    let mut columns = Vec::new();
    rest = rest.strip_prefix(' ')?;
    if let Some(list) = rest.strip_prefix('(') {
        rest = list;
        loop {
            columns.push(identifier(&mut rest)?);
            match rest.strip_prefix(", ") {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix(')')?;
    }
    rest.trim().starts_with("FROM stdin").then_some(CopyTarget { schema, name, columns })
}

/// Takes one identifier off the front, quoted or not.
fn identifier(rest: &mut &str) -> Option<String> {
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut name = String::new();
        let mut left = quoted;
        loop {
            let (before, after) = left.split_once('"')?;
            name.push_str(before);
            if let Some(more) = after.strip_prefix('"') {
                name.push('"');
                left = more;
            } else {
                *rest = after;
                return Some(name);
            }
        }
    }
    // `fmtId` leaves unquoted only what is lower case ASCII.
    let end = rest.find(|c: char| !matches!(c, 'a'..='z' | '0'..='9' | '_')).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_names_are_read_to_their_end() {
        let odd = r#"COPY "Odd ""S"""."Tab, (le) FROM stdin" ("z, col", b1, "a""q") FROM stdin;"#;
        assert_eq!(
            parse_copy(odd),
            Some(CopyTarget {
                schema: r#"Odd "S""#.into(),
                name: "Tab, (le) FROM stdin".into(),
                columns: vec!["z, col".into(), "b1".into(), r#"a"q"#.into()],
            })
        );
    }

    #[test]
    fn a_table_without_columns_has_none() {
        let target = parse_copy("COPY public.nocols  FROM stdin;\n").expect("it is a COPY");
        assert_eq!((target.name.as_str(), target.columns.len()), ("nocols", 0));
    }

    #[test]
    fn other_statements_are_not_taken_for_copy() {
        for bad in ["", "COPY ", "COPY a.", "COPY a.b (c FROM stdin;", "COPY a.b (c) TO stdout;"] {
            assert_eq!(parse_copy(bad), None, "{bad}");
        }
        assert_eq!(parse_copy("COPY \"a"), None);
    }
}
