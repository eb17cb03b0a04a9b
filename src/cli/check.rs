//! `check`: settings become live parts as far as they can, and what was found is shown.

use serde_json::{Value as Json, json};

use super::context::Context;
use super::run::Ended;
use super::text::{Lines, harmless};
use super::verbs::databases_meant;
use crate::config::Settings;
use crate::domain::told::{Failed, failed};
use crate::ops::check::{self, CheckReport, Checking, Finding, Level, Problem};
use crate::wiring;

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        Self { kind: failed.kind, message: failed.message, hint: failed.hint }
    }
}

pub(super) async fn check(context: &Context) -> Result<(), Ended> {
    let settings = context.load()?.settings;
    let progress = context.progress();
    let (name, cluster) = settings.cluster().map_err(failed)?;
    let connection = wiring::connection(&settings, name, cluster).map_err(Problem::from_failure);
    let server_named = wiring::is_server_named(&settings, cluster);
    let databases = match &connection {
        Ok(connection) => {
            databases_meant(&settings, cluster, connection, Vec::new()).await.map_err(Problem::from)
        }
        // Told as the connection's.
        Err(_) => Ok(Vec::new()),
    };
    let notices = connection.as_ref().map(|info| info.notices().to_vec()).unwrap_or_default();
    let (bin_dir, scratch_dir) =
        (wiring::bin_dir(&settings, cluster), wiring::scratch_dir(&settings));
    let checking = Checking {
        configuration: place(&settings),
        notices,
        store: wiring::open_store(&settings).map_err(Problem::from_failure),
        keys: wiring::keys(&settings).map_err(Problem::from_failure),
        identity: identity(&settings),
        cluster: name.clone(),
        server_named,
        connection,
        databases,
        exclude_table_data: &cluster.exclude_table_data,
        bin_dir: bin_dir.as_deref(),
        scratch_dir: &scratch_dir,
        ambient: std::sync::Arc::new(wiring::SystemAmbient::default()),
        observer: &progress,
    };
    let report = check::run(&checking).await;
    progress.clear();
    let quiet = context.output.quiet;
    context.output.result(|| check_text(&report, quiet), || check_json(&report))?;
    let Some(kind) = report.gravest() else { return Ok(()) };
    if !context.output.json {
        let (failures, _) = report.counts();
        context.output.complaint(&Failed {
            kind,
            message: format!("{failures} of {} checks failed", report.findings.len()),
            hint: Some("each has a hint of its own above".to_owned()),
        });
    }
    Err(Ended::Told(kind))
}

fn place(settings: &Settings) -> String {
    let file = settings.file.as_ref();
    file.map_or_else(|| "the environment".to_owned(), |file| file.display().to_string())
}

/// Where an identity is on this host.
fn identity(settings: &Settings) -> Option<String> {
    let source = &settings.encryption;
    let here = source.read_identity().ok().flatten().is_some();
    here.then(|| source.identity.describe())
}

/// The word of the contract.
const fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Failed(_) => "failed",
    }
}

fn check_json(report: &CheckReport) -> Json {
    let finding = |finding: &Finding| {
        let mut document = json!({
            "name": finding.name,
            "result": word(finding.level),
            "detail": finding.detail,
            "hint": finding.hint,
        });
        if let Some(database) = &finding.database {
            document["database"] = Json::from(database.as_str());
        }
        if let Some(statement) = &finding.statement {
            document["statement"] = Json::from(statement.as_str());
        }
        if let Level::Failed(kind) = finding.level {
            document["kind"] = Json::from(kind.name());
        }
        document
    };
    let gravest = report.gravest();
    let (failed, warnings) = report.counts();
    let result = match (gravest, warnings) {
        (Some(_), _) => "failed",
        (None, 0) => "ok",
        (None, _) => "warning",
    };
    json!({
        "checks": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "result": result,
        "failed": failed,
        "warnings": warnings,
        "exit_code": gravest.map_or(0, crate::domain::failure::FailureKind::exit_code),
    })
}

/// A line for each finding, its hint and its statement below; quiet leaves out what is well.
fn check_text(report: &CheckReport, quiet: bool) -> String {
    let mut text = Lines::default();
    for finding in &report.findings {
        if quiet && finding.level == Level::Ok {
            continue;
        }
        let shown = match finding.level {
            Level::Failed(_) => "FAILED",
            level => word(level),
        };
        let database =
            finding.database.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let detail = harmless(&format!("{database}{}", finding.detail));
        text.line(&format!("{shown:<8} {:<18} {detail}", finding.name));
        if finding.level == Level::Ok {
            continue;
        }
        if let Some(hint) = &finding.hint {
            text.line(&format!("         hint: {}", harmless(hint)));
        }
        if let Some(statement) = &finding.statement {
            text.line(&format!("         run:  {}", harmless(statement)));
        }
    }
    let (failed, warnings) = report.counts();
    if !quiet {
        text.line(&match (failed, warnings) {
            (0, 0) => "all is well".to_owned(),
            (failed, warnings) => format!("{failed} failed, {warnings} to look at"),
        });
    }
    text.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::FailureKind;

    fn finding(name: &'static str, level: Level) -> Finding {
        let hint = (level != Level::Ok).then(|| "do this".to_owned());
        let detail = "as it is".to_owned();
        Finding { name, database: None, level, detail, hint, statement: None }
    }

    #[test]
    fn findings_are_lines_with_hints_and_a_document_with_the_keys_of_the_contract() {
        let grant = Finding {
            database: Some("shop".to_owned()),
            statement: Some("GRANT SELECT ON TABLE a TO b;".to_owned()),
            ..finding("privileges", Level::Failed(FailureKind::Postgres))
        };
        let findings = vec![finding("keys", Level::Ok), finding("identity", Level::Warning), grant];
        let report = CheckReport { findings };
        insta::assert_snapshot!(check_text(&report, false), @r"
        ok       keys               as it is
        warning  identity           as it is
                 hint: do this
        FAILED   privileges         shop: as it is
                 hint: do this
                 run:  GRANT SELECT ON TABLE a TO b;
        1 failed, 1 to look at
        ");
        assert!(check_text(&report, true).starts_with("warning  identity"));
        let document = check_json(&report);
        assert_eq!(document["result"], "failed");
        assert_eq!(document["exit_code"], 4);
        assert_eq!((&document["failed"], &document["warnings"]), (&json!(1), &json!(1)));
        let checks = &document["checks"];
        let well = json!({"name": "keys", "result": "ok", "detail": "as it is", "hint": null});
        assert_eq!(checks[0], well);
        assert_eq!(checks[1]["result"], "warning");
        let grant = json!({
            "name": "privileges",
            "result": "failed",
            "kind": "postgres",
            "database": "shop",
            "detail": "as it is",
            "hint": "do this",
            "statement": "GRANT SELECT ON TABLE a TO b;",
        });
        assert_eq!(checks[2], grant);
    }
}
