//! What is worth telling: pure decisions over runs and the state of things. Floor 1's [`Notifier`] then tells it.
//!
//! A failed run is told once, not with every attempt that follows; what is overdue is told when it begins (or when
//! the daemon starts, and finds it so), again after a day while it lasts, and when it is well again. A database whose
//! first backup is on its way lacks none.
//!
//! [`Notifier`]: crate::notify::Notifier

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::jobs::Job;
use super::runs::{Run, Work};
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::status::{DatabaseStatus, Overdue, Rule, Status};
use crate::notify::{Message, News};

/// What goes on being overdue is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_hours(24);
/// More than so many news of one kind at once become one message.
const ONE_BY_ONE_MAX: usize = 10;

/// How a run of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The time of the schedule that it was for; none where somebody asked for it.
    pub occurrence: Option<Timestamp>,
    /// The exit code of the contract.
    pub exit_code: u8,
}

/// What there is to tell of a run that ended, from how the run of the same job before it ended.
///
/// Attempts at one occurrence that fail in the same way are told once. A run that was interrupted is no news: who
/// stopped it knows, and it is caught up.
pub fn of_run(before: Option<Outcome>, now: Outcome) -> Option<News> {
    let interrupted = FailureKind::Interrupted.exit_code();
    match (before, now.exit_code) {
        (_, code) if code == interrupted => None,
        (Some(before), 0) if before.exit_code != 0 && before.exit_code != interrupted => {
            Some(News::Recovery)
        }
        (_, 0) => Some(News::Success),
        (Some(before), _) if now.occurrence.is_some() && before == now => None,
        _ => Some(News::Failure),
    }
}

/// The message of a run that is over.
pub fn run_message(news: News, run: &Run, host: &str, at: Timestamp) -> Message {
    let text = |document: &Option<Json>, key: &str| {
        document.as_ref().and_then(|document| Some(document.get(key)?.as_str()?.to_owned()))
    };
    let verb = run.work.as_str();
    let of = match &run.database {
        Some(database) => format!("{verb} of {}/{database}", run.cluster),
        None => format!("{verb} of {}", run.cluster),
    };
    let ended = match news {
        News::Failure | News::Overdue => {
            let why =
                text(&run.error, "message").unwrap_or_else(|| "no reason is known".to_owned());
            format!("{of} failed: {why}")
        }
        News::Recovery => format!("{of} succeeded again"),
        News::Success => format!("{of} succeeded"),
    };
    let code = run.error.as_ref().map_or(Some(0), |error| error.get("exit_code")?.as_u64());
    Message {
        news: news.as_str().to_owned(),
        text: ended,
        at,
        host: host.to_owned(),
        verb: Some(verb.to_owned()),
        cluster: Some(run.cluster.to_string()),
        database: run.database.clone(),
        run: Some(run.id.to_string()),
        backup: text(&run.result, "id"),
        exit_code: code.and_then(|code| u8::try_from(code).ok()),
        hint: text(&run.error, "hint"),
    }
}

/// Something about the state of things that is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// What kind.
    pub news: News,
    /// The cluster, where it is about one.
    pub cluster: Option<String>,
    /// The database, where it is about one.
    pub database: Option<String>,
    /// One line.
    pub text: String,
}

impl Telling {
    /// As it is told.
    pub fn message(self, host: &str, at: Timestamp) -> Message {
        let hint = (self.news != News::Recovery)
            .then(|| "run `pgkeep status` and `pgkeep log`, or see the status page".to_owned());
        Message {
            news: self.news.as_str().to_owned(),
            text: self.text,
            at,
            host: host.to_owned(),
            verb: None,
            cluster: self.cluster,
            database: self.database,
            run: None,
            backup: None,
            exit_code: None,
            hint,
        }
    }
}

/// What a line is about: a database and one of its rules, or a fault of the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Rule { cluster: ClusterName, database: String, rule: Rule },
    Fault(String),
}

/// What is amiss.
struct Amiss {
    subject: Subject,
    text: String,
    /// No backup was ever taken of the database.
    is_first: bool,
}

impl Amiss {
    fn of(cluster: &ClusterName, database: &DatabaseStatus, overdue: &Overdue) -> Self {
        Self {
            subject: Subject::Rule {
                cluster: cluster.clone(),
                database: database.name.clone(),
                rule: overdue.rule,
            },
            text: format!("{cluster}/{}: {overdue}", database.name),
            is_first: overdue.rule == Rule::Backup && database.backups == 0,
        }
    }

    /// Whether it is about to be mended by one of these jobs.
    fn is_awaited(&self, under_way: &[Job]) -> bool {
        let Subject::Rule { cluster, database, .. } = &self.subject else { return false };
        let mends = |job: &Job| {
            let same = job.cluster == *cluster && job.database.as_ref() == Some(database);
            same && job.work == Work::Snapshot
        };
        self.is_first && under_way.iter().any(mends)
    }
}

/// What is amiss and was told, with the time it was last told, by the monotonic clock.
#[derive(Debug, Clone, Default)]
pub struct Told(BTreeMap<Subject, Duration>);

impl Told {
    /// Looks at how things stand: what there is to tell, and what is told then. `now` is the monotonic clock of this
    /// process, so that a jump of the other one neither repeats nor swallows anything. Of a database that is new, the
    /// first backup may be `under_way`; that there is none is told when that fails.
    #[must_use]
    pub fn and(&self, status: &Status, under_way: &[Job], now: Duration) -> (Vec<Telling>, Self) {
        let (mut tellings, mut told) = (Vec::new(), Self::default());
        for one in amiss(status) {
            let before = self.0.get(&one.subject).copied();
            // One line for each rule of a database.
            if told.0.contains_key(&one.subject) || before.is_none() && one.is_awaited(under_way) {
                continue;
            }
            let Amiss { subject, text, .. } = one;
            let is_due = before.is_none_or(|before| now.saturating_sub(before) >= AGAIN_AFTER);
            if is_due {
                let news = if matches!(subject, Subject::Fault(_)) {
                    News::Failure
                } else {
                    News::Overdue
                };
                tellings.push(telling(news, &subject, text));
            }
            told.0.insert(subject, before.filter(|_| !is_due).unwrap_or(now));
        }
        for subject in self.0.keys().filter(|subject| !told.0.contains_key(subject)) {
            // A database that nobody knows any more is not well again.
            if is_known(status, subject) {
                let text = well_again(subject);
                tellings.push(telling(News::Recovery, subject, text));
            }
        }
        (folded(tellings), told)
    }
}

/// All that is amiss.
fn amiss(status: &Status) -> Vec<Amiss> {
    let mut found = Vec::new();
    for cluster in &status.clusters {
        for database in &cluster.databases {
            let of = |overdue| Amiss::of(&cluster.name, database, overdue);
            found.extend(database.overdue.iter().map(of));
        }
    }
    let fault = |line: &String| Amiss {
        subject: Subject::Fault(line.clone()),
        text: line.clone(),
        is_first: false,
    };
    found.extend(status.faults.iter().map(fault));
    found
}

fn is_known(status: &Status, subject: &Subject) -> bool {
    match subject {
        Subject::Fault(_) => true,
        Subject::Rule { cluster, database, .. } => status.clusters.iter().any(|one| {
            one.name == *cluster && one.databases.iter().any(|one| one.name == *database)
        }),
    }
}

fn well_again(subject: &Subject) -> String {
    match subject {
        Subject::Rule { cluster, database, rule } => {
            format!("{cluster}/{database}: no longer overdue ({})", rule.as_str())
        }
        Subject::Fault(line) => format!("no longer so: {line}"),
    }
}

fn telling(news: News, subject: &Subject, text: String) -> Telling {
    let (cluster, database) = match subject {
        Subject::Rule { cluster, database, .. } => {
            (Some(cluster.to_string()), Some(database.clone()))
        }
        Subject::Fault(_) => (None, None),
    };
    Telling { news, cluster, database, text }
}

/// A store that was away makes everything overdue at once: nobody reads a thousand messages.
fn folded(tellings: Vec<Telling>) -> Vec<Telling> {
    let mut kinds: BTreeMap<News, Vec<Telling>> = BTreeMap::new();
    for telling in tellings {
        kinds.entry(telling.news).or_default().push(telling);
    }
    let fold = |(news, tellings): (News, Vec<Telling>)| {
        if tellings.len() <= ONE_BY_ONE_MAX {
            return tellings;
        }
        let first: Vec<_> =
            tellings[..ONE_BY_ONE_MAX].iter().map(|one| one.text.as_str()).collect();
        let more = tellings.len() - ONE_BY_ONE_MAX;
        let text = format!("{}; and {more} more", first.join("; "));
        vec![Telling { news, cluster: None, database: None, text }]
    };
    kinds.into_iter().flat_map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::runs::State;
    use crate::domain::audit::RunId;
    use crate::domain::status::{ClusterStatus, KeyStatus, Schedules, WalStatus};
    use serde_json::json;

    fn ended(occurrence: i64, exit_code: u8) -> Outcome {
        Outcome { occurrence: Timestamp::from_second(occurrence).ok(), exit_code }
    }

    #[test]
    fn a_failed_run_is_told_once_and_its_recovery_too() {
        let news = |outcomes: &[Outcome]| {
            let mut before = None;
            let tell = |now: &Outcome| of_run(before.replace(*now), *now);
            outcomes.iter().map(tell).collect::<Vec<_>>()
        };
        let (failure, recovery) = (Some(News::Failure), Some(News::Recovery));
        let success = Some(News::Success);
        // Three attempts at one run, the next run, and one that goes well.
        let story = [ended(1, 5), ended(1, 5), ended(1, 5), ended(2, 5), ended(3, 0), ended(4, 0)];
        assert_eq!(news(&story), [failure, None, None, failure, recovery, success]);
        assert_eq!(news(&[ended(1, 4), ended(1, 3)]), [failure, failure], "another failure");
        assert_eq!(news(&[ended(1, 4), ended(1, 0)]), [failure, recovery]);
        // What somebody asks for, he is told of.
        let asked = Outcome { occurrence: None, exit_code: 4 };
        assert_eq!(news(&[asked, asked]), [failure, failure]);
        assert_eq!(news(&[ended(1, 130), ended(1, 0)]), [None, success]);
        assert_eq!(news(&[]), [None; 0]);
    }

    fn run(result: Option<Json>, error: Option<Json>) -> Run {
        let at = Timestamp::UNIX_EPOCH;
        Run {
            id: "20261121T020000Z-5f3a9c21".parse::<RunId>().expect("an id"),
            work: Work::Snapshot,
            cluster: "main".parse().expect("a name"),
            database: Some("shop".to_owned()),
            trigger: None,
            state: if error.is_some() { State::Failed } else { State::Succeeded },
            queued_at: at,
            started_at: None,
            finished_at: None,
            step: String::new(),
            bytes: 0,
            result,
            error,
        }
    }

    #[test]
    fn a_message_tells_what_the_run_was_about_and_why_it_failed() {
        let error = json!({ "exit_code": 5, "kind": "store", "message": "cannot reach it", "hint": "look" });
        let failed = run(None, Some(error));
        let told = run_message(News::Failure, &failed, "db1", Timestamp::UNIX_EPOCH);
        assert_eq!(told.text, "snapshot of main/shop failed: cannot reach it");
        assert_eq!((told.exit_code, told.hint.as_deref()), (Some(5), Some("look")));
        assert_eq!(told.run.as_deref(), Some("20261121T020000Z-5f3a9c21"));
        let good = run(Some(json!({ "id": "20261121T020001Z-00000001" })), None);
        let told = run_message(News::Recovery, &good, "db1", Timestamp::UNIX_EPOCH);
        assert_eq!(told.text, "snapshot of main/shop succeeded again");
        assert_eq!((told.exit_code, told.hint), (Some(0), None));
        assert_eq!(told.backup.as_deref(), Some("20261121T020001Z-00000001"));
        let of_all = Run { database: None, work: Work::Prune, ..good };
        let told = run_message(News::Success, &of_all, "db1", Timestamp::UNIX_EPOCH);
        assert_eq!((told.text.as_str(), told.database), ("prune of main succeeded", None));
    }

    /// Lines that tell of a verified restore are of that rule.
    fn database(name: &str, overdue: &[&str]) -> DatabaseStatus {
        let of = |line: &&str| {
            if line.contains("verified") {
                Overdue::verified(*line)
            } else {
                Overdue::backup(*line)
            }
        };
        DatabaseStatus {
            name: name.to_owned(),
            configured: true,
            backups: 7,
            stored_bytes: 0,
            last_good: None,
            newest_in_doubt: None,
            last_verified: None,
            usual_bytes: None,
            next_snapshot: None,
            next_verify: None,
            removes_next: Vec::new(),
            overdue: overdue.iter().map(of).collect(),
            timeline: Vec::new(),
        }
    }

    fn status(databases: Vec<DatabaseStatus>, faults: &[&str]) -> Status {
        Status {
            at: Timestamp::UNIX_EPOCH,
            pgkeep: String::new(),
            repository: String::new(),
            keys: KeyStatus {
                encrypted: true,
                epoch: None,
                recipients: Vec::new(),
                signer: None,
                identity_here: false,
                confirmed_elsewhere: None,
            },
            clusters: vec![ClusterStatus {
                name: "main".parse().expect("a name"),
                timezone: "UTC".to_owned(),
                schedules: Schedules::default(),
                next_prune: None,
                databases,
                wal: WalStatus::off(),
                recovery_windows: Vec::new(),
            }],
            faults: faults.iter().map(|&line| line.to_owned()).collect(),
        }
    }

    /// What is told at each look, an hour apart.
    fn looks(all: &[Status]) -> Vec<Vec<(News, String)>> {
        let mut told = Told::default();
        let mut hour = 0;
        all.iter()
            .map(|status| {
                let (tellings, next) = told.and(status, &[], Duration::from_hours(hour));
                (told, hour) = (next, hour + 1);
                tellings.into_iter().map(|one| (one.news, one.text)).collect()
            })
            .collect()
    }

    #[test]
    fn what_is_overdue_is_told_when_it_begins_each_day_and_when_it_ends() {
        let late = |hours: usize| {
            let line = format!("no good backup for {hours} h");
            status(vec![database("shop", &[&line]), database("blog", &[])], &[])
        };
        let mut all: Vec<_> = (30..80).map(late).collect();
        all.push(late(0));
        all.push(status(vec![database("shop", &[])], &[]));
        all.push(status(vec![database("shop", &[])], &[]));
        let told = looks(&all);
        for (hour, told) in told.iter().enumerate() {
            let expected = match hour {
                // At start-up too.
                0 => vec![(News::Overdue, "main/shop: no good backup for 30 h".to_owned())],
                24 => vec![(News::Overdue, "main/shop: no good backup for 54 h".to_owned())],
                48 => vec![(News::Overdue, "main/shop: no good backup for 78 h".to_owned())],
                51 => {
                    vec![(News::Recovery, "main/shop: no longer overdue (good backup)".to_owned())]
                }
                _ => Vec::new(),
            };
            assert_eq!(*told, expected, "hour {hour}");
        }
    }

    #[test]
    fn rules_and_faults_are_told_apart_and_a_database_that_is_gone_is_not_well() {
        let both = ["no good backup for 3 days", "no verified restore for 8 days"];
        let told = looks(&[
            status(vec![database("shop", &both[..1])], &["a.json cannot be read"]),
            status(vec![database("shop", &both)], &["a.json cannot be read", "b.json likewise"]),
            status(vec![database("shop", &both[1..])], &["b.json likewise"]),
            status(Vec::new(), &["b.json likewise"]),
        ]);
        let news = |told: &[(News, String)]| told.iter().map(|one| one.0).collect::<Vec<_>>();
        assert_eq!(news(&told[0]), [News::Failure, News::Overdue]);
        assert_eq!(
            told[1],
            [
                (News::Failure, "b.json likewise".to_owned()),
                (News::Overdue, "main/shop: no verified restore for 8 days".to_owned())
            ]
        );
        assert_eq!(news(&told[2]), [News::Recovery, News::Recovery]);
        assert_eq!(told[3], []);
    }

    #[test]
    fn another_word_for_the_same_rule_is_no_news() {
        let lines = ["no backup yet", "no good backup", "no good backup for 3 days"];
        let told = looks(&lines.map(|line| status(vec![database("shop", &[line])], &[])));
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0], "{told:?}");
        let lines =
            ["never verified since its first backup 31d ago", "no verified restore for 31d"];
        let told = looks(&lines.map(|line| status(vec![database("shop", &[line])], &[])));
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0], "{told:?}");
    }

    #[test]
    fn a_first_backup_that_is_under_way_is_not_told_as_missing() {
        let new = |name: &str| DatabaseStatus { backups: 0, ..database(name, &["no backup yet"]) };
        let job = |work, name: &str| Job {
            work,
            cluster: "main".parse().expect("a name"),
            database: Some(name.to_owned()),
        };
        let under_way = [job(Work::Snapshot, "new"), job(Work::Verify, "left")];
        let texts = |told: &Told, found: &Status, under_way: &[Job]| {
            let (tellings, told) = told.and(found, under_way, Duration::ZERO);
            (tellings.into_iter().map(|one| one.text).collect::<Vec<_>>(), told)
        };
        let both = status(vec![new("new"), new("left")], &[]);
        let (first, told) = texts(&Told::default(), &both, &under_way);
        assert_eq!(first, ["main/left: no backup yet"]);
        // It is there: nothing was told, and nothing is well again.
        let taken = status(vec![database("new", &[]), new("left")], &[]);
        assert_eq!(texts(&told, &taken, &[]).0, [""; 0]);
        // It failed; and while it is tried again, it is still so.
        let (failed, told) = texts(&told, &both, &[]);
        assert_eq!(failed, ["main/new: no backup yet"]);
        let (again, told) = texts(&told, &both, &under_way);
        assert_eq!(again, [""; 0]);
        assert_eq!(texts(&told, &taken, &[]).0, ["main/new: no longer overdue (good backup)"]);
        // One that is late is told of, whatever is under way.
        let late = status(vec![database("new", &["no good backup for 3 days"])], &[]);
        assert_eq!(texts(&Told::default(), &late, &under_way).0.len(), 1);
    }

    #[test]
    fn many_at_once_are_one_message() {
        let of = |count: usize, overdue: &[&str]| {
            let databases = (0..count).map(|n| database(&format!("d{n}"), overdue));
            status(databases.collect(), &[])
        };
        let line = ["no good backup for 3 days"];
        let told = looks(&[of(200, &line), of(200, &[])]);
        assert_eq!((told[0].len(), told[1].len()), (1, 1));
        let (news, text) = &told[0][0];
        assert_eq!(*news, News::Overdue);
        assert!(text.contains("main/d9: no good") && text.ends_with("; and 190 more"), "{text}");
        assert_eq!(looks(&[of(ONE_BY_ONE_MAX, &line)])[0].len(), ONE_BY_ONE_MAX);
    }
}
