//! Sessions: one connection each, let in the way libpq would be, and ended when the value is dropped.
//!
//! Hosts are tried in order, each within `connect_timeout` (10 s unless said otherwise), so a dead address
//! never waits for ever; keep-alives end a session whose peer is gone. Failures are told apart by what the
//! operator has to do. What a crash leaves: the server notices the closed socket, also while it works on a
//! statement where it can (`client_connection_check_interval`), and rolls back.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{PostgresError, chain, one_line};
use super::tls;
use crate::domain::connection::{
    ChannelBinding, ConnectionInfo, Endpoint, HostName, TargetSession, TlsMode,
};

/// How long a cancel request may take.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// An open session; dropping it closes the connection.
pub struct Session {
    client: Client,
    canceller: Canceller,
    version_num: u32,
    address: String,
    task: JoinHandle<()>,
}

impl Session {
    /// Connects to the first host that lets us in. `purpose` ends the `application_name`.
    pub async fn connect(info: &ConnectionInfo, purpose: &str) -> Result<Session, PostgresError> {
        if info.requires_gss() {
            return Err(PostgresError::GssRequired);
        }
        let connector = match info.tls().mode {
            TlsMode::Disable => None,
            _ if info.endpoints().iter().all(is_socket) => None,
            _ => Some(tls::connector(info.tls())?),
        };
        let mut endpoints: Vec<&Endpoint> = info.endpoints().iter().collect();
        if info.is_shuffled() {
            shuffle(&mut endpoints);
        }
        // `prefer-standby` looks at every host twice: for a standby, then for any.
        let rounds = match info.target_session() {
            TargetSession::PreferStandby => vec![TargetSession::Standby, TargetSession::Any],
            one => vec![one],
        };
        let mut last = None;
        for wanted in rounds {
            for endpoint in &endpoints {
                let connector = connector.as_ref();
                let attempt = Attempt { info, endpoint, purpose, connector };
                match attempt.run(wanted).await {
                    Ok(session) => return Ok(session),
                    Err(error) if goes_on(&error) => last = Some(error),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last.expect("a connection has at least one host"))
    }

    /// The driver's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// For transactions through the driver.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs statements that return nothing of interest.
    pub async fn batch(&self, sql: &str) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// `server_version_num`, such as 150018.
    pub fn server_version_num(&self) -> u32 {
        self.version_num
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// `host:port` of the server that let us in.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// A handle that cancels this session's running statement from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Cancels the running statement, if there is one.
    pub async fn cancel(&self) -> Result<(), PostgresError> {
        self.canceller.cancel().await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Cancels the running statement of one session.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    connector: Option<MakeRustlsConnect>,
}

impl Canceller {
    /// Asks the server to cancel; within 5 s or not at all.
    pub async fn cancel(&self) -> Result<(), PostgresError> {
        let request = async {
            match &self.connector {
                Some(connector) => self.token.cancel_query(connector.clone()).await,
                None => self.token.cancel_query(NoTls).await,
            }
        };
        match tokio::time::timeout(CANCEL_LIMIT, request).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(PostgresError::ConnectionLost {
                reason: "a cancel request was not answered".to_owned(),
            }),
        }
    }
}

fn is_socket(endpoint: &Endpoint) -> bool {
    matches!(endpoint.host, HostName::Socket(_))
}

/// As libpq: another host is tried when this one is not there or not what is wanted, not when it says no.
fn goes_on(error: &PostgresError) -> bool {
    matches!(
        error,
        PostgresError::Unreachable { .. }
            | PostgresError::NotPostgres { .. }
            | PostgresError::TimedOut { .. }
            | PostgresError::NotReady { .. }
            | PostgresError::WrongTarget { .. }
            | PostgresError::ConnectionLost { .. }
            | PostgresError::TlsNotOffered { .. }
            | PostgresError::TlsFailed { .. }
    )
}

fn shuffle(endpoints: &mut [&Endpoint]) {
    for upper in (1..endpoints.len()).rev() {
        // Without chance the order stays as given.
        let chance = getrandom::u32().unwrap_or(u32::MAX) as usize;
        endpoints.swap(upper, chance % (upper + 1));
    }
}

/// One way of connecting, as libpq's `sslmode` orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    /// TLS where the server has it, plain where it says it has none.
    Offered,
    Tls,
}

struct Attempt<'a> {
    info: &'a ConnectionInfo,
    endpoint: &'a Endpoint,
    purpose: &'a str,
    connector: Option<&'a MakeRustlsConnect>,
}

impl Attempt<'_> {
    async fn run(&self, wanted: TargetSession) -> Result<Session, PostgresError> {
        let limit = Duration::from_secs(self.info.connect_timeout_seconds().into());
        let attempt = async {
            let session = self.by_mode().await?;
            session.settle(wanted, self.info.is_pooled()).await
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
            Err(PostgresError::TimedOut { address: self.address(), waited: limit })
        })
    }

    fn address(&self) -> String {
        self.endpoint.to_string()
    }

    async fn by_mode(&self) -> Result<Session, PostgresError> {
        if is_socket(self.endpoint) {
            return self.connect(Way::Plain).await;
        }
        match self.info.tls().mode {
            TlsMode::Disable => self.connect(Way::Plain).await,
            TlsMode::Allow => match self.connect(Way::Plain).await {
                Err(PostgresError::NotAdmitted { .. }) => self.connect(Way::Tls).await,
                result => result,
            },
            TlsMode::Prefer => match self.connect(Way::Offered).await {
                // libpq falls back on both; a refused password is not sent a second time, in plain.
                Err(
                    first @ (PostgresError::TlsFailed { .. } | PostgresError::NotAdmitted { .. }),
                ) => match self.connect(Way::Plain).await {
                    Err(PostgresError::NotAdmitted { .. }) => Err(first),
                    result => result,
                },
                result => result,
            },
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                self.connect(Way::Tls).await
            }
        }
    }

    async fn connect(&self, way: Way) -> Result<Session, PostgresError> {
        let config = self.config(way);
        if let Some(connector) = self.connector.filter(|_| way != Way::Plain) {
            let connected = config.connect(connector.clone()).await;
            let (client, connection) = connected.map_err(|error| self.classify(error))?;
            Ok(self.session(client, connection, Some(connector.clone())))
        } else {
            let connected = config.connect(NoTls).await;
            let (client, connection) = connected.map_err(|error| self.classify(error))?;
            Ok(self.session(client, connection, None))
        }
    }

    fn session<C>(
        &self,
        client: Client,
        connection: C,
        connector: Option<MakeRustlsConnect>,
    ) -> Session
    where
        C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // The statement that was running has its own error; this one explains it.
                tracing::debug!(error = %chain(&error), "connection ended");
            }
        });
        let canceller = Canceller { token: client.cancel_token(), connector };
        Session { client, canceller, version_num: 0, address: self.address(), task }
    }

    fn config(&self, way: Way) -> Config {
        let info = self.info;
        let mut config = Config::new();
        config
            .user(info.user())
            .dbname(info.database())
            .port(self.endpoint.port)
            .application_name(format!("pgkeep/{}", self.purpose));
        match &self.endpoint.host {
            HostName::Network(name) => config.host(name),
            HostName::Socket(directory) => config.host_path(directory),
        };
        if let Some(address) = self.endpoint.address {
            config.hostaddr(address);
        }
        if let Some(password) = info.password_for(self.endpoint) {
            config.password(password);
        }
        if let Some(options) = info.options() {
            config.options(options);
        }
        config.ssl_mode(match way {
            Way::Plain => tokio_postgres::config::SslMode::Disable,
            Way::Offered => tokio_postgres::config::SslMode::Prefer,
            Way::Tls => tokio_postgres::config::SslMode::Require,
        });
        if info.tls().direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config.channel_binding(match info.channel_binding() {
            ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
            ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
            ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
        });
        let alive = info.keep_alives();
        config
            .keepalives(alive.enabled)
            .keepalives_idle(Duration::from_secs(alive.idle_seconds.into()))
            .keepalives_interval(Duration::from_secs(alive.interval_seconds.into()))
            .keepalives_retries(alive.count);
        if let Some(limit) = alive.tcp_user_timeout_ms {
            config.tcp_user_timeout(Duration::from_millis(limit.into()));
        }
        config
    }

    /// What a failed connection was about, in terms of what the operator has to do.
    fn classify(&self, error: tokio_postgres::Error) -> PostgresError {
        let address = self.address();
        let user = self.info.user().to_owned();
        if let Some(reported) = error.as_db_error() {
            let message = one_line(reported.message());
            return match reported.code() {
                code if *code == SqlState::INVALID_PASSWORD => {
                    PostgresError::PasswordRefused { address, user }
                }
                code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                    PostgresError::NotAdmitted { address, user, message }
                }
                code if *code == SqlState::INVALID_CATALOG_NAME => {
                    let database = self.info.database().to_owned();
                    PostgresError::DatabaseMissing { address, database }
                }
                code if *code == SqlState::CANNOT_CONNECT_NOW => {
                    PostgresError::NotReady { address, message }
                }
                code if *code == SqlState::TOO_MANY_CONNECTIONS => {
                    PostgresError::TooManyConnections { address, message }
                }
                _ => error.into(),
            };
        }
        let kind = error.to_string();
        let cause = std::error::Error::source(&error);
        let cause_text = cause.map(ToString::to_string).unwrap_or_default();
        let io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
        // The driver's kinds are private; its texts are pinned by the tests below.
        if kind == TLS_FAILED && cause_text == TLS_NOT_OFFERED {
            return PostgresError::TlsNotOffered { address };
        }
        if kind == TLS_FAILED || io.is_some_and(tls::is_tls) {
            let (reason, hint) = tls::explain(&error);
            let hint = if self.info.tls().direct { DIRECT_HINT } else { hint };
            return PostgresError::TlsFailed { address, reason, hint };
        }
        if cause_text == PASSWORD_MISSING {
            return PostgresError::PasswordMissing { address, user };
        }
        if let Some(io) = io.filter(|_| kind == CONNECT_FAILED) {
            let not_listening = matches!(
                io.kind(),
                std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound
            );
            let reason = one_line(&io.to_string());
            return PostgresError::Unreachable { address, reason, not_listening };
        }
        if error.is_closed() || io.is_some() {
            let reason = chain(&error);
            return PostgresError::NotPostgres { address, reason };
        }
        PostgresError::from(error)
    }
}

const CONNECT_FAILED: &str = "error connecting to server";
const TLS_FAILED: &str = "error performing TLS handshake";
const TLS_NOT_OFFERED: &str = "server does not support TLS";
const PASSWORD_MISSING: &str = "password missing";

const DIRECT_HINT: &str = "sslnegotiation=direct needs a server of PostgreSQL 17 or newer";

impl Session {
    /// Asks for the version, checks what kind of server this is, and lets it notice that we are gone.
    async fn settle(
        mut self,
        wanted: TargetSession,
        pooled: bool,
    ) -> Result<Session, PostgresError> {
        let rows = self
            .client
            .simple_query(
                "SELECT pg_catalog.current_setting('server_version_num'), \
                 pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')",
            )
            .await?;
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let field = |at| row.and_then(|row| row.get(at)).unwrap_or_default();
        self.version_num = field(0).parse().unwrap_or_default();
        let in_recovery = field(1) == "t";
        let read_only = in_recovery || field(2) == "on";
        let (fits, words) = match wanted {
            TargetSession::Any | TargetSession::PreferStandby => (true, "any"),
            TargetSession::ReadWrite => (!read_only, "it takes no writes"),
            TargetSession::ReadOnly => (read_only, "it takes writes"),
            TargetSession::Primary => (!in_recovery, "it is in recovery"),
            TargetSession::Standby => (in_recovery, "it is not in recovery"),
        };
        if !fits {
            return Err(PostgresError::WrongTarget {
                address: self.address.clone(),
                wanted: words,
            });
        }
        // A dropped session must not leave its statement running: 2 s is the most that it outlives us.
        // A setting of PostgreSQL 14; where the platform cannot, nothing is set, nor behind a pooler,
        // where it would stay for others.
        if self.version_num >= 140_000 && !pooled {
            let watch = "SET client_connection_check_interval = '2s'";
            if let Err(error) = self.client.batch_execute(watch).await {
                tracing::debug!(error = %chain(&error), "the server cannot watch for lost clients");
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
