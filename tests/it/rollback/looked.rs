//! What a look at the live database tells of what goes, and what it does not claim.

use serde_json::Value;

use super::guarded;
use crate::support::{Keeper, Server};

#[track_caller]
fn lost(keeper: &Keeper) -> Value {
    let document = keeper.pgkeep(["rollback", "--dry-run", "--json"]).run().expect_code(0).json();
    document["lost"].clone()
}

#[test]
fn rows_that_were_truncated_away_and_replaced_are_not_told_as_unchanged() {
    let database = Server::newer().database("replaced");
    let keeper = Keeper::initialised(&database.shop(50).url());
    database.psql("CREATE TABLE rates AS SELECT n, 1 AS rate FROM generate_series(1, 9) AS n");
    guarded(&keeper, &[]);
    // As many rows, and no update or deletion for any counter to see.
    database.psql("TRUNCATE rates; INSERT INTO rates SELECT n, 2 FROM generate_series(1, 9) AS n");
    let lost = lost(&keeper);
    assert_eq!(lost["tables_rewritten"], Value::from(vec!["public.rates"]), "{lost}");
    assert_eq!((&lost["tables_same_count"], &lost["tables"]), (&2.into(), &Value::Array(vec![])));
    let text = keeper.pgkeep(["rollback", "--dry-run"]).run().expect_code(0).stdout;
    assert!(text.contains("truncated or rewritten at some time: public.rates\n"), "{text}");
    for bound in ["at most", "at least", "no more", "perhaps"] {
        assert!(!text.contains(bound), "{bound}: {text}");
    }
}

#[test]
fn large_objects_that_came_since_are_told() {
    let database = Server::older().database("large");
    let keeper = Keeper::initialised(&database.shop(10).url());
    database.psql("SELECT lo_from_bytea(0, 'then')");
    guarded(&keeper, &[]);
    database.psql("SELECT lo_from_bytea(0, 'now'), lo_from_bytea(0, 'too')");
    let lost = lost(&keeper);
    let numbers = (&lost["large_objects_in_snapshot"], &lost["large_objects_now"]);
    assert_eq!(numbers, (&1.into(), &3.into()), "{lost}");
    let text = keeper.pgkeep(["rollback", "--dry-run"]).run().expect_code(0).stdout;
    assert!(text.contains("large objects: 1 in the snapshot, 3 now\n"), "{text}");
}

#[test]
fn one_table_that_cannot_be_counted_hides_no_other() {
    let server = Server::newer();
    let database = server.database("broken");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    let good = database.contents();
    database.psql("INSERT INTO customers (name, email) VALUES ('late', 'late')");
    // Damage, as a disk makes it: the table's file is gone, and all that was in memory is written before.
    let file = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('orders')";
    let file = database.psql(file);
    server.psql("postgres", "CHECKPOINT");
    std::fs::remove_file(file).expect("the table's file");
    let document = keeper.pgkeep(["rollback", "--yes", "--json"]).run().expect_code(0).json();
    let lost = &document["lost"];
    let table = |name: &str| {
        let tables = lost["tables"].as_array().unwrap_or_else(|| panic!("nothing known: {lost}"));
        tables.iter().find(|one| one["table"] == name).unwrap_or_else(|| panic!("{name}: {lost}"))
    };
    assert_eq!(table("public.orders")["exact"], false);
    let customers = table("public.customers");
    assert_eq!((&customers["exact"], &customers["rows_more"]), (&true.into(), &1.into()));
    assert_eq!(database.contents(), good);
}
