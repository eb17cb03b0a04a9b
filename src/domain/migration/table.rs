//! Which tool a table belongs to. Names such as `schema_migrations` and `migrations` are several tools' own, so the
//! columns decide, whatever schema the table is in and however its name is written.

use super::{Definition, Tool, tools};

/// A column and its type, as `format_type` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Such as `character varying(255)`.
    pub kind: String,
}

/// A table that may hold a tool's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name, as it is.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

impl Table {
    fn is_of(&self, definition: &Definition) -> bool {
        let named = definition.tables.iter().any(|name| self.name.eq_ignore_ascii_case(name));
        let has = |(name, kind): &(&str, &str)| {
            self.columns.iter().any(|own| {
                own.name.eq_ignore_ascii_case(name) && (kind.is_empty() || own.kind == *kind)
            })
        };
        (named || !definition.only_named)
            && (!definition.exact || self.columns.len() == definition.columns.len())
            && definition.columns.iter().all(has)
    }
}

/// The tool that made such a table.
pub fn recognise(table: &Table) -> Option<Tool> {
    let found = tools::ALL.iter().find(|definition| table.is_of(definition));
    found.map(|definition| definition.tool)
}

/// By these a table is worth a look: usual names in lower case, and first columns of those that may have any name.
pub fn marks() -> (Vec<String>, Vec<&'static str>) {
    let names = tools::ALL.iter().flat_map(|definition| definition.tables);
    let names = names.map(|name| name.to_lowercase());
    let any_name = tools::ALL.iter().filter(|definition| !definition.only_named);
    (names.collect(), any_name.map(|definition| definition.columns[0].0).collect())
}
