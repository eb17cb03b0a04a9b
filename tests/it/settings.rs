//! What the server, the environment and the configuration say reaches the parts that it is for.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::server::{account, quoted};
use crate::support::{Cluster, Database, Keeper, Server};

/// The holding session waits idle in its transaction while `pg_dump` works: longer than any of these allows.
#[test]
fn timeouts_of_the_database_do_not_end_a_snapshot() {
    for (server, more) in [(Server::older(), None), (Server::newer(), Some("transaction_timeout"))]
    {
        let database = server.database("hasty");
        database.shop(50);
        // The setting came with 17, and `make test-matrix` has other majors.
        let since_17 =
            server.psql("postgres", "SELECT current_setting('server_version_num')::int >= 170000");
        let more = more.filter(|_| since_17 == "t");
        let settings = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
        for setting in settings.into_iter().chain(more) {
            let name = quoted(&database.name);
            server.psql("postgres", &format!("ALTER DATABASE {name} SET {setting} = '1s'"));
        }
        let keeper = Keeper::initialised(&database.url());
        let programs = keeper.programs_with_pg_dump(&server, "sleep 3\nexec \"$REAL\" \"$@\"");
        let slow = keeper.pgkeep(["snapshot"]).env("PGKEEP_BIN_DIR", programs);
        slow.run().expect_code(0);
        keeper.verify(&["--check", "counts"]);
    }
}

#[test]
fn assertions_of_the_configuration_reach_verify_and_restore() {
    let server = Server::older();
    let database = server.database("asserted");
    let keeper = Keeper::initialised(&database.shop(20).url());
    let path = keeper.home().join("pgkeep.toml");
    let mut text = std::fs::read_to_string(&path).expect("the configuration");
    text.push_str(
        "\n[[clusters.main.assertions]]\nname = \"no order is an orphan\"\n\
         sql = \"SELECT note FROM orders WHERE note LIKE 'orphan%'\"\n",
    );
    std::fs::write(&path, text).expect("written");
    keeper.snapshot();
    keeper.verify(&[]);
    database.psql("UPDATE orders SET note = 'orphan' WHERE id = 1");
    keeper.snapshot();
    let verified = keeper.pgkeep(["verify"]).run().expect_code(3);
    let said = format!("{}{}", verified.stdout, verified.stderr);
    assert!(said.contains("no order is an orphan"), "{said}");
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "--as", &copy]).run().expect_code(3);
    assert!(!server.has_database(&copy));
}

#[test]
fn statistics_are_there_after_a_restore() {
    let server = Server::newer();
    let database = server.database("analysed");
    let keeper = Keeper::initialised(&database.shop(40).url());
    keeper.snapshot();
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "--as", &copy]).run().expect_code(0);
    // The shared servers have autovacuum off: nobody else analyses.
    let told = server.psql(&copy, "SELECT reltuples FROM pg_class WHERE relname = 'orders'");
    assert_eq!(told, "40");
    server.psql("postgres", &format!("DROP DATABASE {copy}"));
}

/// Session and `pg_dump` both get in: the one reads these files itself, the other gets its own.
#[test]
fn a_service_file_and_a_password_file_lead_to_the_database() {
    let server = Server::older();
    let database = server.database("service");
    database.shop(30);
    let Database { name, .. } = &database;
    let role = server.role("filed", "a:b\\c");
    let owner = quoted(&role.name);
    server.psql("postgres", &format!("ALTER ROLE {owner} SUPERUSER"));
    let mut keeper = Keeper::new(&database.url());
    let private = |path: &Path, text: String| {
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("a mode");
    };
    let (service, passwords) =
        (keeper.work().join("services.conf"), keeper.work().join("passwords"));
    let port = server.psql("postgres", "SHOW port");
    let user = &role.name;
    private(
        &service,
        format!(
            "[other]\nport=1\n[shop]\nhost=127.0.0.1\nport={port}\ndbname={name}\nuser={user}\n"
        ),
    );
    private(&passwords, format!("*:*:*:nobody:x\n127.0.0.1:{port}:*:{user}:a\\:b\\\\c\n"));
    keeper.set("PGSERVICEFILE", &service).set("PGPASSFILE", &passwords);
    keeper.set("PGKEEP_DATABASE_URL", "postgresql:///?service=shop");
    keeper.pgkeep(["init"]).run().expect_code(0);
    keeper.snapshot();
    keeper.verify(&["--check", "counts"]);
    // The same by the variable alone, and without the password no way in.
    keeper.set("PGKEEP_DATABASE_URL", format!("postgresql:///{name}")).set("PGSERVICE", "shop");
    keeper.snapshot();
    keeper.set("PGPASSFILE", "/nonexistent");
    keeper.pgkeep(["snapshot"]).run().expect_failure(4, &["password"]);
    assert_eq!(keeper.listed().len(), 2);
}

#[test]
fn the_demo_gets_every_row_back_and_leaves_nothing() {
    let mut keeper = Keeper::new(&Server::newer().url("postgres"));
    let scratch = keeper.scratch();
    keeper.set("TMPDIR", scratch);
    let demo = keeper.pgkeep(["demo"]).spawn();
    let limit = std::time::Duration::from_secs(30);
    crate::support::eventually("the demo's own place", limit, || !keeper.leftovers().is_empty());
    let output = demo.wait().expect_code(0);
    assert!(output.stdout.contains("Every row is back"), "{}", output.stdout);
    assert_eq!(keeper.leftovers(), [""; 0]);
    // Neither the caller's home nor his repository was touched.
    assert_eq!(std::fs::read_dir(keeper.home()).expect("the home").count(), 0);
    assert!(!keeper.repository().exists());
}

/// A certificate for `localhost` that is its own authority, and its key.
fn certificate(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let file = |ending: &str| directory.join(format!("{name}.{ending}"));
    let (pem, key) = (file("pem"), file("key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&pem)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl runs: `tests/setup test` installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (pem, key)
}

/// Has the server speak TLS with that certificate, and without TLS to nobody.
fn encrypt(cluster: &Cluster, (pem, key): &(PathBuf, PathBuf)) {
    let (user, group) = account();
    for (from, to) in [(pem, "server.crt"), (key, "server.key")] {
        let to = cluster.data().join(to);
        std::fs::copy(from, &to).expect("copied");
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o600)).expect("a mode");
        chown(&to, user, group).expect("the servers' user can own it");
    }
    let rules = cluster.data().join("pg_hba.conf");
    let text = std::fs::read_to_string(&rules).expect("rules");
    let lines = text.lines().map(|line| match line.strip_prefix("host ") {
        Some(rest) => format!("hostssl {rest}\n"),
        None => format!("{line}\n"),
    });
    std::fs::write(&rules, lines.collect::<String>()).expect("written");
    cluster.psql("postgres", "ALTER SYSTEM SET ssl = on");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
}

#[test]
fn only_a_server_that_shows_who_it_is_is_backed_up_where_that_is_asked_for() {
    for cluster in [Cluster::older(&[]), Cluster::newer(&[])] {
        let mut keeper = Keeper::initialised(&cluster.url("postgres"));
        let own = certificate(&keeper.work(), "own");
        let (stranger, _) = certificate(&keeper.work(), "stranger");
        encrypt(&cluster, &own);
        let absent = keeper.work().join("absent.pem");
        let address = cluster.url("postgres");
        let named = address.replace("@127.0.0.1", "@localhost");
        let with = |url: &str, mode: &str, root: &Path| {
            format!("{url}?sslmode={mode}&sslrootcert={}", root.display())
        };
        let taken = |keeper: &mut Keeper, url: String| {
            keeper.set("PGKEEP_DATABASE_URL", url);
            keeper.pgkeep(["snapshot"]).run()
        };
        // Without TLS nobody gets in, so session and `pg_dump` both have it here.
        taken(&mut keeper, format!("{address}?sslmode=disable")).expect_failure(4, &["pg_hba"]);
        taken(&mut keeper, with(&named, "verify-full", &own.0)).expect_code(0);
        taken(&mut keeper, with(&address, "verify-ca", &own.0)).expect_code(0);
        let failed = ["TLS with the server"];
        taken(&mut keeper, with(&address, "verify-full", &own.0)).expect_failure(4, &failed);
        taken(&mut keeper, with(&named, "verify-full", &stranger)).expect_failure(4, &failed);
        taken(&mut keeper, with(&address, "verify-ca", &stranger)).expect_failure(4, &failed);
        taken(&mut keeper, with(&named, "verify-full", &absent)).expect_failure(2, &["absent.pem"]);
        assert_eq!(keeper.list().len(), 2);
    }
}
