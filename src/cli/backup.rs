//! Backups as people and scripts see them.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::text::{Align, Lines, Table, count, duration, harmless, size, time};
use crate::domain::inventory::{Inventory, RelationKind};
use crate::domain::manifest::Manifest;
use crate::domain::suspect::Suspicion;
use crate::domain::verification::{Check, Depth, Outcome, VerificationRecord};

/// A backup with what is known about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) pinned: bool,
    pub(super) verification: Option<&'a VerificationRecord>,
    /// Unless somebody has adopted it.
    pub(super) suspect: Option<&'a Suspicion>,
    pub(super) foreign: bool,
}

/// Those and what `list` adds.
pub(super) fn list_json(listed: Listed<'_>) -> Json {
    let mut document = listed.manifest.summary();
    document["suspect"] = json!(listed.suspect.map(Suspicion::reason));
    document["foreign"] = listed.foreign.into();
    document["pinned"] = listed.pinned.into();
    document["verified_at"] = json!(listed.verification.map(VerificationRecord::finished_at));
    document["verification"] = json!(listed.verification.map(|record| record.result));
    document["excluded_table_data"] = json!(listed.manifest.excluded_table_data);
    document
}

/// `list` for people.
pub(super) fn list_text(backups: &[Listed<'_>]) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("CLUSTER", Align::Left),
        ("DATABASE", Align::Left),
        ("TRIGGER", Align::Left),
        ("FINISHED", Align::Left),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
        ("VERIFIED", Align::Left),
        ("NOTES", Align::Left),
    ]);
    for listed in backups {
        let manifest = listed.manifest;
        table.row(vec![
            manifest.id.to_string(),
            manifest.cluster.to_string(),
            manifest.database.clone(),
            manifest.trigger.to_string(),
            time(manifest.finished_at),
            size(manifest.source_bytes),
            size(manifest.stored_bytes),
            verified(listed.verification),
            notes(*listed),
        ]);
    }
    table.render()
}

fn verified(record: Option<&VerificationRecord>) -> String {
    match record {
        None => "never".to_owned(),
        Some(record) => match record.result {
            Outcome::Passed => time(record.finished_at()),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Skipped => "skipped".to_owned(),
        },
    }
}

fn notes(listed: Listed<'_>) -> String {
    let mut notes: Vec<String> = Vec::new();
    if let Some(suspect) = listed.suspect {
        notes.push(format!("SUSPECT: {}", suspect.reason()));
    }
    if listed.foreign {
        notes.push("FOREIGN server".to_owned());
    }
    if listed.pinned {
        notes.push("pinned".to_owned());
    }
    if !listed.manifest.excluded_table_data.is_empty() {
        notes.push(format!("without rows of {}", listed.manifest.excluded_table_data.join(", ")));
    }
    notes.extend(listed.manifest.labels.iter().map(|(key, value)| format!("{key}={value}")));
    notes.join("; ")
}

/// What `show` tells of one backup.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) listed: Listed<'a>,
    /// None where this host holds no identity.
    pub(super) inventory: Option<&'a Inventory>,
    pub(super) verifications: &'a [VerificationRecord],
    /// Commands with stock programs.
    pub(super) recovery: &'a [String],
}

/// `show --json`.
pub(super) fn show_json(shown: &Shown<'_>) -> Json {
    let manifest = shown.listed.manifest;
    let mut document = list_json(shown.listed);
    document["host"] = json!(manifest.host);
    document["versions"] = json!(manifest.versions);
    document["system_identifier"] = json!(manifest.system_identifier);
    document["timeline"] = json!(manifest.timeline);
    document["lsn"] = json!(manifest.lsn);
    document["epoch"] = json!(manifest.epoch);
    document["parts"] = json!(manifest.parts);
    document["previous"] = json!(manifest.previous.as_ref().map(|previous| &previous.id));
    document["inventory"] = json!(shown.inventory);
    document["verifications"] = shown.verifications.iter().map(record_json).collect();
    document["recovery"] = json!(shown.recovery);
    document
}

#[derive(Serialize)]
struct RecordDocument<'a> {
    id: &'a str,
    started_at: jiff::Timestamp,
    duration_ms: u64,
    depth: Depth,
    result: Outcome,
    checks: &'a [Check],
    host: &'a str,
    pgkeep: &'a str,
}

fn record_json(record: &VerificationRecord) -> Json {
    json!(RecordDocument {
        id: record.id.as_str(),
        started_at: record.started_at,
        duration_ms: record.duration_ms,
        depth: record.depth,
        result: record.result,
        checks: &record.checks,
        host: &record.host,
        pgkeep: &record.pgkeep,
    })
}

/// `show` for people.
pub(super) fn show_text(shown: &Shown<'_>) -> String {
    let manifest = shown.listed.manifest;
    let mut text = Lines::default();
    text.fact("id", manifest.id.as_str());
    text.fact("database", &format!("{} of cluster {}", manifest.database, manifest.cluster));
    text.fact("trigger", manifest.trigger.as_str());
    let took = duration(manifest.duration_ms());
    text.fact("finished", &format!("{} after {took}", time(manifest.finished_at)));
    let (total, new) = (count(manifest.chunks_total), count(manifest.chunks_new));
    let size_all = size(manifest.source_bytes);
    text.fact("size", &format!("{size_all}, {total} chunks, {new} of them new"));
    text.fact("stored", &size(manifest.stored_bytes));
    text.fact("server", &format!("PostgreSQL {}", manifest.versions.server_version));
    text.fact("made by", &format!("pgkeep {} on {}", manifest.versions.pgkeep, manifest.host));
    if let Some(previous) = &manifest.previous {
        text.fact("predecessor", previous.id.as_str());
    }
    let notes = notes(shown.listed);
    if !notes.is_empty() {
        text.fact("notes", &notes);
    }
    let listed = shown.listed;
    if listed.suspect.is_some() || listed.foreign {
        text.fact("if right", &format!("pgkeep adopt {}", manifest.id));
    }
    match shown.inventory {
        Some(inventory) => text.block(&inventory_text(inventory)),
        None => text.block("\nWhat is in it can be told only where an identity is at hand.\n"),
    }
    text.block(&verifications_text(shown.verifications));
    if !shown.recovery.is_empty() {
        text.block("\nRecovery with age, zstd, jq, minisign and PostgreSQL's own programs:\n");
        for line in shown.recovery {
            text.line(&format!("  {}", harmless(line)));
        }
    }
    text.into_text()
}

fn inventory_text(inventory: &Inventory) -> String {
    let of_kind = |kind| inventory.relations.iter().filter(|r| r.kind == kind).count();
    let mut facts = vec![
        format!("{} tables", inventory.tables().count()),
        format!("{} rows", count(inventory.rows_total())),
    ];
    for (kind, name) in [
        (RelationKind::View, "views"),
        (RelationKind::MaterializedView, "materialized views"),
        (RelationKind::ForeignTable, "foreign tables"),
        (RelationKind::Sequence, "sequences"),
    ] {
        if of_kind(kind) > 0 {
            facts.push(format!("{} {name}", of_kind(kind)));
        }
    }
    if inventory.large_objects > 0 {
        facts.push(format!("{} large objects", count(inventory.large_objects)));
    }
    for extension in &inventory.extensions {
        facts.push(format!("extension {} {}", extension.name, extension.version));
    }
    let mut text = format!("{:<14}{}\n", "holds", harmless(&facts.join(", ")));
    if inventory.rows.is_empty() {
        return text;
    }
    let mut table = Table::new(&[("TABLE", Align::Left), ("ROWS", Align::Right)]);
    for rows in &inventory.rows {
        table.row(vec![format!("{}.{}", rows.schema, rows.name), count(rows.rows)]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

fn verifications_text(records: &[VerificationRecord]) -> String {
    if records.is_empty() {
        return "\nNever verified.\n".to_owned();
    }
    let mut table = Table::new(&[
        ("VERIFIED", Align::Left),
        ("DEPTH", Align::Left),
        ("RESULT", Align::Left),
        ("TOOK", Align::Right),
        ("HOST", Align::Left),
    ]);
    for record in records {
        table.row(vec![
            time(record.finished_at()),
            match record.depth {
                Depth::Counts => "counts".to_owned(),
                Depth::Full => "full".to_owned(),
            },
            outcome(record.result).to_owned(),
            duration(record.duration_ms),
            record.host.clone(),
        ]);
    }
    format!("\n{}", table.render())
}

/// The word for an outcome.
pub(super) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    }
}

/// The line that `snapshot` prints for people.
pub(super) fn snapshot_text(manifest: &Manifest) -> String {
    harmless(&format!(
        "{}  {}  {} in {}, {} stored ({} of {} chunks new)",
        manifest.id,
        manifest.database,
        size(manifest.source_bytes),
        duration(manifest.duration_ms()),
        size(manifest.stored_bytes),
        count(manifest.chunks_new),
        count(manifest.chunks_total),
    ))
}

/// Checks for people, one a line, indented.
pub(super) fn checks_text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        format!("  {:<12} {:<8} {}", check.name, outcome(check.result), harmless(&check.detail))
    };
    checks.iter().map(|check| line(check).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A manifest with known figures.
    pub(in crate::cli) fn manifest() -> Manifest {
        serde_json::from_value(json!({
            "format": 1,
            "id": "20261121T020000Z-5f3a9c21",
            "kind": "snapshot",
            "cluster": "main",
            "database": "shop",
            "trigger": "manual",
            "started_at": "2026-11-21T02:00:00.25Z",
            "finished_at": "2026-11-21T02:00:03.75Z",
            "host": "db1",
            "labels": {"ticket": "12"},
            "versions": {
                "server_version_num": 150_018, "server_version": "15.18",
                "pg_dump": "pg_dump (PostgreSQL) 15.18", "pgkeep": "0.1.0",
            },
            "system_identifier": "7300000000000000000",
            "timeline": 1,
            "lsn": "0/16B3748",
            "epoch": "0badcafe",
            "excluded_table_data": ["audit.*"],
            "source_bytes": 5_000_000,
            "stored_bytes": 1_200_000,
            "chunks_total": 5,
            "chunks_new": 4,
            "parts": [],
            "chunk_list": {"size_bytes": 1, "blake3": "00"},
            "previous": null,
            "sealed": "",
        }))
        .expect("a manifest")
    }

    fn record() -> VerificationRecord {
        VerificationRecord {
            format: 1,
            id: "20261121T030000Z-00000001".parse().expect("an id"),
            backup: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            manifest_blake3: String::new(),
            started_at: "2026-11-21T03:00:00Z".parse().expect("a time"),
            duration_ms: 61_000,
            depth: Depth::Full,
            result: Outcome::Passed,
            checks: vec![Check::passed("row-counts", "3 tables, 4,200 rows")],
            host: "db2".to_owned(),
            pgkeep: "0.1.0".to_owned(),
        }
    }

    fn keys(document: &Json) -> Vec<&str> {
        document.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn snapshot_and_list_have_the_keys_of_the_contract() {
        let manifest = manifest();
        let record = record();
        let snapshot = manifest.summary();
        insta::assert_snapshot!(keys(&snapshot).join(" "), @"chunks_new chunks_total cluster database duration_ms finished_at foreign id kind labels source_bytes started_at stored_bytes suspect trigger");
        let listed = Listed {
            manifest: &manifest,
            pinned: true,
            verification: Some(&record),
            suspect: None,
            foreign: false,
        };
        let list = list_json(listed);
        for key in keys(&snapshot) {
            assert_eq!(list[key], snapshot[key], "{key}");
        }
        assert_eq!(list["pinned"], true);
        assert_eq!(list["verification"], "passed");
        assert_eq!(list["verified_at"], "2026-11-21T03:01:01Z");
        assert_eq!(list["duration_ms"], 3500);
        let never = list_json(Listed { verification: None, ..listed });
        assert!(never["verified_at"].is_null() && never["verification"].is_null());
    }

    #[test]
    fn a_list_is_a_compact_table() {
        let manifest = manifest();
        let suspect = Suspicion {
            against: "20261120T020000Z-00000001".parse().expect("an id"),
            rows_before: 6000,
            rows: 10,
            tables: Vec::new(),
        };
        let listed = Listed {
            manifest: &manifest,
            pinned: true,
            verification: None,
            suspect: None,
            foreign: false,
        };
        let doubted = Listed { suspect: Some(&suspect), foreign: true, ..listed };
        assert_eq!(
            notes(doubted),
            "SUSPECT: 10 rows, and backup 20261120T020000Z-00000001 held 6000; FOREIGN server; pinned; \
             without rows of audit.*; ticket=12"
        );
        assert_eq!(list_json(doubted)["suspect"], suspect.reason());
        assert_eq!(list_json(doubted)["foreign"], true);
        assert!(list_json(listed)["suspect"].is_null());
        insta::assert_snapshot!(list_text(&[listed]), @r"
        ID                         CLUSTER  DATABASE  TRIGGER  FINISHED                 SIZE   STORED  VERIFIED  NOTES
        20261121T020000Z-5f3a9c21  main     shop      manual   2026-11-21 02:00:03Z  4.8 MiB  1.1 MiB  never     pinned; without rows of audit.*; ticket=12
        ");
    }

    #[test]
    fn one_backup_is_shown_with_its_verifications() {
        let manifest = manifest();
        let records = [record()];
        let shown = Shown {
            listed: Listed {
                manifest: &manifest,
                pinned: false,
                verification: records.last(),
                suspect: None,
                foreign: false,
            },
            inventory: None,
            verifications: &records,
            recovery: &["sh RECOVER".to_owned()],
        };
        insta::assert_snapshot!(show_text(&shown), @r"
        id            20261121T020000Z-5f3a9c21
        database      shop of cluster main
        trigger       manual
        finished      2026-11-21 02:00:03Z after 3.5 s
        size          4.8 MiB, 5 chunks, 4 of them new
        stored        1.1 MiB
        server        PostgreSQL 15.18
        made by       pgkeep 0.1.0 on db1
        notes         without rows of audit.*; ticket=12

        What is in it can be told only where an identity is at hand.

        VERIFIED              DEPTH  RESULT        TOOK  HOST
        2026-11-21 03:01:01Z  full   passed  1 min 01 s  db2

        Recovery with age, zstd, jq, minisign and PostgreSQL's own programs:
          sh RECOVER
        ");
        assert_eq!(show_json(&shown)["verifications"][0]["depth"], "full");
    }
}
