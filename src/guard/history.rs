//! What a database's tools have recorded in it, read in one transaction that changes nothing.

use crate::domain::migration::{
    Column, Command, ProjectFiles, Row, RowState, State, Table, Tool, marks, recognise,
};
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};

/// Names are resolved in `pg_catalog` alone, and nobody is waited for long: a tool at work may hold its table.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL search_path = ''; SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = '5min'";

/// Tables that have a name, or a column, as a tool's has.
const CANDIDATES: &str = "
    SELECT n.nspname::text, c.relname::text,
           array_agg(a.attname::text ORDER BY a.attnum),
           array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND (lower(c.relname::text) = ANY ($1)
            OR EXISTS (SELECT FROM pg_attribute m
                        WHERE m.attrelid = c.oid AND m.attname::text = ANY ($2)))
     GROUP BY 1, 2 ORDER BY 1, 2";

/// Tables, materialized views or large objects that belong to no extension.
const SOMETHING: &str = "
    SELECT EXISTS (
               SELECT FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'p', 'm')
                  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                   WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                     AND d.objid = c.oid AND d.deptype = 'e'))
        OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)";

/// Where Prisma works when its URL names no schema.
const PRISMAS_SCHEMA: &str = "public";

/// Whether there is anything in the database that a migration could lose.
pub(super) async fn holds_something(session: &Session) -> Result<bool, PostgresError> {
    let row = session.client().query_one(SOMETHING, &[]).await?;
    Ok(row.get(0))
}

/// The histories that matter to a command: those of its own tool, else of every tool that has one here.
///
/// `schema` is Prisma's parameter of the URL: its table is there, and others are other applications'.
pub(super) async fn states(
    session: &Session,
    command: &Command,
    schema: Option<&str>,
    project: &dyn ProjectFiles,
) -> Result<Vec<State>, PostgresError> {
    session.batch(BEGIN).await?;
    let mut tables = tables(session).await?;
    if let Some(tool) = command.tool {
        tables.retain(|(own, _)| *own == tool);
    }
    let schema = schema.unwrap_or(PRISMAS_SCHEMA);
    let in_schema = |(tool, table): &(Tool, Table)| *tool == Tool::Prisma && table.schema == schema;
    let mut elsewhere = None;
    // Of a command that nobody knows, all that may be its are shown.
    if command.tool == Some(Tool::Prisma) || tables.iter().any(in_schema) {
        let others = tables.extract_if(.., |one| one.0 == Tool::Prisma && !in_schema(one));
        elsewhere = others.map(|(_, table)| table.schema).last();
    }
    let mut states = Vec::new();
    for (tool, table) in &tables {
        let rows = rows(session, *tool, table).await?;
        let name = format!("{}.{}", table.schema, table.name);
        states.push(State::of(*tool, Some(name), &rows, command, project));
    }
    session.batch("COMMIT").await?;
    // The tool has not been at work here yet.
    if let (true, Some(tool)) = (states.is_empty(), command.tool) {
        let mut state = State::of(tool, None, &[], command, project);
        if state.pending_unknown.is_none()
            && let Some(other) = elsewhere
        {
            let told =
                format!("there is a table of its in schema `{other}`, and none in `{schema}`");
            state.pending_unknown = Some(told);
        }
        states.push(state);
    }
    Ok(states)
}

async fn tables(session: &Session) -> Result<Vec<(Tool, Table)>, PostgresError> {
    let (names, columns) = marks();
    let found = session.client().query(CANDIDATES, &[&names, &columns]).await?;
    let mut tables = Vec::new();
    for row in found {
        let (names, kinds): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
        let columns = names.into_iter().zip(kinds);
        let columns = columns.map(|(name, kind)| Column { name, kind }).collect();
        let table = Table { schema: row.try_get(0)?, name: row.try_get(1)?, columns };
        tables.extend(recognise(&table).map(|tool| (tool, table)));
    }
    Ok(tables)
}

async fn rows(session: &Session, tool: Tool, table: &Table) -> Result<Vec<Row>, PostgresError> {
    let quoted = format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name));
    let mut rows = Vec::new();
    for row in session.client().query(&tool.rows_query(&quoted), &[]).await? {
        let text = |at: usize| row.try_get::<_, Option<String>>(at);
        rows.push(Row {
            key: text(0)?.unwrap_or_default(),
            name: text(1)?.unwrap_or_default(),
            checksum: text(2)?,
            state: RowState::parse(&text(3)?.unwrap_or_default()),
            detail: text(4)?,
            identity: if row.len() > 5 { text(5)? } else { None },
        });
    }
    Ok(rows)
}
