//! Names what differs between a source's inventory and a restored one, one line each.
//!
//! Pure: options say what the restore left out on purpose, and nothing else is forgiven. What hangs on a
//! missing relation is not reported again. What no honest restore can keep equal (an extension's version, a
//! locale the scratch server lacks) is a notice, which is to be shown but fails nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::acl::AclItem;
use super::names::{display_name, entries, excerpts, list, object_key, relation_descs, told};
use super::{Column, Extension, Facts, Inventory, Object, ObjectKind, Relation};

/// An entry of the archive's table of contents that the restore left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `pg_restore`'s word: `TABLE`, `FK CONSTRAINT`, `MATERIALIZED VIEW DATA`, `ACL`, …
    pub desc: String,
    /// The namespace, where it has one.
    pub schema: Option<String>,
    /// The tag, such as `orders`, `orders orders_pkey`, `f(integer)`, `TABLE orders`.
    pub name: String,
}

impl LeftOut {
    /// From the fields of an entry; an empty namespace or `-` is none.
    pub fn new(desc: &str, schema: &str, name: &str) -> Self {
        let schema = (!schema.is_empty() && schema != "-").then(|| schema.to_owned());
        Self { desc: desc.to_owned(), schema, name: name.to_owned() }
    }
}

/// What a comparison may pass over.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// What the restore left out, and the report already tells.
    pub left_out: Vec<LeftOut>,
    /// Whether owners, privileges and default privileges were restored.
    pub roles: bool,
    /// Whether subscriptions were restored; scratch leaves them out.
    pub subscriptions: bool,
    /// Whether the restored database was made with the source's encoding and locale; when not, another
    /// locale is a notice.
    pub locale: bool,
}

impl Default for CompareOptions {
    /// The strictest: everything but subscriptions was restored.
    fn default() -> Self {
        Self { left_out: Vec::new(), roles: true, subscriptions: false, locale: true }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What must not be: each line names the object.
    pub differences: Vec<String>,
    /// What may be, and should be known.
    pub notices: Vec<String>,
}

impl Inventory {
    /// What differs under the strictest options.
    pub fn differences(&self, restored: &Self) -> Vec<String> {
        self.compare(restored, &CompareOptions::default()).differences
    }

    /// Compares all but row counts and sequence values, which have their own checks.
    pub fn compare(&self, restored: &Self, options: &CompareOptions) -> Comparison {
        let mut walk = Walk {
            same_major: self.major() == restored.major(),
            same_encoding: self.database.encoding == restored.database.encoding,
            options,
            found: Comparison::default(),
        };
        walk.database(self, restored);
        walk.extensions(&self.extensions, &restored.extensions);
        // What other things live in comes first, so that the first lines tell the cause.
        walk.objects(self, restored, &Gone::new(), |kind| kind == ObjectKind::Schema);
        let gone = walk.relations(&self.relations, &restored.relations);
        walk.objects(self, restored, &gone, |kind| kind != ObjectKind::Schema);
        walk.counted(
            "large objects",
            self.large_objects,
            restored.large_objects,
            &["BLOB", "BLOBS"],
        );
        walk.counted("comments", self.comments, restored.comments, &[]);
        walk.found
    }
}

impl CompareOptions {
    /// Whether an entry of one of these kinds and names was left out.
    pub(crate) fn is_left_out(
        &self,
        descs: &[&str],
        schema: Option<&str>,
        tags: &[String],
    ) -> bool {
        self.left_out.iter().any(|entry| {
            descs.contains(&&*entry.desc)
                && entry.schema.as_deref() == schema
                && tags.contains(&entry.name)
        })
    }
}

/// One comparison under way.
struct Walk<'a> {
    same_major: bool,
    same_encoding: bool,
    options: &'a CompareOptions,
    found: Comparison,
}

/// Relations that are on one side only, or of another kind: what hangs on them is not looked at.
type Gone<'a> = BTreeSet<(&'a str, &'a str)>;

impl Walk<'_> {
    fn differ(&mut self, line: String) {
        self.found.differences.push(line);
    }

    /// `ours` and `theirs` as values of one property of `what`.
    fn value<T: PartialEq + Display>(&mut self, what: &str, property: &str, ours: &T, theirs: &T) {
        if ours != theirs {
            let (ours, theirs) = excerpts(&ours.to_string(), &theirs.to_string());
            self.differ(format!("{what}: {property} {ours}, restored as {theirs}"));
        }
    }

    fn optional(&mut self, what: &str, property: &str, ours: Option<&str>, theirs: Option<&str>) {
        self.value(what, property, &ours.unwrap_or("none"), &theirs.unwrap_or("none"));
    }

    /// Deparsed text: comparable within one major only, and only where both sides could be read.
    fn text(&mut self, what: &str, property: &str, ours: Option<&str>, theirs: Option<&str>) {
        if self.same_major && self.same_encoding {
            self.optional(what, property, ours, theirs);
        } else if ours.is_some() != theirs.is_some() {
            let there = |text: Option<&str>| if text.is_some() { "present" } else { "none" };
            self.value(what, property, &there(ours), &there(theirs));
        }
    }

    fn facts(&mut self, what: &str, ours: &Facts, theirs: &Facts, passed_over: &[&str]) {
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for key in keys {
            let (ours, theirs) = (ours.get(key), theirs.get(key));
            if ours == theirs || passed_over.contains(&key.as_str()) {
                continue;
            }
            match key.strip_suffix(" sha256") {
                None => self.optional(what, key, ours.map(|v| &**v), theirs.map(|v| &**v)),
                // The hash is over the server's encoding, and says nothing to a person.
                Some(of) if self.same_encoding => self.differ(format!("{what}: {of} differs")),
                Some(_) => {}
            }
        }
    }

    fn privileges(
        &mut self,
        what: &str,
        acl_tag: (Option<&str>, &str),
        ours: &[AclItem],
        theirs: &[AclItem],
    ) {
        let (schema, name) = acl_tag;
        let left_out = self.options.left_out.iter().any(|entry| {
            let tag = entry
                .name
                .strip_suffix(name)
                .is_some_and(|word| word.is_empty() || word.ends_with(' '));
            entry.desc == "ACL" && tag && entry.schema.as_deref() == schema
        });
        if !self.options.roles || left_out {
            return;
        }
        let told = |acl: &[AclItem], same: bool| {
            let items = acl
                .iter()
                .map(|item| if same { item.to_string() } else { item.portable().to_string() });
            let text = items.collect::<Vec<_>>().join(", ");
            if text.is_empty() { "default".to_owned() } else { text }
        };
        self.value(
            what,
            "privileges",
            &told(ours, self.same_major),
            &told(theirs, self.same_major),
        );
    }

    fn owner(&mut self, what: &str, ours: Option<&str>, theirs: Option<&str>) {
        if self.options.roles {
            self.optional(what, "owner", ours, theirs);
        }
    }

    fn database(&mut self, ours: &Inventory, theirs: &Inventory) {
        let (ours, theirs) = (&ours.database, &theirs.database);
        let mut told = Walk { found: Comparison::default(), ..*self };
        let what = "database";
        told.value(what, "encoding", &ours.encoding, &theirs.encoding);
        told.value(what, "locale provider", &ours.locale_provider, &theirs.locale_provider);
        told.value(what, "collation order", &ours.collate, &theirs.collate);
        told.value(what, "character classes", &ours.ctype, &theirs.ctype);
        told.optional(what, "icu locale", ours.icu_locale.as_deref(), theirs.icu_locale.as_deref());
        told.optional(what, "icu rules", ours.icu_rules.as_deref(), theirs.icu_rules.as_deref());
        let lines = told.found.differences;
        if self.options.locale {
            self.found.differences.extend(lines);
        } else {
            self.found.notices.extend(lines);
        }
    }

    fn extensions(&mut self, ours: &[Extension], theirs: &[Extension]) {
        let left_out = |name: &str| {
            self.options
                .left_out
                .iter()
                .any(|entry| entry.desc == "EXTENSION" && entry.name == name)
        };
        let find =
            |list: &[Extension], name: &str| list.iter().find(|found| found.name == name).cloned();
        let mut lines = Comparison::default();
        for extension in ours {
            let name = display_name(None, &extension.name);
            match find(theirs, &extension.name) {
                None if left_out(&extension.name) => {}
                None => lines.differences.push(format!("extension {name} is missing")),
                Some(other) => {
                    if other.version != extension.version {
                        lines.notices.push(format!(
                            "extension {name}: version {}, restored as {}",
                            extension.version, other.version
                        ));
                    }
                    if other.schema != extension.schema {
                        lines.differences.push(format!(
                            "extension {name}: schema {}, restored as {}",
                            extension.schema, other.schema
                        ));
                    }
                }
            }
        }
        for extension in theirs.iter().filter(|extension| find(ours, &extension.name).is_none()) {
            let name = display_name(None, &extension.name);
            lines.differences.push(format!("extension {name} is not in the snapshot"));
        }
        self.found.differences.extend(lines.differences);
        self.found.notices.extend(lines.notices);
    }

    fn relations<'a>(&mut self, ours: &'a [Relation], theirs: &'a [Relation]) -> Gone<'a> {
        let key = |relation: &'a Relation| (&*relation.schema, &*relation.name);
        let restored: BTreeMap<_, _> =
            theirs.iter().map(|relation| (key(relation), relation)).collect();
        let known: BTreeSet<_> = ours.iter().map(key).collect();
        let mut gone = Gone::new();
        for relation in ours {
            let name = display_name(Some(&relation.schema), &relation.name);
            let what = format!("{} {name}", relation.kind.label());
            let Some(other) = restored.get(&key(relation)) else {
                gone.insert(key(relation));
                let descs = relation_descs(relation.kind);
                let tags = [relation.name.clone()];
                if !self.options.is_left_out(descs, Some(&relation.schema), &tags) {
                    self.differ(format!("{what} is missing"));
                }
                continue;
            };
            if other.kind == relation.kind {
                self.relation(&what, relation, other);
            } else {
                gone.insert(key(relation));
                self.differ(format!("{what}: restored as {}", other.kind.label()));
            }
        }
        for relation in theirs.iter().filter(|relation| !known.contains(&key(relation))) {
            // What hangs on it is as unknown as itself.
            gone.insert(key(relation));
            let name = display_name(Some(&relation.schema), &relation.name);
            self.differ(format!("{} {name} is not in the snapshot", relation.kind.label()));
        }
        gone
    }

    fn relation(&mut self, what: &str, ours: &Relation, theirs: &Relation) {
        self.value(what, "persistence", &ours.persistence.label(), &theirs.persistence.label());
        self.owner(what, Some(&ours.owner), Some(&theirs.owner));
        let security =
            |relation: &Relation| match (relation.row_security, relation.force_row_security) {
                (false, false) => "off",
                (false, true) => "off, forced",
                (true, false) => "on",
                (true, true) => "on, forced",
            };
        let tags = [ours.name.clone()];
        if !self.options.is_left_out(&["ROW SECURITY"], Some(&ours.schema), &tags) {
            self.value(what, "row security", &security(ours), &security(theirs));
        }
        let (parent, other) = (ours.partition_of.as_deref(), theirs.partition_of.as_deref());
        if !self.options.is_left_out(&["TABLE ATTACH"], Some(&ours.schema), &tags) {
            self.optional(what, "partition of", parent, other);
            let (bound, other) =
                (ours.partition_bound.as_deref(), theirs.partition_bound.as_deref());
            self.text(what, "bound", bound, other);
        }
        self.value(what, "options", &list(&ours.options), &list(&theirs.options));
        self.text(what, "definition", ours.definition.as_deref(), theirs.definition.as_deref());
        let unfilled =
            self.options.is_left_out(&["MATERIALIZED VIEW DATA"], Some(&ours.schema), &tags);
        self.facts(what, &ours.facts, &theirs.facts, if unfilled { &["populated"] } else { &[] });
        self.privileges(what, (Some(&ours.schema), &ours.name), &ours.acl, &theirs.acl);
        self.columns(ours, theirs);
    }

    fn columns(&mut self, ours: &Relation, theirs: &Relation) {
        let find = |relation: &Relation, name: &str| {
            relation.columns.iter().find(|column| column.name == name).cloned()
        };
        let table = display_name(Some(&ours.schema), &ours.name);
        let called = |name: &str| format!("column {table}.{}", display_name(None, name));
        for column in &ours.columns {
            match find(theirs, &column.name) {
                None => self.differ(format!("{} is missing", called(&column.name))),
                Some(other) => self.column(&called(&column.name), ours, column, &other),
            }
        }
        for column in theirs.columns.iter().filter(|column| find(ours, &column.name).is_none()) {
            self.differ(format!("{} is not in the snapshot", called(&column.name)));
        }
        // A child of classical inheritance gets its columns anew, the parent's first: not the dump's fault.
        let order = |relation: &Relation| {
            relation.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>()
        };
        let (mut mine, mut other) = (order(ours), order(theirs));
        if mine != other && !ours.facts.contains_key("inherits") {
            let told = (list(&mine), list(&other));
            mine.sort();
            other.sort();
            if mine == other {
                let (ours, theirs) = excerpts(&told.0, &told.1);
                self.differ(format!("columns of {table}: order {ours}, restored as {theirs}"));
            }
        }
    }

    fn column(&mut self, what: &str, relation: &Relation, ours: &Column, theirs: &Column) {
        self.value(what, "type", &ours.type_name, &theirs.type_name);
        let nulls = |column: &Column| if column.not_null { "not null" } else { "nullable" };
        self.value(what, "is", &nulls(ours), &nulls(theirs));
        self.text(what, "default", ours.default.as_deref(), theirs.default.as_deref());
        self.optional(what, "identity", ours.identity.as_deref(), theirs.identity.as_deref());
        self.optional(what, "generated", ours.generated.as_deref(), theirs.generated.as_deref());
        self.optional(what, "collation", ours.collation.as_deref(), theirs.collation.as_deref());
        self.facts(what, &ours.facts, &theirs.facts, &[]);
        let tag = format!("{}.{}", relation.name, ours.name);
        self.privileges(what, (Some(&relation.schema), &tag), &ours.acl, &theirs.acl);
    }

    fn objects(
        &mut self,
        ours: &Inventory,
        theirs: &Inventory,
        gone: &Gone<'_>,
        wanted: impl Fn(ObjectKind) -> bool,
    ) {
        let restored: BTreeMap<_, _> =
            theirs.objects.iter().map(|object| (object_key(object), object)).collect();
        let known: BTreeSet<_> = ours.objects.iter().map(object_key).collect();
        let mut gone = gone.clone();
        for object in ours.objects.iter().filter(|object| wanted(object.kind)) {
            if hangs_on(object, &gone) {
                continue;
            }
            if let Some(other) = restored.get(&object_key(object)) {
                self.object(object, other);
            } else {
                // Constraints hang on domains as on tables, and come later in the order of kinds.
                if let (ObjectKind::Domain, Some(schema)) = (object.kind, &object.schema) {
                    gone.insert((schema, &object.name));
                }
                self.missing(object);
            }
        }
        for object in theirs.objects.iter().filter(|object| wanted(object.kind)) {
            if known.contains(&object_key(object)) || hangs_on(object, &gone) {
                continue;
            }
            let line = format!("{} is not in the snapshot", told(object));
            // Every new database has it, and a dump of a database without it does not drop it.
            if object.kind == ObjectKind::Schema && object.name == "public" {
                self.found.notices.push(line);
            } else {
                self.differ(line);
            }
        }
    }

    fn missing(&mut self, object: &Object) {
        let (descs, tags) = entries(object);
        let roles_skipped =
            matches!(object.kind, ObjectKind::DefaultPrivileges) && !self.options.roles;
        let isolated = object.kind == ObjectKind::Subscription && !self.options.subscriptions;
        if roles_skipped
            || isolated
            || self.options.is_left_out(descs, object.schema.as_deref(), &tags)
        {
            return;
        }
        let line = format!("{} is missing", told(object));
        // pg_dump passes over an invalid index: a failed CREATE INDEX CONCURRENTLY.
        if object.kind == ObjectKind::Index
            && object.facts.get("valid").is_some_and(|valid| valid == "no")
        {
            self.found
                .notices
                .push(format!("{line}: it is invalid at the source, and dumps leave such out"));
        } else {
            self.differ(line);
        }
    }

    fn object(&mut self, ours: &Object, theirs: &Object) {
        let what = told(ours);
        let public = ours.kind == ObjectKind::Schema && ours.name == "public";
        if public && !self.same_major {
            // PostgreSQL 15 gave it another owner and took CREATE from PUBLIC; dumps do not carry that over.
            return;
        }
        self.owner(&what, ours.owner.as_deref(), theirs.owner.as_deref());
        let before = self.found.differences.len();
        self.facts(&what, &ours.facts, &theirs.facts, &[]);
        let (text, other) = (ours.definition.as_deref(), theirs.definition.as_deref());
        let hashed = |text: Option<&str>| text.is_some_and(|text| text.starts_with("sha256:"));
        if !(hashed(text) && hashed(other)) {
            self.text(&what, "definition", text, other);
        } else if text != other
            && self.same_major
            && self.same_encoding
            && self.found.differences.len() == before
        {
            // A fact that differs changes the hash too, and tells more.
            self.differ(format!("{what}: definition differs"));
        }
        let schema = if ours.kind == ObjectKind::Schema { None } else { ours.schema.as_deref() };
        self.privileges(&what, (schema, &ours.name), &ours.acl, &theirs.acl);
    }

    /// Things that are counted, not named; left-out entries may explain a smaller number.
    fn counted(&mut self, what: &str, ours: u64, theirs: u64, descs: &[&str]) {
        if ours == theirs {
            return;
        }
        let line = format!("{what}: {ours}, restored {theirs}");
        let explains = |desc: &str| descs.is_empty() || descs.contains(&desc);
        if theirs < ours && self.options.left_out.iter().any(|entry| explains(&entry.desc)) {
            self.found.notices.push(line);
        } else {
            self.differ(line);
        }
    }
}

fn hangs_on(object: &Object, gone: &Gone<'_>) -> bool {
    match (&object.schema, &object.of) {
        (Some(schema), Some(of)) => gone.contains(&(&**schema, &**of)),
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::inventory::{ObjectKind, Persistence, RelationKind};

    fn column(name: &str, type_name: &str) -> Column {
        Column {
            name: name.into(),
            type_name: type_name.into(),
            not_null: false,
            default: None,
            identity: None,
            generated: None,
            collation: None,
            facts: Facts::new(),
            acl: Vec::new(),
        }
    }

    fn orders() -> Relation {
        Relation {
            schema: "shop".into(),
            name: "orders".into(),
            kind: RelationKind::Table,
            persistence: Persistence::Permanent,
            owner: "app".into(),
            columns: vec![column("id", "bigint"), column("Größe", "text")],
            row_security: false,
            force_row_security: false,
            partition_of: None,
            partition_bound: None,
            options: Vec::new(),
            tablespace: None,
            definition: None,
            facts: Facts::new(),
            acl: vec![AclItem::parse("reader=r/app").unwrap()],
        }
    }

    fn object(kind: ObjectKind, of: Option<&str>, name: &str, definition: &str) -> Object {
        Object {
            kind,
            schema: Some("shop".into()),
            of: of.map(Into::into),
            name: name.into(),
            owner: None,
            definition: Some(definition.into()),
            facts: Facts::new(),
            acl: Vec::new(),
        }
    }

    fn source() -> Inventory {
        let mut inventory = Inventory::empty();
        inventory.relations.push(orders());
        inventory.objects = vec![
            object(ObjectKind::Index, Some("orders"), "orders_pkey", "CREATE UNIQUE INDEX …"),
            object(ObjectKind::Constraint, Some("orders"), "orders_pkey", "PRIMARY KEY (id)"),
            object(ObjectKind::Function, None, "f(integer)", "sha256:00"),
        ];
        inventory.extensions =
            vec![Extension { name: "hstore".into(), version: "1.8".into(), schema: "ext".into() }];
        inventory.settled(["policy_reader".to_owned(), "pg_monitor".to_owned()])
    }

    fn leaving_out(desc: &str, schema: &str, name: &str) -> CompareOptions {
        let left_out = vec![LeftOut::new(desc, schema, name)];
        CompareOptions { left_out, ..CompareOptions::default() }
    }

    #[test]
    fn an_inventory_equals_itself_and_survives_json() {
        let source = source();
        let json = serde_json::to_string(&source).unwrap();
        let back: Inventory = serde_json::from_str(&json).unwrap();
        assert_eq!(source, back);
        assert_eq!(source.compare(&back, &CompareOptions::default()), Comparison::default());
        assert_eq!(source.roles_needed, ["app", "policy_reader", "reader"]);
    }

    #[test]
    fn a_lost_index_and_a_changed_column_are_named() {
        let source = source();
        let mut restored = source.clone();
        restored.objects.retain(|object| object.kind != ObjectKind::Index);
        restored.relations[0].columns[0].type_name = "integer".into();
        restored.relations[0].columns[1].not_null = true;
        assert_eq!(
            source.differences(&restored),
            [
                "column shop.orders.id: type bigint, restored as integer",
                "column shop.orders.\"Größe\": is nullable, restored as not null",
                "index shop.orders_pkey is missing"
            ]
        );
        assert_eq!(
            restored.differences(&source)[2],
            "index shop.orders_pkey is not in the snapshot"
        );
    }

    #[test]
    fn what_hangs_on_a_lost_table_is_not_told_again() {
        let source = source();
        let mut restored = source.clone();
        restored.relations.clear();
        restored.objects.retain(|object| object.of.is_none());
        assert_eq!(source.differences(&restored), ["table shop.orders is missing"]);
        let options = leaving_out("TABLE", "shop", "orders");
        assert_eq!(source.compare(&restored, &options), Comparison::default());
    }

    #[test]
    fn definitions_are_compared_within_one_major_only() {
        let source = source();
        let mut restored = source.clone();
        restored.objects[0].definition = Some("sha256:11".into());
        assert_eq!(source.differences(&restored), ["function shop.f(integer): definition differs"]);
        restored.server_version_num = 170_011;
        assert_eq!(source.differences(&restored), [""; 0]);
        restored.objects[0].facts.insert("volatility".into(), "stable".into());
        assert_eq!(source.differences(&restored).len(), 1);
    }

    #[test]
    fn left_out_entries_are_forgiven_and_nothing_else() {
        let source = source();
        let mut restored = source.clone();
        restored.objects.retain(|object| object.kind == ObjectKind::Function);
        // The tag of a constraint names its table too, and its index goes with it.
        let options = leaving_out("CONSTRAINT", "shop", "orders orders_pkey");
        assert_eq!(source.compare(&restored, &options).differences, [""; 0]);
        let options = leaving_out("CONSTRAINT", "other", "orders orders_pkey");
        assert_eq!(source.compare(&restored, &options).differences.len(), 2);
    }

    #[test]
    fn privileges_may_be_passed_over_roles_skipped_or_by_entry() {
        let source = source();
        let mut restored = source.clone();
        restored.relations[0].acl.clear();
        assert_eq!(
            source.differences(&restored),
            ["table shop.orders: privileges reader=r/app, restored as default"]
        );
        let options = leaving_out("ACL", "shop", "TABLE orders");
        assert_eq!(source.compare(&restored, &options).differences, [""; 0]);
        restored.relations[0].owner = "postgres".into();
        let options = CompareOptions { roles: false, ..CompareOptions::default() };
        assert_eq!(source.compare(&restored, &options).differences, [""; 0]);
    }

    #[test]
    fn versions_of_extensions_and_locales_of_another_server_are_notices() {
        let source = source();
        let mut restored = source.clone();
        restored.extensions[0].version = "1.9".into();
        restored.database.collate = "de_DE".into();
        let options = CompareOptions { locale: false, ..CompareOptions::default() };
        let found = source.compare(&restored, &options);
        assert_eq!(found.differences, [""; 0]);
        assert_eq!(
            found.notices,
            [
                "database: collation order C.UTF-8, restored as de_DE",
                "extension hstore: version 1.8, restored as 1.9"
            ]
        );
        restored.extensions.clear();
        assert!(source.differences(&restored).contains(&"extension hstore is missing".to_owned()));
    }

    #[test]
    fn an_invalid_index_is_not_in_a_dump() {
        let mut source = source();
        source.objects[2].facts.insert("valid".into(), "no".into());
        let mut restored = source.clone();
        restored.objects.truncate(2);
        let found = source.compare(&restored, &CompareOptions::default());
        assert_eq!((found.differences.len(), found.notices.len()), (0, 1), "{found:?}");
    }

    #[test]
    fn lines_stay_lines_and_show_where_long_texts_part() {
        assert_eq!(display_name(Some("s"), "new\nline"), r#"s."new\nline""#);
        assert_eq!(display_name(Some("größe"), "a$1"), "größe.a$1");
        let (long, other) = (format!("{}one", "x".repeat(300)), format!("{}two", "x".repeat(300)));
        let (ours, theirs) = excerpts(&long, &other);
        assert!(ours.starts_with('…') && ours.ends_with("one"), "{ours}");
        assert!(theirs.ends_with("two") && theirs.chars().count() < 110, "{theirs}");
    }
}
