//! What `init`, `verify` and `restore` report, for people and for scripts.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::backup::{checks_text, outcome};
use super::text::{Lines, duration, harmless, size};
use crate::ops::init::InitReport;
use crate::ops::restore::in_place::InPlacePlan;
use crate::ops::restore::{ExportReport, RestorePlan, RestoreReport};
use crate::ops::verify::VerifyReport;
use crate::repo::create::Made;

/// `init --json`.
pub(super) fn init_json(report: &InitReport, url: &str) -> Json {
    json!({
        "repository": url,
        "repository_id": report.repository_id,
        "created": report.made == Made::Created,
        "epoch": report.epoch,
        "recipients": report.recipients,
        "signer": report.signer,
        "identity_file": report.identity_file,
        "writer_key_file": report.writer_key_file,
        "config_file": report.config_file,
    })
}

/// `init` for people.
pub(super) fn init_text(report: &InitReport, url: &str, insecure_plaintext: bool) -> String {
    let verb = match report.made {
        Made::Created => "created",
        Made::Found => "found",
    };
    let mut text = Lines::default();
    text.line(&format!("{verb} the repository {url}, epoch {}", report.epoch));
    for recipient in &report.recipients {
        text.line(&format!("readable by {recipient}"));
    }
    text.line(&format!("signed by {}", report.signer));
    let files = [&report.config_file, &report.writer_key_file, &report.identity_file];
    for path in files.into_iter().flatten() {
        text.line(&format!("wrote {}", path.display()));
    }
    if insecure_plaintext {
        text.block("\nThere is no encryption: whoever reads the repository reads the data.\n");
    }
    if let Some(path) = &report.identity_file {
        text.block(&kit_text(path));
    } else if report.made == Made::Created && !insecure_plaintext {
        text.block(&kit_lines(&harmless(url), &report.signer));
    }
    text.into_text()
}

fn kit_text(path: &Path) -> String {
    format!(
        "\n{} is the recovery kit:\n\
         with it and the repository every backup can be read, without it none.\n\
         Copy it off this host now; remove it here if restores and verifications run elsewhere.\n",
        path.display()
    )
}

/// What makes a kit of an identity that was made elsewhere: whoever restores must know whom to trust.
fn kit_lines(url: &str, signer: &str) -> String {
    format!(
        "\nPut these lines into the file of the identity, away from this host: it is then the recovery kit.\n\
         # repository: {url}\n\
         # signer: {signer}\n"
    )
}
/// `verify` for people.
pub(super) fn verify_text(report: &VerifyReport) -> String {
    let (id, database) = (&report.id, harmless(&report.database));
    let (word, took) = (outcome(report.result), duration(report.duration_ms));
    format!("{id}  {database}  {word} in {took}\n{}", checks_text(&report.checks))
}

/// `restore --json`.
pub(super) fn restore_json(report: &RestoreReport) -> Json {
    json!({
        "id": report.id,
        "database": report.database,
        "checks": report.checks,
        "duration_ms": report.duration_ms,
        "kept_as": report.kept_as,
        "sessions_ended": report.sessions_ended,
        "roles_created": report.roles_created,
        "left_out": report.left_out,
        "safety_snapshot": report.safety_snapshot,
    })
}

/// `restore` for people.
pub(super) fn restore_text(report: &RestoreReport) -> String {
    let mut text = Lines::default();
    let (name, took) = (harmless(&report.database), duration(report.duration_ms));
    text.line(&format!("{}  restored as {name} in {took}", report.id));
    text.block(&checks_text(&report.checks));
    if let Some(kept) = &report.kept_as {
        text.line(&format!("the database that had the name is kept as {}", harmless(kept)));
    }
    if let Some(safety) = &report.safety_snapshot {
        text.line(&format!("what it held before is kept in the snapshot {safety}, pinned"));
    }
    if !report.roles_created.is_empty() {
        text.line(&format!("roles created: {}", harmless(&report.roles_created.join(", "))));
    }
    for line in &report.left_out {
        text.line(&format!("left out: {}", harmless(line)));
    }
    text.into_text()
}

/// `restore --dry-run --json`.
pub(super) fn plan_json(plan: &RestorePlan) -> Json {
    let mut document = steps_json(&plan.steps(), &plan.notices);
    document["id"] = json!(plan.id);
    document["database"] = json!(plan.database);
    document["target"] = json!(plan.target);
    document
}

/// `restore --dry-run` for people.
pub(super) fn plan_text(plan: &RestorePlan) -> String {
    steps_text(&plan.steps(), &plan.notices)
}

/// `restore --in-place --dry-run --json`: the same keys.
pub(super) fn in_place_json(plan: &InPlacePlan) -> Json {
    let mut document = steps_json(&plan.steps(), &plan.notices);
    document["id"] = json!(plan.id);
    document["database"] = json!(plan.database);
    document["target"] = json!(plan.target);
    document
}

/// `restore --in-place --dry-run` for people.
pub(super) fn in_place_text(plan: &InPlacePlan) -> String {
    steps_text(&plan.steps(), &plan.notices)
}

fn steps_json(steps: &[String], notices: &[String]) -> Json {
    json!({ "steps": steps, "notices": notices })
}

fn steps_text(steps: &[String], notices: &[String]) -> String {
    let steps =
        steps.iter().enumerate().map(|(at, step)| format!("{}. {}\n", at + 1, harmless(step)));
    let notices = notices.iter().map(|notice| format!("note: {}\n", harmless(notice)));
    steps.chain(notices).collect()
}

/// `restore --output FILE --json`.
pub(super) fn export_json(report: &ExportReport, output: &Path) -> Json {
    json!({
        "id": report.id,
        "database": report.database,
        "output": output,
        "written_bytes": report.written_bytes,
        "duration_ms": report.duration_ms,
    })
}

/// `restore --output FILE` for people.
pub(super) fn export_text(report: &ExportReport, output: &Path) -> String {
    let (path, took) = (output.display(), duration(report.duration_ms));
    format!("{}  {} written to {path} in {took}\n", report.id, size(report.written_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verification::{Check, Outcome};

    fn has(document: &Json, keys: &str) {
        for key in keys.split(' ') {
            assert!(document.get(key).is_some(), "{key} is missing in {document}");
        }
    }

    #[test]
    fn an_identity_made_elsewhere_is_told_what_makes_it_a_kit() {
        let report = InitReport {
            address: "/srv/backup".to_owned(),
            repository_id: String::new(),
            made: Made::Created,
            epoch: "0badcafe".parse().expect("an epoch"),
            recipients: vec!["age1x".to_owned()],
            signer: "RWx".to_owned(),
            identity_file: None,
            writer_key_file: None,
            config_file: None,
        };
        insta::assert_snapshot!(init_text(&report, "file:///srv/backup", false), @r"
        created the repository file:///srv/backup, epoch 0badcafe
        readable by age1x
        signed by RWx

        Put these lines into the file of the identity, away from this host: it is then the recovery kit.
        # repository: file:///srv/backup
        # signer: RWx
        ");
        let again = InitReport { made: Made::Found, ..report };
        assert!(!init_text(&again, "file:///srv/backup", false).contains("recovery kit"));
    }

    #[test]
    fn a_verification_has_the_keys_of_the_contract() {
        let report = VerifyReport {
            id: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            cluster: "main".parse().expect("a name"),
            database: "shop".to_owned(),
            result: Outcome::Failed,
            checks: vec![
                Check::failed("row-counts", "orders: 5000 rows, restored 4999"),
                Check::skipped("amcheck", "not installed"),
            ],
            duration_ms: 1234,
            recorded: true,
            unrecorded: None,
        };
        let document = report.summary();
        has(&document, "id result checks duration_ms");
        assert_eq!(document["result"], "failed");
        has(&document["checks"][0], "name result detail");
        assert_eq!(document["checks"][1]["result"], "skipped");
        insta::assert_snapshot!(verify_text(&report), @r"
        20261121T020000Z-5f3a9c21  shop  FAILED in 1.2 s
          row-counts   FAILED   orders: 5000 rows, restored 4999
          amcheck      skipped  not installed
        ");
    }

    #[test]
    fn a_restore_has_the_keys_of_the_contract() {
        let report = RestoreReport {
            id: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            source: "shop".to_owned(),
            database: "shop".to_owned(),
            kept_as: Some("shop_before_20261121T020000Z-5f3a9c21".to_owned()),
            sessions_ended: 2,
            checks: vec![Check::passed("load", "17 entries restored")],
            roles_created: Vec::new(),
            left_out: vec!["comment on extension plpgsql".to_owned()],
            safety_snapshot: None,
            duration_ms: 900,
        };
        has(&restore_json(&report), "id database checks duration_ms safety_snapshot");
        insta::assert_snapshot!(restore_text(&report), @r"
        20261121T020000Z-5f3a9c21  restored as shop in 900 ms
          load         passed   17 entries restored
        the database that had the name is kept as shop_before_20261121T020000Z-5f3a9c21
        left out: comment on extension plpgsql
        ");
        let safety = "20261121T030000Z-0badcafe".parse().expect("an id");
        let report =
            RestoreReport { kept_as: None, safety_snapshot: Some(safety), ..report.clone() };
        assert_eq!(restore_json(&report)["safety_snapshot"], "20261121T030000Z-0badcafe");
        insta::assert_snapshot!(restore_text(&report), @r"
        20261121T020000Z-5f3a9c21  restored as shop in 900 ms
          load         passed   17 entries restored
        what it held before is kept in the snapshot 20261121T030000Z-0badcafe, pinned
        left out: comment on extension plpgsql
        ");
    }
}
