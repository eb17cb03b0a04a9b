use std::collections::BTreeMap;

use super::*;
use crate::domain::failure::Failure as _;
use proptest::prelude::*;

/// A world of variables and files.
#[derive(Default)]
struct World {
    variables: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, SourceFile>,
    sockets: Vec<PathBuf>,
}

impl World {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }
    fn file(mut self, path: &str, text: &str, mode: u32) -> Self {
        self.files.insert(path.into(), SourceFile { text: text.to_owned(), mode });
        self
    }
    fn socket(mut self, path: &str) -> Self {
        self.sockets.push(path.into());
        self
    }
    fn parse(&self, text: &str) -> ConnectionInfo {
        ConnectionInfo::parse(text, self).unwrap()
    }
    fn refusal(&self, text: &str) -> ConnectionError {
        ConnectionInfo::parse(text, self).unwrap_err()
    }
}

impl ConnectionSources for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn file(&self, path: &Path) -> Option<SourceFile> {
        self.files.get(path).cloned()
    }
    fn exists(&self, path: &Path) -> bool {
        self.sockets.iter().any(|socket| socket == path)
    }
    fn home(&self) -> Option<PathBuf> {
        Some("/home/op".into())
    }
    fn user_name(&self) -> Option<String> {
        Some("op".to_owned())
    }
}

fn world() -> World {
    World::default()
}

#[test]
fn a_prisma_url_is_taken_with_its_notice() {
    let info = world().parse(
        "postgresql://icmsdev:dev@123@localhost:5432/icmslocal?schema=public&connection_limit=5&pgbouncer=true",
    );
    assert_eq!(info.describe(), "icmsdev@localhost:5432/icmslocal");
    assert_eq!(info.password(), Some("dev@123"));
    assert_eq!(info.schema(), Some("public"));
    assert!(info.is_pooled());
    let notice = &info.notices()[0];
    assert!(notice.contains("`connection_limit`") && notice.contains("`schema`"), "{notice}");
}

#[test]
fn prisma_strict_means_verify_full() {
    let info = world().parse("postgres://u:p@h/d?sslmode=require&sslaccept=strict&sslcert=ca.pem");
    assert_eq!(info.tls().mode, TlsMode::VerifyFull);
    assert_eq!(info.tls().root_cert.as_deref(), Some("ca.pem"));
    let info = world().parse("postgres://u:p@h/d?sslaccept=strict");
    assert_eq!(info.tls().root_cert.as_deref(), Some("system"));
    let info = world().parse("postgres://u:p@h/d?sslaccept=accept_invalid_certs");
    assert_eq!(info.tls().mode, TlsMode::Prefer);
    let info = world().parse("postgres://u:p@h/d?sslidentity=a.p12&sslpassword=x");
    assert!(info.notices()[0].contains("sslidentity"));
}

#[test]
fn addresses_of_other_systems_are_refused_with_a_word() {
    for (text, word) in [
        ("prisma+postgres://accelerate.example/?api_key=s3cret", "DIRECT_URL"),
        ("mysql://u:s3cret@h/d", "PostgreSQL"),
        ("jdbc:postgresql://h/d?password=s3cret", "driver"),
        ("postgresql+psycopg2://u:s3cret@h/d", "driver"),
    ] {
        let error = world().refusal(text);
        assert!(matches!(error, ConnectionError::ForeignScheme { .. }), "{text}");
        assert!(error.hint().unwrap().contains(word), "{:?}", error.hint());
        assert!(!format!("{error:?} {error}").contains("s3cret"));
    }
}

#[test]
fn what_is_no_connection_string_is_refused_without_being_repeated() {
    for text in [
        "",
        "  ",
        "''",
        "s3cret",
        "postgres:/u:s3cret@h",
        "postgres://u:s3cret@h:x:y/d",
        "password='s3cret",
    ] {
        let error = world().refusal(text);
        assert!(!format!("{error:?} {error} {:?}", error.hint()).contains("s3cret"), "{text}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn the_string_goes_before_the_service_before_the_environment() {
    let world = world()
        .file(
            "/home/op/.pg_service.conf",
            "[shop]\nhost=service.example\nport=6000\nuser=svc\n",
            0o644,
        )
        .variable("PGSERVICE", "shop")
        .variable("PGPORT", "7000")
        .variable("PGDATABASE", "from_env")
        .variable("PGSSLMODE", "require");
    let info = world.parse("user=mine");
    assert_eq!(info.describe(), "mine@service.example:6000/from_env");
    assert_eq!(info.tls().mode, TlsMode::Require);
    assert_eq!(world.parse("postgres:///x?service=shop").describe(), "svc@service.example:6000/x");
    let error = world.refusal("service=nowhere");
    assert_eq!(error, ConnectionError::ServiceNotFound("nowhere".to_owned()));
}

#[test]
fn a_named_service_file_must_exist() {
    let missing = world().variable("PGSERVICEFILE", "/x/s.conf").refusal("service=a");
    assert_eq!(missing, ConnectionError::ServiceFileMissing("/x/s.conf".into()));
    let world = world().variable("PGSYSCONFDIR", "/sys").file(
        "/sys/pg_service.conf",
        "[a]\nhost=sys.example\nclient_encoding=LATIN1\n",
        0o644,
    );
    assert_eq!(world.parse("service=a").describe(), "op@sys.example:5432/op");
}

#[test]
fn the_passfile_answers_per_host_and_database() {
    let world = world().file(
        "/home/op/.pgpass",
        "a:5432:db:u:one\nb:*:*:u:two\nlocalhost:*:*:*:sock\n",
        0o600,
    );
    let info = world.parse("postgres://u@a,b/db");
    let found: Vec<_> = info.endpoints().iter().map(|e| info.password_for(e)).collect();
    assert_eq!(found, [Some("one"), Some("two")]);
    assert_eq!(info.with_database("other").password(), None);
    assert_eq!(world.parse("postgres://u:own@a/db").password(), Some("own"));
    assert_eq!(world.parse("host=/var/run/postgresql user=x").password(), Some("sock"));
    let passfile = info.private_passfile().unwrap();
    assert!(
        passfile.expose().contains("a:5432:*:*:one\n")
            && passfile.expose().contains("b:5432:*:*:two\n")
    );
}

#[test]
fn a_passfile_that_others_can_read_is_passed_over_aloud() {
    let world = world().file("/p", "*:*:*:*:s3cret\n", 0o640).variable("PGPASSFILE", "/p");
    let info = world.parse("postgres://u@h/d");
    assert_eq!(info.password(), None);
    assert!(info.notices()[0].contains("/p"), "{:?}", info.notices());
}

#[test]
fn without_a_host_the_socket_that_is_there_is_taken() {
    let at = |world: World| world.parse("dbname=d user=u").describe();
    assert_eq!(at(world()), "u@localhost:5432/d");
    assert_eq!(at(world().socket("/tmp/.s.PGSQL.5432")), "u@/tmp:5432/d");
    let both = world().socket("/tmp/.s.PGSQL.5432").socket("/var/run/postgresql/.s.PGSQL.5432");
    assert_eq!(at(both), "u@/var/run/postgresql:5432/d");
    assert_eq!(at(world().variable("PGHOST", "h")), "u@h:5432/d");
    assert_eq!(world().parse("postgres:///d?host=/s&port=6").describe(), "op@/s:6/d");
}

#[test]
fn lists_of_hosts_and_ports_must_agree() {
    let info = world().parse("postgres://u@a:1,[::1]:2,c/d");
    assert_eq!(info.describe(), "u@a:1,[::1]:2,c:5432/d");
    assert_eq!(world().parse("host=a,b port=7 user=u").describe(), "u@a:7,b:7/u");
    assert!(matches!(world().refusal("host=a,b port=1,2,3"), ConnectionError::HostCount { .. }));
    assert!(matches!(world().refusal("host=a,b hostaddr=::1"), ConnectionError::HostCount { .. }));
    for bad in ["port=0", "port=65536", "port=x", "hostaddr=h", "host=@abstract"] {
        assert!(ConnectionInfo::parse(bad, &world()).is_err(), "{bad}");
    }
}

#[test]
fn words_outside_a_parameters_own_are_refused_by_name() {
    for bad in [
        "sslmode=no-verify",
        "target_session_attrs=any-old",
        "channel_binding=yes",
        "sslnegotiation=fast",
        "ssl_min_protocol_version=SSLv3",
        "ssl_max_protocol_version=TLSv1.1",
        "connect_timeout=soon",
        "keepalives_idle=x",
        "load_balance_hosts=yes",
        "sslrootcert=system sslmode=require",
        "sslnegotiation=direct",
        "require_auth=scram-sha-256",
        "replication=database",
        "sslmod=require",
    ] {
        let error = world().refusal(bad);
        assert!(error.hint().is_some(), "{bad}");
    }
    assert_eq!(
        world().refusal("postgres://h/d?sslmod=require").to_string(),
        "unknown connection parameter `sslmod`, did you mean `sslmode`?"
    );
}

#[test]
fn system_roots_ask_for_the_full_check() {
    assert_eq!(world().parse("host=h sslrootcert=system").tls().mode, TlsMode::VerifyFull);
}

#[test]
fn a_timeout_is_never_without_end() {
    for (text, seconds) in [
        ("host=h", 10),
        ("host=h connect_timeout=0", 10),
        ("host=h connect_timeout=-1", 10),
        ("host=h connect_timeout=3", 3),
    ] {
        assert_eq!(world().parse(text).connect_timeout_seconds(), seconds, "{text}");
    }
}

#[test]
fn a_password_with_a_line_break_is_refused() {
    assert_eq!(
        world().variable("PGPASSWORD", "a\n").refusal("host=h"),
        ConnectionError::PasswordLineBreak
    );
}

#[test]
fn secrets_are_in_no_debug_and_no_variable() {
    let info = world().parse("postgres://u:s3cret@h/d");
    assert!(!format!("{info:?} {info} {:?}", info.private_passfile()).contains("s3cret"));
    assert!(info.child_environment().iter().all(|(_, value)| !value.contains("s3cret")));
    assert_eq!(info.private_passfile().unwrap().expose(), "*:*:*:*:s3cret\n");
}

#[test]
fn client_programs_are_told_all_that_libpq_has_a_variable_for() {
    let info = world().parse(
        "postgres://u:p@a:1,b:2/d?sslmode=verify-ca&sslrootcert=/ca&options=-c%20geqo%3Doff&target_session_attrs=primary\
         &keepalives_idle=7&gssencmode=disable&channel_binding=require&hostaddr=::1,127.0.0.1",
    );
    let variables: BTreeMap<_, _> = info.child_environment().into_iter().collect();
    for (name, value) in [
        ("PGHOST", "a,b"),
        ("PGPORT", "1,2"),
        ("PGHOSTADDR", "::1,127.0.0.1"),
        ("PGUSER", "u"),
        ("PGDATABASE", "d"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca"),
        ("PGOPTIONS", "-c geqo=off"),
        ("PGTARGETSESSIONATTRS", "primary"),
        ("PGGSSENCMODE", "disable"),
        ("PGCHANNELBINDING", "require"),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!variables.contains_key("PGPASSWORD"));
    assert_eq!(info.private_service()[..2], [("keepalives", 1), ("keepalives_idle", 7)]);
    assert_eq!(world().parse("host=/tmp").private_service(), []);
    let more = info.with_options("-c lock_timeout=1s");
    assert_eq!(more.options(), Some("-c geqo=off -c lock_timeout=1s"));
}

fn words() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 éß\"'@/:%._-]{1,12}".prop_filter("not blank at its ends", |t| t.trim() == t)
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_without_panic(text in "\\PC{0,60}") {
        let _ = ConnectionInfo::parse(&text, &world());
        let _ = ConnectionInfo::parse(&format!("postgres://{text}"), &world());
        let _ = ConnectionInfo::parse(&format!("host={text}"), &world());
    }

    #[test]
    fn what_libpq_is_told_reads_back_the_same(
        user in words(),
        database in words(),
        password in "[^\\r\\n\\x00]{1,16}",
        hosts in proptest::collection::vec(("[a-z][a-z0-9.-]{0,8}|::1|/[a-z]{1,6}", 1u16..), 1..4),
        mode in 0usize..6,
        timeout in 1u32..100,
    ) {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let names: Vec<_> = hosts.iter().map(|(name, _)| name.as_str()).collect();
        let ports: Vec<_> = hosts.iter().map(|(_, port)| port.to_string()).collect();
        let info = world().parse(&format!(
            "user={} dbname={} password={} host={} port={} sslmode={} connect_timeout={timeout} sslcrl=/x",
            quoted(&user), quoted(&database), quoted(&password),
            names.join(","), ports.join(","), TlsMode::ALL[mode].as_str(),
        ));
        let mut told = world().file("/pass", info.private_passfile().unwrap().expose(), 0o600)
            .variable("PGPASSFILE", "/pass");
        told.variables.extend(info.child_environment());
        let back = ConnectionInfo::from_environment(&told).unwrap();
        prop_assert_eq!(back.describe(), info.describe());
        prop_assert_eq!(back.password(), Some(password.as_str()));
        prop_assert_eq!(back.tls(), info.tls());
        prop_assert_eq!(back.child_environment(), info.child_environment());
    }
}
