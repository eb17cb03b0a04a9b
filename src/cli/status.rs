//! `status`: one row for each database, then what somebody has to look at.

use std::collections::BTreeMap;

use futures::future::join_all;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::args::Status as Args;
use super::context::Context;
use super::progress::Progress;
use super::run::Ended;
use super::text::{Align, Lines, Table, ago, duration, harmless, size};
use super::verbs::Opened;
use crate::config::{ClusterSettings, Settings};
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::observer::{Observer as _, Severity};
use crate::domain::status::{ClusterStatus, DatabaseStatus, Removal, Status};
use crate::domain::told::{Failed, failed};
use crate::ops::status;
use crate::repo::catalog::Catalog;
use crate::wiring;

/// More ids on a line are of no use; `--json` has them all.
const IDS_MAX: usize = 8;

pub(super) async fn status(context: &Context, args: &Args) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let Opened { settings, repository, filter } = &opened;
    let (catalog, asked) = tokio::join!(repository.catalog(filter), ask_servers(settings));
    let catalog = catalog.map_err(failed)?;
    let databases = meant(asked, &catalog, &progress);
    let status = status::look(repository, settings, &databases, &catalog).await.map_err(failed)?;
    progress.clear();
    // What a strict look has to tell is told by its failure.
    let silent = context.output.quiet && args.strict;
    let text = || if silent { String::new() } else { text(&status) };
    let document = || serde_json::to_value(&status).expect("a status has text keys only");
    context.output.result(text, document)?;
    let failures = status.failures();
    if !args.strict || failures.is_empty() {
        return Ok(());
    }
    context.output.complaint(&Failed {
        kind: FailureKind::Damage,
        message: harmless(&failures.join("; ")),
        hint: Some(
            "`pgkeep log` tells how the last runs ended, `pgkeep check` whether the set-up works"
                .to_owned(),
        ),
    });
    Err(Ended::Told(FailureKind::Damage))
}

/// The databases that are to be backed up of a cluster, as far as configuration and server tell.
struct Asked<'a> {
    name: &'a ClusterName,
    cluster: &'a ClusterSettings,
    databases: Result<Option<Vec<String>>, Failed>,
}

async fn ask_servers(settings: &Settings) -> Vec<Asked<'_>> {
    let selected = |name: &ClusterName| settings.selected.as_ref().is_none_or(|one| one == name);
    let clusters = settings.clusters.iter().filter(|(name, _)| selected(name));
    let asked = clusters.map(|(name, cluster)| async move {
        Asked { name, cluster, databases: wiring::databases_meant(settings, name, cluster).await }
    });
    join_all(asked).await
}

/// Where a server gives no answer, or none is named, those that have backups are meant.
fn meant(
    asked: Vec<Asked<'_>>,
    catalog: &Catalog,
    progress: &Progress,
) -> BTreeMap<ClusterName, Vec<String>> {
    let mut found = catalog.databases();
    let one = |Asked { name, cluster, databases }: Asked<'_>| {
        let told = match databases {
            Ok(Some(databases)) => return (name.clone(), databases),
            Ok(None) => {
                // Who mistypes a cluster's name would hear for ever that all is well.
                let nothing = cluster.snapshot.is_some() && !found.contains_key(name);
                nothing.then(|| {
                    format!(
                        "cluster {name} has a schedule here and neither a server nor a backup: nothing is watched"
                    )
                })
            }
            Err(error) => Some(format!(
                "the databases of cluster {name} cannot be listed, so those that have backups are meant: {}",
                error.message
            )),
        };
        if let Some(told) = told {
            progress.finding(Severity::Warning, &told);
        }
        (name.clone(), found.remove(name).unwrap_or_default())
    };
    asked.into_iter().map(one).collect()
}

fn text(status: &Status) -> String {
    let mut text = Lines::default();
    if status.clusters.iter().all(|cluster| cluster.databases.is_empty()) {
        text.line("no databases");
    } else {
        text.block(&table(status));
    }
    for cluster in &status.clusters {
        for database in &cluster.databases {
            for why in &database.overdue {
                text.line(&harmless(&format!("OVERDUE {}/{}: {why}", cluster.name, database.name)));
            }
        }
    }
    for fault in &status.faults {
        text.line(&harmless(&format!("UNREADABLE {fault}")));
    }
    if status.keys.is_kept_only_here() {
        text.line(
            "identity kept only here, as far as is known: copy it off this host and run `pgkeep key confirm` there",
        );
    }
    for cluster in &status.clusters {
        for database in &cluster.databases {
            if !database.removes_next.is_empty() {
                text.line(&harmless(&removals(cluster, database)));
            }
        }
    }
    text.into_text()
}

fn table(status: &Status) -> String {
    let mut table = Table::new(&[
        ("CLUSTER", Align::Left),
        ("DATABASE", Align::Left),
        ("LAST GOOD", Align::Left),
        ("SCHEDULE", Align::Left),
        ("VERIFIED", Align::Left),
        ("TOOK", Align::Right),
        ("SIZE", Align::Right),
        ("USUAL", Align::Right),
        ("NEXT", Align::Left),
        ("NOTES", Align::Left),
    ]);
    let never = || "never".to_owned();
    let dash = || "-".to_owned();
    for cluster in &status.clusters {
        for database in &cluster.databases {
            let (good, verified) = (&database.last_good, &database.last_verified);
            let schedule = cluster.schedules.snapshot.clone().filter(|_| database.configured);
            table.row(vec![
                cluster.name.to_string(),
                database.name.clone(),
                good.as_ref().map_or_else(never, |good| ago(good.age_ms)),
                schedule.unwrap_or_else(dash),
                verified.as_ref().map_or_else(never, |one| ago(one.age_ms)),
                verified.as_ref().map_or_else(dash, |one| duration(one.duration_ms)),
                good.as_ref().map_or_else(dash, |good| size(good.source_bytes)),
                database.usual_bytes.map_or_else(dash, size),
                database.next_snapshot.map_or_else(dash, |next| local(next, &cluster.timezone)),
                notes(database),
            ]);
        }
    }
    table.render()
}

/// `11-22 02:00 +0545`: in the zone of the schedule, which is named.
fn local(at: Timestamp, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    at.to_zoned(zone).strftime("%m-%d %H:%M %Z").to_string()
}

fn notes(database: &DatabaseStatus) -> String {
    let mut notes = Vec::new();
    if !database.overdue.is_empty() {
        notes.push("OVERDUE".to_owned());
    }
    if let Some((newest, why)) = &database.newest_in_doubt {
        notes.push(format!("newest {} is in doubt: {why}", newest.id));
    }
    if !database.configured {
        notes.push("not configured here".to_owned());
    }
    notes.join("; ")
}

fn removals(cluster: &ClusterStatus, database: &DatabaseStatus) -> String {
    let all = &database.removes_next;
    let when = match cluster.next_prune {
        Some(next) => format!("the prune of {} removes", local(next, &cluster.timezone)),
        None => "a prune would remove".to_owned(),
    };
    let shown = all.iter().take(IDS_MAX).map(|Removal { id, reason }| format!("{id} ({reason})"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match all.len().saturating_sub(IDS_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{when} {} of {}/{}: {shown}{more}", all.len(), cluster.name, database.name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::domain::manifest::Trigger;
    use crate::domain::status::{
        BackupFacts, KeyStatus, Mark, MarkKind, Overdue, RecoveryWindow, Schedules, VerifiedFacts,
        WalStatus,
    };
    use crate::domain::verification::Depth;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn facts(id: &str) -> BackupFacts {
        BackupFacts {
            id: id.parse().expect("an id"),
            trigger: Trigger::Scheduled,
            finished_at: at("2026-11-21T02:00:03Z"),
            age_ms: 36_000_000,
            duration_ms: 3500,
            source_bytes: 5_000_000,
            stored_bytes: 1_200_000,
        }
    }

    fn database(name: &str) -> DatabaseStatus {
        DatabaseStatus {
            name: name.to_owned(),
            configured: true,
            backups: 9,
            stored_bytes: 7_000_000,
            last_good: Some(facts("20261121T020000Z-5f3a9c21")),
            newest_in_doubt: None,
            last_verified: Some(VerifiedFacts {
                id: "20261120T020000Z-00000001".parse().expect("an id"),
                verified_at: at("2026-11-20T05:00:00Z"),
                age_ms: 120_000_000,
                duration_ms: 61_000,
                depth: Depth::Full,
            }),
            usual_bytes: Some(4_900_000),
            next_snapshot: Some(at("2026-11-21T20:15:00Z")),
            next_verify: None,
            removes_next: vec![Removal {
                id: "20261001T020000Z-00000001".parse().expect("an id"),
                reason: "expired".to_owned(),
            }],
            overdue: Vec::new(),
            timeline: vec![Mark {
                at: at("2026-11-21T02:00:03Z"),
                kind: MarkKind::Backup,
                id: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            }],
        }
    }

    fn status() -> Status {
        let late = DatabaseStatus {
            last_good: None,
            newest_in_doubt: Some((
                facts("20261121T020000Z-0badcafe"),
                "suspect: 10 rows".to_owned(),
            )),
            last_verified: None,
            usual_bytes: None,
            removes_next: Vec::new(),
            overdue: vec![Overdue::backup("no good backup")],
            ..database("blog")
        };
        let gone = DatabaseStatus { configured: false, next_snapshot: None, ..database("gone") };
        Status {
            at: at("2026-11-21T12:00:00Z"),
            pgkeep: "0.1.0".to_owned(),
            repository: "file:///srv/backup".to_owned(),
            keys: KeyStatus {
                encrypted: true,
                epoch: Some("0badcafe".to_owned()),
                recipients: vec!["age1x".to_owned()],
                signer: Some("5F3A9C215F3A9C21".to_owned()),
                identity_here: true,
                confirmed_elsewhere: Some(false),
            },
            clusters: vec![ClusterStatus {
                name: "main".parse().expect("a name"),
                timezone: "Asia/Kathmandu".to_owned(),
                schedules: Schedules {
                    snapshot: Some("0 2 * * *".to_owned()),
                    verify: None,
                    prune: None,
                },
                next_prune: Some(at("2026-11-22T00:15:00Z")),
                databases: vec![late, gone, database("shop")],
                wal: WalStatus::off(),
                recovery_windows: vec![RecoveryWindow {
                    timeline: 1,
                    from: at("2026-11-01T00:00:00Z"),
                    to: at("2026-11-21T00:00:00Z"),
                }],
            }],
            faults: vec![
                "backup 20261119T020000Z-00000001 of cluster main: it is not signed".to_owned(),
            ],
        }
    }

    #[test]
    fn status_is_a_compact_table_and_what_somebody_has_to_look_at() {
        insta::assert_snapshot!(text(&status()), @r"
        CLUSTER  DATABASE  LAST GOOD  SCHEDULE   VERIFIED        TOOK     SIZE    USUAL  NEXT               NOTES
        main     blog      never      0 2 * * *  never              -        -        -  11-22 02:00 +0545  OVERDUE; newest 20261121T020000Z-0badcafe is in doubt: suspect: 10 rows
        main     gone      10 h ago   -          33 h ago  1 min 01 s  4.8 MiB  4.7 MiB  -                  not configured here
        main     shop      10 h ago   0 2 * * *  33 h ago  1 min 01 s  4.8 MiB  4.7 MiB  11-22 02:00 +0545
        OVERDUE main/blog: no good backup
        UNREADABLE backup 20261119T020000Z-00000001 of cluster main: it is not signed
        identity kept only here, as far as is known: copy it off this host and run `pgkeep key confirm` there
        the prune of 11-22 06:00 +0545 removes 1 of main/gone: 20261001T020000Z-00000001 (expired)
        the prune of 11-22 06:00 +0545 removes 1 of main/shop: 20261001T020000Z-00000001 (expired)
        ");
        let nothing = Status { clusters: Vec::new(), faults: Vec::new(), ..status() };
        let told = text(&nothing);
        assert!(told.starts_with("no databases\nidentity kept only here"), "{told}");
    }

    #[test]
    fn a_status_has_the_keys_of_the_contract() {
        let document = serde_json::to_value(status()).expect("JSON");
        let keys = |document: &Json| {
            let keys = document.as_object().expect("an object").keys();
            keys.map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        let cluster = &document["clusters"][0];
        let (blog, shop) = (&cluster["databases"][0], &cluster["databases"][2]);
        let all = [
            keys(&document),
            keys(&document["keys"]),
            keys(cluster),
            keys(&cluster["schedules"]),
            keys(&cluster["wal"]),
            keys(&cluster["recovery_windows"][0]),
            keys(shop),
            keys(&shop["last_good"]),
            keys(&blog["newest_in_doubt"]),
            keys(&shop["last_verified"]),
            keys(&shop["removes_next"][0]),
            keys(&shop["timeline"][0]),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        at clusters faults keys pgkeep repository
        confirmed_elsewhere encrypted epoch identity_here recipients signer
        databases name next_prune recovery_windows schedules timezone wal
        prune snapshot verify
        gaps lag_bytes lag_ms last_segment mode
        from timeline to
        backups configured last_good last_verified name newest_in_doubt next_snapshot next_verify overdue removes_next stored_bytes timeline usual_bytes
        age_ms duration_ms finished_at id source_bytes stored_bytes trigger
        age_ms duration_ms finished_at id source_bytes stored_bytes trigger why
        age_ms depth duration_ms id verified_at
        id reason
        at id kind
        ");
        assert!(shop["newest_in_doubt"].is_null() && blog["last_good"].is_null());
        assert_eq!(document["at"], "2026-11-21T12:00:00Z");
    }

    #[test]
    fn a_long_list_of_what_goes_is_cut() {
        let mut database = database("shop");
        database.removes_next = vec![database.removes_next[0].clone(); 30];
        let told = removals(&status().clusters[0], &database);
        assert!(
            told.starts_with("the prune of 11-22 06:00 +0545 removes 30 of main/shop: 20261001T")
        );
        assert!(told.ends_with(" and 22 more"), "{told}");
    }
}
