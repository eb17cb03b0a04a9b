//! `log`: the audit trail.

use serde_json::{Value as Json, json};

use super::args::Log;
use super::context::Context;
use super::run::Ended;
use super::text::{Align, Table, duration, time};
use super::verbs::{Gravest, Opened};
use crate::domain::audit::{Event, Recorded};
use crate::domain::told::failed;
use crate::repo::events::Wanted;

/// So many ids are shown beside what a prune is about to remove; `--json` has them all.
const IDS_MAX: usize = 3;

pub(super) async fn log(context: &Context, args: &Log) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let wanted = Wanted {
        cluster: opened.filter.cluster.clone(),
        database: opened.filter.database.clone(),
        limit: args.limit,
    };
    let trail = opened.repository.newest_events(&wanted).await.map_err(failed)?;
    progress.clear();
    let text = || {
        if trail.events.is_empty() { "no events\n".to_owned() } else { text(&trail.events) }
    };
    context.output.result(text, || trail.events.iter().map(document).collect())?;
    let mut gravest = Gravest::of(2);
    for fault in trail.faults {
        // Not on stdout, where the one document has been written.
        let told = failed(fault);
        gravest.note(told.kind);
        context.output.complaint(&told);
    }
    gravest.end()
}

pub(super) fn document(recorded: &Recorded) -> Json {
    let event = &recorded.event;
    json!({
        "id": event.id,
        "run": event.run(),
        "event": event.event,
        "cluster": recorded.cluster,
        "database": event.database,
        "backup": event.backup,
        "at": event.at,
        "duration_ms": event.duration_ms,
        "origin": event.origin,
        "user": event.user,
        "host": event.host,
        "pgkeep": event.pgkeep,
        "exit_code": event.exit_code,
        "message": event.message,
        "backups": event.backups,
        "migration": event.migration,
        "rehearsal": event.rehearsal,
    })
}

fn text(events: &[Recorded]) -> String {
    let mut table = Table::new(&[
        ("ENDED", Align::Left),
        ("RUN", Align::Left),
        ("VERB", Align::Left),
        ("CLUSTER", Align::Left),
        ("DATABASE", Align::Left),
        ("RESULT", Align::Left),
        ("TOOK", Align::Right),
        ("BY", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for Recorded { cluster, event } in events {
        let result = match event.exit_code {
            _ if event.is_begin() => "begun".to_owned(),
            0 => "done".to_owned(),
            code => format!("exit {code}"),
        };
        table.row(vec![
            time(event.at),
            event.run().to_string(),
            event.event.clone(),
            cluster.to_string(),
            event.database.clone().unwrap_or_default(),
            result,
            duration(event.duration_ms),
            by(event),
            what(event),
        ]);
    }
    table.render()
}

/// `maria@db1`, and who else but a person asked.
pub(super) fn by(event: &Event) -> String {
    let place = match &*event.user {
        "" => event.host.clone(),
        user => format!("{user}@{}", event.host),
    };
    match &*event.origin {
        "" | "command" => place,
        origin => format!("{place}, {origin}"),
    }
}

fn what(event: &Event) -> String {
    let mut what: Vec<String> = event.backup.iter().map(ToString::to_string).collect();
    what.extend(event.message.clone());
    if !event.backups.is_empty() {
        // Events of before say nothing else.
        if event.message.is_none() {
            what.push(format!("about to remove {} backups", event.backups.len()));
        }
        let ids = event.backups.iter().map(|one| one.id.to_string());
        let more = if event.backups.len() > IDS_MAX { ", …" } else { "" };
        what.push(format!("{}{more}", ids.take(IDS_MAX).collect::<Vec<_>>().join(", ")));
    }
    what.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Recorded> {
        let event = json!({
            "format": 1, "id": "20261121T020000Z-5f3a9c21", "event": "snapshot",
            "at": "2026-11-21T02:00:03Z", "duration_ms": 3500, "database": "shop",
            "backup": "20261121T020000Z-0badcafe", "origin": "schedule", "user": "pgkeep",
            "host": "db1", "pgkeep": "0.1.0",
        });
        let failed = json!({
            "format": 1, "id": "20261120T020000Z-5f3a9c21", "event": "snapshot",
            "at": "2026-11-20T02:00:03Z", "database": "shop", "origin": "command", "user": "maria",
            "host": "db1", "pgkeep": "0.1.0", "exit_code": 4, "message": "no server",
        });
        let before = json!({
            "format": 1, "id": "20261119T020000Z-5f3a9c21", "event": "prune",
            "at": "2026-11-19T02:00:03Z", "host": "db1", "pgkeep": "0.1.0", "backups": [{
                "id": "20261001T020000Z-00000001", "database": "shop", "manifest_blake3": null,
                "reason": "expired",
            }],
        });
        let cluster = || "main".parse().expect("a name");
        let recorded = |event| Recorded {
            cluster: cluster(),
            event: serde_json::from_value(event).expect("an event"),
        };
        [event, failed, before].map(recorded).into()
    }

    #[test]
    fn a_log_is_a_table_of_runs_also_of_those_that_older_versions_recorded() {
        insta::assert_snapshot!(text(&events()), @r"
        ENDED                 RUN                        VERB      CLUSTER  DATABASE  RESULT   TOOK  BY                    WHAT
        2026-11-21 02:00:03Z  20261121T020000Z-5f3a9c21  snapshot  main     shop      done    3.5 s  pgkeep@db1, schedule  20261121T020000Z-0badcafe
        2026-11-20 02:00:03Z  20261120T020000Z-5f3a9c21  snapshot  main     shop      exit 4   0 ms  maria@db1             no server
        2026-11-19 02:00:03Z  20261119T020000Z-5f3a9c21  prune     main               done     0 ms  db1                   about to remove 1 backups: 20261001T020000Z-00000001
        ");
    }

    #[test]
    fn an_event_has_the_same_keys_whatever_it_tells() {
        for recorded in events() {
            let document = document(&recorded);
            let keys: Vec<&String> = document.as_object().expect("an object").keys().collect();
            let all = "at backup backups cluster database duration_ms event exit_code host id message migration origin pgkeep rehearsal run user";
            assert_eq!(keys, all.split(' ').collect::<Vec<_>>());
        }
        assert_eq!(document(&events()[0])["run"], "20261121T020000Z-5f3a9c21");
        assert_eq!(document(&events()[2])["backups"][0]["reason"], "expired");
    }
}
