//! The command line: what may be said, and the help that explains it.

#![expect(clippy::doc_markdown, reason = "comments here are the help text, printed as they stand")]

mod guard;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use self::guard::{Migrate, Rehearsal, Rehearse};
use crate::proof::selection::Only;

/// What every `--help` of the program ends in.
const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  unexpected
    2  usage or configuration
    3  verification failed, damage found, or `status --strict` finds something overdue or unreadable
    4  PostgreSQL
    5  store
    6  busy: another writer
    7  key or signature
    8  nothing matches
   10  `migrate`: the command was not run; `rehearse`: it did not pass
   11  `migrate`: the command succeeded, but what was looked at afterwards says otherwise
  127  `migrate`, `rehearse`: there is no such command
  130  interrupted
With several databases it is the gravest.

Backups are named by any unambiguous prefix of their ID, by `latest`, `latest~1` (the one
before), or `latest:pre-migration` (the latest of that trigger).

Without a configuration file the environment is enough: PGKEEP_REPOSITORY,
PGKEEP_DATABASE_URL (else DIRECT_URL, DATABASE_URL, PG*), PGKEEP_RECIPIENTS and
PGKEEP_WRITER_KEY to write, PGKEEP_IDENTITY and PGKEEP_TRUSTED_SIGNERS to read; secrets also
as …_FILE. `pgkeep config show --defaults` explains every setting.";

/// Backup and verified restore for PostgreSQL
///
/// A backup counts when it has been restored and compared. pgkeep takes snapshots with pg_dump, keeps them
/// compressed, encrypted and deduplicated, and proves them in scratch before anyone needs them.
#[derive(Debug, Parser)]
#[command(name = "pgkeep", version, after_long_help = EXIT_CODES, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub(super) struct Global {
    /// Read this configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Mean this cluster of the configuration
    #[arg(long, global = true, value_name = "CLUSTER")]
    pub(super) cluster: Option<String>,
    /// Mean this database
    #[arg(long, global = true, value_name = "DATABASE")]
    pub(super) database: Option<String>,
    /// Read KEY=VALUE lines beneath the environment
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) env_file: Option<PathBuf>,
    /// Print JSON, errors too
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print errors and what was asked for only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Tell what is done, on stderr; -vv tells more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Init(Init),
    Check(Check),
    Snapshot(Snapshot),
    Import(Import),
    List(List),
    Show(Show),
    Verify(Verify),
    Restore(Restore),
    Rollback(Rollback),
    Pin(Mark),
    Unpin(Unmark),
    Adopt(Adopt),
    Prune(Prune),
    Status(Status),
    Log(Log),
    Migrate(Box<Migrate>),
    Rehearse(Rehearse),
    Daemon(Daemon),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Show, change and confirm the keys in use
    #[command(subcommand)]
    Key(KeyVerb),
    Demo(Demo),
    Completions(Completions),
    Man(Man),
}

/// Tell how it stands: last good and last verified backups, what is overdue, what comes next
///
/// For each database: how old its last good backup is, when one was last restored and compared and how long that took,
/// its size against the usual, its next run, and what looks wrong. Then what is overdue, what cannot be read, whether
/// the identity is kept only here, and what the next prune removes. Good is a backup that is neither suspect, foreign,
/// imported nor taken before a restore, and that no verification found wanting.
///
/// With --strict it ends in exit 3 when anything is overdue or cannot be read: with --quiet too it is silent unless
/// that is so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep status
  pgkeep status --strict --quiet
  pgkeep status --json | jq -r '.clusters[].databases[] | select(.overdue != []) | .name'")]
pub(super) struct Status {
    /// Exit 3 when anything is overdue or cannot be read
    #[arg(long)]
    pub(super) strict: bool,
}

/// List who did what, when, and how it ended, newest first
///
/// Each run of snapshot, import, verify, restore, migrate, rollback, prune, pin, unpin and adopt leaves a signed event in
/// the repository, where the host holds a writer key. The run's id is also in the log and, of a snapshot, in its
/// manifest. A prune leaves another one before it removes backups, with their ids (`--json` has them). A prune of a whole
/// cluster removes events that are older than 400 days.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep log
  pgkeep log --database shop --limit 5
  pgkeep log --json | jq '.[] | select(.exit_code != 0)'")]
pub(super) struct Log {
    /// The newest N only
    #[arg(long, value_name = "N", default_value = "50")]
    pub(super) limit: usize,
}

/// Run schedules, the status page, metrics and the snapshot hook, for years
///
/// What is due is judged from the catalog: a run that was missed is caught up once, and two daemons on one
/// configuration share the work. SIGHUP reads the configuration again and keeps the old one if it is bad. The
/// first SIGTERM or SIGINT lets what runs end, the second cancels it. It works for every cluster of the
/// configuration, and takes no --cluster and no --database.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep daemon
  PGKEEP__DAEMON__LISTEN=127.0.0.1:0 pgkeep daemon")]
pub(super) struct Daemon {}

/// Create the repository, and the keys and configuration that are missing
///
/// Safe to run again: what is there is kept. Without a recipient an identity is made and written beside the
/// configuration; that one file is the recovery kit and must leave the host. With --recipient this host
/// never sees a secret key, and what it backs up it cannot read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  PGKEEP_REPOSITORY=file:///srv/backup pgkeep init
  pgkeep init --recipient age1…")]
pub(super) struct Init {
    /// Encrypt to this age recipient; may be given again
    #[arg(long = "recipient", value_name = "RECIPIENT")]
    pub(super) recipients: Vec<String>,
    /// Store without encryption; every command will say so
    #[arg(long, conflicts_with = "recipients")]
    pub(super) insecure_plaintext: bool,
}

/// Prove that the live set-up works: keys, store, servers, privileges, programs
///
/// Changes nothing but one small object that is put into the repository and taken away again. Warnings are
/// told and leave exit 0; problems end in the exit code of the gravest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep check
  pgkeep check --database shop
  pgkeep check --json | jq -r '.checks[].statement // empty'")]
pub(super) struct Check {}

/// Take a snapshot of databases
///
/// Without a name, those of the configuration; with a URL from the environment, its own database. One that
/// fails does not stop the others.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep snapshot
  pgkeep snapshot shop --label ticket=123 --pin
  pgkeep snapshot --json shop | jq -r .id")]
pub(super) struct Snapshot {
    /// The databases
    #[arg(value_name = "DATABASE")]
    pub(super) databases: Vec<String>,
    /// Why it is taken: manual, scheduled, pre-migration
    #[arg(long, value_enum, default_value = "manual", hide_possible_values = true)]
    pub(super) trigger: TriggerArg,
    /// Remember this with the snapshot; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
    /// Keep it until it is unpinned
    #[arg(long)]
    pub(super) pin: bool,
}

/// Make snapshots of dumps that pg_dump made before
///
/// Each FILE is a dump of the database that --database names, in any of pg_dump's formats (plain, custom, tar, a
/// directory), also within gzip or zstd; what it is, its content tells. It is loaded into a scratch cluster of this
/// host, stopping at the first error, and what stands there then becomes a snapshot like any other, with the
/// trigger `imported`. No live server is needed, and none is touched.
///
/// Several FILEs become several snapshots, in the order given: name the oldest first. One that fails does not stop
/// the others. `latest` means an imported snapshot only where its database has no others; `latest:imported` always
/// does. A dump is a program that runs on this host as an unprivileged user: import those that you trust.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep import shop-2026-11-20.sql.gz --database shop
  pgkeep import shop-2024.dump shop-2025.dump --database shop --pin
  age -d -i key.txt shop.sql.gz.age | pgkeep import - --database shop")]
pub(super) struct Import {
    /// The dumps: files or directories; `-` is stdin
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// Remember this with the snapshots; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(super) labels: Vec<(String, String)>,
    /// Keep them until they are unpinned
    #[arg(long)]
    pub(super) pin: bool,
}

/// List backups, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep list
  pgkeep list --database shop --limit 5
  pgkeep list --json | jq '.[] | select(.verification == null) | .id'")]
pub(super) struct List {
    /// The newest N only
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

/// Show one backup or one run
///
/// Of a backup: what is in it, its verifications, and how to recover it with stock programs. What is in it can be told
/// only where an identity is at hand. Of a run, by the id that `log` prints: who did what, when and where, and how it
/// ended; of a guarded migration its whole report.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The backup or the run: its id, or the beginning of it
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Restore backups into scratch and compare them with what was recorded
///
/// Without an ID the latest of each database. Each verification leaves a signed record that `list` and
/// `show` display. Exit 3 when one fails.
///
/// With `--check stored` nothing is restored and no key is needed: every chunk that the backups need (without an
/// ID, all of them) is read once and compared with its size and hash. What is damaged is named with the backups
/// that need it, and the next snapshot stores its content afresh. Cut short, it goes on where it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep verify
  pgkeep verify latest --check counts
  pgkeep verify --check stored --rate 50MiB
  pgkeep verify --all --json")]
pub(super) struct Verify {
    /// The backups
    #[arg(value_name = "ID", conflicts_with = "all")]
    pub(super) ids: Vec<String>,
    /// Every backup there is
    #[arg(long)]
    pub(super) all: bool,
    /// How deep: `stored` compares what is stored; `counts` restores and compares inventory, row counts,
    /// sequences and assertions; `full` also every row
    #[arg(long, value_enum, default_value = "full", value_name = "DEPTH")]
    pub(super) check: VerifyCheckArg,
    /// With `--check stored`: read at most so much in a second, such as 50MiB
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(super) rate: Option<u64>,
    /// With `--check stored`: begin anew, also where an earlier run was cut short
    #[arg(long)]
    pub(super) restart: bool,
}

/// Restore a snapshot, through a scratch database that must pass
///
/// Without a flag it takes its own database's name if that is free. Nothing live is touched before the copy
/// has proved itself; a replaced database stays under the name `<name>_before_<id>`.
///
/// With --in-place, for roles that may not create or rename databases: the snapshot is proved in scratch here,
/// writers are kept out, a safety snapshot is taken, and one transaction replaces what the database holds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep restore latest --as shop_copy
  pgkeep restore --database shop --replace --dry-run
  pgkeep restore --database shop --replace --yes
  pgkeep restore --database shop --in-place --dry-run
  pgkeep restore 20261121T02 --to postgres://admin@other-host/postgres
  pgkeep restore latest --output - --format sql | less")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Restore {
    /// The snapshot
    #[arg(value_name = "ID", default_value = "latest")]
    pub(super) id: String,
    /// Restore into a new database of this name
    #[arg(long = "as", value_name = "NAME", conflicts_with_all = ["replace", "in_place", "output"])]
    pub(super) new_name: Option<String>,
    /// Swap the copy for the live database
    #[arg(long, group = "live", conflicts_with = "output")]
    pub(super) replace: bool,
    /// Replace what the live database holds, in one transaction, after a safety snapshot; with --to, what
    /// the database of that URL holds
    #[arg(long, group = "live", conflicts_with = "output")]
    pub(super) in_place: bool,
    /// Restore to this server; passwords belong in .pgpass or PGPASSWORD
    #[arg(long, value_name = "URL", conflicts_with = "output")]
    pub(super) to: Option<String>,
    /// Write the dump to this file (`-` is stdout) and restore nothing
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// What --output writes: pg_dump's custom format, or SQL
    #[arg(long, value_enum, default_value = "custom", requires = "output")]
    pub(super) format: FormatArg,
    /// How deep the copy is checked before it gets its name
    #[arg(long, value_enum, default_value = "counts", value_name = "DEPTH")]
    #[arg(conflicts_with = "output")]
    pub(super) check: CheckArg,
    /// Restore a lost server: roles, and the latest good snapshot of every database
    #[arg(long, conflicts_with_all = ["id", "new_name", "replace", "in_place", "output"])]
    pub(super) all: bool,
    /// Roles that the target lacks: create them as they were (with --all unless told otherwise), or
    /// skip that, and refuse a copy that needs them
    #[arg(long, value_enum, value_name = "HOW", conflicts_with = "output")]
    pub(super) roles: Option<RolesArg>,
    /// Leave out owners and grants: all belongs to the role that restores
    #[arg(long, conflicts_with = "output")]
    pub(super) no_owner: bool,
    /// Restore this table (or schema.table) alone, with what it needs; may be given again
    #[arg(long = "table", value_name = "TABLE", conflicts_with_all = ["replace", "in_place", "all"], value_parser = table)]
    pub(super) tables: Vec<(Option<String>, String)>,
    /// Restore this schema alone, with what it needs; may be given again
    #[arg(long = "schema", value_name = "SCHEMA", conflicts_with_all = ["replace", "in_place", "all"])]
    pub(super) schemas: Vec<String>,
    /// Run this psql script in the copy before it gets its name; may be given again
    #[arg(long = "run", value_name = "FILE.SQL")]
    #[arg(conflicts_with_all = ["output", "all", "in_place"])]
    pub(super) scripts: Vec<PathBuf>,
    /// Print the plan and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask before replacing
    #[arg(long)]
    pub(super) yes: bool,
    /// Replace although something stays behind with the old database (slots, subscriptions, …), or in
    /// place although it is bound to it
    #[arg(long, requires = "live")]
    pub(super) force: bool,
    /// Replace although the snapshot left rows out on purpose
    #[arg(long, requires = "live")]
    pub(super) allow_partial: bool,
}

/// Go back to what a database was before a migration
///
/// Without an ID, to the newest snapshot that was taken before one. First it shows what the live name loses: rows
/// more than in the snapshot, tables and columns that came since, later guarded migrations. Then it restores into
/// scratch, compares, and swaps the copy for the live database, as `restore --replace` does. The migrated database
/// stays under the name `<name>_before_<id>`, with all that was written since, and the way back to it is printed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep rollback --dry-run
  pgkeep rollback --database shop --yes
  pgkeep rollback 20261121T02 --json --yes | jq .lost")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Rollback {
    /// The snapshot to go back to
    #[arg(value_name = "ID")]
    pub(super) id: Option<String>,
    /// Print what would be lost and the plan, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Go back although something stays behind with the migrated database (slots, subscriptions, …)
    #[arg(long)]
    pub(super) force: bool,
    /// Go back although the snapshot left rows out on purpose
    #[arg(long)]
    pub(super) allow_partial: bool,
}

/// Keep a backup until it is unpinned
#[derive(Debug, Args)]
pub(super) struct Mark {
    /// The backup
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Let retention decide over a backup again
#[derive(Debug, Args)]
pub(super) struct Unmark {
    /// The backup
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Say that a suspect snapshot is right, or that a server belongs to the cluster
///
/// A snapshot is suspect when its rows fell by half, and foreign when it is of a server that the cluster's name
/// does not know: after pg_upgrade, a new initdb or a move adopt one snapshot, and all of that server count.
/// Without an ID the only one that waits is meant.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep adopt
  pgkeep adopt 20261121T02")]
pub(super) struct Adopt {
    /// The backup
    #[arg(value_name = "ID")]
    pub(super) id: Option<String>,
}

/// Remove the backups that retention does not keep, and what killed runs left
///
/// What is kept, and why, is decided for each database by the cluster's retention (`pgkeep config show --defaults`
/// explains it). The newest, the last good and the last verified backup of a database are never removed, nor what is
/// pinned, imported, or waits to be adopted. It does not ask: `--dry-run` prints every backup with its verdict, and a
/// prune does just that. It may run beside snapshots and other prunes, on any host; what a snapshot at work may rely
/// on waits for a later prune.
///
/// With --cluster or --database only their backups are removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep prune --dry-run
  pgkeep prune --quiet
  pgkeep prune --dry-run --json | jq -r '.backups[] | select(.verdict == \"removed\") | .id'")]
pub(super) struct Prune {
    /// Print the plan and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// The verbs of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Print what is set, secrets masked, and where each value came from
    Show {
        /// Print the shipped defaults with the explanation of every key
        #[arg(long)]
        defaults: bool,
    },
    /// Check the configuration, its key files and its connection strings
    Validate,
}

/// The verbs of `key`.
#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Show epoch, recipients, signers, and which keys this host holds
    Show,
    Rotate(Rotate),
    /// Prove on another host that the recovery kit is kept there, and leave a record of it
    ///
    /// Run it where the kit is: the identity must open what this repository keeps sealed. Until then `key show`
    /// and `check` on the writing host say that the identity is kept only there.
    #[command(after_help = "\
Example:
  PGKEEP_REPOSITORY=file:///srv/backup PGKEEP_IDENTITY_FILE=kit.txt pgkeep key confirm")]
    Confirm,
    Trust(Trust),
}

/// Open a new epoch: new recipients, or a new writer key in place of a lost one
///
/// Nothing that is stored is shared with what comes: the next snapshot stores everything anew, so that whoever
/// was removed from the recipients reads nothing new. What is there stays readable by those it was sealed to.
/// Cut short at any step, snapshots go on, and running it again ends what it began.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep key rotate
  pgkeep key rotate --recipient age1… --recipient age1…
  pgkeep key rotate --lost-writer-key")]
pub(super) struct Rotate {
    /// Encrypt to this age recipient from now on; may be given again. Without any, those that are configured
    #[arg(long = "recipient", value_name = "RECIPIENT")]
    pub(super) recipients: Vec<String>,
    /// No host and no copy has the writer key any more: make a new one, which readers must be told to trust
    #[arg(long)]
    pub(super) lost_writer_key: bool,
}

/// Believe another signer: add his public key to this host's configuration, or to its recovery kit
///
/// Compare the key id that is shown with the one that `key show` or `key rotate` prints on the host that
/// signs. Safe to run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pgkeep key trust RW…")]
pub(super) struct Trust {
    /// Public keys of minisign's form
    #[arg(value_name = "RW…", required = true)]
    pub(super) signers: Vec<String>,
}

/// Show it all on a throwaway cluster: snapshot, disaster, verified restore
///
/// Takes some seconds, needs PostgreSQL's programs, touches nothing of yours and leaves nothing.
#[derive(Debug, Args)]
pub(super) struct Demo {}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pgkeep completions bash > /etc/bash_completion.d/pgkeep")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

/// Print the manual page
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  pgkeep man | man -l -")]
pub(super) struct Man {}

/// `--trigger`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TriggerArg {
    /// By hand
    Manual,
    /// By a timer, such as cron
    Scheduled,
    /// Before a migration
    PreMigration,
}

/// `--check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckArg {
    /// Inventory, row counts, sequences, assertions
    Counts,
    /// The same, every row's content, and pg_amcheck
    Full,
}

/// `--roles`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RolesArg {
    /// Make those that are missing
    Create,
    /// Make none
    Skip,
}

/// `verify --check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum VerifyCheckArg {
    /// Stored bytes, without restoring; needs no key
    Stored,
    /// Inventory, row counts, sequences, assertions
    Counts,
    /// The same, every row's content, and pg_amcheck
    Full,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatArg {
    /// For pg_restore
    Custom,
    /// For psql
    Sql,
}

fn table(text: &str) -> Result<(Option<String>, String), String> {
    Only::table(text).ok_or_else(|| "a table is TABLE or SCHEMA.TABLE".to_owned())
}

fn rate(text: &str) -> Result<u64, String> {
    let refused = || "a size is a whole number and B, KiB, MiB or GiB".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(refused()),
    };
    number.checked_mul(1 << shift).filter(|rate| *rate > 0).ok_or_else(refused)
}

fn span(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).ok_or_else(|| "a duration is such as 90s, 10m or 1h".to_owned())
}

fn report_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json" | "md") => Ok(path),
        _ => Err("a report is FILE.json or FILE.md".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_after_the_verb() {
        let cli = Cli::try_parse_from(["pgkeep", "list", "--json", "--cluster", "x"]);
        let global = cli.expect("parses").global;
        assert!(global.json);
        assert_eq!(global.cluster.as_deref(), Some("x"));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for line in [
            "restore --as x --replace",
            "restore --output - --replace",
            "restore --output - --as x",
            "restore --format sql",
            "restore --force",
            "restore --all latest",
            "restore --all --replace",
            "restore --table a --replace",
            "restore --table a.b.c",
            "restore --all --run mask.sql",
            "restore --in-place --replace",
            "restore --in-place --as x",
            "restore --in-place --all",
            "restore --in-place --output -",
            "restore --in-place --table a",
            "restore --in-place --schema a",
            "restore --in-place --run mask.sql",
            "verify --all latest",
            "init --recipient age1x --insecure-plaintext",
            "list -q -v",
            "snapshot --label nonsense",
            "snapshot --trigger weekly",
            "verify --check stored --rate 0",
            "verify --check stored --rate 5MB",
            "verify --check stored --rate MiB",
            "restore --check stored",
            "key rotate --recipient",
            "key trust",
            "migrate",
            "migrate --yes",
            "migrate npx prisma migrate deploy",
            "migrate --wait soon -- x",
            "migrate --report r.txt -- x",
            "migrate --label nonsense -- x",
            "rehearse",
            "rehearse --fresh --from latest -- x",
            "rehearse --fail-on slow -- x",
            "rehearse --env =x -- x",
        ] {
            let words = std::iter::once("pgkeep").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
