//! What a migration can leave behind that nobody notices at once: indexes that no query uses, constraints that old rows
//! were not held to, and objects that the next backup may not read.

use std::collections::BTreeSet;

use crate::domain::migration::Warning;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, dumped, preflight, quote_ident};

/// So many of one kind are named; the rest is counted.
const NAMED_MAX: usize = 20;

const INVALID_INDEXES: &str = "
    SELECT n.nspname::text, c.relname::text
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname !~ '^pg_'
     ORDER BY 1, 2";

const NOT_VALID: &str = "
    SELECT n.nspname::text, c.relname::text, o.conname::text
      FROM pg_catalog.pg_constraint o
      JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT o.convalidated AND o.contype IN ('c', 'f') AND o.conparentid = 0 AND n.nspname !~ '^pg_'
     ORDER BY 1, 2, 3";

/// What a database has of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    indexes: BTreeSet<(String, String)>,
    constraints: BTreeSet<(String, String, String)>,
}

impl Flaws {
    pub(super) async fn of(session: &Session) -> Result<Self, PostgresError> {
        let mut flaws = Self::default();
        for row in session.client().query(INVALID_INDEXES, &[]).await? {
            flaws.indexes.insert((row.try_get(0)?, row.try_get(1)?));
        }
        for row in session.client().query(NOT_VALID, &[]).await? {
            flaws.constraints.insert((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        }
        Ok(flaws)
    }

    /// Those that were not there before, each with the statement that mends it.
    pub(super) fn since(&self, before: &Self) -> Vec<Warning> {
        let index = |(schema, name): &(String, String)| Warning {
            message: format!("index {schema}.{name} is invalid: no query uses it"),
            statement: Some(format!(
                "REINDEX INDEX CONCURRENTLY {}.{};",
                quote_ident(schema),
                quote_ident(name)
            )),
        };
        let constraint = |(schema, table, name): &(String, String, String)| Warning {
            message: format!(
                "constraint {name} of {schema}.{table} is NOT VALID: rows from before may break it"
            ),
            statement: Some(format!(
                "ALTER TABLE {}.{} VALIDATE CONSTRAINT {};",
                quote_ident(schema),
                quote_ident(table),
                quote_ident(name)
            )),
        };
        let mut warnings =
            named(self.indexes.difference(&before.indexes).map(index), "invalid indexes");
        let constraints = self.constraints.difference(&before.constraints).map(constraint);
        warnings.extend(named(constraints, "constraints that are NOT VALID"));
        warnings
    }
}

fn named(all: impl Iterator<Item = Warning>, what: &str) -> Vec<Warning> {
    let mut all: Vec<Warning> = all.collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    all.truncate(NAMED_MAX);
    if more > 0 {
        all.push(Warning { message: format!("{more} more {what}"), statement: None });
    }
    all
}

/// What would keep this role from taking the next backup.
pub(super) async fn unreadable(
    session: &Session,
    exclude_table_data: &[String],
) -> Result<Option<Warning>, PostgresError> {
    let client = session.client();
    // Before the transaction, whose search_path is the dump's.
    let excluded = dumped::excluded(client, exclude_table_data).await?;
    session.batch("BEGIN READ ONLY; SET LOCAL search_path = ''").await?;
    let relations = dumped::relations(client, &excluded.oids).await?;
    let found = preflight::obstacles(client, session.server_version_num(), &relations).await?;
    session.batch("COMMIT").await?;
    let statements = found.statements();
    Ok(found.into_result().err().map(|error| Warning {
        message: format!("the next backup would fail: {error}"),
        statement: Some(statements).filter(|statements| !statements.is_empty()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told_and_how_it_is_mended() {
        let name = |text: &str| ("public".to_owned(), text.to_owned());
        let before = Flaws { indexes: [name("old")].into(), ..Flaws::default() };
        let after = Flaws {
            indexes: [name("old"), name("Pet_name_key")].into(),
            constraints: [("public".to_owned(), "Pet".to_owned(), "owner".to_owned())].into(),
        };
        let told: Vec<String> =
            after.since(&before).into_iter().filter_map(|warning| warning.statement).collect();
        assert_eq!(
            told,
            [
                r#"REINDEX INDEX CONCURRENTLY "public"."Pet_name_key";"#,
                r#"ALTER TABLE "public"."Pet" VALIDATE CONSTRAINT "owner";"#,
            ]
        );
        assert_eq!(after.since(&after), []);
        let many = Flaws { indexes: (0..25).map(|n| name(&n.to_string())).collect(), ..before };
        let told = many.since(&Flaws::default());
        assert_eq!(told.last().map(|one| one.message.as_str()), Some("5 more invalid indexes"));
    }
}
