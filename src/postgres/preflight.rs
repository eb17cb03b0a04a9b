//! What keeps a role from dumping a database, found and named before anything is dumped.
//!
//! `pg_dump` stops at the first table it may not read, sometimes after hours; and where row security would
//! hide rows it stops as well, since it sets `row_security = off`. Here every obstacle is found at once, with
//! the statement that mends it. Needed is what [`super::dumped`] lists: USAGE on the schemas of locked tables
//! and read sequences, SELECT on them (on tables whose rows are left out too, since `pg_dump` locks them all
//! the same), SELECT on large objects. Views, materialized and foreign tables need nothing.
//! Reads only; a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::dumped::{DumpedKind, DumpedRelation};
use super::{PostgresError, quote_ident};
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::inventory::display_name;

/// How many objects one message names.
const NAMED: usize = 3;

/// What a role may not read, or would read only in part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// The role that was looked at.
    pub role: String,
    /// Schemas without USAGE.
    pub schemas: Vec<String>,
    /// Tables without SELECT, as (schema, name).
    pub tables: Vec<(String, String)>,
    /// Sequences without SELECT, as (schema, name).
    pub sequences: Vec<(String, String)>,
    /// Large objects without SELECT.
    pub large_objects: Vec<u32>,
    /// Tables whose policies apply to this role, as (schema, name).
    pub row_security: Vec<(String, String)>,
}

/// Why a role cannot dump a database.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Privileges are missing.
    #[error("role {} may not read {}", display_name(None, &.0.role), .0.unreadable())]
    Unreadable(Box<Obstacles>),
    /// Rows would be hidden.
    #[error("row security hides rows of {} from role {}", tables(&.0.row_security), display_name(None, &.0.role))]
    RowSecurity(Box<Obstacles>),
    /// The catalog could not be asked.
    #[error("could not ask the catalog what may be read")]
    Query(#[from] PostgresError),
}

impl Failure for PreflightError {
    fn kind(&self) -> FailureKind {
        FailureKind::Postgres
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable(obstacles) => obstacles.grants(),
            Self::RowSecurity(obstacles) => format!(
                "run as a superuser: ALTER ROLE {} BYPASSRLS; or leave these rows out by exclude_table_data",
                quote_ident(&obstacles.role)
            ),
            Self::Query(error) => return error.hint(),
        })
    }
}

impl Obstacles {
    /// Passes when there are none; missing privileges come before row security.
    pub fn into_result(self) -> Result<(), PreflightError> {
        let missing = !self.schemas.is_empty()
            || !self.tables.is_empty()
            || !self.sequences.is_empty()
            || !self.large_objects.is_empty();
        if missing {
            Err(PreflightError::Unreadable(Box::new(self)))
        } else if self.row_security.is_empty() {
            Ok(())
        } else {
            Err(PreflightError::RowSecurity(Box::new(self)))
        }
    }

    /// What is unreadable, the first few by name.
    fn unreadable(&self) -> String {
        let name = |(schema, name): &(String, String)| display_name(Some(schema), name);
        let names = self
            .schemas
            .iter()
            .map(|schema| format!("schema {}", display_name(None, schema)))
            .chain(self.tables.iter().map(|table| format!("table {}", name(table))))
            .chain(self.sequences.iter().map(|sequence| format!("sequence {}", name(sequence))))
            .chain(self.large_objects.iter().map(|oid| format!("large object {oid}")));
        first_few(names)
    }

    /// The statements that grant all of it, in one line.
    pub fn statements(&self) -> String {
        let role = quote_ident(&self.role);
        let list = |of: &[(String, String)]| {
            let quoted = of.iter().map(|(a, b)| format!("{}.{}", quote_ident(a), quote_ident(b)));
            quoted.collect::<Vec<_>>().join(", ")
        };
        let schemas: Vec<String> = self.schemas.iter().map(|schema| quote_ident(schema)).collect();
        let oids: Vec<String> = self.large_objects.iter().map(ToString::to_string).collect();
        let statements = [
            ("USAGE ON SCHEMA", schemas.join(", ")),
            ("SELECT ON TABLE", list(&self.tables)),
            ("SELECT ON SEQUENCE", list(&self.sequences)),
            ("SELECT ON LARGE OBJECT", oids.join(", ")),
        ];
        let statements = statements.iter().filter(|(_, names)| !names.is_empty());
        let statements = statements.map(|(what, names)| format!("GRANT {what} {names} TO {role};"));
        statements.collect::<Vec<_>>().join(" ")
    }

    /// The statements that grant it, as far as a hint has room.
    fn grants(&self) -> String {
        let role = quote_ident(&self.role);
        let list = |of: &[(String, String)]| {
            of.iter()
                .map(|(schema, name)| format!("{}.{}", quote_ident(schema), quote_ident(name)))
                .collect::<Vec<_>>()
        };
        let schemas: Vec<String> = self.schemas.iter().map(|schema| quote_ident(schema)).collect();
        let oids: Vec<String> = self.large_objects.iter().map(ToString::to_string).collect();
        let several = |what: &str, names: &[String]| {
            let shown = names.len() <= NAMED && !names.is_empty();
            shown.then(|| format!("GRANT {what} {} TO {role};", names.join(", ")))
        };
        let mut statements: Vec<String> = [
            several("USAGE ON SCHEMA", &schemas),
            several("SELECT ON TABLE", &list(&self.tables)),
            several("SELECT ON SEQUENCE", &list(&self.sequences)),
            several("SELECT ON LARGE OBJECT", &oids),
        ]
        .into_iter()
        .flatten()
        .collect();
        if self.schemas.len() + self.tables.len() + self.sequences.len() > 0 {
            statements.push(format!(
                "for all databases and whatever comes later: GRANT pg_read_all_data TO {role};"
            ));
        }
        if self.large_objects.len() > NAMED {
            statements
                .push("large objects are granted one by one, or dump as a superuser".to_owned());
        }
        statements.join(" ")
    }
}

fn tables(list: &[(String, String)]) -> String {
    first_few(
        list.iter().map(|(schema, name)| format!("table {}", display_name(Some(schema), name))),
    )
}

fn first_few(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let told = names.join(", ");
    if more > 0 { format!("{told} and {more} more") } else { told }
}

/// Privileges of the session's role, relation by relation; both functions take NULL for what was dropped.
const RELATIONS: &str = "
    SELECT c.oid, pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
           CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END,
           c.relkind = 'r' AND pg_catalog.row_security_active(c.oid)
      FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)";

/// Up to PostgreSQL 17 no function tells who may read a large object. A list of its own replaces the default.
const LARGE_OBJECTS_14: &str = "
    SELECT l.oid FROM pg_catalog.pg_largeobject_metadata l
     WHERE NOT pg_catalog.current_setting('lo_compat_privileges')::bool
       AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
       AND NOT EXISTS (
           SELECT 1 FROM pg_catalog.aclexplode(coalesce(l.lomacl, pg_catalog.acldefault('L', l.lomowner))) a
            WHERE a.privilege_type = 'SELECT'
              AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
     ORDER BY l.oid LIMIT 1000";

const LARGE_OBJECTS_18: &str = "
    SELECT l.oid FROM pg_catalog.pg_largeobject_metadata l
     WHERE NOT pg_catalog.has_largeobject_privilege(l.oid, 'SELECT')
     ORDER BY l.oid LIMIT 1000";

const ROLE: &str = "
    SELECT current_user::text";

/// Looks for everything that would keep the session's role from dumping `dumped`. `version` is
/// `server_version_num`.
pub async fn obstacles(
    client: &Client,
    version: u32,
    dumped: &[DumpedRelation],
) -> Result<Obstacles, PostgresError> {
    let large_objects = if version >= 180_000 { LARGE_OBJECTS_18 } else { LARGE_OBJECTS_14 };
    let mut found = Obstacles::default();
    for row in client.query_typed(ROLE, &[]).await? {
        found.role = row.try_get(0)?;
    }
    let needed: BTreeMap<u32, &DumpedRelation> = dumped
        .iter()
        .filter(|relation| is_needed(relation))
        .map(|relation| (relation.oid, relation))
        .collect();
    let oids: Vec<u32> = needed.keys().copied().collect();
    let mut schemas = BTreeSet::new();
    for row in client.query_typed(RELATIONS, &[(&oids, Type::OID_ARRAY)]).await? {
        let Some(relation) = needed.get(&row.try_get(0)?) else { continue };
        let allowed =
            |index| row.try_get::<_, Option<bool>>(index).map(|told| told.unwrap_or(true));
        let name = (relation.schema.clone(), relation.name.clone());
        if !allowed(1)? {
            schemas.insert(relation.schema.clone());
        }
        if !allowed(2)? {
            match relation.kind {
                DumpedKind::Sequence => found.sequences.push(name),
                _ => found.tables.push(name),
            }
        } else if !relation.rows_excluded && row.try_get::<_, Option<bool>>(3)? == Some(true) {
            found.row_security.push(name);
        }
    }
    for row in client.query_typed(large_objects, &[]).await? {
        found.large_objects.push(row.try_get(0)?);
    }
    found.schemas.extend(schemas);
    found.tables.sort();
    found.sequences.sort();
    found.row_security.sort();
    Ok(found)
}

fn is_needed(relation: &DumpedRelation) -> bool {
    match relation.kind {
        DumpedKind::Table | DumpedKind::PartitionedTable => relation.is_locked(),
        DumpedKind::Sequence => !relation.rows_excluded,
        DumpedKind::MaterializedView => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(schema: &str, name: &str) -> (String, String) {
        (schema.to_owned(), name.to_owned())
    }

    #[test]
    fn an_unreadable_table_is_named_with_the_grant_that_mends_it() {
        let found = Obstacles {
            role: "backup".into(),
            tables: vec![name("shop", "Big Orders")],
            sequences: vec![name("shop", "orders_id_seq")],
            ..Obstacles::default()
        };
        let error = found.into_result().unwrap_err();
        assert_eq!(
            error.to_string(),
            "role backup may not read table shop.\"Big Orders\", sequence shop.orders_id_seq"
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(r#"GRANT SELECT ON TABLE "shop"."Big Orders" TO "backup";"#),
            "{hint}"
        );
        assert!(
            hint.contains(r#"GRANT SELECT ON SEQUENCE "shop"."orders_id_seq" TO "backup";"#),
            "{hint}"
        );
    }

    #[test]
    fn many_obstacles_are_counted_after_the_first_few() {
        let found = Obstacles {
            role: "r".into(),
            schemas: vec!["a".into()],
            tables: (0..9).map(|i| name("s", &format!("t{i}"))).collect(),
            ..Obstacles::default()
        };
        let error = found.into_result().unwrap_err();
        assert_eq!(
            error.to_string(),
            "role r may not read schema a, table s.t0, table s.t1 and 7 more"
        );
        let hint = error.hint().unwrap();
        assert!(hint.contains("GRANT pg_read_all_data") && !hint.contains("t5"), "{hint}");
    }

    #[test]
    fn row_security_is_told_when_nothing_else_is_wrong() {
        let found = Obstacles {
            role: "r".into(),
            row_security: vec![name("s", "t")],
            ..Obstacles::default()
        };
        let error = found.into_result().unwrap_err();
        assert_eq!(error.to_string(), "row security hides rows of table s.t from role r");
        assert!(error.hint().unwrap().contains("BYPASSRLS"));
        assert!(Obstacles::default().into_result().is_ok());
    }
}
