//! What is in force: the configuration, and the repository that it names.
//!
//! A repository that cannot be opened is tried again and again. Until it can, nothing is done: the daemon is not ready,
//! and tells why. What is known of one repository (what was done, what is overdue) says nothing of another one.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Engine;
use super::again::Again;
use crate::config::DaemonSettings;
use crate::daemon::looks::Reloaded;
use crate::domain::told::Failed;
use crate::repo::Repository;

impl Engine {
    pub(super) fn reload(&mut self) {
        if self.opening.under_way {
            // It will be read again when that has ended.
            self.opening.wanted = true;
            return;
        }
        tracing::info!("reading the configuration again");
        self.opening.begin();
        self.tasks.reload(Arc::clone(&self.settings));
    }

    /// Where that was asked for while the last one was under way.
    pub(super) fn reload_again(&mut self) {
        if std::mem::take(&mut self.opening.wanted) {
            self.reload();
        }
    }

    pub(super) fn reloaded(&mut self, result: Result<Reloaded, Failed>) {
        let Reloaded { settings, repository, token, notifier } = match result {
            Ok(reloaded) => reloaded,
            Err(Failed { message, hint, .. }) => {
                tracing::error!(hint, "the old configuration stays in force: {message}");
                return;
            }
        };
        self.tasks.shared.set_token(token);
        let concurrency = settings.daemon.concurrency;
        if concurrency != self.settings.daemon.concurrency {
            self.permits = Arc::new(Semaphore::new(concurrency));
            self.asked_permits = Arc::new(Semaphore::new(concurrency));
        }
        for key in self.bound_otherwise(&settings.daemon) {
            tracing::warn!("daemon.{key} is read at the start only: restart the daemon");
        }
        self.settings = settings;
        self.generation += 1;
        self.tasks.teller.replace(notifier);
        // What was read with other keys counts no more.
        (self.remembered, self.look) = (Arc::default(), Again::default());
        self.lists.clear();
        self.databases.retain(|name, _| self.settings.clusters.contains_key(name));
        self.changed = true;
        tracing::info!("the configuration is in force");
        self.opened(repository);
        // The list that they wait for may never come now.
        for asked in std::mem::take(&mut self.unlisted) {
            self.asked(asked);
        }
    }

    /// The keys that differ from what the page was opened with.
    fn bound_otherwise(&self, daemon: &DaemonSettings) -> Vec<&'static str> {
        let (listen, allow_remote) = self.bound;
        let keys = [
            ("listen", daemon.listen != listen),
            ("allow_remote", daemon.allow_remote != allow_remote),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// What came of opening the repository that is configured.
    pub(super) fn opened(&mut self, result: Result<Repository, Failed>) {
        let repository = match result {
            Ok(repository) => repository,
            Err(why) => return self.out_of_reach(&why),
        };
        let id = &repository.document.id;
        if self.known.as_ref().is_some_and(|known| known != id) {
            self.forget();
        }
        if self.repository.is_none() && self.known.is_some() {
            tracing::info!("the repository can be opened again");
        }
        self.known = Some(id.clone());
        self.repository = Some(repository);
        self.tasks.teller.within_reach();
        self.look.wanted = true;
        self.changed = true;
    }

    fn out_of_reach(&mut self, why: &Failed) {
        self.repository = None;
        self.tasks.shared.update_health(|health| {
            health.ready = false;
            health.repository_error = Some(why.message.clone());
        });
        if self.tasks.teller.out_of_reach(why) {
            let hint = why.hint.as_deref();
            tracing::error!(hint, "the repository cannot be opened: {}", why.message);
        } else {
            tracing::debug!("the repository still cannot be opened: {}", why.message);
        }
    }

    /// Another repository is in force: all that is known is of the one before.
    fn forget(&mut self) {
        (self.past, self.ahead) = (None, Arc::default());
        for memory in self.memories.values_mut() {
            memory.outdate();
        }
        self.unseen.clear();
        self.tasks.teller.forget();
        self.tasks.shared.forget_status();
        self.tasks.shared.update_health(|health| health.ready = false);
    }
}
