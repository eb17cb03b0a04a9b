//! The page: what it says, that nothing in it works against its reader, and that it carries many databases.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::support::{Daemon, database, hours_ago, run, run_id, status};
use crate::daemon::http::page::{View, render};
use crate::daemon::runs::{State, Work};
use crate::daemon::shared::Health;
use crate::domain::status::{DatabaseStatus, Overdue, Status};

fn page(status: &Status) -> String {
    let health = Health::default();
    let now = Timestamp::now();
    render(&View { status: Some(status), health: &health, hangs: false, runs: Vec::new(), now })
}

/// The row of a database: from its beginning to its end.
#[track_caller]
fn row<'a>(page: &'a str, id: &str) -> &'a str {
    let from = page.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {page}"));
    let length = page[from..].find("</tr>").expect("a row ends");
    &page[from..from + length]
}

fn verdict(page: &str) -> &str {
    let from = page.find("<title>").expect("a title") + 7;
    &page[from..from + page[from..].find("</title>").expect("it ends")]
}

#[test]
fn what_other_tools_leave_out_stands_in_each_row() {
    let found = status(vec![database("kennel_prod")]);
    let page = page(&found);
    let row = row(&page, "db-main-kennel_prod");
    let database = &found.clusters[0].databases[0];
    let good = database.last_good.as_ref().expect("a backup");
    let verified = database.last_verified.as_ref().expect("a verification");
    for words in [
        // Age against the schedule, and exactly.
        "5 h 00 min ago",
        "5 h 00 min of the 24 h 00 min between two backups",
        &format!(
            "data-field=\"last_good\" data-id=\"{}\" data-value=\"{}\"",
            good.id, good.finished_at
        ),
        // The real recovery time.
        "1 d 2 h ago".replace("1 d 2 h", "26 h 00 min").as_str(),
        "restored in <strong>4 min 05 s</strong>,</span>",
        "every row compared",
        &format!("data-value=\"{}\" data-duration-ms=\"245000\"", verified.verified_at),
        // Size against the usual.
        "data-value=\"1250000000\" data-usual-bytes=\"1210000000\"",
        "1.2 GiB <span class=\"sub\">+3 %</span>",
        "data-field=\"backups\" data-value=\"37\"",
        // What prune removes, and why.
        "1 backup</summary>",
        "no rule keeps it",
        "data-field=\"next_snapshot\"",
        "the last 30 days: 28 good backups, 1 backup in doubt, ",
    ] {
        assert!(row.contains(words), "{words} is not in {row}");
    }
    for words in [
        "hours in Asia/Kathmandu",
        "<code>0 2 * * *</code>",
        "data-field=\"next_prune\"",
        "age1qyqszq…3290gq",
        "known to be kept elsewhere",
        "E7620F1842B4E81F",
        "s3://backups/kennel",
    ] {
        assert!(page.contains(words), "{words} is not in {page}");
    }
    assert_eq!(verdict(&page), "✓ pgkeep: 1 database has a good backup and a proved restore");
}

#[test]
fn hours_are_those_of_the_schedules_zone() {
    let mut found = status(vec![database("kennel_prod")]);
    let next = "2026-11-28T20:15:00Z".parse().expect("a time");
    found.clusters[0].databases[0].next_snapshot = Some(next);
    let there = "title=\"2026-11-28 20:15:00 UTC\">Sun 29 Nov 02:00</time>";
    assert!(page(&found).contains(there));
    found.clusters[0].timezone = "Mars/Olympus".to_owned();
    let here = page(&found);
    assert!(here.contains(">Sat 28 Nov 20:15</time>") && here.contains("hours in UTC"));
}

#[test]
fn troubles_come_first_and_the_gravest_of_them() {
    let mut late = database("late");
    late.overdue = vec![Overdue::backup("no good backup for 3 d")];
    let mut doubted = database("doubted");
    let newest = doubted.last_good.clone().expect("a backup");
    doubted.newest_in_doubt = Some((newest, "rows fell by half".to_owned()));
    let mut none = database("none");
    (none.last_good, none.last_verified) = (None, None);
    let mut found = status(vec![doubted, database("fine"), late, none]);
    found.keys.identity_here = true;
    found.keys.confirmed_elsewhere = Some(false);
    found.faults = vec!["20261121T020000Z-5f3a9c21: not signed".to_owned()];
    let page = page(&found);
    assert_eq!(verdict(&page), "✕ pgkeep: 1 of 4 databases overdue");
    let place = |words: &str| page.find(words).unwrap_or_else(|| panic!("no {words} in {page}"));
    assert!(place("main/late: no good backup for 3 d") < place("main/doubted: the newest backup"));
    assert!(place("not signed</li>") < place("identity kept only here"));
    assert!(place("main/none: no good backup yet") < place("<table"));
    assert!(page.contains("data-only-here=\"true\""));
    found.faults.clear();
    found.clusters[0].databases.truncate(2);
    found.clusters[0].databases.remove(0);
    let only =
        "1 database has a good backup and a proved restore, but the identity is kept only here";
    assert!(verdict(&self::page(&found)).ends_with(only));
    assert!(row(&page, "db-main-late").contains("data-mood=\"bad\" data-overdue=\"1\""));
    assert!(row(&page, "db-main-doubted").contains("in doubt: rows fell by half"));
    assert!(row(&page, "db-main-none").contains("never"));
    // The list at the top leads to the rows.
    assert!(page.contains("<a href=\"#db-main-late\">"));
}

#[test]
fn what_names_and_reasons_hold_is_text_and_nothing_else() {
    let nasty = "<script>alert(1)</script>\"'&";
    let mut odd = database(nasty);
    odd.overdue = vec![Overdue::backup(nasty)];
    odd.removes_next[0].reason = nasty.to_owned();
    let newest = odd.last_good.clone().expect("a backup");
    odd.newest_in_doubt = Some((newest, nasty.to_owned()));
    let mut found = status(vec![odd]);
    found.repository = nasty.to_owned();
    found.faults = vec![nasty.to_owned()];
    let page = page(&found);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("data-database=\"&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;\""));
    assert!(page.contains("id=\"db-main-.3cscript.3ealert.281.29.3c.2fscript.3e.22.27.26\""));
    // Nothing is fetched from anywhere.
    for word in ["src=", "@import", "url(", "http://", "https://"] {
        let found: Vec<_> =
            page.match_indices(word).map(|(at, _)| &page[at..(at + 40).min(page.len())]).collect();
        let foreign = found.iter().filter(|text| !text.starts_with("http://www.w3.org/2000/svg"));
        assert_eq!(foreign.count(), 0, "{word}: {found:?}");
    }
}

#[test]
fn a_reader_who_sees_no_colours_is_told_as_much() {
    let page = page(&status(vec![database("kennel_prod")]));
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    let count = |words: &str| page.matches(words).count();
    assert_eq!(count("<svg"), count("role=\"img\" aria-label") - count("<span class=\"badge"));
    assert_eq!(count("<svg"), count("<title>") - 1 - count("<g>"), "each picture has a title");
    assert!(count("scope=\"col\"") >= 8 && count("<th scope=\"row\"") == 1);
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
    assert!(page.contains("<meta http-equiv=\"refresh\" content=\"30\">"));
}

#[test]
fn two_hundred_databases_fit_and_are_quickly_there() {
    let many: Vec<DatabaseStatus> = (0..200).map(|n| database(&format!("db{n}"))).collect();
    let found = status(many);
    let began = Instant::now();
    let page = page(&found);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(page.len() < 2_500_000, "{} bytes", page.len());
    assert_eq!(page.matches("<tr class=\"good\" id=\"db-main-").count(), 200);
    assert_eq!(
        verdict(&page),
        "✓ pgkeep: all 200 databases have a good backup and a proved restore"
    );
}

#[test]
fn runs_at_work_stand_above_and_those_that_ended_below() {
    let found = status(vec![database("kennel_prod")]);
    let mut working = run(&run_id(1), Work::Snapshot);
    working.state = State::Running;
    working.started_at = Some(hours_ago(1));
    (working.step, working.bytes) = ("dumping".to_owned(), 1 << 30);
    let waiting = run(&run_id(2), Work::Prune);
    let mut failed = run(&run_id(3), Work::Verify);
    (failed.state, failed.started_at) = (State::Failed, Some(hours_ago(3)));
    failed.finished_at = Some(hours_ago(2));
    failed.error = Some(serde_json::json!({ "message": "the <server> went away" }));
    let health = Health::default();
    let runs = vec![failed, working, waiting];
    let now = Timestamp::now();
    let page = render(&View { status: Some(&found), health: &health, hangs: false, runs, now });
    let place = |words: &str| page.find(words).unwrap_or_else(|| panic!("no {words} in {page}"));
    let table = place("id=\"databases\"");
    assert!(place("<strong>snapshot</strong> main/kennel_prod") < table);
    assert!(page.contains(" for 1 h 00 min · dumping · 1.0 GiB"));
    assert!(place("<strong>prune</strong> main<") < table);
    assert!(place("the &lt;server&gt; went away") > table);
    assert!(page.contains("1 h 00 min</td>"), "how long it took");
}

#[tokio::test]
async fn before_the_first_look_the_page_says_so_and_comes_back_soon() {
    let daemon = Daemon::start().await;
    let page = daemon.get("/").await.body;
    assert_eq!(verdict(&page), "! pgkeep: the first look at the repository is not over yet");
    assert!(page.contains("<meta http-equiv=\"refresh\" content=\"3\">"));
    daemon.shared.set_status(status(Vec::new()));
    daemon.shared.update_health(|health| health.repository_error = Some("no route".to_owned()));
    let page = daemon.get("/").await.body;
    assert_eq!(verdict(&page), "✕ pgkeep: something is wrong with the repository or this host");
    assert!(page.contains("the last look at the repository failed: no route"));
}
