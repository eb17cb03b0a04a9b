//! What objects are called: in lines for people, and in the list of `pg_restore`.

use super::{Object, ObjectKind, RelationKind};

/// The key that tells an object from every other.
pub(super) fn object_key(object: &Object) -> (ObjectKind, Option<&str>, Option<&str>, &str) {
    (object.kind, object.schema.as_deref(), object.of.as_deref(), &object.name)
}

/// A name as a person reads it: quoted only where PostgreSQL would need it, never over two lines.
pub fn display_name(schema: Option<&str>, name: &str) -> String {
    let quoted = |name: &str| {
        let first = |c: char| c.is_lowercase() || c == '_';
        let rest = |c: char| c.is_lowercase() || c.is_ascii_digit() || c == '_' || c == '$';
        if name.starts_with(first) && name.chars().all(rest) {
            name.to_owned()
        } else {
            format!("\"{}\"", one_line(&name.replace('"', "\"\"")))
        }
    };
    schema.map_or_else(|| quoted(name), |schema| format!("{}.{}", quoted(schema), quoted(name)))
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// What an object is called in a line: kind, schema, name, and what it hangs on.
pub(super) fn told(object: &Object) -> String {
    let (kind, schema) = (object.kind.label(), object.schema.as_deref());
    // Names with argument types or clauses are already text, and quoting the whole would mislead.
    let plain = |name: &str| match schema {
        Some(schema) => format!("{}.{}", display_name(None, schema), one_line(name)),
        None => one_line(name),
    };
    match object.kind {
        ObjectKind::Function
        | ObjectKind::Procedure
        | ObjectKind::Aggregate
        | ObjectKind::Operator
        | ObjectKind::OperatorClass
        | ObjectKind::OperatorFamily
        | ObjectKind::Cast
        | ObjectKind::Transform
        | ObjectKind::UserMapping => format!("{kind} {}", plain(&object.name)),
        ObjectKind::DefaultPrivileges => match schema {
            Some(schema) => {
                format!("{kind} {} in schema {}", object.name, display_name(None, schema))
            }
            None => format!("{kind} {}", one_line(&object.name)),
        },
        ObjectKind::Index => format!("{kind} {}", display_name(schema, &object.name)),
        _ => match &object.of {
            Some(of) => {
                format!(
                    "{kind} {} of {}",
                    display_name(None, &object.name),
                    display_name(schema, of)
                )
            }
            None => format!("{kind} {}", display_name(schema, &object.name)),
        },
    }
}

/// The words that `pg_restore` lists an object under, and the tags it may have there.
pub(super) fn entries(object: &Object) -> (&'static [&'static str], Vec<String>) {
    let descs: &'static [&'static str] = match object.kind {
        ObjectKind::Schema => &["SCHEMA"],
        ObjectKind::Language => &["PROCEDURAL LANGUAGE"],
        ObjectKind::AccessMethod => &["ACCESS METHOD"],
        ObjectKind::Type => &["TYPE", "SHELL TYPE"],
        ObjectKind::Domain => &["DOMAIN"],
        ObjectKind::Function => &["FUNCTION"],
        ObjectKind::Procedure => &["PROCEDURE"],
        ObjectKind::Aggregate => &["AGGREGATE"],
        ObjectKind::Operator => &["OPERATOR"],
        ObjectKind::OperatorFamily => &["OPERATOR FAMILY"],
        ObjectKind::OperatorClass => &["OPERATOR CLASS"],
        ObjectKind::Cast => &["CAST"],
        ObjectKind::Transform => &["TRANSFORM"],
        ObjectKind::Collation => &["COLLATION"],
        ObjectKind::Conversion => &["CONVERSION"],
        ObjectKind::TextSearchParser => &["TEXT SEARCH PARSER"],
        ObjectKind::TextSearchTemplate => &["TEXT SEARCH TEMPLATE"],
        ObjectKind::TextSearchDictionary => &["TEXT SEARCH DICTIONARY"],
        ObjectKind::TextSearchConfiguration => &["TEXT SEARCH CONFIGURATION"],
        ObjectKind::ForeignDataWrapper => &["FOREIGN DATA WRAPPER"],
        ObjectKind::ForeignServer => &["SERVER"],
        ObjectKind::UserMapping => &["USER MAPPING"],
        ObjectKind::Constraint => &["CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT"],
        // The index of a primary key or unique constraint comes and goes with the constraint.
        ObjectKind::Index => &["INDEX", "CONSTRAINT"],
        ObjectKind::Statistics => &["STATISTICS"],
        ObjectKind::Rule => &["RULE"],
        ObjectKind::Trigger => &["TRIGGER"],
        ObjectKind::Policy => &["POLICY"],
        ObjectKind::EventTrigger => &["EVENT TRIGGER"],
        ObjectKind::Publication => &["PUBLICATION"],
        ObjectKind::Subscription => &["SUBSCRIPTION"],
        ObjectKind::DefaultPrivileges => &["DEFAULT ACL"],
    };
    let mut tags = vec![object.name.clone()];
    match (object.kind, &object.of) {
        (ObjectKind::Cast, _) => tags.push(format!("CAST {}", object.name)),
        (ObjectKind::UserMapping, _) => tags.push(format!("USER MAPPING {}", object.name)),
        (ObjectKind::Transform, _) => tags.push(format!("TRANSFORM {}", object.name)),
        (ObjectKind::Operator, _) => {
            tags.extend(object.name.split_once('(').map(|(name, _)| name.to_owned()));
        }
        (ObjectKind::OperatorClass | ObjectKind::OperatorFamily, _) => {
            tags.extend(object.name.split_once(" using ").map(|(name, _)| name.to_owned()));
        }
        (ObjectKind::DefaultPrivileges, _) => {
            let (what, _) = object.name.split_once(" created by ").unwrap_or((&object.name, ""));
            tags.push(format!("DEFAULT PRIVILEGES FOR {}", what.to_uppercase()));
        }
        (_, Some(of)) => tags.push(format!("{of} {}", object.name)),
        _ => {}
    }
    (descs, tags)
}

pub(super) fn relation_descs(kind: RelationKind) -> &'static [&'static str] {
    match kind {
        RelationKind::Table | RelationKind::PartitionedTable => &["TABLE"],
        RelationKind::View => &["VIEW"],
        RelationKind::MaterializedView => &["MATERIALIZED VIEW"],
        RelationKind::ForeignTable => &["FOREIGN TABLE"],
        RelationKind::Sequence => &["SEQUENCE"],
    }
}

/// Items as one text.
pub(super) fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// Both texts on one line each; long ones from shortly before the place where they part.
pub(super) fn excerpts(ours: &str, theirs: &str) -> (String, String) {
    const LONGEST: usize = 100;
    const BEFORE: usize = 20;
    let common = ours.chars().zip(theirs.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| {
        let length = text.chars().count();
        if length <= LONGEST {
            return one_line(text);
        }
        let from = common.saturating_sub(BEFORE).min(length.saturating_sub(LONGEST));
        let middle: String = text.chars().skip(from).take(LONGEST).collect();
        let (head, tail) =
            (if from > 0 { "…" } else { "" }, if from + LONGEST < length { "…" } else { "" });
        format!("{head}{}{tail}", one_line(&middle))
    };
    (cut(ours), cut(theirs))
}
