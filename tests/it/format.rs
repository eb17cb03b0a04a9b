//! A repository that an earlier version wrote is one that this version proves and restores.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Keeper, Server};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/repository-1");
const ARCHIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archives/odd-1.14.dump");

/// Git keeps no empty directory, and no mode of ours.
fn copied(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("it can be read").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn a_repository_of_format_1_is_verified_and_restored_by_whoever_has_its_kit() {
    let server = Server::older();
    let place = server.database("format");
    let mut keeper = Keeper::new(&place.url());
    let kit = keeper.work().join("recovery-kit.txt");
    std::fs::copy(Path::new(FIXTURE).join("recovery-kit.txt"), &kit).expect("copied");
    std::fs::set_permissions(&kit, PermissionsExt::from_mode(0o600)).expect("a mode");
    keeper.set("PGKEEP_IDENTITY_FILE", kit);
    copied(&Path::new(FIXTURE).join("repository"), &keeper.repository());
    let listed = keeper.listed();
    assert_eq!(listed.len(), 2);
    keeper.verify(&["--all", "--check", "full"]);
    let name = format!("{}_back", place.name);
    keeper.pgkeep(["restore", &listed[0], "--as", &name, "--json"]).run().expect_code(0);
    // By PostgreSQL's own program; what it cannot refresh here (a materialized view over a foreign table) has no rows.
    let mut own = server.program("pg_restore", &place.name);
    let own = own.args(["--dbname", &place.name, ARCHIVE]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&own.stderr).contains("mv_foreign"), "{own:?}");
    assert_eq!(server.contents(&name), place.contents());
}
