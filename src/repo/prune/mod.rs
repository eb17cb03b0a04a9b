//! Removing: REMOVAL.md's protocol, step by step (`docs/decisions/0010-retention-and-prune.md`).
//!
//! A prune
//! 1. settles runs that died: a manifest without `.broken` gets `.done`, else `.broken`, one more look, `.dead`
//!    ([`intents`], decision 0002);
//! 2. lists chunks, then intents, then manifests with marks and verifications, and lets retention decide
//!    ([`survey`]);
//! 3. condemns: puts the list of what goes, then lists intents and puts whom that list waits for ([`condemn`]);
//! 4. sweeps every list, its own and others', whose writers have all ended: looks at manifests, marks and
//!    verifications again, removes manifests, then the chunks that no manifest needs, and the list when none of
//!    its names is listed any more ([`sweep`]);
//! 5. tidies: what ended runs and removed backups left ([`tidy`]).
//!
//! **Invariants.** A manifest that is there restores: chunks go after the last manifest that names them. A name that
//! is removed never comes back. What cannot be read, parsed, trusted or understood ends a prune before it removes
//! anything.
//!
//! **Crash story.** Before the list is put nothing has happened but that dead runs are known as such. After it, all
//! that is on it is there, and no later backup relies on it; the next prune of any host goes on. Between a manifest
//! and its chunks there are chunks that no manifest names, still on the list. Between the manifest and what lies
//! beside it there are a signature and a chunk list that mean nothing; the next prune takes them for leftovers.
//!
//! Memory: about 50 bytes a listed chunk and 500 a backup, whatever the backups hold.

use crate::domain::audit::{Actor, RunId};
use crate::domain::retention::Policies;
use crate::repo::Repository;

pub mod condemn;
pub mod intents;
mod lists;
mod objects;
pub mod survey;
pub mod sweep;
mod table;
pub mod tidy;
pub mod watch;

/// What a prune works by.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The policies of the clusters that are meant; backups of others are kept.
    pub policies: Policies,
    /// Of these clusters, only this database; its other databases are kept.
    pub database: Option<String>,
    /// Who removes, for the record of what was removed.
    pub by: Actor,
    /// The run, whose id that record bears; without one it has an id of its own.
    pub run: Option<RunId>,
}

/// A prune of one repository.
pub struct Prune<'a> {
    pub(super) repository: &'a Repository,
    pub(super) terms: &'a Terms,
    #[cfg(test)]
    pub(super) without: Option<Clause>,
}

/// A clause of the protocol that tests leave out, to prove that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    /// A list waits for the writers that were at work when it was put.
    Wait,
    /// Those are looked for after the list is put.
    IntentsAfterTheList,
    /// Before anything is removed, manifests, marks and verifications are looked at again.
    SecondLook,
    /// `.broken` is a question, and `.dead` the answer.
    Certificate,
    /// What a list of damage names is removed only if no manifest needs it.
    DamageIsNeeded,
    /// What lies beside no manifest is left while its writer may be at work.
    LeftoversAfterIntents,
}

impl<'a> Prune<'a> {
    /// A prune by these terms.
    pub const fn new(repository: &'a Repository, terms: &'a Terms) -> Self {
        Self {
            repository,
            terms,
            #[cfg(test)]
            without: None,
        }
    }

    /// Whether a test left that clause out; never, where it counts.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "its twin for tests looks there")]
    pub(super) const fn lacks(&self, _: Clause) -> bool {
        false
    }

    #[cfg(test)]
    pub(super) fn lacks(&self, clause: Clause) -> bool {
        self.without == Some(clause)
    }
}
