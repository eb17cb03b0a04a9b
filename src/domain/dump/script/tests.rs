use proptest::prelude::*;

use super::*;

const END: &str = "--\n-- PostgreSQL database dump complete\n--\n";

fn scan(
    text: &str,
    piece: usize,
    from_connect: bool,
) -> Result<(ScriptFacts, String), ScriptError> {
    let mut scanner = Scanner::new(from_connect);
    let mut out = Vec::new();
    for bytes in text.as_bytes().chunks(piece.max(1)) {
        scanner.push(bytes, &mut out)?;
    }
    let facts = scanner.complete(&mut out)?;
    Ok((facts, String::from_utf8(out).expect("text")))
}

/// The same in pieces of every small size.
#[track_caller]
fn facts(body: &str) -> ScriptFacts {
    let text = format!("{body}\n{END}");
    let whole = scan(&text, text.len(), false).expect("it passes");
    for piece in 1..9 {
        assert_eq!(scan(&text, piece, false).as_ref(), Ok(&whole), "in pieces of {piece}");
    }
    whole.0
}

#[track_caller]
fn refused(body: &str) -> ScriptError {
    let text = format!("{body}\n{END}");
    let error = scan(&text, text.len(), false).expect_err(body);
    assert_eq!(scan(&text, 1, false), Err(error.clone()));
    error
}

#[test]
fn psql_commands_are_seen_wherever_psql_sees_them() {
    for body in [
        "\\! touch /tmp/x",
        "SELECT 1 \\gexec",
        "SELECT 1; \\! x",
        "SELECT '\\'; \\! x",
        "SELECT 'it''s \\' \\! x ;",
        "SELECT E'\\\\' \\! x",
        "SELECT E'a'\n'b\\'c' \\! x",
        "SELECT E'a' --\n 'b\\'c' \\! x",
        "SELECT E'a'\n- 'b\\' \\! x",
        "SELECT E'a' 'b\\' \\! x",
        "SELECT typE'\\' \\! x",
        "-- a comment\r\\! x",
        "/* a /* nested */ comment */ \\! x",
        "/*/ */ \\! x",
        "SELECT $a$ $b$ $a $a$ \\! x",
        "SELECT $1 \\! x $1",
        "SELECT a$b$ \\! x $b$",
        "SELECT \"a\"\"\\\" \\! x",
        "SET standard_conforming_strings = off; SELECT '\\'' \\! x",
        "SET LOCAL \"standard_conforming_strings\" TO 'OFF'; SELECT '\\'' \\! x",
        "COPY t FROM stdin;\n1\n\\.\n\\! x",
        "COPY t FROM stdin;\n1\n\\. \n\\.\n\\! x",
        "SELECT (COPY t FROM stdin;\n\\! x",
        "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; COPY t FROM stdin;\n\\! x",
        "CREATE OR REPLACE PROCEDURE f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; COPY t FROM stdin;\n\\! x",
        "\\restrict a \\! x",
        "SELECT 1\n\\restrict a\n;",
        "\\i other.sql",
        "\\copy t from 'x'",
        "\\connect \"host=elsewhere\" a b",
    ] {
        assert!(
            matches!(refused(body), ScriptError::Command { .. }),
            "{body}: {:?}",
            refused(body)
        );
    }
    let error = refused("SELECT 1;\n\n\\! x");
    assert_eq!(error, ScriptError::Command { line: 3, command: "!".to_owned() });
}

#[test]
fn backslashes_within_texts_comments_and_rows_are_none() {
    for body in [
        "SELECT '\\! x', E'\\'\\! x', U&'\\0041', $$\\! x$$, $a$ $$ \\! x $a$, \"\\! x\"; -- \\! x",
        "/* \\! x */ SELECT 1;",
        "COPY t (a) FROM stdin;\n\\! x\n\\N\n\\.x\n\\\\.\n\\.\nSELECT 1;",
        "COPY t FROM stdin;\r\n1\r\n\\.\r\n",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;",
        "\\restrict Key\nSELECT 1;\n\\unrestrict Key",
    ] {
        facts(body);
    }
}

#[test]
fn what_makes_lexers_disagree_is_refused() {
    assert!(matches!(refused("SELECT 'a\0b';"), ScriptError::Odd { line: 1, .. }));
    assert!(matches!(refused("COPY t FROM stdin; SELECT 1;\n"), ScriptError::Odd { .. }));
    for body in
        ["SELECT :DBNAME;", "SELECT 1 :\"DBNAME\";", "SELECT :'DBNAME';", "SELECT a[1:HOST];"]
    {
        assert!(matches!(refused(body), ScriptError::Odd { line: 1, .. }), "{body}");
    }
    facts("SELECT a[1:b], a[x:\"Foo\"], a::TEXT, a::\"TEXT\", ':DBNAME', a :b;");
    let error = refused("SET client_encoding = 'SJIS';");
    assert_eq!(error, ScriptError::Encoding("SJIS".to_owned()));
}

#[test]
fn a_dump_that_is_cut_anywhere_is_not_whole() {
    let text = format!(
        "--\n-- PostgreSQL database dump\n--\nCREATE TABLE t (a text);\n\
         COPY t FROM stdin;\na\n\\.\nSELECT $$x$$, 'y', \"z\" /* c */;\n{END}\n\\unrestrict a\n\n"
    );
    let whole = text.find("complete").expect("there") + "complete".len();
    for cut in 0..whole {
        let result = scan(&text[..cut], 4096, false);
        let cut_off = matches!(result, Err(ScriptError::Incomplete { .. }));
        assert!(cut_off, "{cut}: {result:?}");
    }
    for cut in [whole, whole + 1, text.len()] {
        assert!(scan(&text[..cut], 4096, false).is_ok(), "{cut}");
    }
    let more = format!("{text}INSERT INTO t VALUES (1);\n");
    assert!(matches!(scan(&more, 99, false), Err(ScriptError::Incomplete { .. })));
}

#[test]
fn roles_and_extensions_are_found_in_every_statement_that_names_them() {
    let found = facts(
        "ALTER TABLE shop.t OWNER TO owner_a;\n\
         GRANT SELECT,UPDATE(x) ON TABLE t TO reader, \"Odd \"\"role\", GROUP old WITH GRANT OPTION GRANTED BY giver;\n\
         REVOKE ALL ON SCHEMA public FROM PUBLIC;\n\
         REVOKE ALL ON FUNCTION f(a text) FROM loser;\n\
         ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT SELECT ON TABLES TO taker;\n\
         CREATE POLICY p ON t FOR SELECT TO policed USING ((a = 'x'::text));\n\
         CREATE SCHEMA s AUTHORIZATION schemer;\n\
         CREATE USER MAPPING FOR mapped SERVER s OPTIONS (\"user\" 'u');\n\
         SET SESSION AUTHORIZATION 'Sess';\n\
         ALTER ROLE inner_role IN DATABASE d SET work_mem TO '8MB';\n\
         CREATE VIEW v AS SELECT 'OWNER TO nobody' FROM t;\n\
         INSERT INTO t VALUES ('GRANT x TO nobody');\n\
         CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;\n\
         CREATE EXTENSION \"uuid-ossp\";\n",
    );
    let roles: Vec<&str> = found.roles.iter().map(String::as_str).collect();
    let expected = [
        "Odd \"role",
        "Sess",
        "giver",
        "inner_role",
        "loser",
        "maker",
        "mapped",
        "old",
        "owner_a",
        "policed",
        "reader",
        "schemer",
        "taker",
    ];
    assert_eq!(roles, expected);
    assert_eq!(found.extensions.iter().collect::<Vec<_>>(), ["hstore", "uuid-ossp"]);
}

#[test]
fn what_a_scratch_cluster_may_not_run_is_left_out_and_the_lines_stay() {
    let text = format!(
        "--\n-- PostgreSQL database dump\n--\n\\restrict abc\n\n-- Dumped from database version 15.4 (Debian)\n\
         -- Dumped by pg_dump version 17.1\n-- Started on 2026-11-20 02:00:00 CET\nSET default_tablespace = fast;\n\
         SET default_tablespace = '';\nREFRESH MATERIALIZED VIEW public.m;\nSELECT 'a\nb';\n{END}\\unrestrict abc\n"
    );
    let (facts, out) = scan(&text, 5, false).expect("it passes");
    assert_eq!(out.lines().count(), text.lines().count());
    assert_eq!(out.lines().nth(11), Some("SELECT 'a"));
    for left_out in ["restrict", "fast", "REFRESH"] {
        assert!(!out.contains(left_out), "{out}");
    }
    assert!(out.contains("SET default_tablespace = '';"));
    assert!(facts.tablespaces);
    let refresh =
        Refresh { search_path: None, statement: "REFRESH MATERIALIZED VIEW public.m;".to_owned() };
    assert_eq!(facts.refreshes, [refresh]);
    assert_eq!(facts.server_version.as_deref(), Some("15.4 (Debian)"));
    assert_eq!(facts.dump_version.as_deref(), Some("17.1"));
    assert_eq!(facts.started.as_deref(), Some("2026-11-20 02:00:00 CET"));
}

#[test]
fn a_dump_that_makes_its_database_tells_how_and_begins_after_it_connects() {
    let text = format!(
        "DROP DATABASE IF EXISTS \"Shop\";\nCREATE DATABASE \"Shop\" WITH TEMPLATE = template0 ENCODING = 'LATIN1' \
         LOCALE_PROVIDER = icu LOCALE = 'de_DE' ICU_LOCALE = 'de';\nALTER DATABASE \"Shop\" OWNER TO keeper;\n\
         \\encoding SQL_ASCII\n\\connect -reuse-previous=on \"dbname='Shop'\"\n\
         SET client_encoding = 'LATIN1';\nALTER DATABASE \"Shop\" SET work_mem TO '8MB';\n\\connect Shop\n{END}"
    );
    let (facts, out) = scan(&text, 7, true).expect("it passes");
    let database = facts.database.expect("told");
    assert_eq!((&*database.name, &*database.encoding), ("Shop", "LATIN1"));
    assert_eq!((&*database.collate, &*database.ctype), ("de_DE", "de_DE"));
    assert_eq!((&*database.locale_provider, database.icu_locale.as_deref()), ("icu", Some("de")));
    assert_eq!(facts.connects.as_deref(), Some("Shop"));
    assert_eq!(facts.of_database, ["ALTER DATABASE \"Shop\" OWNER TO keeper;"]);
    assert_eq!(facts.of_database_later, ["ALTER DATABASE \"Shop\" SET work_mem TO '8MB';"]);
    assert!(!out.contains("CREATE DATABASE") && !out.contains("connect"), "{out}");
    assert_eq!(out.lines().nth(5), Some("SET client_encoding = 'LATIN1';"));
}

#[test]
fn a_dump_of_a_whole_server_is_told_apart() {
    assert!(matches!(refused("CREATE ROLE a;"), ScriptError::WholeServer { line: 1 }));
    let error = refused("\\connect a\nSELECT 1;\n\\connect b");
    assert_eq!(error, ScriptError::Databases { line: 3, database: "b".to_owned() });
}

proptest! {
    #[test]
    fn any_text_ends_without_panic_and_pieces_change_nothing(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("'"), Just("\""), Just("$a$"), Just("$"), Just("\\"), Just("\n"), Just("--"), Just("/*"),
                Just("*/"), Just(";"), Just("E"), Just("("), Just(")"), Just(" "), Just("COPY t FROM stdin;\n"),
                Just("\\.\n"), Just("CREATE FUNCTION f BEGIN "), Just("END"), Just("x"), Just("\r"),
            ],
            0..40,
        ),
        piece in 1_usize..7,
    ) {
        let text = parts.concat();
        prop_assert_eq!(scan(&text, piece, false), scan(&text, text.len(), false));
    }
}
