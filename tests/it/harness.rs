//! The harness itself: what the stories stand on must be able to fail.

use crate::support::{Cluster, Server};

#[test]
fn databases_of_a_test_are_its_own_and_leave_with_it() {
    let server = Server::older();
    let (first, second) = (server.database("own"), server.database("own"));
    assert_ne!(first.name, second.name);
    first.shop(20);
    assert_ne!(first.contents(), second.contents());
    let name = first.name.clone();
    server.psql("postgres", &format!("CREATE DATABASE {name}_before_x"));
    drop(first);
    assert!(server.databases_like(&name).is_empty());
    assert!(server.has_database(&second.name));
}

#[test]
fn contents_tell_one_changed_value_and_one_sequence_step() {
    let database = Server::newer().database("contents");
    let before = database.shop(50).contents();
    assert!(before.contains("table public.orders|50|"), "{before}");
    assert_eq!(before, database.contents());
    database.psql("UPDATE orders SET note = note || '!' WHERE id = 8");
    let changed = database.contents();
    assert_ne!(before, changed);
    database.psql("SELECT nextval('orders_id_seq')");
    assert_ne!(changed, database.contents());
}

#[test]
fn a_cluster_of_ones_own_can_be_killed_and_started() {
    let mut cluster = Cluster::newer(&["work_mem=3MB"]);
    assert_eq!(cluster.psql("postgres", "SHOW work_mem"), "3MB");
    cluster.psql("postgres", "CREATE TABLE kept AS SELECT 1 AS one");
    cluster.kill();
    assert!(cluster.try_psql("postgres", "SELECT 1").is_err());
    cluster.start();
    assert_eq!(cluster.psql("postgres", "SELECT one FROM kept"), "1");
}

#[test]
fn the_nasty_schema_can_be_made_and_told_on_both_majors() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("nasty");
        let definition = database.nasty().definition();
        assert!(definition.contains("CREATE EVENT TRIGGER"), "{definition}");
        assert_eq!(definition, database.definition());
        assert!(database.contents().contains("large object|"));
    }
}
