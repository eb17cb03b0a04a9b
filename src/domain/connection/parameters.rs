//! The parameters of a connection string: libpq's own, those of ORMs, and the nearest to a misspelt one.

use super::ConnectionError;

/// How pgkeep treats a parameter of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Understood, and handed on to client programs.
    Kept,
    /// Understood, but pgkeep decides this itself, or it has no effect: read and left out.
    Dropped,
    /// The session could not honour it, and leaving it out would weaken or change what was asked.
    Refused(&'static str),
}

/// One parameter as libpq's `PQconninfoOptions` table has it (PostgreSQL 18).
#[derive(Debug)]
pub(super) struct Parameter {
    /// The word in connection strings and service files.
    pub(super) keyword: &'static str,
    /// Its environment variable; a few have none.
    pub(super) variable: Option<&'static str>,
    /// What pgkeep makes of it.
    pub(super) treatment: Treatment,
}

const fn kept(keyword: &'static str, variable: &'static str) -> Parameter {
    Parameter { keyword, variable: Some(variable), treatment: Treatment::Kept }
}
const fn unnamed(keyword: &'static str) -> Parameter {
    Parameter { keyword, variable: None, treatment: Treatment::Kept }
}
const fn dropped(keyword: &'static str, variable: Option<&'static str>) -> Parameter {
    Parameter { keyword, variable, treatment: Treatment::Dropped }
}
const fn refused(
    keyword: &'static str,
    variable: Option<&'static str>,
    why: &'static str,
) -> Parameter {
    Parameter { keyword, variable, treatment: Treatment::Refused(why) }
}

/// Every parameter libpq knows.
pub(super) const PARAMETERS: &[Parameter] = &[
    kept("service", "PGSERVICE"),
    kept("servicefile", "PGSERVICEFILE"),
    kept("user", "PGUSER"),
    kept("password", "PGPASSWORD"),
    kept("passfile", "PGPASSFILE"),
    kept("channel_binding", "PGCHANNELBINDING"),
    kept("connect_timeout", "PGCONNECT_TIMEOUT"),
    kept("dbname", "PGDATABASE"),
    kept("host", "PGHOST"),
    kept("hostaddr", "PGHOSTADDR"),
    kept("port", "PGPORT"),
    dropped("client_encoding", Some("PGCLIENTENCODING")),
    kept("options", "PGOPTIONS"),
    kept("application_name", "PGAPPNAME"),
    dropped("fallback_application_name", None),
    unnamed("keepalives"),
    unnamed("keepalives_idle"),
    unnamed("keepalives_interval"),
    unnamed("keepalives_count"),
    unnamed("tcp_user_timeout"),
    kept("sslmode", "PGSSLMODE"),
    kept("sslnegotiation", "PGSSLNEGOTIATION"),
    dropped("sslcompression", Some("PGSSLCOMPRESSION")),
    kept("sslcert", "PGSSLCERT"),
    kept("sslkey", "PGSSLKEY"),
    kept("sslcertmode", "PGSSLCERTMODE"),
    refused("sslpassword", None, "pgkeep cannot use a private key behind a passphrase"),
    kept("sslrootcert", "PGSSLROOTCERT"),
    kept("sslcrl", "PGSSLCRL"),
    refused("sslcrldir", Some("PGSSLCRLDIR"), "give one file as sslcrl instead"),
    kept("sslsni", "PGSSLSNI"),
    refused("requirepeer", Some("PGREQUIREPEER"), "pgkeep cannot check who owns the server"),
    refused(
        "require_auth",
        Some("PGREQUIREAUTH"),
        "pgkeep cannot hold the server to one method; sslmode=verify-full or channel_binding=require guard the password",
    ),
    dropped("min_protocol_version", Some("PGMINPROTOCOLVERSION")),
    dropped("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    kept("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    kept("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    kept("gssencmode", "PGGSSENCMODE"),
    kept("krbsrvname", "PGKRBSRVNAME"),
    kept("gsslib", "PGGSSLIB"),
    kept("gssdelegation", "PGGSSDELEGATION"),
    refused("replication", None, "pgkeep opens replication connections itself"),
    kept("target_session_attrs", "PGTARGETSESSIONATTRS"),
    kept("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    refused("scram_client_key", None, "give the password instead"),
    refused("scram_server_key", None, "give the password instead"),
    dropped("sslkeylogfile", None),
];

/// Parameters of Prisma, and of the drivers and poolers that share its URLs; libpq knows none of them.
pub(super) const ORM_PARAMETERS: &[&str] = &[
    "schema",
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "pool_size",
    "pool",
    "socket_timeout",
    "statement_cache_size",
    "sslaccept",
    "sslidentity",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "single_use_connections",
    "prepared_statements",
    "prepareThreshold",
    "uselibpqcompat",
];

/// Words that other tools use for a parameter of libpq.
const SYNONYMS: &[(&str, &str)] = &[
    ("database", "dbname"),
    ("db", "dbname"),
    ("username", "user"),
    ("hostname", "host"),
    ("pass", "password"),
    ("passwd", "password"),
    ("ssl", "sslmode"),
    ("timeout", "connect_timeout"),
    ("sslca", "sslrootcert"),
    ("ssl_ca", "sslrootcert"),
];

/// libpq's parameter of that keyword.
pub(super) fn parameter(keyword: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|known| known.keyword == keyword)
}

/// Whether libpq or an ORM knows that word.
pub(super) fn is_known(keyword: &str) -> bool {
    parameter(keyword).is_some() || ORM_PARAMETERS.contains(&keyword)
}

/// Names the parameter that was probably meant.
pub(super) fn unknown(name: &str) -> ConnectionError {
    let lower = name.to_lowercase();
    let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == lower).map(|(_, ours)| *ours);
    let known = PARAMETERS.iter().map(|known| known.keyword).chain(ORM_PARAMETERS.iter().copied());
    let nearest = synonym.or_else(|| {
        known
            .map(|keyword| (strsim::damerau_levenshtein(&lower, keyword), keyword))
            .min()
            .filter(|(distance, keyword)| *distance <= 2.max(keyword.len() / 3))
            .map(|(_, keyword)| keyword)
    });
    ConnectionError::UnknownParameter { name: printable(name), nearest }
}

/// At most 40 characters of a name, without control characters: an error line stays one line.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(name: &str) -> Option<&'static str> {
        match unknown(name) {
            ConnectionError::UnknownParameter { nearest, .. } => nearest,
            _ => None,
        }
    }

    #[test]
    fn a_misspelt_parameter_is_told_the_nearest() {
        assert_eq!(nearest("sslmod"), Some("sslmode"));
        assert_eq!(nearest("SSLMODE"), Some("sslmode"));
        assert_eq!(nearest("sslroot_cert"), Some("sslrootcert"));
        assert_eq!(nearest("database"), Some("dbname"));
        assert_eq!(nearest("conection_limit"), Some("connection_limit"));
        assert_eq!(nearest("zzzzzzzzzz"), None);
    }

    #[test]
    fn no_keyword_is_listed_twice() {
        for (at, known) in PARAMETERS.iter().enumerate() {
            assert!(PARAMETERS[at + 1..].iter().all(|other| other.keyword != known.keyword));
            assert!(!ORM_PARAMETERS.contains(&known.keyword), "{}", known.keyword);
        }
    }
}
