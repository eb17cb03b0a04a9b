//! Snapshots that the API asks for.

use super::{Engine, queued};
use crate::daemon::jobs::Job;
use crate::daemon::runs::Work;
use crate::daemon::shared::{Asked, Refusal};
use crate::daemon::{Cause, tasks};
use crate::domain::audit::RunId;
use crate::domain::id::ClusterName;

/// So many snapshots that were asked for may wait or run.
const ASKED_MAX: usize = 64;

impl Engine {
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { cluster, database, trigger, labels, answer } = asked;
        let begun = self.begin_asked(cluster, database, Cause::Api { trigger, labels });
        // Whoever asked may have gone.
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
