//! Runs at once: as many as `daemon.concurrency` allows, and none that holds up the others.

use super::{Host, NIGHTLY, PATIENCE, page, stop, told};
use crate::support::http;
use crate::support::{Server, eventually};

#[test]
fn two_are_at_work_and_never_three_and_one_that_hangs_or_fails_holds_nobody_up() {
    let server = Server::older();
    let [hangs, fails, good] = ["turn_hangs", "turn_fails", "turn_good"].map(|name| {
        let database = server.database(name);
        database.shop(20);
        database
    });
    let host = Host::new(&server, &[&hangs, &fails, &good], "");
    let names = [&hangs.name, &fails.name, &good.name];
    host.configure(&format!("databases = {names:?}\n{NIGHTLY}\n[daemon]\nconcurrency = 2"));
    let file = |name: &str| host.keeper.work().join(name);
    let (at_work, counts, go) = (file("at-work"), file("counts"), file("go"));
    std::fs::create_dir(&at_work).expect("a directory");
    // Each writes down how many are at work when it begins; each takes long enough to be met by a third.
    let body = format!(
        "cd {work}; : >at-work/$PGDATABASE; ls at-work | wc -l >>counts
         case $PGDATABASE in
         *turn_hangs*) while [ ! -e go ]; do sleep 0.05; done ;;
         *) sleep 0.5 ;;
         esac
         case $PGDATABASE in *turn_fails*) rm at-work/$PGDATABASE; echo broken >&2; exit 1 ;; esac
         $REAL \"$@\"; code=$?; rm at-work/$PGDATABASE; exit $code",
        work = host.keeper.work().display()
    );
    let programs = host.keeper.programs_with_pg_dump(&server, &body);
    let running = super::up(host.daemon().env("PGKEEP_BIN_DIR", &programs).spawn());
    eventually("the one hangs", PATIENCE, || at_work.join(&hangs.name).exists());
    told(&running, &format!("snapshot main/{} failed", fails.name), 1);
    told(&running, &format!("snapshot main/{} done", good.name), 1);
    // It hangs on, and all else is answered.
    assert!(at_work.join(&hangs.name).exists());
    for sample in [
        "runs_active{verb=\"snapshot\",state=\"running\"} 1.0\n",
        "runs_total{verb=\"snapshot\",result=\"failed\"} 1\n",
        "runs_total{verb=\"snapshot\",result=\"succeeded\"} 1\n",
    ] {
        eventually(sample, PATIENCE, || {
            http::get(&format!("{}metrics", page(&running))).1.contains(sample)
        });
    }
    assert_eq!(http::get(&format!("{}healthz", page(&running))).0, 200);
    std::fs::write(&go, "").expect("written");
    told(&running, &format!("snapshot main/{} done", hangs.name), 1);
    stop(&host, running);
    let counts = std::fs::read_to_string(&counts).expect("they counted");
    let counts: Vec<&str> = counts.lines().map(str::trim).collect();
    assert!(counts.len() == 3 && counts.contains(&"2"), "two at once: {counts:?}");
    assert!(!counts.contains(&"3"), "never three: {counts:?}");
    assert_eq!(host.taken(), [(hangs.name.clone(), 1), (good.name.clone(), 1)].into());
}
