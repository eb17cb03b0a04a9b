//! What a command line runs: which tool, and whether it applies migrations or repairs the tool's history.
//!
//! Launchers (`npx`, `pnpm exec`, `bundle exec`, `env`, …) and scripts of `package.json` are looked through. What cannot
//! be seen through is no tool's: nothing is refused for it, and the snapshot is taken all the same.

use std::path::{Path, PathBuf};

use super::around::Around;
use super::{Digest, ProjectFiles, Tool, tools};

/// So many launchers and scripts are looked through.
const DEPTH: u32 = 8;

/// What a command does with a tool's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It applies what is pending, and refuses to where a migration has failed.
    Apply,
    /// It mends the history after a failure.
    Repair,
    /// Something else, or nobody knows.
    Other,
}

/// A command line, as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The tool whose program it runs.
    pub tool: Option<Tool>,
    /// What it does.
    pub action: Action,
    /// What that program is given.
    pub(super) arguments: Vec<String>,
    /// Where it works, relative to where the command is started.
    pub(super) directory: PathBuf,
    /// What its launchers make of it.
    pub(super) around: Around,
}

impl Command {
    /// Of no tool.
    pub fn unknown() -> Self {
        Self {
            tool: None,
            action: Action::Other,
            arguments: Vec::new(),
            directory: PathBuf::new(),
            around: Around::default(),
        }
    }

    /// Looks through launchers and scripts for a tool's program.
    pub fn understand(words: &[String], project: &dyn ProjectFiles) -> Self {
        let mut around = Around::default();
        let found = look(words, project, DEPTH, &mut around);
        let mut command = found.unwrap_or_else(Self::unknown);
        // Rails goes back to it, too.
        let version = around.assigned("VERSION").is_some() || project.variable("VERSION").is_some();
        if command.tool == Some(Tool::Rails) && version {
            command.action = Action::Other;
        }
        if command.arguments.iter().any(|one| matches!(one.as_str(), "--help" | "--version")) {
            command.action = Action::Other;
        }
        Self { around, ..command }
    }

    /// Whether it may end well and leave some for later.
    pub fn may_leave_some(&self) -> bool {
        const WORDS: [&str; 9] = [
            "target",
            "cherrypick",
            "skip",
            "dry-run",
            "dryrun",
            "sql",
            "fake",
            "up-to",
            "to-version",
        ];
        let mut words = self.arguments.iter().skip_while(|word| *word != "upgrade").skip(1);
        let revision = words.find(|word| !word.starts_with('-'));
        let alembic = self.tool == Some(Tool::Alembic)
            && revision.is_some_and(|word| !matches!(word.as_str(), "head" | "heads"));
        let partly = |word: &String| {
            let word = word.to_ascii_lowercase();
            let name = word.trim_start_matches('-');
            let flag = name.len() < word.len() || name == "up-to";
            flag && WORDS.iter().any(|part| name.starts_with(part))
        };
        alembic || self.arguments.iter().any(partly)
    }

    /// Why it may use another database than its words and the environment say.
    pub fn uncertain(&self) -> Option<&str> {
        self.around.uncertain
    }

    /// That it may, and why.
    pub fn doubt(&mut self, reason: &'static str) {
        self.around.uncertain = Some(reason);
    }
}

fn look(
    words: &[String],
    project: &dyn ProjectFiles,
    depth: u32,
    around: &mut Around,
) -> Option<Command> {
    let depth = depth.checked_sub(1)?;
    let (first, rest) = words.split_first()?;
    let program = file_name(first);
    around.see(program, rest);
    let known = tools::ALL.iter().find(|definition| definition.programs.contains(&program));
    // `migrate` is what many scripts are called; golang-migrate's needs to be told where its files are.
    let known = known.filter(|definition| {
        let told = rest.iter().any(|word| {
            let word = word.trim_start_matches('-');
            ["path", "source", "database"].iter().any(|name| word.starts_with(name))
        });
        definition.tool != Tool::GolangMigrate || told
    });
    if let Some(definition) = known {
        return Some(Command {
            tool: Some(definition.tool),
            action: (definition.action)(rest),
            arguments: rest.to_vec(),
            ..Command::unknown()
        });
    }
    let inner: &[String] = match program {
        "env" => of_env(rest)?,
        "npx" | "bunx" | "pnpx" => after_flags(rest, &["-p", "--package"])?,
        "npm" | "pnpm" | "yarn" | "bun" => {
            return of_package(program, rest, project, depth, around);
        }
        "bundle" | "poetry" | "uv" | "pipenv" | "pdm" | "hatch" | "rye" => {
            let (verb, inner) = rest.split_first()?;
            if !matches!(verb.as_str(), "exec" | "run") {
                return None;
            }
            after_flags(inner, &[])?
        }
        "dotenv" | "dotenvx" => {
            around.uncertain = Some("its launcher may name another database");
            let at = rest.iter().position(|word| word == "--")?;
            &rest[at + 1..]
        }
        "node" | "ruby" | "php" | "exec" | "time" | "nice" | "command" => after_flags(rest, &[])?,
        "sh" | "bash" | "dash" | "ash" => return of_shell(rest, project, depth, around),
        "flask" => return flask(rest),
        program if program.starts_with("python") => match rest.split_first()? {
            (flag, module) if flag == "-m" => module,
            _ => after_flags(rest, &[])?,
        },
        _ if around.assigns(first) => rest,
        _ => return None,
    };
    look(inner, project, depth, around)
}

/// The name without its place, and without a version behind an `@`.
fn file_name(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or(word);
    name.split('@').next().filter(|name| !name.is_empty()).unwrap_or(name)
}

/// What stands behind the flags of `env`; assignments are among it.
fn of_env(words: &[String]) -> Option<&[String]> {
    let mut at = 0;
    while let Some(word) = words.get(at).filter(|word| word.starts_with('-')) {
        match word.as_str() {
            "-u" | "--unset" | "-C" | "--chdir" => at += 1,
            "-S" => return None,
            _ => {}
        }
        at += 1;
    }
    words.get(at..)
}

/// What stands behind flags; those of `valued` take the next word. One that holds a script is not looked through.
fn after_flags<'a>(words: &'a [String], valued: &[&str]) -> Option<&'a [String]> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "--" => return words.get(at + 1..),
            "-c" | "--call" | "-e" | "--eval" => return None,
            flag if valued.contains(&flag) => at += 2,
            flag if flag.starts_with('-') => at += 1,
            _ => break,
        }
    }
    words.get(at..)
}

fn of_package(
    manager: &str,
    words: &[String],
    project: &dyn ProjectFiles,
    depth: u32,
    around: &mut Around,
) -> Option<Command> {
    let (verb, rest) = words.split_first()?;
    match verb.as_str() {
        "exec" | "dlx" | "x" => {
            look(after_flags(rest, &["-p", "--package"])?, project, depth, around)
        }
        "run" | "run-script" => script(rest, project, depth, around),
        // Flags of the manager may lead into another package.
        flag if flag.starts_with('-') => None,
        _ if manager == "npm" => None,
        _ => script(words, project, depth, around).or_else(|| look(words, project, depth, around)),
    }
}

/// A script of `package.json`, with what is added to it.
fn script(
    words: &[String],
    project: &dyn ProjectFiles,
    depth: u32,
    around: &mut Around,
) -> Option<Command> {
    let (name, added) = words.split_first()?;
    let package = project.text("package.json".as_ref())?;
    let package: serde_json::Value = serde_json::from_str(&package).ok()?;
    let scripts = &package["scripts"];
    let script = scripts[name].as_str()?;
    let added = added.strip_prefix(&["--".to_owned()]).unwrap_or(added);
    let command = of_script(script, added, project, depth, around)?;
    // Run around it, and nobody knows what they do.
    let more = ["pre", "post"].iter().any(|when| !scripts[format!("{when}{name}")].is_null());
    let action = if more { Action::Other } else { command.action };
    Some(Command { action, ..command })
}

/// `sh -c 'script'`.
fn of_shell(
    words: &[String],
    project: &dyn ProjectFiles,
    depth: u32,
    around: &mut Around,
) -> Option<Command> {
    let at = words.iter().position(|word| {
        word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains('c'))
    })?;
    of_script(words.get(at + 1)?, &[], project, depth, around)
}

/// The first tool's command of a script; where there is more in it, what it does is not known.
fn of_script(
    script: &str,
    added: &[String],
    project: &dyn ProjectFiles,
    depth: u32,
    around: &mut Around,
) -> Option<Command> {
    let mut parts = commands_of(script)?;
    if let Some([cd, place]) = parts.first().map(Vec::as_slice)
        && cd == "cd"
    {
        let place = PathBuf::from(place);
        parts.remove(0);
        let command = of_commands(parts, added, &Within(project, &place), depth, around)?;
        return Some(Command { directory: place.join(&command.directory), ..command });
    }
    of_commands(parts, added, project, depth, around)
}

fn of_commands(
    parts: Vec<Vec<String>>,
    added: &[String],
    project: &dyn ProjectFiles,
    depth: u32,
    around: &mut Around,
) -> Option<Command> {
    let single = parts.len() == 1;
    if parts.iter().any(|words| matches!(words[0].as_str(), "cd" | "pushd")) {
        return None;
    }
    for mut words in parts {
        if words[0] == "export" {
            for word in &words[1..] {
                around.assigns(word);
            }
        }
        if single {
            words.extend_from_slice(added);
        }
        if let Some(command) = look(&words, project, depth, around) {
            let action = if single { command.action } else { Action::Other };
            return Some(Command { action, ..command });
        }
    }
    None
}

/// The files of a project, for a command that works in one of its directories.
struct Within<'a>(&'a dyn ProjectFiles, &'a Path);

impl ProjectFiles for Within<'_> {
    fn entries(&self, directory: &Path) -> Option<Vec<String>> {
        self.0.entries(&self.1.join(directory))
    }
    fn text(&self, path: &Path) -> Option<String> {
        self.0.text(&self.1.join(path))
    }
    fn digest(&self, path: &Path, digest: Digest) -> Option<String> {
        self.0.digest(&self.1.join(path), digest)
    }
    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name)
    }
}

/// The simple commands of a script; none where it does more than running one after the other.
fn commands_of(script: &str) -> Option<Vec<Vec<String>>> {
    let (mut parts, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '$' | '`' if c == '"' => return None,
                        '\\' if c == '"' => word.push(chars.next()?),
                        other => word.push(other),
                    }
                }
            }
            '$' | '`' | '(' | ')' | '<' | '>' | '*' | '{' => return None,
            '\\' => word.get_or_insert_default().push(chars.next()?),
            ';' | '&' | '|' | '\n' => {
                words.extend(word.take());
                while chars.next_if(|next| matches!(next, '&' | '|')).is_some() {}
                if !words.is_empty() {
                    parts.push(std::mem::take(&mut words));
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        parts.push(words);
    }
    Some(parts)
}

/// Flask-Migrate is Alembic in a directory of its own.
fn flask(words: &[String]) -> Option<Command> {
    let at = words.iter().position(|word| word == "db")?;
    let arguments = words[at + 1..].to_vec();
    let definition = tools::ALL.iter().find(|definition| definition.tool == Tool::Alembic)?;
    let action = (definition.action)(&arguments);
    Some(Command { tool: Some(Tool::Alembic), action, arguments, ..Command::unknown() })
}
