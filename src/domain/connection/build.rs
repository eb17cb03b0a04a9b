//! From text to [`ConnectionInfo`]: what completes what, in libpq's order, and what each value may be.
//!
//! The connection string goes before the service file, that before the `PG*` variables, those before the
//! defaults. An empty value counts as none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::parameters::{self, ORM_PARAMETERS, PARAMETERS, Treatment};
use super::values::{
    CHANNEL_BINDINGS, CONNECT_TIMEOUT_SECONDS, TARGET_SESSIONS, TLS_VERSIONS_FROM, TLS_VERSIONS_TO,
    address, default_host, expected_of, host_name, port, tls_mode,
};
use super::{
    ConnectionError, ConnectionInfo, ConnectionSources, Endpoint, HostName, KeepAlives, Secret,
    TlsMode, TlsSettings, TlsVersions, files, keyword, uri,
};

/// Where builds of libpq look for `pg_service.conf` when PGSYSCONFDIR does not say.
const SYSTEM_DIRECTORIES: [&str; 4] =
    ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc/postgresql", "/etc"];

pub(super) fn from_environment(
    sources: &dyn ConnectionSources,
) -> Result<ConnectionInfo, ConnectionError> {
    Settings::default().complete(sources)
}

pub(super) fn parse(
    text: &str,
    sources: &dyn ConnectionSources,
) -> Result<ConnectionInfo, ConnectionError> {
    let text = unquoted(text.trim());
    if text.is_empty() {
        return Err(ConnectionError::Empty);
    }
    let mut settings = Settings::default();
    if let Some(rest) = uri_body(text) {
        settings.take_uri(uri::parts(rest)?)?;
    } else if let Some(scheme) = foreign_scheme(text) {
        return Err(ConnectionError::ForeignScheme { scheme });
    } else if text.contains('=') {
        for (keyword, value) in keyword::pairs(text)? {
            settings.take(&keyword, value)?;
        }
    } else {
        return Err(ConnectionError::NoConnectionString);
    }
    settings.complete(sources)
}

/// Files of variables often keep the quotes.
fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text).trim()
}

fn uri_body(text: &str) -> Option<&str> {
    ["postgres://", "postgresql://"].iter().find_map(|scheme| {
        let head = text.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
    })
}

fn foreign_scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once("://")?;
    let of_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b':');
    let good = !scheme.is_empty() && scheme.len() <= 40 && scheme.bytes().all(of_scheme);
    good.then(|| scheme.to_lowercase())
}

/// Values by keyword, before they are judged.
#[derive(Default)]
struct Settings {
    values: BTreeMap<&'static str, String>,
    foreign: BTreeMap<&'static str, String>,
    notices: Vec<String>,
}

impl Settings {
    fn take_uri(&mut self, parts: uri::Parts) -> Result<(), ConnectionError> {
        let list = |pick: fn(&(String, String)) -> &str| {
            let texts: Vec<&str> = parts.hosts.iter().map(pick).collect();
            // Nothing but commas says nothing.
            texts.iter().any(|text| !text.is_empty()).then(|| texts.join(","))
        };
        let given = [
            ("host", list(|(host, _)| host)),
            ("port", list(|(_, port)| port)),
            ("user", parts.user),
            ("password", parts.password),
            ("dbname", parts.database),
        ];
        for (keyword, value) in given {
            if let Some(value) = value {
                self.take(keyword, value)?;
            }
        }
        for (name, value) in parts.parameters {
            // As libpq does for JDBC's sake.
            if name == "ssl" && value == "true" {
                self.take("sslmode", "require".to_owned())?;
            } else {
                self.take(&name, value)?;
            }
        }
        Ok(())
    }

    /// A setting of the connection string; later ones win.
    fn take(&mut self, name: &str, value: String) -> Result<(), ConnectionError> {
        if let Some(known) = parameters::parameter(name) {
            if !value.is_empty() {
                self.values.insert(known.keyword, value);
            }
            return Ok(());
        }
        let Some(known) = ORM_PARAMETERS.iter().find(|known| **known == name) else {
            return Err(parameters::unknown(name));
        };
        self.foreign.insert(known, value);
        Ok(())
    }

    fn fill(&mut self, keyword: &'static str, value: String) {
        if !value.is_empty() {
            self.values.entry(keyword).or_insert(value);
        }
    }

    fn get(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(String::as_str)
    }

    fn complete(
        mut self,
        sources: &dyn ConnectionSources,
    ) -> Result<ConnectionInfo, ConnectionError> {
        self.service(sources)?;
        for known in PARAMETERS {
            if let Some(value) = known.variable.and_then(|name| sources.variable(name)) {
                self.fill(known.keyword, value);
            }
        }
        self.orm();
        self.treat()?;
        let named = self.get("user").map(str::to_owned);
        let user = named.or_else(|| sources.user_name()).ok_or(ConnectionError::NoUser)?;
        let password = self.values.remove("password").map(Secret::new);
        if password.as_ref().is_some_and(|p| p.expose().contains(['\n', '\r', '\0'])) {
            return Err(ConnectionError::PasswordLineBreak);
        }
        let passfile = if password.is_none() { self.passfile(sources) } else { Vec::new() };
        Ok(ConnectionInfo {
            endpoints: self.endpoints(sources)?,
            database: self.get("dbname").unwrap_or(&user).to_owned(),
            user,
            password,
            passfile,
            tls: self.tls(sources)?,
            channel_binding: self.word("channel_binding", CHANNEL_BINDINGS)?,
            target_session: self.word("target_session_attrs", TARGET_SESSIONS)?,
            keep_alives: self.keep_alives()?,
            connect_timeout_seconds: self
                .number("connect_timeout")?
                .filter(|seconds| *seconds > 0)
                .unwrap_or(CONNECT_TIMEOUT_SECONDS),
            options: self.get("options").map(str::to_owned),
            shuffled: self.word("load_balance_hosts", &[("disable", false), ("random", true)])?,
            handed_on: self.handed_on(),
            schema: self.foreign.get("schema").cloned().filter(|schema| !schema.is_empty()),
            pooled: self.foreign.get("pgbouncer").is_some_and(|value| value == "true"),
            notices: self.notices,
        })
    }

    /// What ORM parameters mean for us, and one line that names those that mean nothing.
    fn orm(&mut self) {
        if self.foreign.get("sslaccept").is_some_and(|value| value == "strict") {
            // Prisma's `strict` checks chain and name; its `sslcert` is the root certificate.
            if self.get("sslkey").is_none()
                && let Some(root) = self.values.remove("sslcert")
            {
                self.fill("sslrootcert", root);
            }
            let asked = self.get("sslmode").and_then(tls_mode);
            if asked.is_none_or(|mode| (TlsMode::Allow..TlsMode::VerifyCa).contains(&mode)) {
                self.values.insert("sslmode", "verify-full".to_owned());
                self.notices.push("`sslaccept=strict` is read as sslmode=verify-full".to_owned());
            }
            if asked != Some(TlsMode::Disable) {
                self.fill("sslrootcert", "system".to_owned());
            }
        }
        if self.foreign.contains_key("sslidentity") {
            // It is the passphrase of the PKCS#12 file that is not read either.
            self.values.remove("sslpassword");
            self.notices.push(
                "`sslidentity` (PKCS#12) is not read; a client certificate is given as sslcert and sslkey".to_owned(),
            );
        }
        let understood = ["sslaccept", "sslidentity"];
        let names: Vec<String> = self
            .foreign
            .keys()
            .filter(|name| !understood.contains(name))
            .map(|name| format!("`{name}`"))
            .collect();
        if !names.is_empty() {
            let names = names.join(", ");
            self.notices.push(format!("parameters of ORMs and poolers are left out: {names}"));
        }
    }

    fn service(&mut self, sources: &dyn ConnectionSources) -> Result<(), ConnectionError> {
        let given = |keyword: &str, variable: &str| {
            let own = self.get(keyword).map(str::to_owned);
            own.or_else(|| sources.variable(variable)).filter(|value| !value.is_empty())
        };
        let Some(name) = given("service", "PGSERVICE") else {
            return Ok(());
        };
        let mut candidates = Vec::new();
        if let Some(path) = given("servicefile", "PGSERVICEFILE").map(PathBuf::from) {
            if sources.file(&path).is_none() {
                return Err(ConnectionError::ServiceFileMissing(path));
            }
            candidates.push(path);
        } else if let Some(home) = sources.home() {
            candidates.push(home.join(".pg_service.conf"));
        }
        match sources.variable("PGSYSCONFDIR").filter(|value| !value.is_empty()) {
            Some(directory) => candidates.push(Path::new(&directory).join("pg_service.conf")),
            None => candidates.extend(
                SYSTEM_DIRECTORIES.iter().map(|known| Path::new(known).join("pg_service.conf")),
            ),
        }
        for path in candidates {
            let Some(file) = sources.file(&path) else { continue };
            if let Some(found) = files::service(&file.text, &path, &name)? {
                for (keyword, value) in found {
                    let known = parameters::parameter(&keyword)
                        .ok_or_else(|| parameters::unknown(&keyword))?;
                    self.fill(known.keyword, value);
                }
                return Ok(());
            }
        }
        Err(ConnectionError::ServiceNotFound(name))
    }

    /// Refuses what cannot be honoured, and drops what has no effect.
    fn treat(&mut self) -> Result<(), ConnectionError> {
        for known in PARAMETERS {
            match known.treatment {
                Treatment::Dropped => {
                    self.values.remove(known.keyword);
                }
                Treatment::Refused(why) if self.values.contains_key(known.keyword) => {
                    return Err(ConnectionError::Refused { parameter: known.keyword, why });
                }
                Treatment::Kept | Treatment::Refused(_) => {}
            }
        }
        Ok(())
    }

    fn passfile(&mut self, sources: &dyn ConnectionSources) -> Vec<files::PassfileEntry> {
        let named = self.get("passfile").map(PathBuf::from);
        let Some(path) = named.or_else(|| sources.home().map(|home| home.join(".pgpass"))) else {
            return Vec::new();
        };
        let Some(file) = sources.file(&path) else {
            return Vec::new();
        };
        if file.mode & 0o077 != 0 {
            self.notices.push(format!(
                "the passfile {} is passed over, because others can read it: chmod 600",
                path.display()
            ));
            return Vec::new();
        }
        files::passfile(&file.text)
    }

    fn endpoints(&self, sources: &dyn ConnectionSources) -> Result<Vec<Endpoint>, ConnectionError> {
        let list =
            |keyword| self.get(keyword).map(|t| t.split(',').map(str::trim).collect::<Vec<_>>());
        let (hosts, addresses) = (list("host"), list("hostaddr"));
        let ports = list("port").unwrap_or_default();
        let count = addresses.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
        let mismatch =
            |parameter, found| ConnectionError::HostCount { hosts: count, parameter, found };
        if hosts.as_ref().is_some_and(|hosts| hosts.len() != count) {
            return Err(mismatch("host", hosts.map_or(0, |hosts| hosts.len())));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(mismatch("port", ports.len()));
        }
        let at = |list: &Option<Vec<&str>>, index: usize| {
            list.as_ref().map(|list| list[index].to_owned()).filter(|text| !text.is_empty())
        };
        (0..count)
            .map(|index| {
                let port = port(ports.get(index).or(ports.first()).copied().unwrap_or_default())?;
                let address = at(&addresses, index).as_deref().map(address).transpose()?;
                let host = match (at(&hosts, index), address) {
                    (Some(host), _) => host_name(host)?,
                    (None, Some(address)) => HostName::Network(address.to_string()),
                    (None, None) => default_host(port, sources),
                };
                Ok(Endpoint { host, address, port })
            })
            .collect()
    }

    fn tls(&self, sources: &dyn ConnectionSources) -> Result<TlsSettings, ConnectionError> {
        let text = |keyword| self.get(keyword).map(str::to_owned);
        let root_cert = text("sslrootcert");
        let system = root_cert.as_deref() == Some("system");
        let mode = match self.get("sslmode") {
            Some(word) => tls_mode(word).ok_or_else(|| ConnectionError::BadValue {
                parameter: "sslmode",
                value: word.to_owned(),
                expected: "disable, allow, prefer, require, verify-ca or verify-full",
            })?,
            None if system => TlsMode::VerifyFull,
            None => TlsMode::Prefer,
        };
        if system && mode != TlsMode::VerifyFull {
            return Err(ConnectionError::WeakForSystemRoots(mode.as_str()));
        }
        let direct = self.word("sslnegotiation", &[("postgres", false), ("direct", true)])?;
        if direct && mode < TlsMode::Require {
            return Err(ConnectionError::WeakForDirect(mode.as_str()));
        }
        // Older versions may be named as a minimum, but are never spoken.
        let oldest: u8 = self.word("ssl_min_protocol_version", TLS_VERSIONS_FROM)?;
        let newest: u8 = self.word("ssl_max_protocol_version", TLS_VERSIONS_TO)?;
        if newest < oldest.max(2) {
            return Err(ConnectionError::BadValue {
                parameter: "ssl_max_protocol_version",
                value: text("ssl_max_protocol_version").unwrap_or_default(),
                expected: "TLSv1.2 or TLSv1.3, and not older than ssl_min_protocol_version",
            });
        }
        Ok(TlsSettings {
            mode,
            direct,
            root_cert,
            revocation_list: text("sslcrl"),
            client_cert: text("sslcert"),
            client_key: text("sslkey"),
            send_client_cert: self
                .word("sslcertmode", &[("allow", true), ("require", true), ("disable", false)])?,
            server_name_indication: self.word("sslsni", &[("1", true), ("0", false)])?,
            versions: match (oldest, newest) {
                (3, _) => TlsVersions::Only13,
                (_, 2) => TlsVersions::Only12,
                _ => TlsVersions::Any,
            },
            user_directory: sources.home().map(|home| home.join(".postgresql")),
        })
    }

    fn keep_alives(&self) -> Result<KeepAlives, ConnectionError> {
        let usual = KeepAlives::default();
        let positive = |keyword| Ok(self.number(keyword)?.filter(|value| *value > 0));
        Ok(KeepAlives {
            enabled: self.number("keepalives")?.is_none_or(|value| value != 0),
            idle_seconds: positive("keepalives_idle")?.unwrap_or(usual.idle_seconds),
            interval_seconds: positive("keepalives_interval")?.unwrap_or(usual.interval_seconds),
            count: positive("keepalives_count")?.unwrap_or(usual.count),
            tcp_user_timeout_ms: positive("tcp_user_timeout")?,
        })
    }

    /// What client programs are told beyond the fields of [`ConnectionInfo`].
    fn handed_on(&self) -> BTreeMap<&'static str, String> {
        const FIELDS: [&str; 13] = [
            "service",
            "servicefile",
            "user",
            "password",
            "passfile",
            "connect_timeout",
            "dbname",
            "host",
            "hostaddr",
            "port",
            "options",
            "application_name",
            "sslmode",
        ];
        PARAMETERS
            .iter()
            .filter(|known| !FIELDS.contains(&known.keyword))
            .filter_map(|known| Some((known.variable?, self.values.get(known.keyword)?.clone())))
            .collect()
    }

    fn number(&self, keyword: &'static str) -> Result<Option<u32>, ConnectionError> {
        let Some(text) = self.get(keyword).map(str::trim) else {
            return Ok(None);
        };
        let bad = |_| ConnectionError::BadValue {
            parameter: keyword,
            value: text.to_owned(),
            expected: "a whole number",
        };
        // Below zero is libpq's other word for "not set".
        let value: i32 = text.parse().map_err(bad)?;
        Ok(Some(u32::try_from(value).unwrap_or(0)))
    }

    /// One of `words`; the first is the default.
    fn word<T: Copy>(
        &self,
        keyword: &'static str,
        words: &'static [(&'static str, T)],
    ) -> Result<T, ConnectionError> {
        let Some(text) = self.get(keyword) else {
            return Ok(words[0].1);
        };
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            ConnectionError::BadValue {
                parameter: keyword,
                value: text.to_owned(),
                expected: expected_of(keyword),
            }
        })
    }
}
