//! What launchers make of a command: variables they set, directories they change to, and the database that all of it
//! names. A migration of another database than the one that was saved has no way back.

use super::{Command, ProjectFiles, Tool};

/// Variables that hold the address of the database a tool works on.
pub const ADDRESSES: [&str; 5] =
    ["DIRECT_URL", "DATABASE_URL", "FLYWAY_URL", "GOOSE_DBSTRING", "LIQUIBASE_COMMAND_URL"];

/// Flags by which launchers and tools work in another directory, or in another package.
const MOVES: [&str; 8] =
    ["-C", "--chdir", "--cwd", "--dir", "--directory", "--prefix", "--project", "--workspace"];
const PACKAGES: [&str; 6] = ["-w", "--workspaces", "-F", "--filter", "-r", "--recursive"];

/// Programs that run another one elsewhere, with an environment of its own.
const FORWARDERS: [&str; 6] = ["docker", "docker-compose", "kubectl", "nerdctl", "podman", "ssh"];

/// What was seen on the way to the tool's program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Around {
    assignments: Vec<(String, String)>,
    /// Why the database may be another one than all of it says.
    pub(super) uncertain: Option<&'static str>,
    /// Whether the files are looked for from another directory.
    pub(super) moved: bool,
    /// Whether the program knows no variable that holds an address.
    pub(super) reads_no_address: bool,
    /// The program that runs another one elsewhere.
    pub(super) forwarder: Option<&'static str>,
}

impl Around {
    /// A program and what it is given.
    pub(super) fn see(&mut self, program: &str, words: &[String]) {
        let has_packages =
            matches!(program, "npm" | "npx" | "pnpm" | "pnpx" | "yarn" | "bun" | "bunx");
        let moves = |word: &String| {
            let name = word.split('=').next().unwrap_or(word);
            MOVES.contains(&name) || has_packages && PACKAGES.contains(&name)
        };
        self.moved |= words.iter().take_while(|word| *word != "--").any(moves);
        if words.iter().any(|word| word.starts_with("--env-file")) {
            self.uncertain = Some("its launcher may name another database");
        }
        self.reads_no_address |= program == "psql";
        self.forwarder =
            self.forwarder.or_else(|| FORWARDERS.into_iter().find(|own| *own == program));
    }

    /// Whether it is a `NAME=value` before a program, which is remembered.
    pub(super) fn assigns(&mut self, word: &str) -> bool {
        let Some((name, value)) = word.split_once('=') else { return false };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name = !name.is_empty() && name.bytes().all(named);
        if is_name {
            self.assignments.push((name.to_owned(), value.to_owned()));
        }
        is_name
    }

    pub(super) fn assigned(&self, name: &str) -> Option<&str> {
        let found = self.assignments.iter().rfind(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Command {
    /// The program by which it runs elsewhere, where nothing of our environment may arrive.
    pub fn forwarder(&self) -> Option<&'static str> {
        self.around.forwarder
    }

    /// The addresses of the database that it works on, as far as they are seen: those of its own words, else those of
    /// the environment. Of several any may be the one: a direct address and a pooler's stand side by side.
    pub fn addresses(&self, project: &dyn ProjectFiles) -> Vec<String> {
        let assigned = ADDRESSES.iter().filter_map(|name| self.around.assigned(name));
        let mut found: Vec<String> = assigned.map(str::to_owned).collect();
        found.extend(self.of_arguments());
        if found.is_empty() && !self.around.reads_no_address {
            let value =
                |name: &&str| project.variable(name).or_else(|| self.of_dotenv(name, project));
            found.extend(self.variables().iter().filter_map(value));
        }
        found.retain(|address| !address.is_empty());
        found
    }

    fn of_arguments(&self) -> Vec<String> {
        let Some(tool) = self.tool else { return Vec::new() };
        let mut found = Vec::new();
        let mut flag = "";
        for word in &self.arguments {
            let value = match word.split_once('=') {
                Some((name, value)) if name.starts_with('-') => {
                    flag = name;
                    value
                }
                _ => word.as_str(),
            };
            let of_others = ["shadow", "dev-url", "-from", "-to"];
            let own = !of_others.iter().any(|part| flag.contains(part));
            let bare = value.strip_prefix("jdbc:").unwrap_or(value);
            let keywords = tool == Tool::Goose && bare.contains("dbname=");
            if own
                && (bare.starts_with("postgres://")
                    || bare.starts_with("postgresql://")
                    || keywords)
            {
                found.push(bare.to_owned());
            }
            flag = if word.starts_with('-') && !word.contains('=') { word.as_str() } else { "" };
        }
        found
    }

    fn variables(&self) -> &'static [&'static str] {
        match self.tool {
            Some(Tool::Flyway) => &["FLYWAY_URL"],
            Some(Tool::Goose) => &["GOOSE_DBSTRING"],
            Some(Tool::Liquibase) => &["LIQUIBASE_COMMAND_URL"],
            Some(Tool::GolangMigrate | Tool::Atlas) => &[],
            _ => &["DIRECT_URL", "DATABASE_URL"],
        }
    }

    /// These read that file by themselves, and what the environment has goes before it.
    fn of_dotenv(&self, name: &str, project: &dyn ProjectFiles) -> Option<String> {
        if !matches!(self.tool, Some(Tool::Sqlx | Tool::Diesel)) {
            return None;
        }
        let text = project.text(&self.directory.join(".env"))?;
        let value = text.lines().find_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            line.strip_prefix(name)?.strip_prefix('=')
        })?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned())
    }
}
