//! Names and passwords as people choose them.

use crate::support::server::quoted;
use crate::support::{Keeper, Server};

#[test]
fn databases_tables_and_columns_of_any_name_come_back() {
    let server = Server::newer();
    for name in [
        "with space",
        "Upper",
        "quo\"te",
        "apos'trophe",
        "ünïcødé 数",
        "semi;colon--",
        "back\\slash",
        "$dollar%s",
        "-dash",
    ] {
        let database = server.database(name);
        let table = quoted(&format!("{name} table"));
        database.psql(&format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.{table} ({column} text, \"B\" serial); \
             INSERT INTO {schema}.{table} SELECT 'row ' || n FROM generate_series(1, 10) AS n",
            schema = quoted(name),
            column = quoted(&format!("{name} column")),
        ));
        let before = database.contents();
        let keeper = Keeper::initialised(&database.url());
        let snapshot = keeper.snapshot();
        assert_eq!(snapshot["database"], *database.name);
        // Named on the command line as well as by the URL.
        keeper.pgkeep(["snapshot", "--", &database.name]).run().expect_code(0);
        keeper.verify(&["--check", "full"]);
        database.drop_now();
        keeper.pgkeep(["restore", "latest"]).run().expect_code(0);
        assert_eq!(database.contents(), before, "{name}");
    }
}

#[test]
fn passwords_of_any_kind_work_and_are_never_shown() {
    let server = Server::older();
    let database = server.database("passwords");
    database.shop(10);
    for (at, password) in
        ["p@ss", "a:b", "slash/es", "100%", "quo'te", "back\\slash", "@:/%'\\ \u{e9}"]
            .iter()
            .enumerate()
    {
        let role = server.role("secretive", password);
        server.psql(&database.name, &format!("GRANT pg_read_all_data TO {}", quoted(&role.name)));
        let keeper = Keeper::initialised(&role.url(&database.name));
        let output = keeper.pgkeep(["-v", "snapshot"]).run().expect_code(0);
        if password.len() > 4 {
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(!said.contains(password), "the password {at} is shown");
        }
        assert_eq!(keeper.listed().len(), 1);
    }
}

#[test]
fn an_unescaped_at_sign_in_the_password_splits_at_the_last_one() {
    let server = Server::older();
    let database = server.database("prisma");
    database.shop(10);
    let role = server.role("app", "p@ss@word");
    server.psql(&database.name, &format!("GRANT pg_read_all_data TO {}", quoted(&role.name)));
    let url = format!(
        "postgresql://{}:p@ss@word@127.0.0.1:{}/{}?schema=public&connection_limit=5",
        role.name, server.port, database.name
    );
    let keeper = Keeper::initialised(&url);
    assert_eq!(keeper.snapshot()["database"], *database.name);
}

#[test]
fn the_environment_of_libpq_and_of_prisma_is_understood() {
    let server = Server::older();
    let database = server.database("environment");
    database.shop(10);
    let mut keeper = Keeper::initialised(&database.url());
    keeper.unset("PGKEEP_DATABASE_URL");
    for variables in [
        vec![("DIRECT_URL", database.url()), ("DATABASE_URL", "postgresql://127.0.0.1:1/x".into())],
        vec![("DATABASE_URL", database.url())],
        vec![
            ("PGHOST", server.socket.display().to_string()),
            ("PGPORT", server.port.to_string()),
            ("PGUSER", "postgres".into()),
            ("PGPASSWORD", server.password.clone()),
            ("PGDATABASE", database.name.clone()),
        ],
    ] {
        let mut command = keeper.pgkeep(["snapshot", "--json"]);
        for (name, value) in &variables {
            command = command.env(name, value);
        }
        let snapshot = command.run().expect_code(0).json();
        assert_eq!(snapshot["database"], *database.name, "{variables:?}");
    }
}
