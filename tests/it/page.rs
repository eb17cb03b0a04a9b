//! The status page of a daemon at work, as a browser shows it: what it says is what `status --json` says.
//!
//! `PGKEEP_PICTURE=docs/status-page.png tests/run cargo test --test it page::` makes the README's picture anew.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::keeper::Running;
use crate::support::server::{Cluster, quoted};
use crate::support::{Keeper, eventually, http};

/// Servers are slow while others use them, and so are browsers.
const PATIENCE: Duration = Duration::from_mins(2);

const DATABASES: [(&str, u32); 4] =
    [("kennel_prod", 4000), ("kennel_staging", 400), ("billing", 1500), ("a \"b\" <i>&c", 20)];

const CLUSTER: &str = r#"
timezone = "Asia/Kathmandu"
snapshot = { schedule = "0 2 * * *" }
verify = { schedule = "0 5 * * *", check = "counts" }
prune = { schedule = "30 5 * * 0" }
retention = { keep_last = 12 }
"#;

/// A host that has been at it for a month.
struct Host {
    keeper: Keeper,
    server: Cluster,
}

impl Host {
    fn new() -> Self {
        let server = Cluster::older(&[]);
        for (name, orders) in DATABASES {
            server.psql("postgres", &format!("CREATE DATABASE {}", quoted(name)));
            let script = include_str!("sql/shop.sql").replace(":orders", &orders.to_string());
            server.psql(name, &script);
        }
        let mut keeper = Keeper::initialised(&server.url("postgres"));
        keeper.unset("PGKEEP_DATABASE_URL").set("PGKEEP__DAEMON__LISTEN", "127.0.0.1:0");
        let host = Self { keeper, server };
        host.configure();
        host
    }

    fn configure(&self) {
        let path = self.keeper.home().join("pgkeep.toml");
        let text = std::fs::read_to_string(&path).expect("init wrote it");
        let head = text.split("[clusters.").next().expect("a head").trim_end_matches(['#', ' ']);
        let names: Vec<String> = DATABASES.iter().map(|(name, _)| format!("{name:?}")).collect();
        let names = names.join(", ");
        let url = self.server.url("postgres");
        let text =
            format!("{head}\n[clusters.main]\nurl = \"{url}\"\ndatabases = [{names}]\n{CLUSTER}");
        std::fs::write(&path, text).expect("a configuration");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("a mode");
    }

    /// A command as it would have run so many days ago.
    #[track_caller]
    fn days_ago(&self, days: u32, words: &str) {
        let program = env!("CARGO_BIN_EXE_pgkeep");
        let shifted =
            format!("exec faketime --exclude-monotonic -f '-{days}d' '{program}' {words}");
        self.keeper.shell(&shifted).run().expect_code(0);
    }

    fn grow(&self, name: &str) {
        let row = "INSERT INTO customers (name, email) SELECT 'x', gen_random_uuid()::text FROM generate_series(1, 40)";
        self.server.psql(name, row);
    }
}

/// A browser of one test, without a window.
struct Browser {
    profile: tempfile::TempDir,
}

impl Browser {
    fn new() -> Self {
        Self { profile: tempfile::tempdir().expect("a directory") }
    }

    /// What it prints, asked so.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--hide-scrollbars", "--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .args(args)
            .env("HOME", self.profile.path())
            .stdin(Stdio::null())
            .output()
            .expect("chromium is there: tests/setup test installs it");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "chromium {args:?}: {words}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The page's elements, once the browser has read it.
    #[track_caller]
    fn dom(&self, url: &str) -> String {
        self.run(&["--dump-dom", url])
    }

    /// A picture of it, in its own size.
    #[track_caller]
    fn picture(&self, url: &str, path: &Path, size: (u32, u32)) {
        let (width, height) = size;
        // An old one would prove nothing.
        drop(std::fs::remove_file(path));
        self.run(&[
            &format!("--screenshot={}", path.display()),
            &format!("--window-size={width},{height}"),
            "--force-device-scale-factor=2",
            // Every tile of it, however busy the machine.
            "--timeout=1500",
            url,
        ]);
        let bytes = std::fs::read(path).expect("a picture");
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 30_000, "{} bytes", bytes.len());
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
        assert_eq!((number(16), number(20)), (width * 2, height * 2));
    }
}

/// The text of a row.
#[track_caller]
fn row<'a>(dom: &'a str, database: &str) -> &'a str {
    let name = database.replace('&', "&amp;").replace('"', "&quot;");
    // The browser writes `<` in attributes as it is, or not, by its age.
    let names = [name.clone(), name.replace('<', "&lt;").replace('>', "&gt;")];
    let found = names.iter().find_map(|name| dom.find(&format!("data-database=\"{name}\"")));
    let from = found.unwrap_or_else(|| panic!("no row of {database} in {dom}"));
    &dom[from..from + dom[from..].find("</tr>").expect("a row ends")]
}

/// An attribute of the element that shows that field.
fn shown(row: &str, field: &str, attribute: &str) -> Option<String> {
    let from = row.find(&format!("data-field=\"{field}\""))?;
    let tag = &row[from..from + row[from..].find('>')?];
    let value = tag.split(&format!("{attribute}=\"")).nth(1)?;
    Some(value[..value.find('"')?].to_owned())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Where the page and the document differ.
fn differences(dom: &str, status: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, _) in DATABASES {
        let databases = status["clusters"][0]["databases"].as_array().expect("an array");
        let Some(known) = databases.iter().find(|one| one["name"] == name) else {
            return vec![format!("no {name} in the document")];
        };
        let row = row(dom, name);
        for (field, attribute, expected) in [
            ("last_good", "data-id", &known["last_good"]["id"]),
            ("last_good", "data-value", &known["last_good"]["finished_at"]),
            ("last_verified", "data-id", &known["last_verified"]["id"]),
            ("last_verified", "data-value", &known["last_verified"]["verified_at"]),
            ("last_verified", "data-duration-ms", &known["last_verified"]["duration_ms"]),
            ("size", "data-value", &known["last_good"]["source_bytes"]),
            ("size", "data-usual-bytes", &known["usual_bytes"]),
            ("backups", "data-value", &known["backups"]),
            ("backups", "data-stored-bytes", &known["stored_bytes"]),
            ("next_snapshot", "data-value", &known["next_snapshot"]),
            ("next_verify", "data-value", &known["next_verify"]),
        ] {
            let (shown, expected) = (shown(row, field, attribute), text(expected));
            if shown != expected {
                wrong.push(format!("{name} {field}: the page {shown:?}, status {expected:?}"));
            }
        }
        let goes = known["removes_next"].as_array().expect("an array");
        if shown(row, "removes_next", "data-value") != Some(goes.len().to_string())
            || !goes.iter().all(|one| row.contains(one["id"].as_str().expect("an id")))
        {
            wrong.push(format!("{name}: what goes next"));
        }
    }
    wrong
}

#[track_caller]
fn address(daemon: &Running) -> String {
    eventually("the daemon is up", PATIENCE, || daemon.stdout().contains('\n'));
    let said = daemon.stdout();
    said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL").to_owned()
}

#[test]
fn a_browser_shows_what_the_command_line_says() {
    let host = Host::new();
    for days in [26, 23, 20, 17, 14, 12, 10, 8, 6, 5, 4, 3, 2, 1] {
        host.grow("kennel_prod");
        let of = if days % 4 == 0 {
            "--database kennel_prod"
        } else {
            "kennel_prod kennel_staging billing"
        };
        host.days_ago(days, &format!("snapshot --trigger scheduled {of} --quiet"));
        if days % 5 == 0 {
            host.days_ago(days, "verify --database kennel_prod --check counts --quiet");
        }
    }
    let daemon = host.keeper.pgkeep(["daemon"]).spawn();
    let url = address(&daemon);
    // Every database has missed its run of last night; the odd one has never had one.
    let status = || host.keeper.pgkeep(["status", "--json"]).run().expect_code(0).json();
    let verified = |status: &Value| {
        let databases = status["clusters"][0]["databases"].as_array().cloned().unwrap_or_default();
        databases.len() == DATABASES.len()
            && databases.iter().all(|one| !one["last_verified"].is_null())
    };
    eventually("all is caught up", PATIENCE, || verified(&status()));
    let browser = Browser::new();
    let mut wrong = Vec::new();
    eventually("the page has looked since", PATIENCE, || {
        wrong = differences(&browser.dom(&url), &status());
        wrong.is_empty()
    });
    let dom = browser.dom(&url);
    assert!(dom.contains("data-only-here=\"true\""), "the identity is kept only here: {dom}");
    assert!(row(&dom, "kennel_prod").contains("aria-label=\"the last 30 days: "), "{dom}");
    let served: Value =
        serde_json::from_str(&http::get(&format!("{url}v1/status")).1).expect("JSON");
    assert_eq!(differences(&dom, &served), [""; 0]);

    let directory = tempfile::tempdir().expect("a directory");
    let picture = std::env::var_os("PGKEEP_PICTURE").map(PathBuf::from);
    let picture = picture.map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    browser.picture(
        &url,
        &picture.unwrap_or_else(|| directory.path().join("page.png")),
        (1280, 720),
    );
    for width in [400, 800, 1080, 1100, 1280] {
        assert_eq!(
            width_within(&browser, &dom, directory.path(), width),
            width,
            "nothing is cut off"
        );
    }

    daemon.signal(Signal::TERM);
    daemon.wait().expect_code(0);
    assert_eq!(host.keeper.leftovers(), [""; 0]);
}

/// How wide the page becomes in a window of that width.
#[track_caller]
fn width_within(browser: &Browser, dom: &str, directory: &Path, width: u32) -> u32 {
    let escaped = dom.replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!(
        "<iframe width=\"{width}\" height=\"900\" style=\"border:0\" srcdoc=\"{escaped}\" \
         onload=\"document.title = 'width=' + this.contentDocument.documentElement.scrollWidth + ';'\"></iframe>"
    );
    let path = directory.join("frame.html");
    std::fs::write(&path, frame).expect("a file");
    let around = browser.dom(&format!("file://{}", path.display()));
    let after = around.split("width=").find_map(|rest| rest.split_once(';')?.0.parse().ok());
    after.unwrap_or_else(|| panic!("no width in {around}"))
}
