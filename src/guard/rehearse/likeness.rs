//! What of the source's server the copy's has, so that times mean something; and what it has not, which is told.

use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::scratch::space;

/// Limits of time, which the command has to keep, and what loads the copy has not.
const LIMITS: [&str; 3] =
    ["idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"];

/// Settings that decide how fast a command is.
const TAKEN: [&str; 17] = [
    "checkpoint_completion_target",
    "checkpoint_timeout",
    "effective_cache_size",
    "hash_mem_multiplier",
    "jit",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "max_wal_size",
    "max_worker_processes",
    "min_wal_size",
    "random_page_cost",
    "seq_page_cost",
    SHARED_BUFFERS,
    "temp_buffers",
    "work_mem",
];
const SHARED_BUFFERS: &str = "shared_buffers";
/// More than this share of this machine's memory is not taken.
const SHARE: u64 = 4;

/// Those of the server, and not of this session, its role, or its database.
const SETTINGS: &str = "
    SELECT name::text, setting, coalesce(unit, '')
      FROM pg_catalog.pg_settings
     WHERE name::text = ANY ($1) AND source NOT IN ('client', 'session', 'database', 'user', 'database user')";

const LIBRARIES: &str = "
    SELECT setting FROM pg_catalog.pg_settings
     WHERE name = 'shared_preload_libraries' AND setting <> ''";

/// What is taken over, and what is not.
pub(super) struct Likeness {
    pub(super) settings: Vec<(&'static str, String)>,
    /// Those that are for the command alone.
    pub(super) limits: Vec<(&'static str, String)>,
    pub(super) differs: Vec<String>,
}

/// Asks the source.
pub(super) async fn of(source: &Session) -> Result<Likeness, PostgresError> {
    let mut likeness = Likeness { settings: Vec::new(), limits: Vec::new(), differs: Vec::new() };
    for row in source.client().query(SETTINGS, &[&LIMITS.as_slice()]).await? {
        let (name, setting, unit): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let own = LIMITS.into_iter().find(|own| *own == name);
        likeness.limits.extend(own.map(|own| (own, with_unit(&setting, &unit))));
    }
    let rows = source.client().query(SETTINGS, &[&TAKEN.as_slice()]).await?;
    for row in rows {
        let (name, setting, unit): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let Some(name) = TAKEN.into_iter().find(|own| *own == name) else { continue };
        let value = with_unit(&setting, &unit);
        let too_much = space::machine_memory() / SHARE;
        if name == SHARED_BUFFERS && bytes(&setting, &unit).is_some_and(|bytes| bytes > too_much) {
            likeness
                .differs
                .push(format!("{name} was not {value}: this machine has too little memory"));
            continue;
        }
        likeness.settings.push((name, value));
    }
    // A row that not every role may see.
    for row in source.client().query(LIBRARIES, &[]).await? {
        let libraries: String = row.get(0);
        likeness.differs.push(format!("without the libraries {libraries}"));
    }
    likeness.differs.push("its disk and its processors are this machine's".to_owned());
    likeness.differs.push(
        "nobody else was at work in it, and no autovacuum; caches held what the restore left"
            .to_owned(),
    );
    Ok(likeness)
}

/// As a file would say it: `pg_settings` counts in units such as `8kB`.
fn with_unit(setting: &str, unit: &str) -> String {
    let at = unit.find(|c: char| !c.is_ascii_digit()).unwrap_or(unit.len());
    let (factor, unit) = unit.split_at(at);
    match (setting.parse::<i64>(), factor.parse::<i64>()) {
        (Ok(value), Ok(factor)) if value > 0 => format!("{}{unit}", value.saturating_mul(factor)),
        (Ok(value), Err(_)) if value > 0 => format!("{value}{unit}"),
        (Err(_), _) if !unit.is_empty() => format!("{setting}{unit}"),
        // Zero and less are words of their own: off, or as it thinks best.
        _ => setting.to_owned(),
    }
}

fn bytes(setting: &str, unit: &str) -> Option<u64> {
    let text = with_unit(setting, unit);
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let factor = match &text[at..] {
        "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        _ => return None,
    };
    text[..at].parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_a_file_would_have_them() {
        for (setting, unit, written) in [
            ("16384", "8kB", "131072kB"),
            ("4096", "kB", "4096kB"),
            ("0", "ms", "0"),
            ("-1", "8kB", "-1"),
            ("1.1", "", "1.1"),
            ("on", "", "on"),
            ("8", "", "8"),
            ("300", "s", "300s"),
        ] {
            assert_eq!(with_unit(setting, unit), written);
        }
        assert_eq!(bytes("16384", "8kB"), Some(128 << 20));
        assert_eq!(bytes("300", "s"), None);
    }
}
