//! Tables and commands told apart, and histories held against files; each tool's table as its own sources make it.

use std::collections::BTreeMap;

use super::*;

/// Files in memory; a checksum is the text itself.
#[derive(Default)]
struct Project(BTreeMap<PathBuf, String>);

impl Project {
    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
    }
}

impl ProjectFiles for Project {
    fn entries(&self, directory: &Path) -> Option<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        for path in self.0.keys() {
            let Ok(below) = path.strip_prefix(directory) else { continue };
            let mut parts = below.components().map(|part| part.as_os_str().to_string_lossy());
            let Some(first) = parts.next() else { continue };
            found.push(if parts.next().is_some() {
                format!("{first}/")
            } else {
                first.into_owned()
            });
        }
        found.dedup();
        (!found.is_empty()).then_some(found)
    }
    fn text(&self, path: &Path) -> Option<String> {
        self.0.get(path).cloned()
    }
    fn digest(&self, path: &Path, _: Digest) -> Option<String> {
        self.text(path)
    }
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn table(name: &str, columns: &str) -> Table {
    let column = |text: &str| {
        let (name, kind) = text.trim().split_once(' ').expect("a name and a type");
        Column { name: name.to_owned(), kind: kind.to_owned() }
    };
    let columns = columns.split(',').map(column).collect();
    Table { schema: "public".to_owned(), name: name.to_owned(), columns }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn row(key: &str, state: RowState) -> Row {
    Row {
        key: key.to_owned(),
        name: key.to_owned(),
        checksum: None,
        state,
        detail: None,
        identity: None,
    }
}

fn applied(keys: &[&str]) -> Vec<Row> {
    keys.iter().map(|key| row(key, RowState::Applied)).collect()
}

fn state(line: &str, rows: &[Row], files: &[(&str, &str)]) -> State {
    let project = Project::of(files);
    let command = Command::understand(&words(line), &project);
    let tool = command.tool.expect("a tool's own command");
    State::of(tool, None, rows, &command, &project)
}

const PRISMA: &str = "id character varying(36), checksum character varying(64), \
    finished_at timestamp with time zone, migration_name character varying(255), logs text, \
    rolled_back_at timestamp with time zone, started_at timestamp with time zone, applied_steps_count integer";

#[test]
fn each_tools_table_is_told_by_its_columns() {
    for (name, columns, tool) in [
        ("_prisma_migrations", PRISMA, Tool::Prisma),
        ("_Prisma_Migrations", PRISMA, Tool::Prisma),
        (
            "history",
            "installed_rank integer, version character varying(50), description character varying(200), \
             type character varying(20), script character varying(1000), checksum integer, \
             installed_by character varying(100), installed_on timestamp without time zone, \
             execution_time integer, success boolean",
            Tool::Flyway,
        ),
        (
            "DATABASECHANGELOG",
            "id character varying(255), author character varying(255), filename character varying(255), \
             dateexecuted timestamp without time zone, orderexecuted integer, exectype character varying(10), \
             md5sum character varying(35), description character varying(255), comments character varying(255), \
             tag character varying(255), liquibase character varying(20), contexts character varying(255), \
             labels character varying(255), deployment_id character varying(10)",
            Tool::Liquibase,
        ),
        (
            "django_migrations",
            "id bigint, app character varying(255), name character varying(255), applied timestamp with time zone",
            Tool::Django,
        ),
        ("schema_migrations", "version character varying", Tool::Rails),
        ("schema_migrations", "version bigint, dirty boolean", Tool::GolangMigrate),
        ("alembic_version", "version_num character varying(32)", Tool::Alembic),
        (
            "_sqlx_migrations",
            "version bigint, description text, installed_on timestamp with time zone, success boolean, \
             checksum bytea, execution_time bigint",
            Tool::Sqlx,
        ),
        (
            "__diesel_schema_migrations",
            "version character varying(50), run_on timestamp without time zone",
            Tool::Diesel,
        ),
        (
            "goose_db_version",
            "id integer, version_id bigint, is_applied boolean, tstamp timestamp without time zone",
            Tool::Goose,
        ),
        (
            "knex_migrations",
            "id integer, name character varying(255), batch integer, migration_time timestamp with time zone",
            Tool::Knex,
        ),
        ("migrations", "id integer, timestamp bigint, name character varying", Tool::Typeorm),
        ("SequelizeMeta", "name character varying(255)", Tool::Sequelize),
        ("__drizzle_migrations", "id integer, hash text, created_at bigint", Tool::Drizzle),
        (
            "pgmigrations",
            "id integer, name character varying(255), run_on timestamp without time zone",
            Tool::NodePgMigrate,
        ),
        (
            "refinery_schema_history",
            "version integer, name character varying(255), applied_on character varying(255), \
             checksum character varying(255)",
            Tool::Refinery,
        ),
        (
            "atlas_schema_revisions",
            "version character varying, description character varying, type bigint, applied bigint, total bigint, \
             executed_at timestamp with time zone, execution_time bigint, error text, error_stmt text, \
             hash character varying, partial_hashes jsonb, operator_version character varying",
            Tool::Atlas,
        ),
    ] {
        let table = table(name, columns);
        assert_eq!(recognise(&table), Some(tool), "{name}");
        let (names, columns) = marks();
        let marked = names.contains(&name.to_lowercase())
            || table.columns.iter().any(|column| columns.contains(&column.name.as_str()));
        assert!(marked, "{name} would not be looked at");
    }
}

#[test]
fn tables_of_the_same_name_that_others_made_are_nobodys() {
    for (name, columns) in [
        // dbmate, Ecto, Laravel, an application's own.
        ("schema_migrations", "version character varying(128)"),
        ("schema_migrations", "version bigint, inserted_at timestamp(0) without time zone"),
        ("migrations", "id integer, migration character varying(255), batch integer"),
        (
            "migrations",
            "id integer, name character varying(255), run_on timestamp without time zone",
        ),
        ("tags", "name character varying(255)"),
        ("events", "id integer, timestamp bigint, name character varying"),
    ] {
        assert_eq!(recognise(&table(name, columns)), None, "{name} {columns}");
    }
}

#[test]
fn commands_are_looked_through_to_the_tools_program() {
    let package = r#"{"scripts": {
        "db:migrate": "dotenv -e .env -- prisma migrate deploy",
        "db:all": "prisma generate && prisma migrate deploy",
        "loop": "pnpm loop",
        "live": "prisma migrate deploy",
        "prelive": "psql -f before.sql",
        "late": "prisma migrate deploy",
        "postlate": "psql -f after.sql",
        "odd": "prisma migrate deploy --schema=$SCHEMA"
    }}"#;
    let project = Project::of(&[("package.json", package)]);
    for (line, tool, action) in [
        ("npx prisma migrate deploy", Some(Tool::Prisma), Action::Apply),
        ("npx --yes prisma@6.19.3 migrate deploy", Some(Tool::Prisma), Action::Apply),
        (
            "node_modules/.bin/prisma migrate resolve --applied x",
            Some(Tool::Prisma),
            Action::Repair,
        ),
        ("pnpm exec prisma db execute --file fix.sql", Some(Tool::Prisma), Action::Repair),
        ("bunx prisma migrate reset", Some(Tool::Prisma), Action::Other),
        ("pnpm db:migrate", Some(Tool::Prisma), Action::Apply),
        ("npm run db:migrate -- --schema x", Some(Tool::Prisma), Action::Apply),
        ("yarn db:all", Some(Tool::Prisma), Action::Other),
        ("npm run live", Some(Tool::Prisma), Action::Other),
        ("yarn late", Some(Tool::Prisma), Action::Other),
        ("npx prisma migrate dev", Some(Tool::Prisma), Action::Other),
        ("npx prisma migrate deploy --help", Some(Tool::Prisma), Action::Other),
        ("rails db:migrate VERSION=20240101000000", Some(Tool::Rails), Action::Other),
        ("VERSION=0 rails db:migrate", Some(Tool::Rails), Action::Other),
        ("env VERSION=0 bundle exec rails db:migrate", Some(Tool::Rails), Action::Other),
        ("pnpm loop", None, Action::Other),
        ("pnpm odd", None, Action::Other),
        ("pnpm --filter api db:migrate", None, Action::Other),
        ("env A=b npx prisma migrate deploy", Some(Tool::Prisma), Action::Apply),
        ("flyway -url=jdbc:postgresql://h/d migrate", Some(Tool::Flyway), Action::Apply),
        ("flyway clean migrate", Some(Tool::Flyway), Action::Other),
        ("flyway repair", Some(Tool::Flyway), Action::Repair),
        ("python3 manage.py migrate --noinput", Some(Tool::Django), Action::Apply),
        ("python manage.py migrate shop 0003", Some(Tool::Django), Action::Other),
        ("bundle exec rails db:migrate", Some(Tool::Rails), Action::Apply),
        ("bin/rails db:migrate RAILS_ENV=production", Some(Tool::Rails), Action::Apply),
        ("poetry run alembic upgrade head", Some(Tool::Alembic), Action::Apply),
        ("flask db upgrade", Some(Tool::Alembic), Action::Apply),
        ("sqlx migrate run", Some(Tool::Sqlx), Action::Apply),
        ("diesel migration run", Some(Tool::Diesel), Action::Apply),
        ("goose -dir db postgres url up", Some(Tool::Goose), Action::Apply),
        ("npx knex migrate:latest", Some(Tool::Knex), Action::Apply),
        ("npx sequelize-cli db:migrate", Some(Tool::Sequelize), Action::Apply),
        ("npx typeorm migration:run -d x.js", Some(Tool::Typeorm), Action::Apply),
        ("npx drizzle-kit migrate", Some(Tool::Drizzle), Action::Apply),
        ("migrate -path db -database url up", Some(Tool::GolangMigrate), Action::Apply),
        ("./migrate", None, Action::Other),
        ("atlas migrate apply --env prod", Some(Tool::Atlas), Action::Apply),
        ("psql -f fix.sql", None, Action::Other),
        ("docker compose exec app npx prisma migrate deploy", None, Action::Other),
    ] {
        let command = Command::understand(&words(line), &project);
        assert_eq!((command.tool, command.action), (tool, action), "{line}");
    }
    let script = ["sh", "-c", "cd api && npx prisma migrate deploy"].map(str::to_owned);
    let command = Command::understand(&script, &project);
    assert_eq!((command.tool, command.action), (Some(Tool::Prisma), Action::Apply));
    assert_eq!(command.directory, Path::new("api"));
}

#[test]
fn prismas_files_and_rows_are_held_against_each_other() {
    let files = [
        ("prisma/schema.prisma", ""),
        ("prisma/migrations/migration_lock.toml", ""),
        ("prisma/migrations/1_init/migration.sql", "one"),
        ("prisma/migrations/2_more/migration.sql", "two"),
        ("prisma/migrations/3_last/migration.sql", "three"),
    ];
    let with = |key: &str, state, checksum: &str| Row {
        checksum: Some(checksum.to_owned()),
        ..row(key, state)
    };
    let rows = [
        with("0_gone", RowState::Applied, "zero"),
        with("1_init", RowState::Applied, "edited since"),
        with("2_more", RowState::RolledBack, "two"),
        with("2_more", RowState::Failed, "two"),
    ];
    let state = state("npx prisma migrate deploy", &rows, &files);
    assert_eq!((state.applied, state.last_applied.as_deref()), (2, Some("1_init")));
    assert_eq!(state.edited, ["1_init"]);
    assert_eq!(state.without_file, ["0_gone"]);
    assert_eq!(state.failed.len(), 1);
    assert_eq!(state.pending, ["3_last"]);
    // It may be another place than the tool's.
    assert_eq!(state.pending_unknown.as_deref(), Some("some that are applied have no file there"));
    assert_eq!(state.files.as_deref(), Some("prisma/migrations"));
    assert!(Tool::Prisma.after_failure(&state.failed[0]).contains("--rolled-back 2_more"));
}

#[test]
fn prismas_migrations_are_where_arguments_and_configuration_say() {
    let at = |line: &str, files: &[(&str, &str)]| {
        let state = state(line, &[], files);
        (state.files, state.pending.join(" "), state.pending_unknown)
    };
    let known = |place: &str, pending: &str| (Some(place.to_owned()), pending.to_owned(), None);
    let apply = "npx prisma migrate deploy";
    let elsewhere = [
        ("packages/db/schema.prisma", ""),
        ("packages/db/migrations/1/migration.sql", ""),
        ("prisma/schema.prisma", ""),
        ("prisma/migrations/9/migration.sql", ""),
    ];
    assert_eq!(at(apply, &elsewhere), known("prisma/migrations", "9"));
    for given in ["--schema packages/db/schema.prisma", "--schema=packages/db/schema.prisma"] {
        assert_eq!(
            at(&format!("{apply} {given}"), &elsewhere),
            known("packages/db/migrations", "1")
        );
    }
    let package = r#"{"prisma": {"schema": "packages/db/schema.prisma"}}"#;
    let named = [&elsewhere[..], &[("package.json", package)]].concat();
    assert_eq!(at(apply, &named), known("packages/db/migrations", "1"));
    let config =
        "export default defineConfig({ schema: 'prisma', migrations: { path: './sql/steps' } })";
    let configured = [
        ("deploy/prisma.config.ts", config),
        ("deploy/sql/steps/1/migration.sql", ""),
        ("prisma/schema.prisma", ""),
    ];
    let line = format!("{apply} --config deploy/prisma.config.ts");
    assert_eq!(at(&line, &configured), known("deploy/sql/steps", "1"));
    let (_, _, unknown) = at(&format!("{apply} --config absent.ts"), &configured);
    assert_eq!(unknown.as_deref(), Some("`absent.ts` cannot be read from here"));
    // A directory of schema files, with the migrations in it or beside it.
    let within = [("db/schema/a.prisma", ""), ("db/schema/migrations/1/migration.sql", "")];
    assert_eq!(
        at(&format!("{apply} --schema db/schema"), &within),
        known("db/schema/migrations", "1")
    );
    let beside = [("db/schema/a.prisma", ""), ("db/migrations/1/migration.sql", "")];
    assert_eq!(at(&format!("{apply} --schema db/schema"), &beside), known("db/migrations", "1"));
    // Nothing there is unknown, never none.
    let state = state(apply, &[], &[]);
    assert!(!state.has_nothing_pending() && state.pending_count() == "unknown");
}

#[test]
fn a_command_that_is_not_the_tools_own_leaves_pending_unknown() {
    let project =
        Project::of(&[("prisma/schema.prisma", ""), ("prisma/migrations/1/migration.sql", "x")]);
    let command = Command::understand(&words("node server.js"), &project);
    let state = |rows: &[Row]| State::of(Tool::Prisma, None, rows, &command, &project);
    assert_eq!(state(&[]).pending_count(), "1 or more");
    assert_eq!(state(&applied(&["1"])).pending_count(), "unknown");
}

#[test]
fn versions_are_pending_by_each_tools_own_rule() {
    let pending = |line: &str, rows: &[Row], files: &[&str]| {
        let files: Vec<(&str, &str)> = files.iter().map(|name| (*name, "")).collect();
        let state = state(line, rows, &files);
        (state.pending.join(" "), state.pending_unknown.is_some())
    };
    let known = |names: &str| (names.to_owned(), false);
    let rails =
        ["db/migrate/20240101000000_a.rb", "db/migrate/20240201000000_b.rb", "db/migrate/notes.md"];
    let line = "bin/rails db:migrate";
    assert_eq!(pending(line, &applied(&["20240101000000"]), &rails), known("20240201000000_b"));
    let goose = ["db/00001_a.sql", "db/00002_b.go", "db/00003_c.sql"];
    let line = "goose -dir db postgres url up";
    let rows = [row("1", RowState::Applied), row("2", RowState::RolledBack)];
    assert_eq!(pending(line, &rows, &goose), known("00002_b.go 00003_c.sql"));
    let golang = ["db/1_a.up.sql", "db/1_a.down.sql", "db/2_b.up.sql", "db/10_c.up.sql"];
    let line = "migrate -path db -database url up";
    assert_eq!(pending(line, &applied(&["2"]), &golang), known("10_c"));
    assert!(pending("migrate -database url up", &applied(&["2"]), &golang).1);
    let sqlx = ["migrations/1_a.sql", "migrations/2_b.up.sql", "migrations/2_b.down.sql"];
    assert_eq!(pending("sqlx migrate run", &applied(&["1"]), &sqlx), known("2_b"));
    let knex = ["migrations/1_a.js", "migrations/2_b.ts", "migrations/2_b.d.ts"];
    assert_eq!(pending("npx knex migrate:latest", &applied(&["1_a.js"]), &knex), known("2_b.ts"));
    let django = [
        "manage.py",
        "shop/migrations/__init__.py",
        "shop/migrations/0001_a.py",
        "shop/migrations/0002_b.py",
    ];
    let line = "python manage.py migrate";
    let some = ("shop.0002_b".to_owned(), true);
    assert_eq!(pending(line, &applied(&["shop.0001_a"]), &django), some);
    assert_eq!(
        pending(line, &applied(&["shop.0001_a", "shop.0002_b"]), &django),
        (String::new(), true)
    );
}

#[test]
fn flyway_knows_baselines_repeatables_and_versions_by_their_numbers() {
    let files = [
        ("sql/V1__a.sql", "a"),
        ("sql/V1_5__b.sql", "b"),
        ("sql/V2__c.sql", "c"),
        ("sql/more/V10__d.sql", "d"),
        ("sql/R__views.sql", "new"),
        ("sql/R__same.sql", "same"),
    ];
    let with = |key: &str, checksum: Option<&str>, detail: Option<&str>| Row {
        checksum: checksum.map(str::to_owned),
        detail: detail.map(str::to_owned),
        ..row(key, RowState::Applied)
    };
    let rows = [
        with("1.0", None, Some("baseline")),
        with("1.5", Some("other"), None),
        with("R views", None, Some("old")),
        with("R same", None, Some("same")),
    ];
    let state = state("flyway migrate", &rows, &files);
    assert_eq!(state.pending, ["V2__c.sql", "V10__d.sql", "R__views.sql"]);
    assert_eq!((state.edited, state.without_file), (vec!["1.5".to_owned()], Vec::<String>::new()));
    assert_eq!(state.pending_unknown, None);
}

#[test]
fn alembic_is_pending_from_its_heads_on() {
    let script = |revision: &str, before: &str| {
        format!(
            "\"\"\"docs\"\"\"\nrevision: str = '{revision}'\ndown_revision: Union[str, None] = {before}  # x\n"
        )
    };
    let texts = [
        script("a", "None"),
        script("b", "'a'"),
        script("c", "\"a\""),
        script("d", "('b', 'c')"),
        script("e", "(\n    'd',\n)"),
    ];
    let mut files = vec![("alembic.ini", "[alembic]\nscript_location = %(here)s/alembic\n")];
    let names = ["a", "b", "c", "d", "e"].map(|name| format!("alembic/versions/{name}.py"));
    files.extend(names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())));
    let pending =
        |heads: &[&str]| state("alembic upgrade head", &applied(heads), &files).pending.join(" ");
    assert_eq!(pending(&[]), "a b c d e");
    assert_eq!(pending(&["b"]), "c d e");
    assert_eq!(pending(&["b", "c"]), "d e");
    assert_eq!(pending(&["e"]), "");
    assert!(state("alembic upgrade head", &applied(&["e"]), &files).has_nothing_pending());
}

#[test]
fn drizzle_is_pending_after_the_newest_time_of_its_journal() {
    let journal = r#"{"entries": [{"idx": 0, "when": 100, "tag": "0000_a"}, {"idx": 1, "when": 200, "tag": "0001_b"}]}"#;
    let files = [
        (
            "drizzle.config.ts",
            "export default defineConfig({ out: './db/drizzle', dialect: 'postgresql' })",
        ),
        ("db/drizzle/meta/_journal.json", journal),
        ("db/drizzle/0000_a.sql", "a"),
        ("db/drizzle/0001_b.sql", "b"),
    ];
    let rows = [Row { checksum: Some("changed".to_owned()), ..row("100", RowState::Applied) }];
    let state = state("npx drizzle-kit migrate", &rows, &files);
    assert_eq!((state.pending, state.edited), (vec!["0001_b".to_owned()], vec!["100".to_owned()]));
}

#[test]
fn the_database_of_a_command_is_named_by_its_words_and_launchers() {
    let package =
        r#"{"scripts": {"live": "DATABASE_URL=postgres://live/d prisma migrate deploy"}}"#;
    let dotenv = "# a note\nexport DATABASE_URL=\"postgres://dotenv/d\"\n";
    let project = Project::of(&[("package.json", package), (".env", dotenv)]);
    for (line, addresses) in [
        ("env -u A DATABASE_URL=postgres://b/d npx prisma migrate deploy", &["postgres://b/d"][..]),
        ("npm run live", &["postgres://live/d"]),
        ("goose -dir db postgres postgres://b/d up", &["postgres://b/d"]),
        ("migrate -path db -database postgres://b/d up", &["postgres://b/d"]),
        ("flyway -url=jdbc:postgresql://b/d?a=b migrate", &["postgresql://b/d?a=b"]),
        ("sqlx migrate run --database-url postgres://b/d", &["postgres://b/d"]),
        ("sqlx migrate run", &["postgres://dotenv/d"]),
        ("atlas migrate apply --url postgres://b/d --dev-url postgres://c/d", &["postgres://b/d"]),
        ("npx prisma migrate deploy", &[]),
        // Whose address that is, nobody knows.
        ("./copy postgres://b/d", &[]),
    ] {
        let command = Command::understand(&words(line), &project);
        assert_eq!(command.addresses(&project), addresses, "{line}");
        assert_eq!(command.uncertain(), None, "{line}");
    }
    let script = ["sh", "-c", "export DATABASE_URL=postgres://b/d; npx prisma migrate deploy"];
    let command = Command::understand(&script.map(str::to_owned), &project);
    assert_eq!(command.addresses(&project), ["postgres://b/d"]);
    let files = [("prisma/schema.prisma", ""), ("prisma/migrations/1/migration.sql", "x")];
    for line in [
        "dotenv -e .env.production -- npx prisma migrate deploy",
        "node --env-file=.env.live node_modules/.bin/prisma migrate deploy",
    ] {
        let state = state(line, &applied(&["1"]), &files);
        let unknown = state.pending_unknown.as_deref();
        assert_eq!(unknown, Some("its launcher may name another database"), "{line}");
        assert!(!state.has_nothing_pending(), "{line}");
    }
}

#[test]
fn files_that_may_lie_elsewhere_are_never_nothing_pending() {
    let prisma = |config: &str| {
        let files = [
            ("prisma.config.ts", config),
            ("prisma/schema.prisma", ""),
            ("prisma/migrations/1/migration.sql", "x"),
            ("sql/migration.sql", ""),
            ("other/migrations/9/migration.sql", "x"),
        ];
        let state = state("npx prisma migrate deploy", &applied(&["1"]), &files);
        (state.files.unwrap_or_default(), state.pending_unknown)
    };
    let usual = ("prisma/migrations".to_owned(), None);
    for plain in [
        "export default { migrations: { seed: 'tsx seed.ts' }, typedSql: { path: 'sql' } }",
        "export default {\n  // schema: computed(),\n  schema: 'prisma/schema.prisma'\n}",
        "const f = (...a) => a; export default { migrations: { path: \"prisma/migrations\" } }",
    ] {
        assert_eq!(prisma(plain), usual, "{plain}");
    }
    let unsure = Some("`prisma.config.ts` does not say plainly where they are".to_owned());
    for computed in [
        "export default { schema: path.join('prisma', 'schema.prisma') }",
        "export default { schema: process.env.S }",
        "export default { schema: 'a' + b }",
        "export default { schema: `${root}/schema.prisma` }",
        "export default { migrations: { path: where('sql') } }",
        "export default { migrations }",
        "export default { ...base, schema: 'prisma/schema.prisma' }",
    ] {
        assert_eq!(prisma(computed).1, unsure, "{computed}");
    }
    // None found, or some that are gone.
    let elsewhere = "export default { migrations: { path: 'sql' } }";
    assert_eq!(prisma(elsewhere).1.as_deref(), Some("no migration was found there"));
    let gone = "export default { migrations: { path: 'other/migrations' } }";
    assert_eq!(prisma(gone).1.as_deref(), Some("some that are applied have no file there"));

    let knex = |config: &str| {
        let files = [("knexfile.js", config), ("a/1.js", ""), ("migrations/1.js", "")];
        state("npx knex migrate:latest", &applied(&["1.js"]), &files).has_nothing_pending()
    };
    let one = "client: 'pg', migrations: { directory: './a' }";
    assert!(knex(&format!("module.exports = {{ {one} }}")));
    assert!(knex("module.exports = { client: 'pg', migrations: { directory: 'migrations' } }"));
    assert!(knex(&format!(
        "module.exports = {{ development: {{ {one} }}, production: {{ {one} }} }}"
    )));
    for other in ["client: 'pg'", "client: 'pg', migrations: { directory: './b' }", "...base"] {
        let config =
            format!("module.exports = {{ development: {{ {one} }}, production: {{ {other} }} }}");
        assert!(!knex(&config), "{config}");
    }

    let package = r#"{"scripts": {"db": "prisma migrate deploy"}}"#;
    let files = [
        ("package.json", package),
        ("flyway.toml", ""),
        ("prisma/migrations/1/migration.sql", "x"),
        ("sql/V1__a.sql", "x"),
    ];
    for line in [
        "npm run db --workspace=api",
        "npm run db --prefix api",
        "pnpm db -C api",
        "npm exec --workspace=api -- prisma migrate deploy",
        "uv run --directory=api prisma migrate deploy",
        "env -C api npx prisma migrate deploy",
        "flyway migrate",
        "flyway -configFiles=a.conf migrate",
        "flyway -workingDirectory=api -locations=filesystem:sql migrate",
    ] {
        assert!(!state(line, &applied(&["1"]), &files).has_nothing_pending(), "{line}");
    }
    assert!(state("npm run db", &applied(&["1"]), &files).has_nothing_pending());
}
