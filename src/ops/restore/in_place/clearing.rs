//! Decides what of a database goes, what stays, and what is in the way: pure.
//!
//! What a dump of the database would hold goes. Extensions that the backup has in the same schema stay, with the
//! schemas they are in, `public`, and schemas of other roles that the backup has too. Everything else that the
//! role may not drop is in the way: it would stay behind, and the database would be neither the old nor the new.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::inventory::{Inventory, ObjectKind};
use crate::postgres::present::{
    DefaultPrivileges, Installed, Present, SCHEMA, UNLINK_LARGE_OBJECTS,
};
use crate::postgres::quote_ident;
use crate::proof::Staying;

/// What was found in the target database.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) objects: BTreeSet<Present>,
    pub(super) extensions: Vec<Installed>,
    pub(super) default_privileges: Vec<DefaultPrivileges>,
    pub(super) large_objects: i64,
    /// Owners of large objects that the role may not remove.
    pub(super) large_objects_of: Vec<String>,
}

/// What goes and what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clearing {
    /// Everything that was there when it was decided.
    pub(super) seen: BTreeSet<Present>,
    drops: Vec<Present>,
    extensions: Vec<String>,
    resets: Vec<String>,
    large_objects: i64,
    pub(super) staying: Staying,
}

/// Decides; what is in the way otherwise, one line each, and the roles to be a member of.
pub(super) fn decide(
    found: Found,
    expected: &Inventory,
) -> Result<Clearing, (Vec<String>, BTreeSet<String>)> {
    let mut in_the_way = Vec::new();
    let mut owners = BTreeSet::new();
    let mut clearing = Clearing { large_objects: found.large_objects, ..Clearing::default() };
    let schemas = &mut clearing.staying.schemas;
    for extension in &found.extensions {
        let recorded = expected.extensions.iter().find(|one| one.name == extension.name);
        if recorded.is_some_and(|recorded| recorded.schema == extension.schema) {
            schemas.insert(extension.schema.clone());
        } else if extension.droppable {
            clearing.extensions.push(extension.name.clone());
        } else {
            in_the_way.push(match recorded {
                None => format!("extension {}, which the backup lacks", extension.name),
                Some(recorded) => format!(
                    "extension {} in schema {}, which the backup has in {}",
                    extension.name, extension.schema, recorded.schema
                ),
            });
        }
    }
    schemas.insert("public".to_owned());
    let recorded: BTreeSet<&str> =
        expected.objects_of(ObjectKind::Schema).map(|schema| &*schema.name).collect();
    let (mut there, mut foreign) = (BTreeSet::new(), BTreeSet::new());
    for object in &found.objects {
        let schema = (object.kind == SCHEMA).then(|| unquoted(&object.identity));
        match schema {
            Some(name) if !object.droppable => {
                if name != "public" && !recorded.contains(&*name) {
                    in_the_way.push(format!("{}, which the backup lacks", object.describe()));
                }
                foreign.insert(name.clone());
                there.insert(name);
            }
            Some(name) if clearing.staying.schemas.contains(&name) => {
                there.insert(name);
            }
            _ if object.droppable => clearing.drops.push(object.clone()),
            _ => {
                owners.insert(object.owner.clone());
                in_the_way.push(object.describe());
            }
        }
    }
    clearing.staying.schemas = there;
    clearing.staying.foreign_schemas = foreign;
    for privileges in found.default_privileges {
        if privileges.changeable {
            clearing.resets.push(privileges.reset);
        } else {
            in_the_way.push(format!("default privileges of {}", privileges.role));
            owners.insert(privileges.role);
        }
    }
    for owner in found.large_objects_of {
        in_the_way.push(format!("large objects of {owner}"));
        owners.insert(owner);
    }
    clearing.seen = found.objects;
    if in_the_way.is_empty() { Ok(clearing) } else { Err((in_the_way, owners)) }
}

/// The name behind an identifier that PostgreSQL quoted where it must.
fn unquoted(identity: &str) -> String {
    match identity.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => identity.to_owned(),
    }
}

impl Clearing {
    /// The statements, in order.
    pub(super) fn statements(&self) -> Vec<String> {
        let mut statements = self.resets.clone();
        let schemas = self.drops.iter().position(|object| object.kind == SCHEMA);
        let (objects, schemas) = self.drops.split_at(schemas.unwrap_or(self.drops.len()));
        statements.extend(objects.iter().map(Present::drop_statement));
        if self.large_objects > 0 {
            statements.push(UNLINK_LARGE_OBJECTS.to_owned());
        }
        let extension =
            |name: &String| format!("DROP EXTENSION IF EXISTS {} CASCADE", quote_ident(name));
        statements.extend(self.extensions.iter().map(extension));
        statements.extend(schemas.iter().map(Present::drop_statement));
        statements
    }

    /// `3 tables, 1 view and 2 large objects`.
    pub(super) fn told(&self) -> String {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for object in &self.drops {
            *counts.entry(object.kind.to_lowercase()).or_default() += 1;
        }
        if !self.extensions.is_empty() {
            let extensions = i64::try_from(self.extensions.len()).unwrap_or(i64::MAX);
            counts.insert("extension".to_owned(), extensions);
        }
        if self.large_objects > 0 {
            counts.insert("large object".to_owned(), self.large_objects);
        }
        let one = |(kind, count): (&String, &i64)| match (*count, kind.strip_suffix('y')) {
            (1, _) => format!("1 {kind}"),
            (count, Some(stem)) => format!("{count} {stem}ies"),
            (count, None) if kind.ends_with("ss") => format!("{count} {kind}es"),
            (count, None) => format!("{count} {kind}s"),
        };
        let all: Vec<String> = counts.iter().map(one).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::{Extension, Object};

    fn present(stage: i32, kind: &str, identity: &str, owner: &str) -> Present {
        Present {
            stage,
            class: 0,
            oid: 0,
            kind: kind.into(),
            identity: identity.into(),
            owner: owner.into(),
            droppable: owner == "app",
        }
    }

    fn schema(name: &str) -> Object {
        Object {
            kind: ObjectKind::Schema,
            schema: None,
            of: None,
            name: name.into(),
            owner: None,
            definition: None,
            facts: BTreeMap::new(),
            acl: Vec::new(),
        }
    }

    fn expected() -> Inventory {
        let citext = Extension { name: "citext".into(), version: "1".into(), schema: "ext".into() };
        Inventory {
            objects: vec![schema("Odd"), schema("ext"), schema("public")],
            extensions: vec![citext],
            ..Inventory::empty()
        }
    }

    #[test]
    fn what_a_dump_would_hold_goes_and_extensions_stay_with_their_schemas() {
        let installed = |name: &str, schema: &str| Installed {
            name: name.into(),
            schema: schema.into(),
            droppable: name != "citext",
        };
        let found = Found {
            objects: BTreeSet::from([
                present(2, "TABLE", "public.orders", "app"),
                present(6, "TYPE", "ext.mood", "app"),
                present(13, "SCHEMA", "\"Odd\"", "boss"),
                present(13, "SCHEMA", "ext", "app"),
                present(13, "SCHEMA", "public", "pg_database_owner"),
                present(13, "SCHEMA", "shop", "app"),
            ]),
            extensions: vec![installed("citext", "ext"), installed("hstore", "public")],
            large_objects: 2,
            ..Found::default()
        };
        let clearing = decide(found, &expected()).expect("nothing is in the way");
        assert_eq!(
            clearing.statements(),
            [
                "DROP TABLE IF EXISTS public.orders CASCADE",
                "DROP TYPE IF EXISTS ext.mood CASCADE",
                UNLINK_LARGE_OBJECTS,
                "DROP EXTENSION IF EXISTS \"hstore\" CASCADE",
                "DROP SCHEMA IF EXISTS shop RESTRICT",
            ]
        );
        let told = "1 extension, 2 large objects, 1 schema, 1 table, 1 type";
        assert_eq!(clearing.told(), told);
        let names = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&clearing.staying.schemas), "Odd ext public");
        assert_eq!(names(&clearing.staying.foreign_schemas), "Odd public");
    }

    #[test]
    fn what_would_stay_behind_and_differ_is_in_the_way() {
        let found = Found {
            objects: BTreeSet::from([
                present(2, "TABLE", "public.audit", "boss"),
                present(13, "SCHEMA", "elsewhere", "boss"),
            ]),
            extensions: vec![Installed {
                name: "citext".into(),
                schema: "public".into(),
                droppable: false,
            }],
            default_privileges: vec![DefaultPrivileges {
                role: "chief".into(),
                changeable: false,
                reset: String::new(),
            }],
            large_objects_of: vec!["boss".into()],
            ..Found::default()
        };
        let (in_the_way, owners) = decide(found, &expected()).expect_err("much is in the way");
        assert_eq!(
            in_the_way,
            [
                "extension citext in schema public, which the backup has in ext",
                "table public.audit of boss",
                "schema elsewhere of boss, which the backup lacks",
                "default privileges of chief",
                "large objects of boss",
            ]
        );
        assert_eq!(owners.into_iter().collect::<Vec<_>>(), ["boss", "chief"]);
    }
}
