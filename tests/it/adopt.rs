//! Doubts about a backup: said aloud, shown, and there until somebody adopts it.

use serde_json::Value;

use crate::support::{Database, Fate, Keeper, Server, Wire};

/// As on a production host: what reads backups is not here.
fn without_identity(keeper: &Keeper) -> std::path::PathBuf {
    let away = keeper.work().join("kit.txt");
    std::fs::rename(keeper.recovery_kit(), &away).expect("the kit can be moved");
    away
}

fn item<'a>(list: &'a [Value], id: &str) -> &'a Value {
    list.iter().find(|item| item["id"] == id).expect("it is listed")
}

#[test]
fn a_snapshot_with_half_the_rows_is_suspect_until_somebody_adopts_it() {
    let database = Server::older().database("halved");
    let keeper = Keeper::initialised(&database.shop(3000).url());
    // The host that writes cannot read its own backups, and compares all the same.
    let kit = without_identity(&keeper);
    let good = keeper.snapshot();
    assert!(good["suspect"].is_null());
    let good = good["id"].as_str().expect("an id").to_owned();
    database.psql("DELETE FROM orders");
    let output = keeper.pgkeep(["snapshot", "--json"]).run().expect_code(0);
    assert!(output.stderr.contains("is suspect"), "{}", output.stderr);
    assert!(output.stderr.contains("orders fell from about 3000 to 0"), "{}", output.stderr);
    let first = output.json()["id"].as_str().expect("an id").to_owned();
    assert!(output.json()["suspect"].as_str().expect("a reason").contains(&good));
    // The next one has lost nothing against the one before, and everything against the last good one.
    let second = keeper.snapshot_id();
    let list = keeper.list();
    for id in [&first, &second] {
        assert!(item(&list, id)["suspect"].as_str().is_some_and(|why| why.contains(&good)), "{id}");
    }
    assert!(item(&list, &good)["suspect"].is_null());
    let text = keeper.pgkeep(["list"]).run().expect_code(0).stdout;
    assert_eq!(text.matches("SUSPECT").count(), 2, "{text}");
    let show = keeper.pgkeep(["show", &second]).run().expect_code(0).stdout;
    assert!(show.contains("SUSPECT") && show.contains(&format!("pgkeep adopt {second}")), "{show}");
    // What a bucket reader sees of the tables are no names.
    let manifest = keeper.objects_under("clusters/main/snapshots").into_iter();
    let manifest = manifest.map(|(_, path)| std::fs::read_to_string(path).unwrap_or_default());
    assert!(manifest.collect::<String>().matches("orders").count() == 0);

    let told = keeper.pgkeep(["restore", "latest", "--dry-run", "--as", "x"]);
    let told = told.env("PGKEEP_IDENTITY_FILE", &kit).run().expect_code(0);
    assert!(told.stderr.contains("is suspect"), "{}", told.stderr);

    let adopted = keeper.pgkeep(["adopt", &second, "--json"]).run().expect_code(0).json();
    assert_eq!(adopted["id"].as_str(), Some(&*second));
    assert!(adopted["suspect"].is_null());
    assert_eq!(adopted["adopted"].as_array().map(Vec::len), Some(1));
    // What holds for the newest holds for the one before, and the next one is measured by it.
    assert!(keeper.list().iter().all(|item| item["suspect"].is_null()));
    assert!(keeper.snapshot()["suspect"].is_null());
    keeper.pgkeep(["verify", "--all"]).env("PGKEEP_IDENTITY_FILE", kit).run().expect_code(0);
}

#[test]
fn a_small_database_does_not_cry_wolf_and_rows_left_out_on_purpose_are_no_loss() {
    let database = Server::newer().database("small");
    database.psql("CREATE TABLE few AS SELECT generate_series(1, 30) AS n");
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    database.psql("DELETE FROM few WHERE n > 3");
    assert!(keeper.snapshot()["suspect"].is_null());
    database.psql("CREATE TABLE audit AS SELECT generate_series(1, 9000) AS n");
    assert!(keeper.snapshot()["suspect"].is_null());
    let without = keeper.pgkeep(["snapshot", "--json"]);
    let without = without.env("PGKEEP__CLUSTERS__MAIN__EXCLUDE_TABLE_DATA", "audit").run();
    let without = without.expect_code(0).json();
    assert_eq!(without["suspect"], Value::Null);
    // Gone by accident is another matter.
    database.psql("DELETE FROM audit");
    let emptied = keeper.pgkeep(["snapshot", "--json"]).run().expect_code(0).json();
    assert!(emptied["suspect"].is_null(), "measured by the newest, which left these rows out");
    database.psql("INSERT INTO audit SELECT generate_series(1, 9000)");
    keeper.snapshot();
    database.psql("TRUNCATE audit");
    assert!(keeper.snapshot()["suspect"].is_string());
}

/// The same database on two servers, one cluster name, one repository.
struct Two {
    known: Database,
    other: Database,
    keeper: Keeper,
}

impl Two {
    fn new(name: &str) -> Self {
        let known = Server::older().database(name);
        let server = Server::newer();
        server.psql("postgres", &format!("CREATE DATABASE {}", known.name));
        let other = Database { server, name: known.name.clone() };
        let keeper = Keeper::initialised(&known.shop(500).url());
        other.shop(40);
        Self { known, other, keeper }
    }

    /// A snapshot by the host whose cluster is the other server.
    #[track_caller]
    fn elsewhere(&self) -> Value {
        let output = self.keeper.pgkeep(["snapshot", "--json"]);
        let output = output.env("PGKEEP_DATABASE_URL", self.other.url()).run().expect_code(0);
        let document = output.json();
        assert_eq!(output.stderr.contains("does not know"), document["foreign"] == true);
        document
    }
}

#[test]
fn a_snapshot_of_another_server_is_taken_and_is_not_latest_until_it_is_adopted() {
    let two = Two::new("moved");
    let keeper = &two.keeper;
    let first = keeper.snapshot();
    assert_eq!(first["foreign"], false);
    let first = first["id"].as_str().expect("an id").to_owned();
    let foreign = two.elsewhere();
    assert_eq!(foreign["foreign"], true);
    // Other rows on another server are no loss of this one's.
    assert!(foreign["suspect"].is_null());
    let foreign = foreign["id"].as_str().expect("an id").to_owned();
    assert_eq!(item(&keeper.list(), &foreign)["foreign"], true);
    assert!(keeper.pgkeep(["list"]).run().expect_code(0).stdout.contains("FOREIGN"));

    let copy = format!("{}_copy", two.known.name);
    let restored = keeper.pgkeep(["restore", "latest", "--as", &copy]).run().expect_code(0);
    assert!(restored.stdout.starts_with(&first), "{}", restored.stdout);
    assert!(restored.stderr.contains(&format!("pgkeep adopt {foreign}")), "{}", restored.stderr);
    assert_eq!(two.known.server.contents(&copy), two.known.contents());
    let verified = keeper.pgkeep(["verify", "--json"]).run().expect_code(0);
    assert_eq!(verified.json()["id"].as_str(), Some(&*first));
    assert!(verified.stderr.contains(&foreign), "{}", verified.stderr);
    // It is a good backup all the same.
    keeper.verify(&[&foreign]);
    // And it is nobody's predecessor.
    let next = keeper.snapshot_id();
    let shown = keeper.pgkeep(["show", &next, "--json"]).run().expect_code(0).json();
    assert_eq!(shown["previous"].as_str(), Some(&*first));

    // A mark that nobody trusted has signed adopts nothing.
    let marks = keeper.repository().join(format!("clusters/main/marks/{foreign}"));
    std::fs::create_dir_all(&marks).expect("a directory");
    let system = keeper.pgkeep(["show", &foreign, "--json"]).run().expect_code(0).json();
    let forged = format!(
        "{{\"format\":1,\"backup\":\"{foreign}\",\"database\":\"{}\",\"system_identifier\":{},\
         \"rows\":true,\"adopted_at\":\"2026-11-21T00:00:00Z\",\"host\":\"x\"}}",
        two.known.name, system["system_identifier"]
    );
    let mark = marks.join("adopted-00000001.json");
    std::fs::write(&mark, forged).expect("a file");
    assert_eq!(item(&keeper.list(), &foreign)["foreign"], true);
    std::fs::copy(
        keeper.repository().join(format!("clusters/main/snapshots/{foreign}.json.minisig")),
        marks.join("adopted-00000001.json.minisig"),
    )
    .expect("a signature of something else");
    assert_eq!(item(&keeper.list(), &foreign)["foreign"], true);

    let adopted = keeper.pgkeep(["adopt", &foreign]).run().expect_code(0).stdout;
    assert!(adopted.contains("was foreign"), "{adopted}");
    assert_eq!(item(&keeper.list(), &foreign)["foreign"], false);
    let after = two.elsewhere();
    assert_eq!(after["foreign"], false);
    let latest = keeper.pgkeep(["show", "latest", "--json"]).run().expect_code(0).json();
    assert_eq!(latest["id"], after["id"]);
}

#[test]
fn two_hosts_that_write_one_cluster_from_two_servers_do_not_mix() {
    let two = Two::new("mixed");
    let keeper = &two.keeper;
    keeper.snapshot();
    for _ in 0..2 {
        let here = keeper.pgkeep(["snapshot", "--json"]).spawn();
        assert_eq!(two.elsewhere()["foreign"], true);
        assert_eq!(here.wait().expect_code(0).json()["foreign"], false);
    }
    let list = keeper.list();
    assert_eq!(list.iter().filter(|item| item["foreign"] == true).count(), 2);
    assert_eq!(list.len(), 5);
    assert!(list.iter().all(|item| item["suspect"].is_null()));
    keeper.verify(&["--all", "--check", "counts"]);
    // Two wait, and one adoption of their server is enough for both.
    let adopted = keeper.pgkeep(["adopt", "--json"]).run().expect_code(0).json();
    assert_eq!(adopted["foreign"], false);
    assert!(keeper.list().iter().all(|item| item["foreign"] == false));
    let nothing = keeper.pgkeep(["adopt"]).run().expect_code(0).stdout;
    assert_eq!(nothing, "nothing to adopt\n");
}

#[test]
fn of_two_servers_whose_first_backups_overlap_the_later_one_is_foreign() {
    let two = Two::new("overlap");
    crate::s3::bulk(&two.known, 3);
    let wire = Wire::before(&two.known.server, |piece| {
        let dumping = piece.who == "pgkeep/pg_dump" && piece.down > 1 << 20;
        if dumping { Fate::Wait } else { Fate::Pass }
    });
    let slow = two.keeper.pgkeep(["snapshot", "--json"]);
    let slow = slow.env("PGKEEP_DATABASE_URL", wire.server.url(&two.known.name)).spawn();
    crate::support::eventually("it dumps", std::time::Duration::from_secs(20), || {
        wire.has_reached()
    });
    let first = two.elsewhere();
    assert_eq!(first["foreign"], false);
    wire.open();
    let second = slow.wait().expect_code(0);
    assert!(second.stderr.contains("does not know"), "{}", second.stderr);
    assert_eq!(second.json()["foreign"], true);
    let latest = two.keeper.pgkeep(["show", "latest", "--json"]).run().expect_code(0).json();
    assert_eq!(latest["id"], first["id"]);
}

#[test]
fn only_foreign_backups_are_no_latest_and_the_hint_says_what_to_do() {
    let two = Two::new("only");
    let another = Server::older().database("another");
    let keeper = &two.keeper;
    let url = another.url();
    keeper.pgkeep(["snapshot"]).env("PGKEEP_DATABASE_URL", url).run().expect_code(0);
    let foreign = two.elsewhere()["id"].as_str().expect("an id").to_owned();
    let database = ["--database", &two.known.name];
    let latest = keeper.pgkeep(["restore", "latest", "--as", "x"]).args(database).run();
    let latest = latest.expect_failure(8, &["does not know"]);
    assert!(latest.stderr.contains(&format!("pgkeep adopt {foreign}")));
    keeper.pgkeep(["verify"]).args(database).run().expect_failure(8, &["does not know"]);
    // Without a writer key nobody can say so.
    let key = keeper.home().join("writer.key");
    std::fs::rename(&key, keeper.work().join("key")).expect("a key");
    keeper.pgkeep(["adopt", &foreign]).run().expect_failure(7, &["no writer key"]);
    std::fs::rename(keeper.work().join("key"), key).expect("a key");
    keeper.pgkeep(["adopt", &foreign]).run().expect_code(0);
    keeper.pgkeep(["verify"]).args(database).run().expect_code(0);
}
