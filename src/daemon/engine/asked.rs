//! Snapshots that the API asks for.

use super::{Engine, queued};
use crate::config::Databases;
use crate::daemon::jobs::Job;
use crate::daemon::runs::Work;
use crate::daemon::shared::{Asked, Refusal};
use crate::daemon::{Cause, tasks};
use crate::domain::audit::RunId;
use crate::domain::id::ClusterName;
use crate::domain::told::Failed;

/// So many snapshots that were asked for may wait or run.
const ASKED_MAX: usize = 64;

impl Engine {
    pub(super) fn asked(&mut self, asked: Asked) {
        if self.may_be_new(&asked) && self.unlisted.len() < ASKED_MAX {
            // The server is asked now, and not at its time: a database is made, and then migrated at once.
            self.lists.entry(asked.cluster.clone()).or_default().wanted = true;
            self.unlisted.push(asked);
        } else {
            self.answer(asked);
        }
    }

    /// Whether the list lacks the database and the server may have it all the same.
    fn may_be_new(&self, asked: &Asked) -> bool {
        let Some(cluster) = self.settings.clusters.get(&asked.cluster) else { return false };
        let listed = self.databases.get(&asked.cluster);
        self.repository.is_some()
            && !matches!(cluster.databases, Databases::Named(_))
            && listed.is_some_and(|known| !known.contains(&asked.database))
    }

    /// A list of that cluster is in, or cannot be had.
    pub(super) fn answer_unlisted(&mut self, cluster: &ClusterName, trouble: Option<&Failed>) {
        if self.lists.get(cluster).is_some_and(|list| list.wanted) {
            // It was begun before they were asked for: the next one tells.
            return;
        }
        let all = std::mem::take(&mut self.unlisted);
        let (now, later) = all.into_iter().partition(|asked: &Asked| asked.cluster == *cluster);
        self.unlisted = later;
        for asked in now {
            match trouble {
                None => self.answer(asked),
                Some(why) => {
                    let told = format!("its databases cannot be listed: {}", why.message);
                    // Whoever asked may have gone.
                    let _ = asked.answer.send(Err(Refusal::Busy(told)));
                }
            }
        }
    }

    fn answer(&mut self, asked: Asked) {
        let Asked { cluster, database, trigger, labels, answer } = asked;
        // He was told that it takes too long, and asks again.
        if answer.is_closed() {
            return;
        }
        let begun = self.begin_asked(cluster, database, Cause::Api { trigger, labels });
        let _ = answer.send(begun);
    }

    fn begin_asked(
        &mut self,
        cluster: ClusterName,
        database: String,
        cause: Cause,
    ) -> Result<RunId, Refusal> {
        if !self.settings.clusters.contains_key(&cluster) {
            return Err(Refusal::Unknown(format!("cluster `{cluster}` is not configured")));
        }
        let out_of_reach = || Refusal::Busy("the repository is out of reach".to_owned());
        let place = self.place().ok_or_else(out_of_reach)?;
        // A list that never came knows nothing of what is not there.
        if let Some(known) = self.databases.get(&cluster)
            && !known.contains(&database)
        {
            let told = format!("cluster `{cluster}` has no database `{database}`");
            return Err(Refusal::Unknown(told));
        }
        if self.asked_running >= ASKED_MAX {
            return Err(Refusal::Busy(format!("{ASKED_MAX} snapshots wait already")));
        }
        self.asked_running += 1;
        let ambient = place.repository.ambient();
        let id = RunId::new(ambient.now(), ambient.random());
        let job = Job { work: Work::Snapshot, cluster, database: Some(database) };
        self.tasks.shared.runs.add(queued(&id, &job, cause.trigger(), ambient.now()));
        let (tasks, permits) = (self.tasks.clone(), std::sync::Arc::clone(&self.asked_permits));
        self.running.spawn(tasks::asked(tasks, place, permits, id.clone(), job, cause));
        Ok(id)
    }
}
