//! PostgreSQL's own programs: none on this host, only older ones, no server's; and what `pg_amcheck` finds.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::support::{Database, Disk, Keeper, Server, with_own_mounts};

/// What a host has that runs no server.
const CLIENTS: [&str; 5] = ["pg_dump", "pg_dumpall", "pg_restore", "psql", "pg_amcheck"];

/// A snapshot of a newer server, on a host where no program of PostgreSQL is to be found any more.
struct Bare {
    // Dropped first, by a program that lies with the keeper.
    database: Database,
    keeper: Keeper,
    id: String,
    /// Copies of the client programs, older and newer.
    clients: [PathBuf; 2],
    _hidden: Vec<Disk>,
}

/// Runs the story of that test on a bare host: the system's directories of programs are empty for it alone.
#[track_caller]
fn on_a_bare_host(name: &str, test: &str, story: impl FnOnce(Bare)) {
    with_own_mounts(test, || {
        // The test is a process of its own: names are unique by what they begin with.
        let mut database = Server::newer().database(name);
        let mut keeper = Keeper::initialised(&database.shop(50).url());
        let id = keeper.snapshot_id();
        let clients = [Server::older(), Server::newer()].map(|server| {
            let directory = keeper.work().join(format!("clients-{}", server.major));
            std::fs::create_dir(&directory).expect("a directory");
            for program in CLIENTS {
                std::fs::copy(server.bin.join(program), directory.join(program)).expect("a copy");
            }
            directory
        });
        // The test looks through copies as well.
        database.server.bin.clone_from(&clients[1]);
        keeper.set("PATH", "/usr/bin:/bin").unset("PGKEEP_BIN_DIR");
        let hidden = installed().iter().map(|place| Disk::mount(place, 1)).collect();
        story(Bare { database, keeper, id, clients, _hidden: hidden });
    });
}

/// Where distributions put programs of several majors.
fn installed() -> Vec<PathBuf> {
    let is_pgsql = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("pgsql-"))
    };
    let usr = std::fs::read_dir("/usr").expect("it can be read").flatten().map(|one| one.path());
    let debian = Path::new("/usr/lib/postgresql").to_owned();
    let fedora = Path::new("/usr/lib64/pgsql").to_owned();
    let all = usr.filter(is_pgsql).chain([debian, fedora]);
    all.filter(|place| place.is_dir()).collect()
}

impl Bare {
    /// Whatever needs a program fails with exit 4 and those words, and makes nothing.
    #[track_caller]
    fn fails(&self, words: &[&str]) {
        let Self { keeper, database, id, .. } = self;
        let before = (keeper.objects_but_events(), database.contents());
        let copy = format!("{}_copy", database.name);
        for verb in [
            &["snapshot"][..],
            &["snapshot", "--json"],
            &["verify"],
            &["restore", "--as", &copy],
            &["restore", "--replace", "--yes"],
        ] {
            keeper.pgkeep(verb).run().expect_failure(4, words);
        }
        assert_eq!(keeper.listed(), [id.as_str()]);
        assert_eq!((keeper.objects_but_events(), database.contents()), before);
        assert_eq!(database.server.databases_like(&database.name), [database.name.as_str()]);
        self.leaves_nothing();
    }

    /// `check` finds the client programs wanting, in those words and with the package to install, and says exit 4.
    #[track_caller]
    fn check_tells(&self, words: &str) {
        let hint = format!("postgresql-client-{}", self.database.server.major);
        let hint = hint.as_str();
        let document = self.keeper.pgkeep(["check", "--json"]).run().expect_code(4).json();
        let checks = document["checks"].as_array().expect("checks");
        let failed: Vec<_> = checks.iter().filter(|check| check["result"] == "failed").collect();
        let [one] = &failed[..] else { panic!("one check fails: {document:#}") };
        assert_eq!((&one["name"], &one["kind"]), (&"client-programs".into(), &"postgres".into()));
        assert!(one["detail"].as_str().is_some_and(|told| told.contains(words)), "{one}");
        assert!(one["hint"].as_str().is_some_and(|told| told.contains(hint)), "{one}");
        // Verification can still use a database of a server.
        let warned = checks.iter().find(|check| check["name"] == "server-programs");
        let warned = warned.expect("looked at");
        assert_eq!(warned["result"], "warning", "{warned}");
        let server =
            format!("install the server's programs: postgresql-{} ", self.database.server.major);
        assert!(warned["hint"].as_str().is_some_and(|told| told.starts_with(&server)), "{warned}");
        let text = self.keeper.pgkeep(["check"]).run().expect_failure(4, &["checks failed"]);
        assert!(text.stdout.contains(words) && text.stdout.contains(hint), "{}", text.stdout);
    }

    /// Neither a database on the server nor anything in the scratch directory.
    #[track_caller]
    fn leaves_nothing(&self) {
        let scratch = self.database.server.databases_like("pgkeep_scratch_");
        let ours = |name: &String| name.contains(&self.database.name);
        assert!(!scratch.iter().any(ours), "{scratch:?}");
        assert_eq!(self.keeper.leftovers(), [""; 0]);
    }
}

#[test]
fn without_any_client_programs_every_verb_that_needs_one_says_so() {
    let test = "programs::without_any_client_programs_every_verb_that_needs_one_says_so";
    on_a_bare_host("toolless", test, |bare| {
        let told = "no PostgreSQL programs found: `pg_dump` is nowhere";
        bare.fails(&[told]);
        bare.check_tells(told);
    });
}

#[test]
fn with_client_programs_older_than_the_server_every_verb_that_needs_one_says_so() {
    let test =
        "programs::with_client_programs_older_than_the_server_every_verb_that_needs_one_says_so";
    on_a_bare_host("outdated", test, |mut bare| {
        let [older, newer] = bare.clients.clone();
        bare.keeper.set("PGKEEP_BIN_DIR", &older);
        let (has, wants) = (Server::older().major, Server::newer().major);
        let told = format!("the newest `pg_dump` found is of PostgreSQL {has}, older than {wants}");
        bare.fails(&[&told]);
        bare.check_tells(&told);
        // Named first or last, the right ones are taken.
        let both = std::env::join_paths([&older, &newer]).expect("plain paths");
        bare.keeper.set("PGKEEP_BIN_DIR", both);
        bare.keeper.snapshot();
    });
}

#[test]
fn without_server_programs_a_copy_is_proved_in_a_database_of_the_server_and_that_is_said() {
    let test = "programs::without_server_programs_a_copy_is_proved_in_a_database_of_the_server_and_that_is_said";
    on_a_bare_host("serverless", test, |mut bare| {
        let newer = bare.clients[1].clone();
        bare.keeper.set("PGKEEP_BIN_DIR", newer);
        let before = bare.database.contents();
        let verify = ["verify", "--check", "full", "--json"];
        let verified = bare.keeper.pgkeep(verify).run().expect_code(0);
        assert_eq!(verified.json()["result"], "passed");
        let at = format!("127.0.0.1:{}", bare.database.server.port);
        for told in [
            "warning: no scratch cluster: no PostgreSQL programs found: `postgres` is nowhere",
            "restoring into a scratch database on postgres@",
            &at,
        ] {
            assert!(verified.stderr.contains(told), "{told}: {}", verified.stderr);
        }
        assert_eq!(bare.keeper.list()[0]["verification"], "passed");
        bare.leaves_nothing();
        // Where a directory is asked for, nothing else stands in.
        let scratch = bare.keeper.scratch();
        bare.keeper.set("PGKEEP__CLUSTERS__MAIN__VERIFY__SCRATCH", scratch);
        let words = [&*format!("no scratch cluster of PostgreSQL {}", bare.database.server.major)];
        bare.keeper.pgkeep(["verify"]).run().expect_failure(4, &words);
        bare.leaves_nothing();
        assert_eq!(bare.database.contents(), before);
    });
}

/// The real `pg_amcheck`, after a page of an index of the copy has been lost. An index that was just built is in no
/// buffer yet, unless it was read again to be logged: what its file holds is what the server reads.
const LOSES_A_PAGE: &str = r#"for copy in "$@"; do :; done
    file=$("${REAL%/*}/psql" -XAqtd "$copy" -c 'SET wal_skip_threshold = 0' -c 'REINDEX INDEX orders_pkey' -c \
        "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('orders_pkey')")
    dd if=/dev/zero of="$file" bs=8192 seek=1 count=1 conv=notrunc 2>/dev/null
    exec $REAL "$@""#;

#[test]
fn a_copy_with_a_damaged_index_does_not_pass_and_takes_no_live_name() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("amcheck");
        let mut keeper = Keeper::initialised(&database.shop(2000).url());
        keeper.snapshot();
        let programs = keeper.programs_with("pg_amcheck", &server, LOSES_A_PAGE);
        keeper.set("PGKEEP_BIN_DIR", &programs);
        let verify = ["verify", "--check", "full", "--json"];
        let found = keeper.pgkeep(verify).run().expect_code(3).json_lines();
        let checks = found[0]["checks"].as_array().expect("checks");
        let failed: Vec<_> = checks.iter().filter(|check| check["result"] == "failed").collect();
        let [amcheck] = &failed[..] else { panic!("one check fails: {found:?}") };
        assert_eq!(amcheck["name"], "amcheck");
        assert!(amcheck["detail"].as_str().expect("text").contains("orders_pkey"), "{amcheck}");
        assert_eq!(keeper.list()[0]["verification"], "failed");
        database.psql("TRUNCATE orders");
        let ruined = database.contents();
        let restore = ["restore", "--replace", "--yes", "--check", "full"];
        keeper.pgkeep(restore).run().expect_failure(3, &["amcheck", "orders_pkey"]);
        assert_eq!(database.contents(), ruined);
        assert_eq!(server.databases_like(&format!("{}_", database.name)), [""; 0]);
        assert_eq!(keeper.leftovers(), [""; 0]);
    }
}
