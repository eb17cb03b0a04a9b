//! `verify --check stored`: what is stored compared with what was, on a host without keys.

use serde_json::{Value as Json, json};

use super::args::Verify;
use super::context::Context;
use super::reports::verify_text;
use super::run::Ended;
use super::text::{Lines, count, size};
use super::verbs::{Gravest, Opened};
use crate::domain::failure::FailureKind;
use crate::domain::told::{Failed, failed};
use crate::domain::verification::Outcome;
use crate::ops::verify::{
    self, CheckingStored, DamagedChunk, StoredChoice, StoredReport, VerifyReport,
};

pub(super) async fn verify(context: &Context, args: &Verify) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let repository = &opened.repository;
    let state = opened.settings.environment.state_home();
    let checking = CheckingStored {
        repository,
        rate: args.rate,
        note: &state.join(format!("stored-{}.json", repository.document.id)),
        restart: args.restart,
        observer: &progress,
        cancel: &context.cancel,
    };
    let choice = StoredChoice { ids: &args.ids, filter: &opened.filter };
    let report = verify::check_stored(&checking, &choice).await.map_err(failed)?;
    progress.clear();
    show(context, report)
}

fn show(context: &Context, report: StoredReport) -> Result<(), Ended> {
    let mut gravest = Gravest::of(2);
    for backup in &report.backups {
        let document = || backup_json(backup, &report.damaged);
        if backup.result == Outcome::Passed {
            context.output.success(|| verify_text(backup), document)?;
        } else {
            context.output.result(|| verify_text(backup), document)?;
            gravest.note(FailureKind::Damage);
        }
    }
    context.output.remark(&summary(&report))?;
    for fault in report.faults {
        gravest.add(context, "id", fault.name.id.as_str(), failed(fault.error))?;
    }
    let all = report.backups.len();
    let failures = report.backups.iter().filter(|backup| backup.result != Outcome::Passed).count();
    if failures > 0 && !context.output.json {
        context.output.complaint(&Failed {
            kind: FailureKind::Damage,
            message: format!("{failures} of {all} backups are damaged"),
            hint: Some(
                "bring what is named back from a copy of the repository; the next snapshot stores what it still \
                 has of it afresh, so take one now"
                    .to_owned(),
            ),
        });
    }
    gravest.end()
}

fn backup_json(backup: &VerifyReport, damaged: &[DamagedChunk]) -> Json {
    let own = damaged.iter().filter(|one| one.needed_by.contains(&backup.id));
    let one = |one: &DamagedChunk| json!({"chunk": one.key, "reason": one.reason, "needed_by": one.needed_by});
    let mut document = backup.summary();
    document["damaged"] = own.map(one).collect();
    document
}

fn summary(report: &StoredReport) -> String {
    let mut text = Lines::default();
    let (chunks, bytes) = (count(report.chunks), size(report.stored_bytes));
    text.line(&format!("{chunks} chunks, {bytes}, were compared with their sizes and hashes"));
    for one in &report.damaged {
        let ids: Vec<&str> =
            one.needed_by.iter().map(crate::domain::id::BackupId::as_str).collect();
        text.line(&format!("{} {}; needed by {}", one.key, one.reason, ids.join(", ")));
    }
    if report.condemned > 0 {
        let condemned = count(report.condemned as u64);
        text.line(&format!("condemned {condemned} of them: no later backup relies on those names"));
    }
    text.into_text()
}
