//! Which relations `pg_dump` locks and reads, and which of them have their rows left out.
//!
//! `pg_dump` of a whole database locks every ordinary and partitioned table outside system schemas, locks
//! no member of an extension (observed with 15; it reads the rows of those the extension names), and reads
//! every sequence. Rows of views, materialized views and foreign tables are not dumped, so nothing is asked
//! of them. Reads only; a crash leaves nothing.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::catalog::{dumped_schema, no_member};
use super::{PostgresError, quote_ident};

/// What is dumped of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DumpedKind {
    /// An ordinary table, a partition among them: definition and rows.
    Table,
    /// A partitioned table: its definition.
    PartitionedTable,
    /// A sequence: where it stands.
    Sequence,
    /// A materialized view: its definition, and whether it is filled.
    MaterializedView,
}

/// A relation that a dump holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DumpedRelation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its oid, which tells it from another of the same name.
    pub oid: u32,
    /// What is dumped of it.
    pub kind: DumpedKind,
    /// Whether it belongs to an extension, which then brings its definition.
    pub of_extension: bool,
    /// Whether its rows are left out.
    pub rows_excluded: bool,
}

impl DumpedRelation {
    /// `"schema"."name"`, for SQL and for the patterns of `pg_dump`.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }

    /// Whether a held snapshot locks it: what `LOCK TABLE` takes and a dump reads.
    pub fn is_locked(&self) -> bool {
        matches!(self.kind, DumpedKind::Table | DumpedKind::PartitionedTable)
            && !(self.of_extension && self.rows_excluded)
    }
}

const RELATIONS: &str = concat!(
    "SELECT n.nspname::text, c.relname::text, c.oid, c.relkind::text, e.oid IS NOT NULL
       FROM pg_catalog.pg_class c
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN pg_catalog.pg_extension e ON c.oid = ANY (e.extconfig)
      WHERE c.relkind IN ('r', 'p', 'S', 'm') AND c.relpersistence <> 't' AND ",
    dumped_schema!("n"),
    " AND (e.oid IS NOT NULL OR ",
    no_member!("pg_class", "c.oid"),
    ")"
);

/// All relations that a dump holds, in the order of their names. `excluded` are oids.
pub async fn relations(
    client: &Client,
    excluded: &BTreeSet<u32>,
) -> Result<Vec<DumpedRelation>, PostgresError> {
    let mut relations = Vec::new();
    for row in client.query_typed(RELATIONS, &[]).await? {
        let oid: u32 = row.try_get(2)?;
        relations.push(DumpedRelation {
            schema: row.try_get(0)?,
            name: row.try_get(1)?,
            oid,
            kind: match row.try_get(3)? {
                "p" => DumpedKind::PartitionedTable,
                "S" => DumpedKind::Sequence,
                "m" => DumpedKind::MaterializedView,
                _ => DumpedKind::Table,
            },
            of_extension: row.try_get(4)?,
            rows_excluded: excluded.contains(&oid),
        });
    }
    relations.sort();
    Ok(relations)
}

/// Relations that patterns of `exclude_table_data` name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Their oids.
    pub oids: BTreeSet<u32>,
    /// Patterns that name none: a typing error, or a table that is no more.
    pub unmatched: Vec<String>,
}

/// Finds the relations that `patterns` name, by the rules of `pg_dump --exclude-table-data`: letters outside
/// double quotes are folded to lower case, `*` and `?` stand for any characters and one, a dot divides
/// schema and name, and a name without a schema is looked for on the role's own `search_path`.
///
/// So it must run before the session's `search_path` is set to nothing.
pub async fn excluded(client: &Client, patterns: &[String]) -> Result<Excluded, PostgresError> {
    const MATCHING: &str = "
        SELECT c.oid FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE c.relkind::text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'S', 'm'])
           AND c.relname::text OPERATOR(pg_catalog.~) $1::text
           AND CASE WHEN $2::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
                    ELSE n.nspname::text OPERATOR(pg_catalog.~) $2::text END";
    let mut found = Excluded::default();
    for pattern in patterns {
        let (schema, name) = regexes(pattern);
        let rows =
            client.query_typed(MATCHING, &[(&name, Type::TEXT), (&schema, Type::TEXT)]).await?;
        if rows.is_empty() {
            found.unmatched.push(pattern.clone());
        }
        for row in rows {
            found.oids.insert(row.try_get(0)?);
        }
    }
    Ok(found)
}

/// The regular expressions of schema and name that a pattern of `psql` and `pg_dump` stands for.
fn regexes(pattern: &str) -> (Option<String>, String) {
    let mut schema = None;
    let mut part = String::new();
    let mut quoted = false;
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '*' if !quoted => part.push_str(".*"),
            '?' if !quoted => part.push('.'),
            '.' if !quoted && schema.is_none() => schema = Some(std::mem::take(&mut part)),
            '$' => part.push_str("\\$"),
            _ if quoted && "|*+?()[]{}.^\\".contains(c) => {
                part.push('\\');
                part.push(c);
            }
            _ if quoted => part.push(c),
            _ => part.extend(c.to_lowercase()),
        }
    }
    let whole = |part: &str| format!("^({part})$");
    (schema.as_deref().map(whole), whole(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_pg_dump() {
        let of = |pattern| {
            let (schema, name) = regexes(pattern);
            (schema.unwrap_or_default(), name)
        };
        let pair = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
        assert_eq!(of("Logs"), pair("", "^(logs)$"));
        assert_eq!(of("audit.*"), pair("^(audit)$", "^(.*)$"));
        assert_eq!(of("a*.log_?"), pair("^(a.*)$", "^(log_.)$"));
        assert_eq!(of(r#""My.Schema"."T*""$1""#), pair(r"^(My\.Schema)$", r#"^(T\*"\$1)$"#));
        assert_eq!(of("(a|b)"), pair("", "^((a|b))$"));
    }
}
