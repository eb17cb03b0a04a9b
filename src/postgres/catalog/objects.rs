//! Everything that is no relation. Each query yields the same ten columns:
//! kind, schema, what it hangs on, name, owner, definition, facts, privileges, default privileges, roles.

mod attached;
mod global;
mod schema;

use super::{CatalogError, Reader};
use crate::domain::inventory::{Object, ObjectKind};

/// A list of objects: what it is called in errors, and its query.
type Query = (&'static str, &'static str);

/// Reads all objects, and the roles that they name elsewhere than as owner or in privileges.
pub(super) async fn read(
    reader: &Reader<'_>,
    version: u32,
) -> Result<(Vec<Object>, Vec<String>), CatalogError> {
    let queries = schema::QUERIES.iter().chain(attached::QUERIES).chain(global::QUERIES);
    let publications = global::publications(version);
    let mut objects = Vec::new();
    let mut roles = Vec::new();
    for (what, sql) in queries.chain([&("publications", publications)]) {
        for row in reader.rows(what, sql).await? {
            let kind: String = reader.cell(what, &row, 0)?;
            let name: String = reader.cell(what, &row, 3)?;
            roles.extend(reader.cell::<Option<Vec<String>>>(what, &row, 9)?.unwrap_or_default());
            objects.push(Object {
                kind: parse_kind(what, kind)?,
                schema: reader.cell(what, &row, 1)?,
                of: reader.cell(what, &row, 2)?,
                owner: reader.cell(what, &row, 4)?,
                definition: reader.cell(what, &row, 5)?,
                facts: reader.facts(what, &row, 6)?,
                acl: reader.acl(what, &row, 7, &name)?,
                name,
            });
        }
    }
    Ok((objects, roles))
}

/// The kind by its name in the inventory's JSON.
fn parse_kind(what: &'static str, kind: String) -> Result<ObjectKind, CatalogError> {
    serde_json::from_value(kind.clone().into())
        .map_err(|_| CatalogError::Unknown { what, value: kind })
}
