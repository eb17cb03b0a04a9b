//! `docs/repository-format.md` names every key that is written, and no other: the documents' types are read in the
//! sources, and the documents themselves in the repository of `tests/fixtures`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A heading of the page; the document that it tells of; the documents within that one. A type is `file:Name`.
const DOCUMENTS: &[(&str, &str, &[&str])] = &[
    (
        "pgkeep-repository.json",
        "repo/documents.rs:RepositoryDocument",
        &["codec/cut.rs:ChunkParams"],
    ),
    ("keys/&lt;epoch&gt;.json", "repo/documents.rs:EpochDocument", &[]),
    ("keys/&lt;epoch&gt;/&lt;id&gt;.json", "repo/documents.rs:ConfirmationDocument", &[]),
    (
        "Manifest (`<id>.json`)",
        "domain/manifest.rs:Manifest",
        &[
            "domain/manifest.rs:Part",
            "domain/manifest.rs:ChunkListRef",
            "domain/manifest.rs:Versions",
            "domain/manifest.rs:Previous",
            "domain/suspect.rs:RowFigures",
            "domain/suspect.rs:TableFigure",
            "domain/suspect.rs:Suspicion",
            "domain/suspect.rs:TableFall",
        ],
    ),
    (
        "Inventory",
        "domain/inventory.rs:Inventory",
        &[
            "domain/inventory.rs:DatabaseFacts",
            "domain/inventory.rs:DatabaseSettings",
            "domain/inventory.rs:Relation",
            "domain/inventory.rs:Column",
            "domain/inventory.rs:Object",
            "domain/inventory.rs:Extension",
            "domain/inventory.rs:ExtensionTable",
            "domain/inventory.rs:TableCount",
            "domain/inventory.rs:SequenceValue",
            "domain/inventory/acl.rs:AclItem",
        ],
    ),
    (
        "Verification record",
        "domain/verification.rs:VerificationRecord",
        &["domain/verification.rs:Check"],
    ),
    ("Adoption", "domain/adoption.rs:Adoption", &[]),
    (
        "Event",
        "domain/audit.rs:Event",
        &[
            "domain/audit.rs:RemovedBackup",
            "domain/migration/record.rs:MigrationRecord",
            "domain/migration/record.rs:SnapshotDecision",
            "domain/migration/record.rs:CommandEnd",
            "domain/migration/record.rs:Warning",
            "domain/migration/earlier.rs:Earlier",
            "domain/migration/mod.rs:State",
            "domain/migration/mod.rs:Failed",
            "domain/verification.rs:Check",
        ],
    ),
    // No table: each of them is one line.
    (
        "Intents and condemned lists",
        "",
        &[
            "repo/documents.rs:IntentDocument",
            "repo/documents.rs:RenewalDocument",
            "repo/documents.rs:CondemnedDocument",
            "repo/documents.rs:CondemnedBackup",
        ],
    ),
];

/// What an object of the fixture is, by a part of its name; the first that fits.
const OBJECTS: &[(&str, &str)] = &[
    ("pgkeep-repository.json", "pgkeep-repository.json"),
    ("keys/0badcafe/", "keys/&lt;epoch&gt;/&lt;id&gt;.json"),
    ("keys/", "keys/&lt;epoch&gt;.json"),
    ("/snapshots/", "Manifest (`<id>.json`)"),
    ("/verifications/", "Verification record"),
    ("/marks/", "Adoption"),
    ("/events/", "Event"),
    ("intents/", "Intents and condemned lists"),
    ("inventory.json", "Inventory"),
];

/// Below these keys stand names of the operator or of PostgreSQL.
const FREE: &[&str] = &["labels", "settings", "facts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands under a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let begin = format!("\n## {heading}\n");
    let at = page.find(&begin).unwrap_or_else(|| panic!("the page has no section `{heading}`"));
    let rest = &page[at + begin.len()..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

fn is_named(section: &str, key: &str) -> bool {
    section.contains(&format!("`{key}`")) || section.contains(&format!("\"{key}\""))
}

/// The keys of a type, as serde writes them: its fields, or those of its variants.
fn fields(of: &str) -> BTreeSet<String> {
    let (file, name) = of.split_once(':').expect("file:Name");
    let source = read(Path::new("src").join(file));
    let begins = |line: &&str| {
        ["pub struct ", "pub enum "].iter().any(|word| {
            line.strip_prefix(word).is_some_and(|rest| rest.starts_with(&format!("{name} {{")))
        })
    };
    let mut lines = source.lines().skip_while(|line| !begins(line));
    assert!(lines.next().is_some(), "no `{name}` in {file}");
    let mut renamed = None;
    let mut keys = BTreeSet::new();
    for line in lines.take_while(|line| *line != "}") {
        let line = line.trim();
        if let Some((_, rest)) = line.split_once("#[serde(rename = \"") {
            renamed = rest.split('"').next().map(str::to_owned);
        }
        let field = line.strip_prefix("pub ").unwrap_or(line).split_once(": ");
        if let Some((field, _)) = field
            && field
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            keys.insert(renamed.take().unwrap_or_else(|| field.to_owned()));
        }
    }
    assert!(!keys.is_empty(), "`{name}` has no field");
    keys
}

/// The keys that the first column of a section's table names.
fn rows(section: &str) -> BTreeSet<String> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let keys = cells.flat_map(|cell| cell.split("`, `"));
    keys.map(|key| key.trim_end_matches('`').to_owned()).collect()
}

/// Every key within a document, but for names that are not ours.
fn keys_within(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| keys_within(one, found)),
        Value::Object(all) => {
            for (key, value) in all {
                found.insert(key.clone());
                if !(FREE.contains(&&**key) && value.is_object()) {
                    keys_within(value, found);
                }
            }
        }
        _ => {}
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it can be read").flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn the_format_page_names_the_keys_of_every_document_and_no_others() {
    let page = read("docs/repository-format.md");
    for (heading, document, within) in DOCUMENTS {
        let section = section(&page, heading);
        if !document.is_empty() {
            assert_eq!(rows(section), fields(document), "`{heading}` and {document}");
        }
        for of in *within {
            let missing: Vec<_> =
                fields(of).into_iter().filter(|key| !is_named(section, key)).collect();
            assert!(missing.is_empty(), "`{heading}` does not name {missing:?} of {of}");
        }
    }
}

#[test]
fn the_format_page_names_every_key_that_a_repository_holds() {
    let page = read("docs/repository-format.md");
    let fixture = root().join("tests/fixtures/repository-1");
    let mut all = Vec::new();
    files(&fixture, &mut all);
    let mut told = BTreeSet::new();
    for path in &all {
        let bytes = fs::read(path).expect("it can be read");
        let Ok(document @ Value::Object(_)) = serde_json::from_slice(&bytes) else { continue };
        let name = path.strip_prefix(&fixture).expect("below it").display().to_string();
        let found = OBJECTS.iter().find(|(part, _)| name.contains(part));
        let (part, heading) = found.unwrap_or_else(|| panic!("nobody knows what {name} is"));
        told.insert(part);
        let section = section(&page, heading);
        let mut keys = BTreeSet::new();
        keys_within(&document, &mut keys);
        keys.retain(|key| !is_named(section, key));
        assert!(keys.is_empty(), "`{heading}` does not name {keys:?} of {name}");
    }
    assert_eq!(told.len(), OBJECTS.len(), "{told:?}");
}

#[test]
fn the_format_page_names_every_line_of_a_recovery_kit() {
    let page = read("docs/repository-format.md");
    let section = section(&page, "Key files on hosts");
    let kit = read("tests/fixtures/repository-1/recovery-kit.txt");
    let comments = kit.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(": "));
    let names: BTreeSet<&str> = comments.map(|(name, _)| name).collect();
    assert!(names.len() > 2, "{names:?}");
    for name in names {
        assert!(section.contains(&format!("`# {name}: ")), "`# {name}: ` is not told");
    }
}
