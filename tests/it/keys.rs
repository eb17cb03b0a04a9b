//! Who may read and who may write, and how that changes: recipients added and removed, a lost writer key, two
//! hosts, a repository that moves.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgkeep::failpoint::{ALL, VARIABLE};
use serde_json::Value;

use crate::support::{Database, Keeper, Server, eventually};

/// An identity of the stock tool, in a file of its own: the file and the public key.
#[track_caller]
fn new_identity(keeper: &Keeper, name: &str) -> (PathBuf, String) {
    let path = keeper.work().join(name);
    keeper.shell(&format!("age-keygen -o {} 2>/dev/null", path.display())).run().expect_code(0);
    let text = std::fs::read_to_string(&path).expect("age-keygen wrote it");
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    (path, public.expect("age-keygen names it").to_owned())
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().expect("a list").iter();
    items.map(|item| item.as_str().expect("a text").to_owned()).collect()
}

#[track_caller]
fn key_show(keeper: &Keeper) -> Value {
    keeper.pgkeep(["key", "show", "--json"]).run().expect_code(0).json()
}

/// Restores beside the live database; its content.
#[track_caller]
fn restored(keeper: &Keeper, database: &Database, id: &str, identity: &Path, copy: &str) -> String {
    let copy = format!("{}_{copy}", database.name);
    keeper
        .pgkeep(["restore", id, "--as", &copy])
        .env("PGKEEP_IDENTITY_FILE", identity)
        .run()
        .expect_code(0);
    database.server.contents(&copy)
}

#[test]
fn a_removed_recipient_reads_what_was_and_nothing_new_and_a_new_one_reads_all_that_comes() {
    let database = Server::older().database("rotated");
    database.shop(30_000);
    let keeper = Keeper::initialised(&database.url());
    let old = keeper.work().join("old.txt");
    let first = keeper.snapshot_id();
    let before = database.contents();
    let (new, recipient) = new_identity(&keeper, "new.txt");

    let report = keeper.pgkeep(["key", "rotate", "--json", "--recipient", &recipient]).run();
    let report = report.expect_code(0).json();
    assert_eq!(strings(&report["recipients"]), [&*recipient]);
    assert_eq!(report["signer_is_new"], false);
    assert_eq!(key_show(&keeper)["epoch"], report["epoch"]);
    assert_eq!(strings(&key_show(&keeper)["recipients"]), [&*recipient]);

    // The old identity is destroyed on this host; somebody else still has it.
    std::fs::rename(keeper.recovery_kit(), &old).expect("it is there");
    database.psql("UPDATE orders SET note = 'after' WHERE id % 100 = 0");
    let second = keeper.snapshot();
    assert_eq!(second["chunks_new"], second["chunks_total"], "nothing old is relied on");
    let third = keeper.snapshot();
    assert!(third["chunks_new"].as_u64() < third["chunks_total"].as_u64(), "{third}");
    let (second, third) = (second["id"].as_str().expect("id"), third["id"].as_str().expect("id"));
    let after = database.contents();
    assert_ne!(before, after);

    keeper.pgkeep(["verify", second, third]).env("PGKEEP_IDENTITY_FILE", &new).run().expect_code(0);
    assert_eq!(restored(&keeper, &database, third, &new, "new"), after);
    assert_eq!(restored(&keeper, &database, &first, &old, "old"), before);
    for (id, identity) in [(second, &old), (third, &old), (&*first, &new)] {
        let copy = format!("{}_never", database.name);
        keeper
            .pgkeep(["restore", id, "--as", &copy])
            .env("PGKEEP_IDENTITY_FILE", identity)
            .run()
            .expect_failure(7, &["sealed to other recipients"]);
        assert!(!database.server.has_database(&copy));
    }
}

#[test]
fn other_recipients_than_the_epochs_are_refused_until_they_are_rotated_in() {
    let database = Server::newer().database("differ");
    database.shop(200);
    let keeper = Keeper::initialised(&database.url());
    let first = keeper.snapshot_id();
    let (new, recipient) = new_identity(&keeper, "new.txt");
    let own = strings(&key_show(&keeper)["recipients"]).remove(0);
    let config = keeper.home().join("pgkeep.toml");
    let text = std::fs::read_to_string(&config).expect("init wrote it");
    let both = format!("\"{own}\", \"{recipient}\"");
    std::fs::write(&config, text.replace(&format!("\"{own}\""), &both)).expect("written");
    let refused = keeper.pgkeep(["snapshot"]).run().expect_failure(7, &["recipients differ"]);
    assert!(refused.stderr.contains("pgkeep key rotate"), "{}", refused.stderr);
    assert_eq!(keeper.listed(), [&*first]);

    let told = keeper.pgkeep(["key", "rotate"]).run().expect_code(0).stdout;
    assert!(told.contains("# signer: RW") && told.contains("key confirm"), "{told}");
    let second = keeper.snapshot_id();
    for identity in [keeper.recovery_kit(), new] {
        let verify = keeper.pgkeep(["verify", &second, "--check", "counts"]);
        verify.env("PGKEEP_IDENTITY_FILE", identity).run().expect_code(0);
    }
    // What is set where it cannot be changed is refused before anything is done.
    let epoch = key_show(&keeper)["epoch"].clone();
    keeper
        .pgkeep(["key", "rotate", "--recipient", &own])
        .env("PGKEEP_RECIPIENTS", format!("{own},{recipient}"))
        .run()
        .expect_failure(2, &["PGKEEP_RECIPIENTS"]);
    assert_eq!(key_show(&keeper)["epoch"], epoch);
}

#[test]
fn a_rotation_killed_at_any_step_lets_snapshots_go_on_and_is_ended_by_the_next() {
    let database = Server::older().database("cut");
    database.shop(200);
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    // One who holds every identity there will be.
    let all = keeper.work().join("all.txt");
    std::fs::copy(keeper.recovery_kit(), &all).expect("the kit");
    let steps = ALL.iter().copied().filter(|name| name.starts_with("rotate."));
    for (at, step) in steps.enumerate() {
        let (file, recipient) = new_identity(&keeper, &format!("{at}.txt"));
        let more = [std::fs::read(&all).expect("all"), std::fs::read(file).expect("one")].concat();
        std::fs::write(&all, more).expect("written");
        let rotate = || keeper.pgkeep(["key", "rotate", "--json", "--recipient", &recipient]);
        let before = key_show(&keeper)["epoch"].clone();
        assert_eq!(rotate().env(VARIABLE, step).run().code, 137, "{step} was never hit");
        let between = key_show(&keeper);
        let committed = step != "rotate.next-written";
        assert_eq!(between["epoch"] != before, committed, "{step}");
        keeper.snapshot();
        // Some are ended by the same command, some by one that does not name the recipient again.
        let report = if at % 2 == 0 || !committed {
            rotate().run().expect_code(0).json()
        } else {
            keeper.pgkeep(["key", "rotate", "--json"]).run().expect_code(0).json()
        };
        assert_eq!(report["finished"], committed, "{step}");
        if committed {
            assert_eq!(report["epoch"], between["epoch"], "{step}");
        }
        assert!(!keeper.home().join("writer.key.next").exists(), "{step}");
        assert!(keeper.home().join(format!("writer.key.{}", text(&before))).exists(), "{step}");
        assert_eq!(strings(&key_show(&keeper)["recipients"]), [&*recipient], "{step}");
        keeper.snapshot();
    }
    let mode = std::fs::metadata(keeper.home().join("writer.key")).expect("a key").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let verify = keeper.pgkeep(["verify", "--all", "--check", "counts"]);
    verify.env("PGKEEP_IDENTITY_FILE", &all).run().expect_code(0);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// A host that writes to another's repository with a copy of its keys.
fn second_host(first: &Keeper, url: &str) -> Keeper {
    let mut second = Keeper::new(url);
    second.set("PGKEEP_REPOSITORY", first.repository_url());
    bring_keys(first, &second);
    second
}

fn bring_keys(from: &Keeper, to: &Keeper) {
    for name in ["writer.key", "pgkeep.toml"] {
        std::fs::copy(from.home().join(name), to.home().join(name)).expect("a file");
    }
}

#[test]
fn a_host_with_the_old_writer_key_is_refused_and_goes_on_with_the_new_one() {
    let server = Server::newer();
    let (one, two) = (server.database("rotates"), server.database("follows"));
    let first = Keeper::initialised(&one.shop(100).url());
    let second = second_host(&first, &two.shop(200).url());
    first.snapshot();
    second.snapshot();
    first.pgkeep(["key", "rotate"]).run().expect_code(0);
    let (listed, objects) = (first.listed(), first.objects());
    let refused = second.pgkeep(["snapshot"]).run().expect_failure(7, &["was replaced by epoch"]);
    assert!(refused.stderr.contains("bring its writer key"), "{}", refused.stderr);
    assert_eq!(first.objects(), objects, "it is refused before anything is written");
    assert_eq!(key_show(&second)["replaced_by"], key_show(&first)["epoch"]);
    assert_eq!(first.listed(), listed);
    bring_keys(&first, &second);
    second.snapshot();
    first.snapshot();
    first.verify(&["--all", "--check", "counts"]);
}

#[test]
fn a_snapshot_in_flight_while_its_epoch_is_replaced_fails_and_is_not_listed() {
    let database = Server::older().database("flight");
    database.shop(80_000);
    let keeper = Keeper::initialised(&database.url());
    let first = keeper.snapshot_id();
    let mut running = keeper.pgkeep(["snapshot"]).spawn();
    eventually("its intent is there", Duration::from_secs(20), || {
        assert!(!running.has_ended(), "it ended before it could be stopped");
        let unfinished = |(key, _): &(String, PathBuf)| !key.contains(&first) && !key.contains('.');
        keeper.objects_under("intents/").iter().any(unfinished)
    });
    running.signal(rustix::process::Signal::STOP);
    keeper.pgkeep(["key", "rotate"]).run().expect_code(0);
    running.signal(rustix::process::Signal::CONT);
    running.wait().expect_failure(7, &["was replaced by epoch"]);
    assert_eq!(keeper.listed(), [&*first]);
    let next = keeper.snapshot_id();
    assert_eq!(keeper.listed(), [next, first]);
    keeper.verify(&["latest", "--check", "counts"]);
}

#[test]
fn a_lost_writer_key_is_replaced_and_readers_are_told_whom_to_trust() {
    let database = Server::older().database("lost");
    let keeper = Keeper::initialised(&database.shop(300).url());
    let first = keeper.snapshot_id();
    // What was carried away while all was well: the kit, and nothing else.
    let mut vault = Keeper::new(&database.url());
    let kit = vault.work().join("kit.txt");
    std::fs::copy(keeper.recovery_kit(), &kit).expect("the kit");
    vault.set("PGKEEP_REPOSITORY", keeper.repository_url()).set("PGKEEP_IDENTITY_FILE", &kit);

    std::fs::remove_file(keeper.home().join("writer.key")).expect("it was there");
    keeper.pgkeep(["snapshot"]).run().expect_failure(7, &["no writer key"]);
    let refused = keeper.pgkeep(["key", "rotate"]).run().expect_failure(7, &["no writer key"]);
    assert!(refused.stderr.contains("--lost-writer-key"), "{}", refused.stderr);
    let rotate = keeper.pgkeep(["key", "rotate", "--lost-writer-key", "--json"]).run();
    let report = rotate.expect_code(0).json();
    assert_eq!(report["signer_is_new"], true);
    let signer = text(&report["signer"]).to_owned();
    let own_kit = std::fs::read_to_string(keeper.recovery_kit()).expect("the kit");
    assert!(own_kit.contains(&format!("# signer: {signer}")), "the kit on this host is told");
    keeper.pgkeep(["key", "rotate", "--lost-writer-key"]).run().expect_failure(2, &["not lost"]);
    let second = keeper.snapshot_id();
    keeper.verify(&["--all", "--check", "counts"]);

    // A reader believes the new signer when a person says so, and not before.
    let refused = vault.pgkeep(["verify", &second]).run().expect_failure(7, &["not trusted here"]);
    assert!(refused.stderr.contains("pgkeep key trust"), "{}", refused.stderr);
    vault.pgkeep(["verify", &first, "--check", "counts"]).run().expect_code(0);
    for added in [true, false] {
        let trust = vault.pgkeep(["key", "trust", &signer, "--json"]).run().expect_code(0).json();
        assert_eq!(trust["signers"][0]["added"], added);
        assert_eq!(trust["signers"][0]["key_id"], report["signer_key_id"]);
    }
    vault.verify(&["--all", "--check", "counts"]);
}

#[test]
fn a_signer_is_trusted_in_the_configuration_and_junk_is_refused_unrepeated() {
    let database = Server::older().database("trusts");
    let keeper = Keeper::initialised(&database.url());
    let config = keeper.home().join("pgkeep.toml");
    let before = std::fs::read_to_string(&config).expect("init wrote it");
    let secret = std::fs::read_to_string(keeper.home().join("writer.key")).expect("a key");
    for junk in ["", "RWxx", "age1abc", secret.trim()] {
        let refused = keeper.pgkeep(["key", "trust", junk]).run().expect_failure(2, &[]);
        assert!(junk.len() < 10 || !refused.stderr.contains(junk), "{}", refused.stderr);
    }
    assert_eq!(std::fs::read_to_string(&config).expect("a file"), before);
    let (stranger, own) = (
        "RWQ1QECqRBPf+SpYrmkv/W41km89DVUn07ApjQLSoA92GlMpogJrL7cf",
        text(&key_show(&keeper)["signer"]).to_owned(),
    );
    let told = keeper.pgkeep(["key", "trust", stranger, &own]).run().expect_code(0).stdout;
    assert!(told.contains("key id F9DF1344AA404035") && told.contains("already"), "{told}");
    let trusted = strings(&key_show(&keeper)["trusted_signers"]);
    assert!(trusted.iter().any(|one| one == stranger) && trusted.contains(&own), "{trusted:?}");
    let after = std::fs::read_to_string(&config).expect("a file");
    assert_eq!(after.replace(&format!(", \"{stranger}\""), ""), before, "nothing else is changed");
}

#[test]
fn a_kit_counts_as_kept_elsewhere_once_its_host_has_proved_it() {
    let database = Server::newer().database("confirmed");
    let keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let told = || keeper.pgkeep(["key", "show"]).run().expect_code(0).stdout;
    assert!(told().contains("identity kept only here"), "{}", told());
    let refused = keeper.pgkeep(["key", "confirm"]).run();
    refused.expect_failure(2, &["holds the writer key"]);

    let mut vault = Keeper::new(&database.url());
    let kit = vault.work().join("kit.txt");
    std::fs::copy(keeper.recovery_kit(), &kit).expect("the kit");
    vault.set("PGKEEP_REPOSITORY", keeper.repository_url());
    let signer = text(&key_show(&keeper)["signer"]).to_owned();
    let (stranger, _) = new_identity(&vault, "stranger.txt");
    let wrong = vault.pgkeep(["key", "confirm"]).env("PGKEEP_TRUSTED_SIGNERS", &signer);
    wrong.env("PGKEEP_IDENTITY_FILE", stranger).run().expect_failure(7, &["other recipients"]);
    assert!(told().contains("identity kept only here"));

    vault.set("PGKEEP_IDENTITY_FILE", &kit);
    let confirmed = vault.pgkeep(["key", "confirm", "--json"]).run().expect_code(0).json();
    assert_eq!(confirmed[0]["epoch"], key_show(&keeper)["epoch"]);
    assert_eq!(Some(text(&confirmed[0]["backup"])), keeper.listed().first().map(String::as_str));
    assert_eq!(key_show(&keeper)["confirmations"][0]["host"], confirmed[0]["host"]);
    assert!(!told().contains("only here"), "{}", told());
    let checked = keeper.pgkeep(["check"]).run().expect_code(0).stdout;
    assert!(checked.contains("held by") && !checked.contains("only here"), "{checked}");
    // A new epoch has other keys: whether anyone holds those is not known yet.
    keeper.pgkeep(["key", "rotate"]).run().expect_code(0);
    assert!(told().contains("identity kept only here"), "{}", told());
    vault.pgkeep(["key", "confirm"]).run().expect_code(0);
    assert!(!told().contains("only here"), "{}", told());
}

/// The commands of the runbook, as they stand in it, each a step.
fn runbook_of_moving() -> Vec<String> {
    let page = include_str!("../../docs/operations.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Moving a repository"));
    let block = section.expect("the runbook").split("```sh\n").nth(1).expect("its commands");
    let block = block.split("```").next().expect("its end").replace("\\\n", " ");
    block.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_copy_made_by_rclone_while_snapshots_are_taken_lists_nothing_that_lacks_a_chunk() {
    let database = Server::older().database("moves");
    let keeper = Keeper::initialised(&database.shop(20_000).url());
    keeper.snapshot();
    let mut other = Keeper::new(&database.url());
    let kit = keeper.recovery_kit();
    other.set("PGKEEP_IDENTITY_FILE", &kit);
    let copy = other.repository();
    let steps = runbook_of_moving();
    assert!(steps.len() >= 5, "{steps:?}");
    for round in 0..2 {
        for (at, step) in steps.iter().enumerate() {
            // The worst moment is every moment.
            database.psql(&format!(
                "INSERT INTO customers (name, email) SELECT 'n', gen_random_uuid()::text \
                 FROM generate_series(1, 3000); UPDATE orders SET note = '{round} {at}' \
                 WHERE id % 7 = {at}"
            ));
            keeper.snapshot();
            keeper
                .shell(step)
                .env("SOURCE", keeper.repository())
                .env("TARGET", &copy)
                .env("PATH", "/usr/bin:/bin")
                .run()
                .expect_code(0);
            if round == 0 && at + 1 < steps.len() {
                // Half a copy is no repository.
                other.pgkeep(["list"]).run().expect_failure(5, &["no repository"]);
            } else {
                other.pgkeep(["verify", "--check", "stored"]).run().expect_code(0);
            }
        }
    }
    let (listed, all) = (other.listed(), keeper.listed());
    assert!(listed.len() > steps.len() && listed.len() < all.len(), "{listed:?}");
    // Nobody writes any more: once more, and the copy is all there is.
    for step in &steps {
        let command = keeper.shell(step).env("SOURCE", keeper.repository()).env("TARGET", &copy);
        command.env("PATH", "/usr/bin:/bin").run().expect_code(0);
    }
    assert_eq!(other.listed(), all);
    other.verify(&["latest", "--check", "full"]);
    let name = format!("{}_moved", database.name);
    other.pgkeep(["restore", "--as", &name]).run().expect_code(0);
    assert_eq!(database.server.contents(&name), database.contents());
    // The keys fit the copy: the host goes on there.
    keeper
        .pgkeep(["snapshot"])
        .env("PGKEEP_REPOSITORY", other.repository_url())
        .run()
        .expect_code(0);
}
