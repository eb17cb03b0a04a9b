//! `demo`: a throwaway cluster with a small shop, a snapshot, a disaster, and the way back.
//!
//! Every `$ pgkeep …` line that is shown is run as a child process of this same executable, with a home of
//! its own and nothing of the caller's configuration, so that what is shown is what a user gets.
//!
//! Everything lies in one scratch directory: cluster, home and repository. It goes when this ends, in
//! whatever way but SIGKILL; what that leaves is marked, and the next demo removes it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use super::context::Context;
use super::output::Output;
use super::run::Ended;
use super::text::{Align, Table, count, duration};
use crate::codec::random::random_bytes;
use crate::config::Environment;
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::FailureKind;
use crate::domain::told::{Failed, failed};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::scratch::cluster::{ScratchCluster, ServerMemory};
use crate::scratch::directory::ScratchDirectory;
use crate::scratch::registry::sweep_directories;
use crate::scratch::sql::Statements as _;

/// The oldest server that pgkeep supports: what `find_server` takes at least.
const MAJOR_MIN: u32 = 14;
const DATABASE: &str = "shop";
/// A verb that was told to stop gets this long to clean up.
const GRACE: Duration = Duration::from_secs(20);

/// A small shop, the same in every run.
const SHOP: &str = "
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    since date NOT NULL
);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers,
    placed timestamptz NOT NULL,
    cents integer NOT NULL CHECK (cents > 0)
);
CREATE INDEX orders_by_customer ON orders (customer);
CREATE SEQUENCE invoices START 1000;
CREATE VIEW best_customers AS
    SELECT c.name, count(*) AS orders, sum(o.cents) AS cents
    FROM customers c JOIN orders o ON o.customer = c.id GROUP BY c.id ORDER BY cents DESC;
INSERT INTO customers (name, email, since)
    SELECT 'Customer ' || n, 'c' || n || '@example.org', date '2020-01-01' + n
    FROM generate_series(1, 1000) n;
INSERT INTO orders (customer, placed, cents)
    SELECT 1 + n * 7 % 1000, timestamptz '2026-01-01 00:00Z' + n * interval '7 minutes', 100 + n * 13 % 9900
    FROM generate_series(1, 5000) n;
SELECT setval('invoices', 1042);
";

/// Someone forgot a WHERE, and someone else was in the wrong window.
const DISASTER: [&str; 2] = ["DELETE FROM orders;", "DROP TABLE customers CASCADE;"];

/// What is compared: rows, a digest of their content, and where the sequence stands.
const WATCHED: [(&str, &str); 4] = [
    (
        "customers",
        "SELECT count(*), md5(coalesce(string_agg(t::text, ';' ORDER BY id), '')) FROM customers t",
    ),
    (
        "orders",
        "SELECT count(*), md5(coalesce(string_agg(t::text, ';' ORDER BY id), '')) FROM orders t",
    ),
    (
        "best_customers",
        "SELECT count(*), md5(coalesce(string_agg(t::text, ';' ORDER BY name), '')) FROM best_customers t",
    ),
    ("invoices", "SELECT last_value, md5(is_called::text) FROM invoices"),
];

pub(super) async fn demo(context: &Context) -> Result<(), Ended> {
    let start = Instant::now();
    let stage = Stage::set(context).await?;
    let played = stage.play(context).await;
    // The scratch goes before anything else is said, so that its removal is part of the outcome.
    let cleared = stage.clear().await;
    let (before, after) = played?;
    cleared?;
    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let equal = before == after;
    let output = context.output;
    output.result(
        || outcome_text(&before, &after, took),
        || json!({ "equal": equal, "before": rows_json(&before), "after": rows_json(&after), "duration_ms": took }),
    )?;
    if equal { Ok(()) } else { Err(Ended::Told(FailureKind::Damage)) }
}

/// The cluster, and where everything lies.
struct Stage {
    cluster: ScratchCluster,
    place: PathBuf,
    output: Output,
    environment: Vec<(String, String)>,
}

/// A watched thing: its name, its number, a digest; the last two are none when it is gone.
type Seen = Vec<(&'static str, Option<(i64, String)>)>;

impl Stage {
    async fn set(context: &Context) -> Result<Self, Failed> {
        let environment = &context.environment;
        let parent = std::env::temp_dir();
        sweep_directories(&parent).map_err(failed)?;
        let bin_dir = environment.get("PGKEEP_BIN_DIR").map(Path::new);
        let programs = Programs::find_server(MAJOR_MIN, bin_dir).map_err(failed)?;
        let tag: [u8; 4] = random_bytes()
            .map_err(|error| Failed::unexpected("cannot draw a random number", &error))?;
        let directory =
            ScratchDirectory::create(&parent, u32::from_le_bytes(tag)).map_err(failed)?;
        let place = directory.path().to_owned();
        context.output.remark(&format!(
            "A throwaway PostgreSQL {} with a small shop, in {}.\n",
            programs.major(),
            place.display()
        ))?;
        let memory = ServerMemory { shared_buffers_bytes: 32 << 20, maintenance_bytes: 32 << 20 };
        let cluster = ScratchCluster::start(directory, &programs, memory, &context.cancel)
            .await
            .map_err(failed)?;
        let environment = child_environment(environment, &place, cluster.connection());
        let stage = Self { cluster, place, output: context.output, environment };
        stage.open_shop().await?;
        Ok(stage)
    }

    async fn open_shop(&self) -> Result<(), Failed> {
        let admin = self.session("postgres").await?;
        let create = format!("CREATE DATABASE {DATABASE}");
        admin.execute(&create).await.map_err(failed)?;
        let shop = self.session(DATABASE).await?;
        shop.execute(SHOP).await.map_err(failed)
    }

    async fn session(&self, database: &str) -> Result<Session, Failed> {
        let connection = self.cluster.connection().with_database(database);
        Session::connect(&connection, "demo").await.map_err(failed)
    }

    /// The story; what was there before and after.
    async fn play(&self, context: &Context) -> Result<(Seen, Seen), Ended> {
        self.pgkeep(context, &["init"]).await?;
        self.pgkeep(context, &["snapshot"]).await?;
        let before = self.look().await?;
        self.remark(&format!("\nThe shop now:\n{}", seen_text(&before)))?;
        self.disaster().await?;
        let lost = self.look().await?;
        self.remark(&format!("\nThe shop after it:\n{}", seen_text(&lost)))?;
        self.pgkeep(context, &["list"]).await?;
        self.pgkeep(context, &["verify"]).await?;
        self.pgkeep(context, &["restore", "--replace", "--yes"]).await?;
        Ok((before, self.look().await?))
    }

    async fn disaster(&self) -> Result<(), Failed> {
        self.remark("\nA disaster:\n")?;
        let shop = self.session(DATABASE).await?;
        for statement in DISASTER {
            self.remark(&format!("{DATABASE}=# {statement}\n"))?;
            shop.execute(statement).await.map_err(failed)?;
        }
        Ok(())
    }

    /// What the shop holds. The session ends here, so that a swap need not end it.
    async fn look(&self) -> Result<Seen, Failed> {
        let shop = self.session(DATABASE).await?;
        let mut seen = Seen::new();
        for (name, sql) in WATCHED {
            let there = shop
                .query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name])
                .await
                .map_err(failed)?;
            let there: bool = there.get(0);
            let mut value = None;
            if there {
                let row = shop.query_one(sql, &[]).await.map_err(failed)?;
                value = Some((row.get(0), row.get(1)));
            }
            seen.push((name, value));
        }
        Ok(seen)
    }

    fn remark(&self, text: &str) -> Result<(), Failed> {
        self.output.remark(text)
    }

    /// Shows a command line, runs it, and is content only with exit code 0.
    async fn pgkeep(&self, context: &Context, words: &[&str]) -> Result<(), Ended> {
        let line = format!("pgkeep {}", words.join(" "));
        self.remark(&format!("\n$ {line}\n"))?;
        let program = std::env::current_exe()
            .map_err(|error| Failed::unexpected("cannot find this program", &error))?;
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(self.environment.iter().cloned());
        command.current_dir(&self.place).stdin(Stdio::null()).kill_on_drop(true);
        // Ctrl-C on a terminal would reach the child a second time, which means `stop at once`.
        command.process_group(0);
        if self.output.json || self.output.quiet {
            command.stdout(Stdio::null());
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failed::unexpected(&format!("cannot run `{line}`"), &error))?;
        let status = tokio::select! {
            status = child.wait() => status,
            () = context.cancel.cancelled() => {
                if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
                    let id = rustix::process::Pid::from_raw(id);
                    // It may have ended by itself just now.
                    let _ = id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM));
                }
                drop(tokio::time::timeout(GRACE, child.wait()).await);
                return Err(Failed::interrupted().into());
            }
        };
        let status = status
            .map_err(|error| Failed::unexpected(&format!("cannot wait for `{line}`"), &error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failed {
            kind: FailureKind::Unexpected,
            message: format!("`{line}` ended with {status}"),
            hint: Some("its own message stands above".to_owned()),
        }
        .into())
    }

    async fn clear(self) -> Result<(), Failed> {
        self.cluster.stop().await.map_err(failed)
    }
}

/// What a child sees: nothing of the caller's pgkeep or PostgreSQL settings.
fn child_environment(
    own: &Environment,
    place: &Path,
    server: &ConnectionInfo,
) -> Vec<(String, String)> {
    let kept = ["PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "NO_COLOR", "PGKEEP_BIN_DIR"];
    let kept = kept.iter().filter_map(|name| Some(((*name).to_owned(), own.get(name)?.to_owned())));
    let mut environment: Vec<(String, String)> = kept.collect();
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    set("PGKEEP_HOME", place.join("home").display().to_string());
    set("PGKEEP_REPOSITORY", format!("file://{}", place.join("repository").display()));
    let [endpoint, ..] = server.endpoints() else { return environment };
    let crate::domain::connection::HostName::Socket(socket) = &endpoint.host else {
        return environment;
    };
    let (socket, port, user) = (socket.display(), endpoint.port, server.user());
    set(
        "PGKEEP_DATABASE_URL",
        format!("host='{socket}' port={port} user={user} dbname={DATABASE}"),
    );
    environment
}

fn seen_text(seen: &Seen) -> String {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Right)]);
    for (name, value) in seen {
        table.row(vec![format!("  {name}"), number(value.as_ref())]);
    }
    // The table has no heads.
    table.render().trim_start_matches('\n').to_owned()
}

fn number(value: Option<&(i64, String)>) -> String {
    value.map_or_else(
        || "gone".to_owned(),
        |(number, _)| count(u64::try_from(*number).unwrap_or_default()),
    )
}

fn outcome_text(before: &Seen, after: &Seen, took: u64) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("BEFORE", Align::Right),
        ("AFTER", Align::Right),
        ("CONTENT", Align::Left),
    ]);
    for ((name, was), (_, is)) in before.iter().zip(after) {
        let same = if was == is { "the same" } else { "DIFFERS" };
        table.row(vec![
            (*name).to_owned(),
            number(was.as_ref()),
            number(is.as_ref()),
            same.to_owned(),
        ]);
    }
    let verdict = if before == after {
        "Every row is back, and nothing of this demo is left."
    } else {
        "The rows differ: this is a defect of pgkeep."
    };
    format!("\n{}\n{verdict} It took {}.\n", table.render(), duration(took))
}

fn rows_json(seen: &Seen) -> serde_json::Value {
    let pairs = seen
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value.as_ref().map(|(number, _)| number))));
    serde_json::Value::Object(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(orders: Option<(i64, &str)>) -> Seen {
        vec![("orders", orders.map(|(number, digest)| (number, digest.to_owned())))]
    }

    #[test]
    fn rows_agree_only_when_their_content_does() {
        let before = seen(Some((5000, "a")));
        assert!(outcome_text(&before, &before, 1).contains("the same"));
        for after in [seen(Some((5000, "b"))), seen(Some((4999, "a"))), seen(None)] {
            assert!(outcome_text(&before, &after, 1).contains("DIFFERS"));
            assert_ne!(before, after);
        }
    }

    #[test]
    fn a_child_sees_nothing_of_the_callers_settings() {
        let own = Environment::from_pairs([
            ("PATH", "/bin"),
            ("PGPASSWORD", "x"),
            ("DATABASE_URL", "x"),
            ("PGKEEP_IDENTITY", "x"),
        ]);
        let server = ConnectionInfo::socket(Path::new("/d/s"), 5432, "postgres", "postgres");
        let environment = child_environment(&own, Path::new("/d"), &server);
        let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["PATH", "PGKEEP_HOME", "PGKEEP_REPOSITORY", "PGKEEP_DATABASE_URL"]);
        assert_eq!(environment[3].1, "host='/d/s' port=5432 user=postgres dbname=shop");
    }
}
