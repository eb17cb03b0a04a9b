//! The repository with this host's keys: can it be written, and who can read it.

use super::Checking;
use super::finding::{Finding, Problem};
use crate::repo::catalog::Filter;
use crate::repo::{RepoError, Repository};

/// What there is to say about keys, and about the backups that they open.
pub(super) async fn look(checking: &Checking<'_>, repository: &Repository) -> Vec<Finding> {
    let mut findings = vec![format_known(repository)];
    findings.push(recipients(repository).await);
    findings.push(identity(checking.identity.as_deref(), repository).await);
    findings.extend(backups(checking, repository).await);
    findings
}

fn format_known(repository: &Repository) -> Finding {
    const NAME: &str = "repository";
    let document = &repository.document;
    let told = format!("{}, format {}", repository.store.address(), document.format);
    if repository.is_plaintext() {
        return Finding::warning(
            NAME,
            format!("{told}, not encrypted: whoever reads it reads the data"),
            "keep it where nobody else reads, or make an encrypted one with `pgkeep init`",
        );
    }
    Finding::ok(NAME, told)
}

/// Whether this host can write, and exactly for those who are configured.
async fn recipients(repository: &Repository) -> Finding {
    const NAME: &str = "writer-key";
    if repository.keys().writer.is_none() {
        return Finding::warning(
            NAME,
            "none here: this host can read and verify, not take snapshots",
            "set encryption.writer_key_file or PGKEEP_WRITER_KEY where snapshots are taken",
        );
    }
    match repository.write_access().await {
        Ok(access) => {
            let readers = repository.keys().recipients.len();
            let recipients = if readers == 1 { "recipient" } else { "recipients" };
            Finding::ok(
                NAME,
                format!("writes epoch {}, readable by {readers} {recipients}", access.epoch),
            )
        }
        Err(error) => Finding::error(NAME, &Problem::of(&error)),
    }
}

/// An identity here must fit; and if it was never seen elsewhere, losing this host loses every backup.
async fn identity(here: Option<&str>, repository: &Repository) -> Finding {
    const NAME: &str = "identity";
    let Some(here) = here.filter(|_| !repository.is_plaintext()) else {
        return Finding::ok(NAME, "none here: this host cannot read what it writes");
    };
    match confirmed_by(repository).await {
        Ok(Some(host)) => return Finding::ok(NAME, format!("{here}, and held by {host} too")),
        Ok(None) => {}
        Err(error) => return Finding::error(NAME, &Problem::of(&error)),
    }
    Finding::warning(
        NAME,
        format!("identity kept only here, as far as is known: {here}"),
        "copy it off this host now and run `pgkeep key confirm` there: without it nobody can read \
         the backups; remove it here if restores and verifications run elsewhere",
    )
}

/// The host that proved last to hold an identity of every epoch that is written.
async fn confirmed_by(repository: &Repository) -> Result<Option<String>, RepoError> {
    let mut host = None;
    for document in repository.epochs_in_force().await? {
        repository.chunk_key(&document.epoch).await?;
        let Some(last) = repository.confirmations(&document.epoch).await?.pop() else {
            return Ok(None);
        };
        host = Some(last.host);
    }
    Ok(host)
}

/// Backups that cannot be read, and those that wait for somebody's word.
async fn backups(checking: &Checking<'_>, repository: &Repository) -> Vec<Finding> {
    const NAME: &str = "backups";
    let filter = Filter { cluster: Some(checking.cluster.clone()), database: None };
    let catalog = match repository.catalog(&filter).await {
        Ok(catalog) => catalog,
        Err(error) => return vec![Finding::error(NAME, &Problem::of(&error))],
    };
    let mut findings: Vec<Finding> = catalog
        .faults
        .iter()
        .map(|fault| Finding::error(NAME, &Problem::of(&fault.error)))
        .collect();
    let doubted: Vec<_> = catalog.entries.iter().filter(|entry| entry.is_in_doubt()).collect();
    if let Some(newest) = doubted.first() {
        findings.push(Finding::warning(
            NAME,
            format!("{} suspect or foreign, the newest {}", doubted.len(), newest.manifest.id),
            "look at `pgkeep list`; `pgkeep adopt ID` says that one is right",
        ));
    }
    let now = repository.ambient().now();
    if let Some(newest) = catalog.entries.first()
        && newest.manifest.started_at > now + super::server::SKEW_MAX
    {
        findings.push(Finding::warning(
            "clock",
            format!("this host's clock stands before backup {}", newest.manifest.id),
            "set the clock: backups are ordered by time, and a new one would not be the latest",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            NAME,
            match catalog.entries.len() {
                0 => "none yet".to_owned(),
                1 => "one, readable".to_owned(),
                many => format!("{many}, all readable"),
            },
        ));
    }
    findings
}

/// The configured keys, as far as they can be parsed.
pub(super) fn parsed(problem: Option<&Problem>) -> Finding {
    match problem {
        None => Finding::ok("keys", "all that are configured can be read"),
        Some(problem) => Finding::error("keys", problem),
    }
}
