//! The written migration procedures of five teams, each done entirely by pgkeep, with the real Prisma on a server of the
//! team's own. What is run and configured is what stands in the team's guide.

mod babynest;
mod broxiva;
mod github_actions;
mod icms;
mod kennel;
mod village_manor;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::keeper::{Pgkeep, Running};
use crate::support::{Cluster, Keeper, Prisma, eventually};

/// Servers are slow while others use them.
const PATIENCE: Duration = Duration::from_mins(1);

/// A team's host: its guide, its server, its project, and `pgkeep` on the `PATH`.
struct Team {
    keeper: Keeper,
    cluster: Cluster,
    prisma: Prisma,
    guide: String,
    /// What stands in the guide, and what it is here.
    here: Vec<(String, String)>,
}

impl Team {
    /// A host with nothing on it but a server with that role and, made by it, that database.
    #[track_caller]
    fn new(guide: &str, role: &str, database: &str) -> Self {
        Self::within("", guide, role, database)
    }

    /// Likewise, with the project in that directory.
    #[track_caller]
    fn within(directory: &str, guide: &str, role: &str, database: &str) -> Self {
        let cluster = Cluster::newer(&[]);
        cluster.psql("postgres", role);
        if !database.is_empty() {
            cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
            let owner = role.split(' ').nth(2).expect("CREATE ROLE name");
            cluster.psql("postgres", &format!("ALTER DATABASE {database} OWNER TO {owner}"));
        }
        let mut keeper = Keeper::new("");
        let bin = keeper.home().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pgkeep"), bin.join("pgkeep"))
            .expect("a link");
        let prisma = Prisma::within(&keeper.work(), directory);
        let modules = keeper.work().join("node_modules/.bin");
        let path = [&bin, &modules, &cluster.bin, Path::new("/usr/bin"), Path::new("/bin")];
        keeper
            .unset("PGKEEP_DATABASE_URL")
            .unset("PGKEEP_REPOSITORY")
            .set("PATH", std::env::join_paths(path).expect("plain names"))
            .set("CHECKPOINT_DISABLE", "1")
            .set("PRISMA_HIDE_UPDATE_MESSAGE", "1");
        let here = vec![
            ("/srv/backup".to_owned(), keeper.repository().display().to_string()),
            ("/etc/pgkeep".to_owned(), keeper.home().display().to_string()),
            ("localhost:5432".to_owned(), format!("localhost:{}", cluster.port)),
        ];
        Self { keeper, cluster, prisma, guide: guide.to_owned(), here }
    }

    /// The block of the guide that has this name behind its language, for this host.
    #[track_caller]
    fn block(&self, name: &str) -> String {
        let ours = block(&self.guide, name);
        self.here.iter().fold(ours, |text, (there, here)| text.replace(there, here))
    }

    /// Writes a file of the guide where commands are run.
    #[track_caller]
    fn writes(&self, name: &str, file: &str) {
        std::fs::write(self.keeper.work().join(file), self.block(name)).expect("a file");
    }

    /// `pgkeep init` as the guide has it, and the configuration of the guide.
    #[track_caller]
    fn set_up(&self) {
        self.set_up_with("");
    }

    /// Likewise, where it takes more for `pgkeep` to know the database.
    #[track_caller]
    fn set_up_with(&self, flags: &str) {
        self.does("once").run().expect_code(0);
        let path = self.keeper.home().join("pgkeep.toml");
        let text = std::fs::read_to_string(&path).expect("init wrote it");
        let text = format!("{text}\n{}", self.block("pgkeep.toml"));
        std::fs::write(&path, text).expect("written");
        self.keeper.shell(&format!("pgkeep {flags} config validate")).run().expect_code(0);
    }

    /// What a person types: a block of the guide, in a shell.
    #[track_caller]
    fn does(&self, name: &str) -> Pgkeep {
        self.keeper.shell(&self.block(name))
    }

    /// The same at a terminal, where those words are typed once the first of them is asked for.
    #[track_caller]
    fn types(&self, name: &str, asked: &str, answer: &str) -> Pgkeep {
        let work = self.keeper.work();
        std::fs::write(work.join("typed"), self.block(name)).expect("a file");
        drop(std::fs::remove_file(work.join("seen")));
        let script = format!(
            "(while ! grep -qs '{asked}' seen; do sleep 0.05; done; echo {answer}; \
              while ! test -e left; do sleep 0.05; done) \
             | (script -qefc 'sh -eu typed' seen && code=0 || code=$?; touch left; exit $code)"
        );
        drop(std::fs::remove_file(work.join("left")));
        self.keeper.shell(&script)
    }

    /// A program of the team's application, which ends with the test: what it has said it listens on is its address.
    #[track_caller]
    fn starts_app(&mut self, ready: &str) -> (Running, String) {
        let app = self.keeper.work().join("server.mjs");
        std::fs::write(app, include_str!("procedures/server.mjs")).expect("a file");
        let running = self.keeper.shell("exec node server.mjs").env("READY", ready).spawn();
        eventually("the application listens", PATIENCE, || running.stdout().contains('\n'));
        let address = running.stdout().trim().to_owned();
        self.here.push(("http://127.0.0.1:3000".to_owned(), address.clone()));
        (running, address)
    }

    /// What a new snapshot of that state would say is applied and pending, by the guide's own status command.
    #[track_caller]
    fn state(&self, name: &str) -> Value {
        let script = self.block(name).replacen("--yes", "--dry-run", 1);
        let script = script.replacen("pgkeep migrate", "pgkeep migrate --json", 1);
        let survey = self.keeper.shell(&script).run().expect_code(0).json();
        survey["before"][0].clone()
    }

    /// The audit trail, oldest first.
    #[track_caller]
    fn trail(&self) -> Vec<Value> {
        let log = self.keeper.pgkeep(["log", "--json"]).run().expect_code(0).json();
        let mut events = log.as_array().expect("an array").clone();
        events.reverse();
        events
    }

    /// Nothing that is stored holds any of these words, and each chunk is an age file.
    #[track_caller]
    fn stores_nothing_plain(&self, words: &[&str]) {
        let objects = self.keeper.objects();
        assert!(objects.iter().any(|(key, _)| key.starts_with("chunks/")));
        for (key, path) in objects {
            let bytes = std::fs::read(path).expect("an object");
            let age = bytes.starts_with(b"age-encryption.org/v1\n");
            assert!(age || !key.starts_with("chunks/"), "{key} is no age file");
            for word in words {
                let holds = bytes.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!holds, "{key} holds {word}");
            }
        }
    }
}

/// What stands in a block whose fence has this name behind its language.
#[track_caller]
fn block(page: &str, name: &str) -> String {
    let mut inside = false;
    let mut found = String::new();
    for line in page.lines() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            inside = fence.split_once(' ').is_some_and(|(_, own)| own == name);
        } else if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    assert!(!found.is_empty(), "the guide has a block `{name}`");
    found
}

/// The variables below `env:` or `environment:` of a YAML block, in their order.
fn variables(yaml: &str) -> Vec<(String, String)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = yaml.lines();
    let heads = ["env:", "environment:"];
    let head = lines.find(|line| heads.contains(&line.trim())).expect("variables");
    let below = lines.take_while(|line| indent(line) > indent(head));
    let pairs = below.map(|line| line.trim().split_once(": ").expect("NAME: value"));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// The names of what a snapshot of Prisma's table says is pending.
fn pending(state: &Value) -> Vec<&str> {
    state["pending"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
