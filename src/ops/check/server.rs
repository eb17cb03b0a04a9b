//! The server: can it be reached, what stands between, is it one we know, has the role what it needs, and are
//! there programs for it.

use std::path::Path;

use jiff::SignedDuration;

use super::Checking;
use super::finding::{Finding, Problem};
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::FailureKind;
use crate::postgres::PostgresError;
use crate::postgres::pooler::{self, Pooling};
use crate::postgres::programs::Programs;
use crate::postgres::server_facts::{self, ServerFacts};
use crate::postgres::session::Session;
use crate::repo::Repository;
use crate::repo::catalog::Filter;

/// Clocks that differ by more are told: backups are ordered by time.
pub(super) const SKEW_MAX: SignedDuration = SignedDuration::from_mins(1);
/// Sessions of a snapshot at its busiest: lock, holder, `pg_dump`, `pg_dumpall`.
const SESSIONS: i64 = 4;
/// The majors that are tested.
const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;
/// Passwords that end within so many days are told.
const PASSWORD_DAYS: i64 = 14;

/// What later looks need to know.
pub(super) struct Server {
    pub(super) facts: ServerFacts,
    pub(super) version: u32,
}

/// Looks at the server; none where it cannot be used at all.
pub(super) async fn look(
    checking: &Checking<'_>,
    connection: &ConnectionInfo,
    repository: Option<&Repository>,
    findings: &mut Vec<Finding>,
) -> Option<Server> {
    const NAME: &str = "server";
    let session = match Session::connect(connection, "check").await {
        Ok(session) => session,
        Err(error) => {
            findings.push(denied(NAME, connection, &error));
            return None;
        }
    };
    findings.push(supported(&session, connection));
    let stop = pooled(connection, findings).await;
    if stop {
        return None;
    }
    let before = checking.ambient.now();
    let facts = match server_facts::ask(&session).await {
        Ok(facts) => facts,
        Err(error) => {
            findings.push(Finding::error(NAME, &Problem::of(&error)));
            return None;
        }
    };
    findings.push(clock(&facts, before, checking.ambient.now()));
    findings.extend(role(&facts));
    findings.extend(known(checking, &facts, repository).await);
    findings.push(programs(session.major(), checking.bin_dir));
    findings.push(server_programs(session.major(), checking.bin_dir));
    Some(Server { version: session.server_version_num(), facts })
}

/// A refused connection; where only CONNECT is missing, with the statement that grants it.
pub(super) fn denied(
    name: &'static str,
    connection: &ConnectionInfo,
    error: &PostgresError,
) -> Finding {
    let finding = Finding::error(name, &Problem::of(error));
    match error {
        PostgresError::PermissionDenied { .. } => finding.mended_by(format!(
            "GRANT CONNECT ON DATABASE {} TO {};",
            crate::postgres::quote_ident(connection.database()),
            crate::postgres::quote_ident(connection.user())
        )),
        _ => finding,
    }
}

fn supported(session: &Session, connection: &ConnectionInfo) -> Finding {
    const NAME: &str = "server";
    let told = format!("PostgreSQL {} at {}", session.major(), connection.describe());
    let (oldest, newest) = (MAJORS.start(), MAJORS.end());
    if session.major() < *oldest {
        let hint = format!("pgkeep is made for PostgreSQL {oldest} to {newest}");
        return Finding::failed(NAME, FailureKind::Postgres, told, hint);
    }
    if session.major() > *newest {
        let hint =
            format!("this pgkeep was tested up to {newest}: verify what it takes, or update it");
        return Finding::warning(NAME, told, hint);
    }
    Finding::ok(NAME, told)
}

/// What stands between; whether the rest can be asked for at all.
async fn pooled(connection: &ConnectionInfo, findings: &mut Vec<Finding>) -> bool {
    const NAME: &str = "pooler";
    let finding = match pooler::refuse_transaction_pooling(connection).await {
        Ok(Pooling::Session) => Finding::warning(
            NAME,
            "one stands between, and keeps a server connection for each session",
            "snapshots work through it; restores need the server's own address (PGKEEP_DATABASE_URL or DIRECT_URL)",
        ),
        Ok(_) if connection.is_pooled() => Finding::warning(
            NAME,
            "the URL says pgbouncer=true, and nothing was noticed",
            "use the server's own address: PGKEEP_DATABASE_URL or DIRECT_URL",
        ),
        Ok(_) => Finding::ok(NAME, "none was noticed"),
        Err(error) => {
            findings.push(Finding::error(NAME, &Problem::of(&error)));
            return true;
        }
    };
    findings.push(finding);
    false
}

fn clock(facts: &ServerFacts, before: jiff::Timestamp, after: jiff::Timestamp) -> Finding {
    let middle = i64::midpoint(before.as_millisecond(), after.as_millisecond());
    let skew = SignedDuration::from_millis(facts.clock_ms - middle);
    let seconds = skew.abs().as_millis();
    let seconds = format!("{}.{} s", seconds / 1000, seconds % 1000 / 100);
    if skew.abs() <= SKEW_MAX {
        return Finding::ok("clock", format!("the server's is within {seconds} of this host's"));
    }
    let side = if skew.is_positive() { "ahead of" } else { "behind" };
    Finding::warning(
        "clock",
        format!("the server's is {seconds} {side} this host's"),
        "run a time service on both: backups are ordered, and expire, by this host's clock",
    )
}

fn role(facts: &ServerFacts) -> Vec<Finding> {
    const NAME: &str = "role";
    let role = &facts.role;
    let attributes = [
        (role.superuser, "superuser"),
        (role.reads_all_data && !role.superuser, "reads all data"),
        (role.bypasses_row_security && !role.superuser, "bypasses row security"),
    ];
    let attributes: Vec<&str> =
        attributes.into_iter().filter(|(has, _)| *has).map(|(_, word)| word).collect();
    let told = if attributes.is_empty() { "no attribute" } else { &*attributes.join(", ") };
    let mut findings = vec![Finding::ok(NAME, format!("{}: {told}", role.name))];
    if !role.reads_passwords {
        findings.push(
            Finding::warning(
                NAME,
                "may not read password hashes: roles are kept without them",
                "restored roles need new passwords; with this, treat its password like a superuser's",
            )
            .mended_by(format!(
                "GRANT pg_read_all_data TO {};",
                crate::postgres::quote_ident(&role.name)
            )),
        );
    }
    if let Some(days) = role.password_days.filter(|days| *days < PASSWORD_DAYS) {
        findings.push(Finding::warning(
            NAME,
            format!("its password ends in {days} days"),
            "ALTER ROLE … VALID UNTIL, before a night's snapshot fails",
        ));
    }
    findings.push(connections(facts));
    findings
}

fn connections(facts: &ServerFacts) -> Finding {
    const NAME: &str = "connections";
    let role = &facts.role;
    // Our own session goes before the snapshot's come.
    let free = facts.connections_max - facts.connections_used + 1;
    let own = i64::from(role.connections_max);
    if (0..SESSIONS).contains(&own) {
        return Finding::failed(
            NAME,
            FailureKind::Postgres,
            format!("role {} may hold {own}, and a snapshot needs {SESSIONS}", role.name),
            "raise the role's limit",
        )
        .mended_by(format!(
            "ALTER ROLE {} CONNECTION LIMIT {};",
            crate::postgres::quote_ident(&role.name),
            SESSIONS * 2
        ));
    }
    let own_free = if own < 0 { free } else { own - role.connections_used + 1 };
    if free.min(own_free) < SESSIONS {
        return Finding::warning(
            NAME,
            format!("{} are free now, and a snapshot needs {SESSIONS}", free.min(own_free).max(0)),
            "raise max_connections or the role's limit, or end idle sessions",
        );
    }
    Finding::ok(NAME, format!("{} are free, a snapshot needs {SESSIONS}", free.min(own_free)))
}

/// Whether this is a server that the cluster's name knows.
async fn known(
    checking: &Checking<'_>,
    facts: &ServerFacts,
    repository: Option<&Repository>,
) -> Option<Finding> {
    const NAME: &str = "system-identifier";
    let Some(identifier) = &facts.system_identifier else {
        return Some(Finding::warning(
            NAME,
            "the server hides it: backups of another server under this name cannot be told apart",
            "nothing to do on most managed servers; give each server a cluster name of its own",
        ));
    };
    let filter = Filter { cluster: Some(checking.cluster.clone()), database: None };
    let entries = repository?.catalog(&filter).await.ok()?.entries;
    let known: Vec<&str> = entries
        .iter()
        .filter(|entry| !entry.foreign)
        .filter_map(|entry| entry.manifest.system_identifier.as_deref())
        .collect();
    if known.is_empty() || known.contains(&identifier.as_str()) {
        return Some(Finding::ok(NAME, identifier));
    }
    Some(Finding::warning(
        NAME,
        format!("cluster `{}` does not know this server, {identifier}", checking.cluster),
        "is it the right one? after pg_upgrade, a new initdb or a move take a snapshot, then `pgkeep adopt` it",
    ))
}

/// The programs that snapshots and restores run.
fn programs(major: u32, bin_dir: Option<&Path>) -> Finding {
    const NAME: &str = "client-programs";
    let found = Programs::find(major, bin_dir).and_then(|programs| {
        for program in ["pg_dumpall", "pg_restore"] {
            programs.version(program)?;
        }
        let version = programs.version("pg_dump")?;
        Ok(format!("{version} in {}", programs.directory().display()))
    });
    match found {
        Ok(told) => Finding::ok(NAME, told),
        Err(error) => Finding::error(NAME, &Problem::of(&error)),
    }
}

/// Those that `verify` starts a scratch cluster with; it can also use a database on a server.
fn server_programs(major: u32, bin_dir: Option<&Path>) -> Finding {
    const NAME: &str = "server-programs";
    let found = Programs::find_server(major, bin_dir)
        .and_then(|programs| programs.program("initdb").map(|_| programs));
    match found {
        Ok(programs) if programs.major() == major => {
            Finding::ok(NAME, format!("PostgreSQL {major} in {}", programs.directory().display()))
        }
        Ok(programs) => Finding::ok(
            NAME,
            format!("PostgreSQL {}, newer than the server; verify uses those", programs.major()),
        ),
        Err(error) => {
            let problem = Problem::of(&error);
            Finding::warning(
                NAME,
                format!("verify can start no scratch cluster here: {}", problem.message),
                problem.hint.unwrap_or_default(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::postgres::server_facts::RoleFacts;

    fn facts(clock_ms: i64) -> ServerFacts {
        ServerFacts {
            version: "15.18".to_owned(),
            clock_ms,
            in_recovery: false,
            system_identifier: None,
            connections_max: 97,
            connections_used: 1,
            locks_max: 6400,
            role: RoleFacts {
                name: "r".to_owned(),
                superuser: false,
                bypasses_row_security: false,
                reads_all_data: true,
                reads_passwords: true,
                connections_max: -1,
                connections_used: 1,
                password_days: None,
            },
        }
    }

    #[test]
    fn clocks_that_differ_are_told_with_their_distance_and_side() {
        let at = |ms| jiff::Timestamp::from_millisecond(ms).expect("a time");
        let skew = |server| clock(&facts(server), at(1_000_000), at(1_000_400));
        assert_eq!(skew(1_000_300).level, Level::Ok);
        assert_eq!(skew(1_060_200).level, Level::Ok);
        let ahead = skew(1_000_200 + 61_500);
        assert_eq!(ahead.level, Level::Warning);
        assert_eq!(ahead.detail, "the server's is 61.5 s ahead of this host's");
        assert_eq!(skew(-3_000_000).detail, "the server's is 4000.2 s behind this host's");
    }

    #[test]
    fn connections_count_those_of_the_server_and_of_the_role() {
        let level = |used, own_max, own_used| {
            let mut facts = facts(0);
            facts.connections_used = used;
            (facts.role.connections_max, facts.role.connections_used) = (own_max, own_used);
            connections(&facts).level
        };
        assert_eq!(level(94, -1, 1), Level::Ok);
        assert_eq!(level(95, -1, 1), Level::Warning);
        assert_eq!(level(1, 4, 1), Level::Ok);
        assert_eq!(level(1, 8, 6), Level::Warning);
        assert_eq!(level(1, 3, 1), Level::Failed(FailureKind::Postgres));
        // 0 lets nobody in, and is no absence of a limit.
        assert_eq!(level(1, 0, 1), Level::Failed(FailureKind::Postgres));
    }
}
