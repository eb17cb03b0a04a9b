//! The same stories with the repository in a bucket, over real HTTP, and accidents on the way there.
//!
//! `make test-stores` runs the first of them against other servers too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::s3_proxy::{Asked, Fault, Proxy};
use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Chance, Database, Keeper, Server, seed};

/// A server of this test's own, a proxy before it, and a keeper that goes through both.
fn scene(
    database: &Database,
    plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
) -> (S3Place, Proxy, Keeper) {
    let place = S3Place::of(S3Server::start());
    let proxy = Proxy::before(place.server().address(), plan);
    let keeper = Keeper::in_bucket(&database.url(), &place, &proxy.endpoint());
    (place, proxy, keeper)
}

/// Rows that compression cannot make much smaller.
pub(crate) fn bulk(database: &Database, megabytes: u32) {
    let rows = megabytes * 1_000_000 / 140;
    database.psql(&format!(
        "CREATE TABLE bulk AS SELECT n, md5(n::text) || md5('a' || n) || md5('b' || n) || md5('c' || n) AS noise \
         FROM generate_series(1, {rows}) AS n"
    ));
}

#[test]
fn a_lost_database_comes_back_from_a_bucket() {
    let database = Server::older().database("bucket");
    let before = database.shop(5000).contents();
    let place = S3Place::of_this_run();
    let mut keeper = Keeper::in_bucket(&database.url(), &place, &place.endpoint);
    let made = keeper.pgkeep(["init"]).run().expect_code(0);
    assert!(made.stdout.contains(&place.url()), "{}", made.stdout);
    keeper.pgkeep(["init"]).run().expect_code(0);

    // What `init` wrote is enough, with credentials alone.
    keeper.unset("PGKEEP_REPOSITORY").unset("AWS_ENDPOINT_URL").unset("AWS_REGION");
    let id = keeper.snapshot_id();
    let again = keeper.snapshot();
    assert!(again["chunks_new"].as_u64() <= Some(2), "{again:#}");
    assert_eq!(keeper.listed().len(), 2);
    keeper.verify(&["--all", "--check", "full"]);
    keeper.pgkeep(["pin", &id]).run().expect_code(0);
    keeper.pgkeep(["unpin", &id]).run().expect_code(0);

    database.drop_now();
    keeper.pgkeep(["restore", "latest"]).run().expect_code(0);
    assert_eq!(database.contents(), before);
    assert_eq!(keeper.leftovers(), [""; 0]);

    // A clean host with the recovery kit, the address and credentials.
    database.drop_now();
    let mut bare = Keeper::in_bucket(&database.url(), &place, &place.endpoint);
    let kit = bare.work().join("kit");
    std::fs::copy(keeper.recovery_kit(), &kit).expect("the kit can be copied");
    bare.set("PGKEEP_IDENTITY_FILE", &kit);
    bare.pgkeep(["restore", &id]).run().expect_code(0);
    assert_eq!(database.contents(), before);
}

#[test]
fn variables_of_an_env_file_reach_the_store() {
    let database = Server::older().database("envfile");
    let place = S3Place::of(S3Server::start());
    let mut keeper = Keeper::in_bucket(&database.shop(10).url(), &place, &place.endpoint);
    let names = ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
    let values = [&place.endpoint, &place.region, &place.access_key, &place.secret_key];
    let lines: Vec<_> = names.iter().zip(values).map(|(name, v)| format!("{name}={v}")).collect();
    let text = lines.join(
        "
",
    );
    let file = keeper.work().join("env");
    std::fs::write(&file, text).expect("written");
    for name in names {
        keeper.unset(name);
    }
    let file = file.to_str().expect("plain");
    keeper.pgkeep(["--env-file", file, "init"]).run().expect_code(0);
    keeper.pgkeep(["--env-file", file, "snapshot"]).run().expect_code(0);
}

#[test]
fn profiles_of_the_aws_files_reach_the_store() {
    let database = Server::older().database("profile");
    let place = S3Place::of(S3Server::start());
    let mut keeper = Keeper::in_bucket(&database.shop(10).url(), &place, &place.endpoint);
    keeper.unset("AWS_ACCESS_KEY_ID").unset("AWS_SECRET_ACCESS_KEY").unset("AWS_ENDPOINT_URL");
    let work = keeper.work();
    let keys = format!(
        "[backup]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        place.access_key, place.secret_key
    );
    std::fs::write(work.join("credentials"), keys).expect("written");
    let profile =
        format!("[profile backup]\nregion = us-east-1\nendpoint_url = {}\n", place.endpoint);
    std::fs::write(work.join("config"), profile).expect("written");
    keeper
        .set("AWS_SHARED_CREDENTIALS_FILE", work.join("credentials"))
        .set("AWS_CONFIG_FILE", work.join("config"))
        .set("AWS_PROFILE", "backup");
    keeper.pgkeep(["init"]).run().expect_code(0);
}

/// A service that hands out credentials and counts who asks.
fn role(place: &S3Place) -> Proxy {
    let document = format!(
        "{{\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Token\":\"t\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}",
        place.access_key, place.secret_key
    );
    Proxy::before(place.server().address(), move |_| {
        let length = document.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        Fault::Raw(format!("{head}{document}").into_bytes())
    })
}

#[test]
fn the_role_of_a_container_reaches_the_store() {
    let database = Server::older().database("role");
    let place = S3Place::of(S3Server::start());
    let mut keeper = Keeper::in_bucket(&database.shop(10).url(), &place, &place.endpoint);
    let role = role(&place);
    keeper.unset("AWS_ACCESS_KEY_ID").unset("AWS_SECRET_ACCESS_KEY");
    keeper.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/role", role.endpoint()));
    keeper.pgkeep(["init"]).run().expect_code(0);
    assert_eq!(role.asked().len(), 1, "asked once for the whole command");
}

#[test]
fn explicit_keys_ask_no_machine_for_its_role() {
    let database = Server::older().database("norole");
    let place = S3Place::of(S3Server::start());
    let mut keeper = Keeper::in_bucket(&database.shop(10).url(), &place, &place.endpoint);
    let machine = role(&place);
    keeper.unset("AWS_REGION");
    keeper.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    assert_eq!(machine.asked().len(), 0);
}

/// The checksum that a service computes of a body, as a header of a request tells it, in lower case.
fn crc32(body: &[u8]) -> String {
    use base64::Engine as _;
    let mut crc = flate2::Crc::new();
    crc.update(body);
    base64::prelude::BASE64_STANDARD.encode(crc.sum().to_be_bytes()).to_lowercase()
}

#[test]
fn requests_bear_checksums_of_their_own_only_where_that_is_configured() {
    let database = Server::older().database("checksums");
    database.shop(10);
    // An endpoint is given: without the setting it is not Amazon's service.
    for (setting, bears) in
        [(None, false), (Some("when_required"), false), (Some("when_supported"), true)]
    {
        let (_place, proxy, mut keeper) = scene(&database, |_| Fault::None);
        if let Some(value) = setting {
            keeper.set("PGKEEP__REPOSITORY__CHECKSUMS", value);
        }
        keeper.pgkeep(["init"]).run().expect_code(0);
        keeper.snapshot();
        let objects = keeper.objects();
        let mut compared = 0;
        for asked in proxy.asked() {
            let told = |name: &str| {
                let line =
                    asked.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                line.map(str::to_owned)
            };
            for never in ["x-amz-trailer", "content-encoding", "transfer-encoding", "content-md5"] {
                assert_eq!(told(never), None, "{setting:?}: {}", asked.head);
            }
            let (mode, crc) = (told("x-amz-checksum-mode"), told("x-amz-checksum-crc32"));
            match asked.kind() {
                "PUT" => {
                    // The signature covers the body in any case.
                    let digest = told("x-amz-content-sha256").expect("a digest");
                    assert!(digest.len() == 64, "{digest}");
                    assert_eq!(crc.is_some(), bears, "{setting:?}: {}", asked.head);
                    assert_eq!(told("x-amz-sdk-checksum-algorithm").is_some(), bears);
                    let path = asked.target.split('?').next().expect("a path");
                    let stored = objects.iter().find(|(key, _)| path.ends_with(key.as_str()));
                    if let (Some(crc), Some((key, file))) = (crc, stored) {
                        assert_eq!(crc, crc32(&std::fs::read(file).expect("an object")), "{key}");
                        compared += 1;
                    }
                }
                "GET" => assert_eq!(mode.is_some(), bears, "{setting:?}: {}", asked.head),
                _ => assert_eq!((mode, crc), (None, None), "{setting:?}: {}", asked.head),
            }
        }
        assert!(proxy.count("GET") > 0 && proxy.count("PUT") > 8, "{setting:?}");
        assert_eq!(compared > 8, bears, "{setting:?}: {compared}");
    }
}

#[test]
fn what_is_wrong_with_the_way_to_the_store_is_told() {
    let database = Server::older().database("wrong");
    let (place, _proxy, mut keeper) = scene(database.shop(10), |_| Fault::None);
    keeper.pgkeep(["init"]).run().expect_code(0);
    let fails = |keeper: &Keeper, words: &[&str]| {
        for verb in [&["init"][..], &["snapshot"], &["list"], &["verify"], &["snapshot", "--json"]]
        {
            let start = Instant::now();
            let output = keeper.pgkeep(verb).run().expect_failure(5, words);
            assert!(!output.stderr.contains(&place.secret_key), "{}", output.stderr);
            assert!(start.elapsed() < Duration::from_secs(20), "{verb:?}: {:?}", start.elapsed());
        }
    };
    keeper.set("AWS_SECRET_ACCESS_KEY", "wrong");
    fails(&keeper, &["refuses the credentials", "SignatureDoesNotMatch"]);
    keeper.set("AWS_ACCESS_KEY_ID", "AKIDNOBODY");
    fails(&keeper, &["refuses the credentials"]);
    keeper.set("AWS_ACCESS_KEY_ID", &place.access_key);
    keeper.set("AWS_SECRET_ACCESS_KEY", &place.secret_key);
    keeper.set("PGKEEP_REPOSITORY", "s3://no-such-bucket/here");
    fails(&keeper, &["no bucket `no-such-bucket`"]);
    keeper.set("PGKEEP_REPOSITORY", place.url());
    // The variable of the key wins over what `init` wrote down.
    keeper.set("PGKEEP__REPOSITORY__ENDPOINT", "http://127.0.0.1:1");
    fails(&keeper, &["cannot reach http://127.0.0.1:1", "refused"]);
    keeper.set("PGKEEP__REPOSITORY__ENDPOINT", place.endpoint.replace("http:", "https:"));
    fails(&keeper, &["cannot speak TLS"]);
    let region = Proxy::before(place.server().address(), |_| {
        let text = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message>\
                    <Region>eu-north-1</Region></Error>";
        Fault::Answer(400, text.to_owned())
    });
    keeper.set("PGKEEP__REPOSITORY__ENDPOINT", region.endpoint());
    fails(&keeper, &["`us-east-1` is not the region", "`eu-north-1`"]);
    keeper.set("PGKEEP__REPOSITORY__ENDPOINT", &place.endpoint);
    keeper.pgkeep(["snapshot"]).run().expect_code(0);
}

#[test]
fn no_credentials_at_all_is_told_without_a_long_wait() {
    let database = Server::older().database("nokeys");
    let (_place, _proxy, mut keeper) = scene(database.shop(10), |_| Fault::None);
    keeper.unset("AWS_ACCESS_KEY_ID").unset("AWS_SECRET_ACCESS_KEY");
    keeper.set("AWS_EC2_METADATA_DISABLED", "true");
    let start = Instant::now();
    keeper.pgkeep(["init"]).run().expect_failure(5, &["no credentials for the store"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_store_whose_clock_differs_is_told_by_check() {
    let database = Server::older().database("skewed");
    let minutes = Arc::new(Mutex::new(0));
    let ahead = Arc::clone(&minutes);
    let (_place, _proxy, keeper) = scene(database.shop(10), move |_| {
        let ahead = Duration::from_mins(*ahead.lock().expect("not poisoned"));
        let date = (jiff::Timestamp::now() + ahead).to_zoned(jiff::tz::TimeZone::UTC);
        Fault::Date(jiff::fmt::strtime::format("%a, %d %b %Y %H:%M:%S GMT", &date).expect("a date"))
    });
    keeper.pgkeep(["init"]).run().expect_code(0);
    let found = || {
        let document = keeper.pgkeep(["check", "--json"]).run().expect_code(0).json();
        let checks = document["checks"].as_array().expect("a list").clone();
        checks.into_iter().find(|check| check["name"] == "store-clock").expect("looked at")
    };
    assert_eq!(found()["result"], "ok");
    *minutes.lock().expect("not poisoned") = 5;
    let told = found();
    assert_eq!(told["result"], "warning", "{told}");
    let detail = told["detail"].as_str().expect("a line");
    assert!(detail.ends_with(" s ahead of this host's"), "{detail}");
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("clock")), "{told}");
}

#[test]
fn a_store_that_ignores_ranges_is_told_by_check() {
    let database = Server::older().database("ranges");
    let (_place, _proxy, keeper) = scene(database.shop(10), |asked| {
        if !asked.head.contains("\r\nrange: bytes=") {
            return Fault::None;
        }
        let head = "HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 4096\r\n\r\n";
        Fault::Raw([head.as_bytes(), &[0; 4096]].concat())
    });
    keeper.pgkeep(["init"]).run().expect_code(0);
    let document = keeper.pgkeep(["check", "--json"]).run().expect_code(0).json();
    let checks = document["checks"].as_array().expect("a list");
    let told = checks.iter().find(|check| check["name"] == "store-range").expect("looked at");
    assert_eq!(told["result"], "warning", "{told}");
    assert!(told["detail"].as_str().is_some_and(|text| text.contains("the whole of it")), "{told}");
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("ranges")), "{told}");
}

/// Takes the first object out of a page of a listing, which counts rightly what is left.
fn without_the_first(page: String) -> String {
    let (Some(from), Some(to)) = (page.find("<Contents>"), page.find("</Contents>")) else {
        return page;
    };
    let count = page.matches("<Contents>").count();
    format!("{}{}", &page[..from], &page[to + "</Contents>".len()..])
        .replace(&format!("<KeyCount>{count}<"), &format!("<KeyCount>{}<", count - 1))
}

#[test]
fn a_listing_that_misses_what_was_stored_makes_no_backup_and_loses_none() {
    let database = Server::older().database("missed");
    let missing = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&missing);
    let (_place, _proxy, keeper) = scene(database.shop(2000), move |asked| {
        let chunks = asked.kind() == "LIST" && asked.target.contains("chunks%2F");
        if chunks && switch.load(Ordering::Relaxed) {
            return Fault::Rewrite(Box::new(without_the_first));
        }
        Fault::None
    });
    keeper.pgkeep(["init"]).run().expect_code(0);
    // What was put is not shown: whether it is there nobody knows.
    keeper.pgkeep(["snapshot"]).run().expect_failure(3, &["was stored and is not there"]);
    missing.store(false, Ordering::Relaxed);
    assert_eq!(keeper.listed(), [""; 0]);
    let good = keeper.snapshot_id();
    // What was there before is not shown either: it is stored afresh, or there is no backup.
    missing.store(true, Ordering::Relaxed);
    let second = keeper.pgkeep(["snapshot"]).run();
    missing.store(false, Ordering::Relaxed);
    assert!([0, 3].contains(&second.code), "{}", second.stderr);
    let listed = keeper.listed();
    assert_eq!((listed.len(), listed.contains(&good)), (1 + usize::from(second.code == 0), true));
    keeper.verify(&["--all", "--check", "full"]);
}

#[test]
fn two_snapshots_at_once_into_one_bucket_are_both_good() {
    let (one, two) = (Server::older().database("twice"), Server::older().database("thrice"));
    one.shop(5000);
    two.shop(3000);
    let (_place, _proxy, keeper) = scene(&one, |_| Fault::None);
    keeper.pgkeep(["init"]).run().expect_code(0);
    let snapshot = |database: &Database| {
        keeper.pgkeep(["snapshot", &database.name]).env("PGKEEP_DATABASE_URL", database.url())
    };
    let running = [&one, &two].map(|database| snapshot(database).spawn());
    for one in running {
        one.wait().expect_code(0);
    }
    assert_eq!(keeper.listed().len(), 2);
    keeper.verify(&["--all", "--check", "full"]);
}

#[test]
fn a_rough_way_to_the_store_loses_nothing() {
    let database = Server::newer().database("rough");
    bulk(&database, 8);
    let before = database.shop(5000).contents();
    let chance = Arc::new(Mutex::new(Chance(seed("a_rough_way_to_the_store_loses_nothing"))));
    let slow_down = || Fault::Answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned());
    let inside = || Fault::Answer(200, "<Error><Code>InternalError</Code></Error>".to_owned());
    let (_place, proxy, mut keeper) = scene(&database, move |_| {
        let mut chance = chance.lock().expect("not poisoned");
        match chance.below(24) {
            0 => slow_down(),
            1 => Fault::Cut,
            2 => Fault::LoseReply,
            3 => Fault::Truncate(chance.below(200_000)),
            4 => inside(),
            5 if chance.below(10) == 0 => Fault::Stall,
            _ => Fault::None,
        }
    });
    keeper.set("PGKEEP__REPOSITORY__RETRY_FOR", "60s");
    keeper.pgkeep(["init"]).run().expect_code(0);
    let first = keeper.snapshot_id();
    keeper.snapshot();
    assert_eq!(keeper.listed().len(), 2);
    keeper.verify(&["--check", "full"]);
    database.drop_now();
    keeper.pgkeep(["restore", &first]).run().expect_code(0);
    assert_eq!(database.contents(), before);
    assert!(proxy.asked().len() > 60);
}

#[test]
fn a_store_that_dies_midway_leaves_nothing_half_made() {
    let database = Server::older().database("dies");
    bulk(&database, 20);
    let dead = Arc::new(AtomicBool::new(false));
    let (switch, puts) = (Arc::clone(&dead), Arc::new(Mutex::new(0)));
    let (_place, _proxy, keeper) = scene(&database, move |asked| {
        if asked.kind() == "PUT" && asked.target.contains("/chunks/") {
            let mut puts = puts.lock().expect("not poisoned");
            *puts += 1;
            if *puts == 5 {
                switch.store(true, Ordering::Relaxed);
            }
        }
        if switch.load(Ordering::Relaxed) { Fault::Cut } else { Fault::None }
    });
    keeper.pgkeep(["init"]).run().expect_code(0);
    keeper.pgkeep(["snapshot"]).run().expect_failure(5, &[]);
    assert_eq!(database.server.databases_like(&database.name), [&*database.name]);
    dead.store(false, Ordering::Relaxed);
    assert_eq!(keeper.listed(), [""; 0]);
    keeper.snapshot();
    keeper.verify(&["--check", "full"]);
}

#[test]
fn memory_stays_bounded_when_the_store_is_slower_than_the_dump() {
    let database = Server::newer().database("memory");
    bulk(&database, 200);
    let place = S3Place::of(S3Server::start());
    let proxy = Proxy::before(place.server().address(), |_| Fault::None).with_upload_rate(12 << 20);
    let mut keeper = Keeper::in_bucket(&database.url(), &place, &proxy.endpoint());
    keeper.set("PGKEEP__REPOSITORY__IDLE_TIMEOUT", "30s");
    keeper.pgkeep(["init"]).run().expect_code(0);
    let start = Instant::now();
    let (output, peak) = keeper.pgkeep(["snapshot", "--json"]).spawn().wait_and_weigh();
    let document = output.expect_code(0).json();
    let stored = document["stored_bytes"].as_u64().expect("a size") >> 20;
    assert!(stored > 80, "{stored} MiB stored");
    let seconds = start.elapsed().as_secs();
    assert!(seconds > 5, "the store was not the slower one: {seconds} s");
    assert!(peak < 180, "{peak} MiB at most, {stored} MiB stored in {seconds} s");
    let number = |key: &str| document[key].as_u64().expect("a number");
    let [megabytes, chunks] = [number("source_bytes") / 1_000_000, number("chunks_total")];
    let [puts, gets, lists, deletes] =
        ["PUT", "GET", "LIST", "DELETE"].map(|kind| proxy.count(kind) as u64);
    let told = format!(
        "peak {peak} MiB; {megabytes} MB in {chunks} chunks, {stored} MiB stored in {seconds} s; with `init`: \
         {puts} puts, {gets} gets, {lists} lists, {deletes} deletes"
    );
    println!("{told}");
    // Where a dump is cut follows from its bytes, and those from the server's version and the time of day.
    let documented = documented_costs();
    let about = |told: u64, now: u64| told.abs_diff(now) <= told / 10;
    assert!(about(documented.megabytes, megabytes) && about(documented.chunks, chunks), "{told}");
    assert!(about(documented.stored, stored), "{told}");
    assert_eq!(documented.puts - documented.chunks, puts - chunks, "{told}");
    assert_eq!((documented.gets, documented.deletes), (gets, deletes), "{told}");
    // Hardly ever does no name of a chunk begin with one of the digits.
    assert!((documented.lists - 1..=documented.lists).contains(&lists), "{told}");
}

/// What docs/operations.md says that `init` and a first snapshot cost.
struct Costs {
    megabytes: u64,
    chunks: u64,
    stored: u64,
    puts: u64,
    gets: u64,
    lists: u64,
    deletes: u64,
}

fn documented_costs() -> Costs {
    let docs = include_str!("../../docs/operations.md");
    let (_, rest) = docs.split_once("**What it costs.**").expect("the paragraph");
    let (sentence, _) = rest.split_once(" deletes").expect("its figures");
    let figures: Vec<u64> = sentence
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [megabytes, chunks, stored, puts, gets, lists, deletes] = figures[..] else {
        panic!("other figures than these: {figures:?}")
    };
    Costs { megabytes, chunks, stored, puts, gets, lists, deletes }
}

#[test]
fn a_distant_store_has_many_requests_in_flight() {
    let database = Server::older().database("distant");
    bulk(&database, 60);
    let place = S3Place::of(S3Server::start());
    // Far enough that what is under way shows pgkeep's bounds, and not how busy this machine is.
    let latency = Duration::from_millis(250);
    let proxy = Proxy::before(place.server().address(), |_| Fault::None).with_latency(latency);
    let keeper = Keeper::in_bucket(&database.url(), &place, &proxy.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    let deletes = proxy.count("DELETE");
    let document = keeper.snapshot();
    assert_eq!(proxy.count("DELETE"), deletes, "who takes snapshots needs no right to delete");
    let in_flight = proxy.in_flight_max();
    assert!(in_flight >= 12, "{in_flight} puts at once");
    // One put a chunk, and few requests beside.
    let chunks =
        usize::try_from(document["chunks_total"].as_u64().expect("a number")).expect("few");
    let asked = proxy.asked();
    let of = |kind: &str| asked.iter().filter(|one| one.kind() == kind).count();
    let told = format!(
        "{} MB in {chunks} chunks: {} puts, {} gets, {} lists, {} deletes; {in_flight} at once",
        document["source_bytes"].as_u64().expect("a size") / 1_000_000,
        of("PUT"),
        of("GET"),
        of("LIST"),
        of("DELETE"),
    );
    assert!(asked.len() < chunks + 100, "{told}");

    let gets = Proxy::before(place.server().address(), |_| Fault::None).with_latency(latency);
    database.drop_now();
    keeper
        .pgkeep(["restore", "latest"])
        .env("PGKEEP__REPOSITORY__ENDPOINT", gets.endpoint())
        .run()
        .expect_code(0);
    assert!(gets.in_flight_max() >= 8, "{} gets at once", gets.in_flight_max());
    // docs/operations.md tells it.
    println!(
        "{told}; restore: {} gets, {} lists, {} at once",
        gets.count("GET"),
        gets.count("LIST"),
        gets.in_flight_max()
    );
}
