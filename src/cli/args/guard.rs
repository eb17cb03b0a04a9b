//! What a command is guarded and rehearsed with.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{label, report_file, span};
use crate::domain::migration::rehearsal::FailOn;

/// Run a migration with a way back: snapshot, run, check
///
/// COMMAND is run as you would type it, with its input, output, signals and exit code. Before it: a second guard, or a
/// dump of that database that is still running, is waited for; the migration tool is told from its table and the command
/// (Prisma, Flyway, Liquibase, Django, Rails, Alembic, sqlx, Diesel, goose, Knex, TypeORM, Sequelize, Drizzle,
/// golang-migrate, node-pg-migrate, refinery, Atlas), and what is applied, failed, edited since and pending is shown;
/// a snapshot is taken and committed. If that fails the command is not run (exit 10). A command whose words, or whose
/// DIRECT_URL and DATABASE_URL, name another database than the one that is saved is refused (exit 2). Where there is no database yet, or
/// no table in it, there is nothing to lose, and the command runs at once.
///
/// After it: whether anything arrived, failed rows, the assertions and the health addresses of the configuration (exit 11
/// where the command itself succeeded); invalid indexes, constraints that are NOT VALID and objects that the next backup may not read are
/// warnings, with the statement that mends them. A migration that failed before stops only the tool's own command that
/// applies; what repairs it is let through.
///
/// All of that is told on stderr: stdout is the command's. With --json stdout has the report, and the command's stdout
/// goes to stderr. The exit code is the command's own, unless pgkeep has something to say: 2, 6, 10, 11, 127, 130. The
/// report lands in the audit trail: `pgkeep log`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep migrate -- npx prisma migrate deploy
  pgkeep migrate --yes --label release=4.2 -- flyway migrate
  pgkeep migrate --rehearse --fail-on data-loss -- npx prisma migrate deploy
  pgkeep migrate --yes --if-pending --no-health --wait 10m -- npx prisma migrate deploy
  pgkeep migrate --dry-run -- npx prisma migrate deploy")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(in crate::cli) struct Migrate {
    /// The command and its arguments, behind `--`
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(in crate::cli) command: Vec<String>,
    /// Do not ask
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Wait so long for another run at that database, such as 90s or 10m
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = span)]
    pub(in crate::cli) wait: Duration,
    /// Take no snapshot where COMMAND is the tool's own, its files were read, and nothing is pending
    #[arg(long)]
    pub(in crate::cli) if_pending: bool,
    /// Ask no health address afterwards, as before the application is started
    #[arg(long)]
    pub(in crate::cli) no_health: bool,
    /// Remember this with the snapshot; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(in crate::cli) labels: Vec<(String, String)>,
    /// Go on although COMMAND, DIRECT_URL or DATABASE_URL names another database than the one that is saved
    #[arg(long)]
    pub(in crate::cli) elsewhere: bool,
    /// Do not run it unless a rollback could run from here: identity, rights of the role, room for a copy
    #[arg(long)]
    pub(in crate::cli) require_rollback: bool,
    /// Restore the snapshot into scratch and compare it, before the command
    #[arg(long)]
    pub(in crate::cli) verify: bool,
    /// Run the command on a copy of the snapshot first, as `pgkeep rehearse` does, before it is asked
    #[arg(long)]
    pub(in crate::cli) rehearse: bool,
    #[command(flatten)]
    pub(in crate::cli) rehearsal: Rehearsal,
    /// Write the report to this file, FILE.json or FILE.md
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    pub(in crate::cli) report: Option<PathBuf>,
    /// Print what is found and what would be done, and do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// Run a migration on a copy, and tell what it does there
///
/// The latest snapshot is restored into a server of its own on this host: durable, with the memory settings of the source's
/// server, reachable on 127.0.0.1 alone, by roles with a password drawn for this run. COMMAND is run there with DATABASE_URL,
/// DIRECT_URL and the PG* variables led to the copy, those that --env names, and all others that hold the address of the
/// database; what else an address says, such as schema=, stays. Then the copy is removed.
///
/// Told are: how long it took; per table the strongest lock and for how long it was seen; relations that were rewritten,
/// with their sizes; rows before and after; columns, tables and types that held data and are gone, with what they held;
/// new invalid indexes and constraints that are NOT VALID; the assertions; and how the copy differed from the live
/// database. --fail-on makes some of it count.
///
/// The live database is fenced meanwhile: the lock of the migration tool is held there, or its table, and whoever waits for
/// that is ended. A command that names a server itself is refused (exit 2), and so is one that runs through docker, podman,
/// kubectl or ssh. One that never came to the copy, or wanted the live database, gets no verdict.
///
/// What COMMAND says goes to stderr, and it has no stdin. Exit 0 where it passed, 10 where it did not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pgkeep rehearse -- npx prisma migrate deploy
  pgkeep rehearse --fresh --fail-on 'data-loss,lock>5s,rewrite>1GiB' -- npx prisma migrate deploy
  pgkeep rehearse --from latest~1 --env MIGRATION_URL -- pnpm db:migrate")]
pub(in crate::cli) struct Rehearse {
    /// The command and its arguments, behind `--`
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(in crate::cli) command: Vec<String>,
    /// Take a snapshot now, and rehearse on that
    #[arg(long, conflicts_with = "from")]
    pub(in crate::cli) fresh: bool,
    /// Rehearse on this snapshot, and not on the latest
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) from: Option<String>,
    /// Wait so long for whoever migrates the live database, such as 90s or 10m
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = span)]
    pub(in crate::cli) wait: Duration,
    #[command(flatten)]
    pub(in crate::cli) rehearsal: Rehearsal,
}

/// How a command is rehearsed.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Rehearsal {
    /// Fail a rehearsal on these: 'data-loss,lock>5s,rewrite>1GiB'; a lock counts that keeps writers away
    #[arg(long, value_name = "LIMITS", value_parser = limits)]
    pub(in crate::cli) fail_on: Option<FailOn>,
    /// Lead this variable to the copy, too; may be given again
    #[arg(long = "env", value_name = "NAME", value_parser = variable)]
    pub(in crate::cli) variables: Vec<String>,
    /// Rehearse a command that runs through docker, podman, kubectl or ssh, and hands the address on
    #[arg(long)]
    pub(in crate::cli) forwarded: bool,
}

impl Rehearsal {
    /// Whether anything of it was asked for.
    pub(in crate::cli) fn is_given(&self) -> bool {
        self.fail_on.is_some() || !self.variables.is_empty() || self.forwarded
    }
}

fn limits(text: &str) -> Result<FailOn, String> {
    text.parse()
}

fn variable(text: &str) -> Result<String, String> {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = !text.is_empty() && text.bytes().all(named);
    is_name
        .then(|| text.to_owned())
        .ok_or_else(|| "a variable's name has letters, digits and _".to_owned())
}
