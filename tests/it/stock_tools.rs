//! Nobody is locked in: the commands of the repository's own `RECOVER.md`, run as they stand there with the
//! stock `age`, `zstd`, `jq`, `minisign`, `psql`, `createdb` and `pg_restore`, bring everything back.

use crate::support::keeper::Pgkeep;
use crate::support::{Cluster, Keeper};

/// What stands between fences of that kind, joined.
fn fenced(page: &str, kind: &str) -> String {
    let mut inside = false;
    let mut found = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == format!("```{kind}");
        } else if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    assert!(!found.is_empty(), "RECOVER.md has a block of commands");
    found
}

/// The indented lines that begin so.
fn indented(page: &str, beginning: &str) -> String {
    let lines = page.lines().filter_map(|line| line.strip_prefix("    "));
    let found: Vec<_> = lines.filter(|line| line.starts_with(beginning)).collect();
    assert!(!found.is_empty(), "RECOVER.md shows `{beginning}`");
    found.join("\n")
}

/// What a person has: a copy of the repository, the recovery kit, and a server.
struct Person {
    keeper: Keeper,
    page: String,
}

impl Person {
    fn new(keeper: Keeper) -> Self {
        let page = keeper.repository().join("RECOVER.md");
        let page = std::fs::read_to_string(page).expect("every repository carries it");
        Self { keeper, page }
    }

    fn runs(&self, script: &str, target: &Cluster, database: &str) -> Pgkeep {
        let path = format!("{}:/usr/bin:/bin", target.bin.display());
        self.keeper
            .shell(script)
            .env("PATH", path)
            .env("REPOSITORY", self.keeper.repository())
            .env("IDENTITY", self.keeper.recovery_kit())
            .env("DATABASE", database)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", target.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", &target.password)
    }
}

#[test]
fn the_commands_of_recover_md_bring_a_database_and_its_roles_back() {
    let mut source = Cluster::older(&[]);
    source
        .psql("postgres", "CREATE ROLE clerk LOGIN PASSWORD 'x'; CREATE DATABASE shop OWNER clerk");
    source.psql("shop", &include_str!("sql/shop.sql").replace(":orders", "20000"));
    source.psql(
        "shop",
        "ALTER TABLE orders OWNER TO clerk; GRANT SELECT ON customers TO clerk; \
         SELECT lo_from_bytea(0, '\\x00ff')",
    );
    let keeper = Keeper::initialised(&source.url("shop"));
    keeper.snapshot();
    let before = source.contents("shop");
    source.kill();

    let target = Cluster::newer(&[]);
    let person = Person::new(keeper);
    let script = fenced(&person.page, "sh");
    person.runs(&script, &target, "back").run().expect_code(0);
    assert_eq!(target.contents("back"), before);
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'";
    assert_eq!(target.psql("back", owner), "clerk");

    let sealed = indented(&person.page, "jq -r .sealed");
    let manifest = "MANIFEST=$(ls \"$REPOSITORY\"/clusters/*/snapshots/*.json)\n";
    let inventory = person.runs(&format!("{manifest}{sealed}"), &target, "back").run();
    let inventory = inventory.expect_code(0);
    assert!(inventory.json().is_object());
    assert!(inventory.stdout.contains("customers"), "{}", inventory.stdout);
}

/// Whose writer key was lost has signed with two keys, and a kit that names both is enough for either.
#[test]
fn the_commands_of_recover_md_believe_every_signer_of_the_kit() {
    let source = Cluster::newer(&[]);
    source.psql("postgres", include_str!("sql/shop.sql").replace(":orders", "50").as_str());
    let keeper = Keeper::initialised(&source.url("postgres"));
    let first = keeper.snapshot_id();
    std::fs::remove_file(keeper.home().join("writer.key")).expect("it was there");
    keeper.pgkeep(["key", "rotate", "--lost-writer-key"]).run().expect_code(0);
    let second = keeper.snapshot_id();
    let person = Person::new(keeper);
    let script = fenced(&person.page, "sh");
    for (id, database) in [(first, "by_the_first"), (second, "by_the_second")] {
        let manifest = format!("clusters/main/snapshots/{id}.json");
        let manifest = person.keeper.repository().join(manifest);
        person.runs(&script, &source, database).env("MANIFEST", manifest).run().expect_code(0);
        assert_eq!(source.psql(database, "SELECT count(*) FROM orders"), "50");
    }
}

#[test]
fn stock_minisign_accepts_a_manifest_and_refuses_an_edited_one() {
    let source = Cluster::newer(&[]);
    source.psql("postgres", include_str!("sql/shop.sql").replace(":orders", "10").as_str());
    let keeper = Keeper::initialised(&source.url("postgres"));
    keeper.snapshot();
    let person = Person::new(keeper);
    let check = "MANIFEST=$(ls \"$REPOSITORY\"/clusters/*/snapshots/*.json)\n\
        SIGNER=$(sed -n 's/^# signer: //p' \"$IDENTITY\")\n\
        minisign -V -P \"$SIGNER\" -m \"$MANIFEST\" -x \"$MANIFEST.minisig\"\n";
    let accepted = person.runs(check, &source, "").run().expect_code(0);
    // The trusted comment binds the signature to this repository and this object.
    assert!(accepted.stdout.contains("/snapshots/"), "{accepted:?}");
    let edited = format!("{check}sed -i s/manual/script/ \"$MANIFEST\"\n! {}\n", last(check));
    person.runs(&edited, &source, "").run().expect_code(0);
    // The block itself stops there, before anything is made.
    let script = fenced(&person.page, "sh");
    assert_ne!(person.runs(&script, &source, "never").run().code, 0);
    assert!(!source.has_database("never"));
}

fn last(script: &str) -> &str {
    script.trim_end().lines().last().expect("a line")
}
