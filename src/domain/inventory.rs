//! What a database holds, object by object: the sealed part of a snapshot's manifest.
//!
//! An inventory is read twice: from the source, inside the session that exported the dump's snapshot, and
//! from the scratch database that the dump was restored into. [`Inventory::compare`] names what differs.
//! Only what `pg_dump` dumps is listed, so that an honest restore shows no difference: system schemas,
//! members of extensions, and objects that another object brings along (array types, cloned triggers,
//! indexes of TOAST tables) are left out.
//!
//! Invariants: every list is sorted by its key and free of duplicates, so that two inventories of one
//! state are equal; text that PostgreSQL deparses (`definition`) is compared only between servers of one
//! major version, since its wording changes between majors, while names, kinds, types, owners, labels and
//! the other facts are compared always.

mod acl;
mod compare;
mod names;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use acl::{AclError, AclItem};
pub use compare::{CompareOptions, Comparison, LeftOut};
pub use names::display_name;

/// The version of this document that this pgkeep writes.
pub const INVENTORY_FORMAT: u32 = 1;

/// Named facts of an object; a fact that has its default value is absent.
pub type Facts = BTreeMap<String, String>;

/// What one database holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// [`INVENTORY_FORMAT`] of the writer.
    pub format: u32,
    /// `server_version_num` of the server it was read from, such as 150018.
    pub server_version_num: u32,
    /// What belongs to the database as a whole.
    pub database: DatabaseFacts,
    /// Tables, views, sequences and their like.
    pub relations: Vec<Relation>,
    /// Everything else that has a name.
    pub objects: Vec<Object>,
    /// Installed extensions.
    pub extensions: Vec<Extension>,
    /// Tables of extensions whose rows a dump holds; a restored one may hold more rows of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extension_tables: Vec<ExtensionTable>,
    /// Comments on objects that a dump holds, columns and large objects included.
    pub comments: u64,
    /// Number of large objects.
    pub large_objects: u64,
    /// Roles that statements of the dump name: owners, grantors and grantees, policies, default
    /// privileges, user mappings. Predefined roles (`pg_…`) and the database's own owner are not among them.
    pub roles_needed: Vec<String>,
    /// Settings of the server that differ from its built-in defaults, as far as the role may see them.
    pub settings: BTreeMap<String, String>,
    /// Exact row counts of the dumped tables, taken from the dump itself.
    #[serde(default)]
    pub rows: Vec<TableCount>,
    /// Sequence values as dumped: sequences ignore snapshots, so the archive is the only truth.
    #[serde(default)]
    pub sequences: Vec<SequenceValue>,
}

#[cfg(test)]
impl Inventory {
    /// An inventory of an empty database on PostgreSQL 15.
    pub(crate) fn empty() -> Self {
        Self {
            format: INVENTORY_FORMAT,
            server_version_num: 150_018,
            database: DatabaseFacts {
                name: "shop".into(),
                owner: "app".into(),
                encoding: "UTF8".into(),
                locale_provider: "libc".into(),
                collate: "C.UTF-8".into(),
                ctype: "C.UTF-8".into(),
                icu_locale: None,
                icu_rules: None,
                lc_monetary: "C".into(),
                tablespace: "pg_default".into(),
                connection_limit: -1,
                is_template: false,
                comment: None,
                acl: Vec::new(),
                settings: Vec::new(),
            },
            relations: Vec::new(),
            objects: Vec::new(),
            extensions: Vec::new(),
            extension_tables: Vec::new(),
            comments: 0,
            large_objects: 0,
            roles_needed: Vec::new(),
            settings: BTreeMap::new(),
            rows: Vec::new(),
            sequences: Vec::new(),
        }
    }
}

/// What belongs to the database as a whole; `pg_dump` without `--create` holds none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name at the source.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Server encoding, such as `UTF8`.
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Locale of the `icu` or `builtin` provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_locale: Option<String>,
    /// Collation rules added to the ICU locale (PostgreSQL 16 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// `lc_monetary` of a new session: what values of type `money` were printed with.
    pub lc_monetary: String,
    /// Default tablespace.
    pub tablespace: String,
    /// Limit of connections; -1 is none.
    pub connection_limit: i32,
    /// Whether it may serve as a template for everybody.
    pub is_template: bool,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Privileges, empty when they are the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AclItem>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<DatabaseSettings>,
}

/// Settings that sessions in one database begin with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatabaseSettings {
    /// For sessions of this role only; of every role when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `name=value`, as `pg_db_role_setting` keeps them.
    pub settings: Vec<String>,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelationKind {
    /// An ordinary table; it may also be a partition ([`Relation::partition_of`]).
    Table,
    /// A partitioned table, which holds no rows of its own.
    PartitionedTable,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
    /// A sequence.
    Sequence,
}

impl RelationKind {
    /// PostgreSQL's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::PartitionedTable => "partitioned table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
            Self::Sequence => "sequence",
        }
    }
}

/// How long a relation's content lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persistence {
    /// Written to WAL.
    #[default]
    Permanent,
    /// Not written to WAL, empty after a crash.
    Unlogged,
}

impl Persistence {
    /// PostgreSQL's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Unlogged => "unlogged",
        }
    }
}

/// A table, a view, a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Permanent or unlogged.
    #[serde(default)]
    pub persistence: Persistence,
    /// Its owner.
    pub owner: String,
    /// Columns in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// Whether row security is enabled.
    #[serde(default, skip_serializing_if = "is_false")]
    pub row_security: bool,
    /// Whether row security binds the owner too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force_row_security: bool,
    /// The partitioned table it is a partition of, as `schema.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_of: Option<String>,
    /// Its bound, deparsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_bound: Option<String>,
    /// Storage parameters, sorted, those of its TOAST table with the prefix `toast.`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Its tablespace when it is not the database's; not compared, since restores may flatten tablespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<String>,
    /// The query of a view, the key of a partitioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Access method, replica identity, inheritance, sequence parameters, foreign server and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: Facts,
    /// Privileges, empty when they are the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AclItem>,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as `format_type` writes it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether it refuses nulls.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_null: bool,
    /// Default or generation expression, deparsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// `always` or `by default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// `stored` or `virtual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// Its collation when it is not that of its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// Storage, compression, statistics target, options where they are not the default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: Facts,
    /// Privileges on this column alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AclItem>,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each variant is PostgreSQL's own word, see `label`")]
pub enum ObjectKind {
    Schema,
    Language,
    AccessMethod,
    Type,
    Domain,
    Function,
    Procedure,
    Aggregate,
    Operator,
    OperatorFamily,
    OperatorClass,
    Cast,
    Transform,
    Collation,
    Conversion,
    TextSearchParser,
    TextSearchTemplate,
    TextSearchDictionary,
    TextSearchConfiguration,
    ForeignDataWrapper,
    ForeignServer,
    UserMapping,
    Constraint,
    Index,
    Statistics,
    Rule,
    Trigger,
    Policy,
    EventTrigger,
    Publication,
    Subscription,
    DefaultPrivileges,
}

impl ObjectKind {
    /// PostgreSQL's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Language => "language",
            Self::AccessMethod => "access method",
            Self::Type => "type",
            Self::Domain => "domain",
            Self::Function => "function",
            Self::Procedure => "procedure",
            Self::Aggregate => "aggregate",
            Self::Operator => "operator",
            Self::OperatorFamily => "operator family",
            Self::OperatorClass => "operator class",
            Self::Cast => "cast",
            Self::Transform => "transform",
            Self::Collation => "collation",
            Self::Conversion => "conversion",
            Self::TextSearchParser => "text search parser",
            Self::TextSearchTemplate => "text search template",
            Self::TextSearchDictionary => "text search dictionary",
            Self::TextSearchConfiguration => "text search configuration",
            Self::ForeignDataWrapper => "foreign-data wrapper",
            Self::ForeignServer => "foreign server",
            Self::UserMapping => "user mapping",
            Self::Constraint => "constraint",
            Self::Index => "index",
            Self::Statistics => "statistics object",
            Self::Rule => "rule",
            Self::Trigger => "trigger",
            Self::Policy => "policy",
            Self::EventTrigger => "event trigger",
            Self::Publication => "publication",
            Self::Subscription => "subscription",
            Self::DefaultPrivileges => "default privileges",
        }
    }
}

/// A named object that is no relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Its schema, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The relation or domain of the same schema that it hangs on: of an index, a constraint, a trigger, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Its name; with the types of its arguments where those tell it apart.
    pub name: String,
    /// Its owner, where it has one of its own; absent for the schema `public` with its initial owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Deparsed text, or its SHA-256 for functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// What can be compared between any two versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: Facts,
    /// Privileges, empty when they are the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AclItem>,
}

/// The extension that a server takes into one database of a certain name alone, and whose rows are jobs.
pub const PG_CRON: &str = "pg_cron";

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The installed version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
}

/// A table that belongs to an extension and whose rows are dumped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExtensionTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The extension.
    pub extension: String,
    /// `WHERE …` that picks the dumped rows; empty means all.
    pub condition: String,
}

/// The exact number of rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableCount {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
}

/// Where a sequence stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SequenceValue {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The last value given out, or the first to be.
    pub last_value: i64,
    /// Whether `last_value` was given out.
    pub is_called: bool,
}

impl Inventory {
    /// The major version of the server, such as 15.
    pub const fn major(&self) -> u32 {
        self.server_version_num / 10_000
    }

    /// The objects of one kind.
    pub fn objects_of(&self, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    /// Tables that hold rows or partitions: what a reader calls the tables of the database.
    pub fn tables(&self) -> impl Iterator<Item = &Relation> {
        let table = |kind| matches!(kind, RelationKind::Table | RelationKind::PartitionedTable);
        self.relations.iter().filter(move |relation| table(relation.kind))
    }

    /// The sum of all row counts.
    pub fn rows_total(&self) -> u64 {
        self.rows.iter().map(|table| table.rows).sum()
    }

    /// Sorts every list, and fills `roles_needed` with the roles of owners and privileges and with `also`.
    ///
    /// Whoever builds an inventory ends with this call: it establishes the module's invariant.
    #[must_use]
    pub fn settled(mut self, also: impl IntoIterator<Item = String>) -> Self {
        self.relations.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        self.objects.sort_by(|a, b| names::object_key(a).cmp(&names::object_key(b)));
        self.extensions.sort();
        self.extension_tables.sort();
        self.rows.sort();
        self.sequences.sort();
        let mut roles: BTreeSet<String> = also.into_iter().collect();
        for relation in &self.relations {
            roles.insert(relation.owner.clone());
            let columns = relation.columns.iter().flat_map(|column| &column.acl);
            roles.extend(relation.acl.iter().chain(columns).flat_map(AclItem::roles));
        }
        for object in &self.objects {
            roles.extend(object.owner.clone());
            roles.extend(object.acl.iter().flat_map(AclItem::roles));
        }
        // Predefined roles exist everywhere and nobody can create them.
        roles.retain(|role| !role.is_empty() && !role.starts_with("pg_"));
        self.roles_needed = roles.into_iter().collect();
        self
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}
