//! The S3 store over real HTTP: the contract, and one test for every accident on the way to a service.
//!
//! They need no PostgreSQL. `make test-stores` runs the contract against other servers (`TEST_S3_ENDPOINT`).

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::TryStreamExt as _;
use pgkeep::domain::failure::Failure as _;
use pgkeep::domain::key::ObjectKey;
use pgkeep::store::contract::{self, OtherContent};
use pgkeep::store::s3::{GivenCredentials, Limits, S3Options, S3Store};
use pgkeep::store::service::ServiceFault;
use pgkeep::store::{ObjectStore, StoreError};

use s3_proxy::{Asked, Fault, Proxy};
use s3_server::{S3Place, S3Server};

#[path = "it/support/s3_proxy.rs"]
mod s3_proxy;
#[path = "it/support/s3_server.rs"]
mod s3_server;

/// Patience of a test: faults are over soon or never.
fn impatient() -> Limits {
    Limits {
        connect: Duration::from_millis(200),
        idle: Duration::from_millis(400),
        retry_for: Duration::from_secs(3),
        pause: Duration::from_millis(5),
        ..Limits::default()
    }
}

fn options(place: &S3Place, endpoint: &str) -> S3Options {
    let mut options = S3Options::new(&place.bucket, &place.prefix);
    options.endpoint = Some(endpoint.to_owned());
    options.region = Some(place.region.clone());
    options.credentials = Some(GivenCredentials {
        access_key_id: place.access_key.clone(),
        secret_access_key: place.secret_key.clone(),
        session_token: None,
    });
    options.limits = impatient();
    options
}

/// A server, a proxy before it with a plan, and a store that speaks through it.
struct Scene {
    place: S3Place,
    proxy: Proxy,
    store: S3Store,
}

impl Scene {
    fn with(plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static) -> Self {
        let place = S3Place::of(S3Server::start());
        let proxy = Proxy::before(place.server().address(), plan);
        let store = S3Store::new(options(&place, &proxy.endpoint()));
        Self { place, proxy, store }
    }

    /// The first `times` requests of a kind meet a fault.
    fn failing(
        kind: &'static str,
        times: usize,
        fault: impl Fn() -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::with(
            move |asked| {
                if asked.kind() == kind && asked.nth <= times { fault() } else { Fault::None }
            },
        )
    }

    /// What lies in the bucket under that key.
    fn object(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.place.server().bucket().join(&self.place.prefix).join(name);
        std::fs::read(path).ok()
    }

    /// Puts an object past the proxy.
    fn lay(&self, name: &str, content: &[u8]) {
        let path = self.place.server().bucket().join(&self.place.prefix).join(name);
        std::fs::create_dir_all(path.parent().expect("below the bucket")).expect("a directory");
        std::fs::write(path, content).expect("an object");
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let all: Vec<_> = self.store.list(prefix).try_collect().await?;
        Ok(all.into_iter().map(|object| object.key.to_string()).collect())
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).expect("a key")
}

fn content(length: usize) -> Bytes {
    (0_u8..251).cycle().take(length).collect()
}

fn fault(error: StoreError) -> ServiceFault {
    match error {
        StoreError::Service { fault, .. } => fault,
        other => panic!("no fault of the service: {other:?}"),
    }
}

fn xml(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
}

#[tokio::test]
async fn the_s3_store_keeps_the_contract() {
    let place = S3Place::of_this_run();
    let mut options = options(&place, &place.endpoint);
    options.limits = Limits::default();
    contract::run(&S3Store::new(options), OtherContent::Unseen).await;
}

#[tokio::test]
async fn a_listing_of_thousands_names_each_once_and_pages_through() {
    let scene = Scene::with(|_| Fault::None);
    for n in 0..2500 {
        scene.lay(&format!("l/{n:04}"), b"x");
    }
    let mut names = scene.list("l/").await.expect("a listing");
    names.dedup();
    assert_eq!(names.len(), 2500);
    // A page that took too long on a busy machine is asked for again.
    assert!(scene.proxy.count("LIST") >= 3);
}

/// One accident at each kind of call, three times in a row: the call succeeds all the same, once.
async fn survived(fault: impl Fn() -> Fault + Clone + Send + Sync + 'static) {
    let put = Scene::failing("PUT", 3, fault.clone());
    put.store.put(&key("a"), content(10_000)).await.expect("put");
    assert_eq!(put.object("a").expect("there"), content(10_000));
    assert_eq!(put.proxy.count("PUT"), 4);

    let get = Scene::failing("GET", 3, fault.clone());
    get.lay("a", &content(10_000));
    assert_eq!(get.store.get(&key("a")).await.expect("get"), content(10_000));
    assert_eq!(get.proxy.count("GET"), 4);

    let list = Scene::failing("LIST", 3, fault.clone());
    list.lay("a", b"x");
    assert_eq!(list.list("").await.expect("list"), ["a"]);
    assert_eq!(list.proxy.count("LIST"), 4);

    let delete = Scene::failing("DELETE", 3, fault);
    delete.lay("a", b"x");
    delete.store.delete(&key("a")).await.expect("delete");
    assert_eq!(delete.object("a"), None);
    assert_eq!(delete.proxy.count("DELETE"), 4);
}

#[tokio::test]
async fn a_storm_of_503_is_waited_out() {
    survived(|| Fault::Answer(503, xml("SlowDown", "Please reduce your request rate."))).await;
}

#[tokio::test]
async fn connections_that_are_reset_are_made_again() {
    survived(|| Fault::Cut).await;
}

#[tokio::test]
async fn a_reply_that_was_lost_after_success_ends_in_success() {
    survived(|| Fault::LoseReply).await;
}

#[tokio::test]
async fn a_store_that_stops_answering_is_asked_again() {
    survived(|| Fault::Stall).await;
}

#[tokio::test]
async fn bad_gateways_without_a_document_are_waited_out() {
    survived(|| Fault::Answer(502, "<html>bad gateway</html>".to_owned())).await;
}

#[tokio::test]
async fn an_error_with_the_status_of_success_is_no_success() {
    survived(|| Fault::Answer(200, xml("InternalError", "We encountered an internal error.")))
        .await;
    // One that would be final under a status of its own may be gone the next time.
    let odd = Scene::failing("PUT", 2, || Fault::Answer(200, xml("Unheard", "of")));
    odd.store.put(&key("a"), content(10)).await.expect("put");
    // And where it never ends, it is an error.
    for kind in ["PUT", "GET", "LIST", "DELETE"] {
        let body = || Fault::Answer(200, xml("InternalError", "again"));
        let scene = Scene::failing(kind, usize::MAX, body);
        let error = match kind {
            "PUT" => scene.store.put(&key("a"), content(10)).await.expect_err("no success"),
            "GET" => scene.store.get(&key("a")).await.expect_err("no success"),
            "LIST" => scene.list("").await.expect_err("no success"),
            _ => scene.store.delete(&key("a")).await.expect_err("no success"),
        };
        let fault = fault(error);
        let told = matches!(fault, ServiceFault::Other { .. } | ServiceFault::Answer(_));
        assert!(told, "{kind}: {fault:?}");
    }
}

#[tokio::test]
async fn a_put_that_is_answered_with_something_else_is_not_done() {
    let scene = Scene::failing("PUT", usize::MAX, || Fault::Answer(200, "welcome".to_owned()));
    let error = scene.store.put(&key("a"), content(10)).await.expect_err("no store said so");
    assert!(matches!(fault(error), ServiceFault::Answer(words) if words.contains("ETag")));
}

#[tokio::test]
async fn a_body_that_ends_early_is_read_on_from_where_it_was() {
    let scene = Scene::failing("GET", 3, || Fault::Truncate(300_000));
    scene.lay("a", &content(1_000_000));
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(1_000_000));
    let asked = scene.proxy.asked();
    let ranges: Vec<_> = asked.iter().map(|one| one.head.contains("range: bytes=")).collect();
    assert_eq!(ranges, [false, true, true, true]);
    assert!(asked[1..].iter().all(|one| one.head.contains("if-match: ")), "bound to one object");
}

#[tokio::test]
async fn a_body_that_stalls_is_read_on_from_where_it_was() {
    let scene = Scene::failing("GET", 2, || Fault::StallAfter(300_000));
    scene.lay("a", &content(1_000_000));
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(1_000_000));
    assert!(scene.proxy.asked()[2].head.contains("range: bytes=600000-"));
}

#[tokio::test]
async fn an_answer_that_comes_slowly_is_waited_for_as_long_as_it_goes_on() {
    // Each pause is within the idle time, all of them together are far beyond it.
    let scene = Scene::failing("GET", 1, || Fault::Trickle(25, Duration::from_millis(100)));
    scene.lay("a", &content(1_000_000));
    let mut options = options(&scene.place, &scene.proxy.endpoint());
    // Not so little that a busy machine could take a pause for silence.
    options.limits.idle = Duration::from_secs(1);
    let store = S3Store::new(options);
    assert_eq!(store.get(&key("a")).await.expect("get"), content(1_000_000));
    assert_eq!(scene.proxy.count("GET"), 1, "nothing was asked for twice");
}

#[tokio::test]
async fn an_answer_that_drips_is_given_up_however_steadily_it_comes() {
    // A byte at a time keeps the idle deadline: heads come within half a minute, bodies within hours.
    let pause = Duration::from_millis(100);
    let (head, body) = (move || Fault::Drip(pause), move || Fault::Trickle(usize::MAX, pause));
    // An attempt's total deadline is twice the idle one, which is not so little that a busy machine could pause for
    // as long, and what bytes take on a fast line.
    let limits = Limits {
        idle: Duration::from_secs(1),
        slowest: 1 << 30,
        retry_for: Duration::from_secs(1),
        ..impatient()
    };
    let given_up = |kind: &'static str,
                    ranged: bool,
                    plan: Box<dyn Fn() -> Fault + Send + Sync>| async move {
        let scene = Scene::failing(kind, usize::MAX, plan);
        scene.lay("a", &content(1_000_000));
        let mut options = options(&scene.place, &scene.proxy.endpoint());
        options.limits = limits;
        let store = S3Store::new(options);
        let call = async {
            match kind {
                "PUT" => store.put(&key("b"), content(10)).await,
                "GET" if ranged => store.get_range(&key("a"), 0..900_000).await.map(drop),
                "GET" => store.get(&key("a")).await.map(drop),
                "LIST" => store.list("").try_collect::<Vec<_>>().await.map(drop),
                _ => store.delete(&key("a")).await,
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(15), call).await;
        let error = ended.unwrap_or_else(|_| panic!("{kind} goes on")).expect_err("never whole");
        assert!(error.hint().is_some_and(|hint| hint.contains("retry_for")), "{error}");
        assert!(scene.proxy.count(kind) >= 2, "{kind} is asked for again");
        fault(error)
    };
    let (put, get, list, delete, body_of_get, body_of_range, body_of_list) = tokio::join!(
        given_up("PUT", false, Box::new(head)),
        given_up("GET", false, Box::new(head)),
        given_up("LIST", false, Box::new(head)),
        given_up("DELETE", false, Box::new(head)),
        given_up("GET", false, Box::new(body)),
        given_up("GET", true, Box::new(body)),
        given_up("LIST", false, Box::new(body)),
    );
    for fault in [put, get, list, delete, body_of_list] {
        assert!(matches!(fault, ServiceFault::Silent(_)), "{fault:?}");
    }
    for fault in [body_of_get, body_of_range] {
        let ServiceFault::Slow { have, total, .. } = fault else { panic!("{fault:?}") };
        assert!((1..1000).contains(&have) && total >= 900_000, "{fault}");
    }
}

#[tokio::test]
async fn a_line_that_breaks_again_and_again_brings_all_of_it_as_long_as_some_comes() {
    // More failures than patience has room for, were they not forgotten with each part that comes.
    let scene = Scene::failing("GET", 40, || Fault::Truncate(20_000));
    scene.lay("a", &content(1_000_000));
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(1_000_000));
    assert_eq!(scene.proxy.count("GET"), 41);
}

#[tokio::test]
async fn connections_that_rested_for_long_are_not_used_again() {
    let place = S3Place::of(S3Server::start());
    for (rest, connections) in [(Duration::from_mins(1), 1), (Duration::from_millis(50), 3)] {
        let proxy = Proxy::before(place.server().address(), |_| Fault::None);
        let mut options = options(&place, &proxy.endpoint());
        // Services close theirs after a while, and answer nothing to what is under way then.
        options.limits = Limits { rest, ..Limits::default() };
        let store = S3Store::new(options);
        for _ in 0..3 {
            store.put(&key("a"), content(10)).await.expect("put");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(proxy.connections(), connections, "{rest:?}");
    }
    assert!(Limits::default().rest < Duration::from_secs(20), "shorter than services' own");
}

#[tokio::test]
async fn what_keeps_breaking_at_the_same_place_is_given_up() {
    // With nothing of the body ever coming, there is no progress to hope for.
    let scene = Scene::failing("GET", usize::MAX, || Fault::Truncate(0));
    scene.lay("a", &content(1000));
    let start = Instant::now();
    let error = scene.store.get(&key("a")).await.expect_err("never whole");
    assert!(matches!(fault(error), ServiceFault::Lost(_)));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn an_object_that_changes_between_two_ranges_is_read_anew() {
    let other: Bytes = content(1_000_001).slice(1..);
    let (place, changed) = (Arc::new(OnceLock::<PathBuf>::new()), other.clone());
    let path = Arc::clone(&place);
    let scene = Scene::with(move |asked| match asked.nth {
        1 => Fault::Truncate(300_000),
        2 => {
            // All at once: half a file would be read as such.
            let path = path.get().expect("it is laid");
            let new = path.with_extension("new");
            std::fs::write(&new, &changed)
                .and_then(|()| std::fs::rename(&new, path))
                .expect("changed");
            Fault::None
        }
        _ => Fault::None,
    });
    scene.lay("a", &content(1_000_000));
    let own = &scene.place;
    place.set(own.server().bucket().join(&own.prefix).join("a")).expect("set once");
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), other, "never half of each");
}

/// An answer to a get, made by hand.
fn raw(head: &str, body: &[u8]) -> Fault {
    let mut answer =
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    Fault::Raw(answer)
}

#[tokio::test]
async fn a_range_that_is_ignored_is_noticed() {
    // Some services answer a range with the whole: it must not be put behind what came before.
    let scene = Scene::with(|asked| match asked.nth {
        1 => Fault::Truncate(1000),
        _ => raw("200 OK\r\netag: \"whole\"", &content(5000)),
    });
    scene.lay("a", &content(5000));
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(5000));
    assert_eq!(scene.proxy.count("GET"), 2, "the whole was taken for what it is");
    // Others with another range than the one that was asked for.
    let scene = Scene::with(|asked| match asked.nth {
        1 => Fault::Truncate(1000),
        2 => raw(
            "206 Partial Content\r\netag: \"x\"\r\ncontent-range: bytes 0-4999/5000",
            &content(5000),
        ),
        _ => Fault::None,
    });
    scene.lay("a", &content(5000));
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(5000));
    // With the very tag of what came before, it is the range alone that tells.
    let cut = || {
        let head = b"HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 5000\r\n\r\n";
        Fault::Raw([&head[..], &content(1000)].concat())
    };
    for second in ["206 Partial Content\r\ncontent-range: bytes 0-3999/5000", "200 OK"] {
        let scene = Scene::with(move |asked| match asked.nth {
            1 => cut(),
            2 => raw(&format!("{second}\r\netag: \"x\""), &content(4000)),
            _ => raw("200 OK\r\netag: \"x\"", &content(5000)),
        });
        let got = scene.store.get(&key("a")).await.expect("get");
        let whole = if second == "200 OK" { 4000 } else { 5000 };
        assert_eq!(got, content(whole), "{second}: never one part behind another");
    }
}

#[tokio::test]
async fn another_object_in_the_place_of_the_rest_is_noticed_without_the_service() {
    // A service that ignores `If-Match` gives the rest of whatever lies there now.
    let scene = Scene::with(|asked| match asked.nth {
        1 => Fault::Truncate(1000),
        2 => raw(
            "206 Partial Content\r\netag: \"another\"\r\ncontent-range: bytes 1000-4999/5000",
            &vec![b'x'; 4000],
        ),
        _ => Fault::None,
    });
    scene.lay("a", &content(5000));
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(5000));
    assert_eq!(scene.proxy.count("GET"), 3);
}

#[tokio::test]
async fn a_part_that_is_answered_with_anything_else_is_told_as_such() {
    let whole = || raw("200 OK\r\netag: \"x\"", &content(5000));
    let shifted = || {
        let head = "206 Partial Content\r\netag: \"x\"\r\ncontent-range: bytes 0-99/5000";
        raw(head, &content(100))
    };
    let longer = || {
        let head = "206 Partial Content\r\netag: \"x\"\r\ncontent-range: bytes 100-199/5000";
        raw(head, &content(150))
    };
    for (made, words) in [
        (Box::new(whole) as Box<dyn Fn() -> Fault + Send + Sync>, "the whole of it"),
        (Box::new(shifted), "another one"),
        (Box::new(longer), "another one"),
    ] {
        let scene = Scene::with(move |_| made());
        let error = scene.store.get_range(&key("a"), 100..200).await.expect_err("another part");
        assert_eq!(fault(error), ServiceFault::Range(words));
        assert_eq!(scene.proxy.count("GET"), 1, "asked once");
    }
    // What is on the way is tried again as ever.
    let scene = Scene::failing("GET", 2, || Fault::Truncate(10));
    scene.lay("a", &content(5000));
    let part = scene.store.get_range(&key("a"), 100..200).await.expect("a part");
    assert_eq!(part, content(5000).slice(100..200));
    assert_eq!(scene.proxy.count("GET"), 3);
}

#[tokio::test]
async fn a_page_boundary_that_repeats_is_named_once() {
    let scene = Scene::with(|asked| {
        if asked.kind() != "LIST" || !asked.target.contains("continuation-token") {
            return Fault::None;
        }
        Fault::Rewrite(Box::new(|page| {
            let at = page.find("<Contents>").expect("a page has objects");
            let count = page.matches("<Contents>").count();
            let (before, after) = page.split_at(at);
            let last = after.split("</Contents>").next().expect("an object");
            let number: usize =
                last.split("/l/").nth(1).expect("a key")[..4].parse().expect("a number");
            let again = last.replace(&format!("{number:04}"), &format!("{:04}", number - 1));
            format!("{before}{again}</Contents>{after}")
                .replace(&format!("<KeyCount>{count}<"), &format!("<KeyCount>{}<", count + 1))
        }))
    });
    for n in 0..1500 {
        scene.lay(&format!("l/{n:04}"), b"x");
    }
    let wanted: Vec<_> = (0..1500).map(|n| format!("l/{n:04}")).collect();
    assert_eq!(scene.list("l/").await.expect("a listing"), wanted);
}

/// A listing whose pages are changed is an error, never short.
async fn never_short(change: fn(String) -> String) {
    let scene = Scene::with(move |asked| {
        if asked.kind() == "LIST" { Fault::Rewrite(Box::new(change)) } else { Fault::None }
    });
    for n in 0..1500 {
        scene.lay(&format!("l/{n:04}"), b"x");
    }
    let error = scene.list("l/").await.expect_err("not complete");
    assert!(matches!(fault(error), ServiceFault::Answer(_)));
}

#[tokio::test]
async fn a_listing_without_the_way_to_its_next_page_is_an_error() {
    never_short(|page| {
        let Some((before, rest)) = page.split_once("<NextContinuationToken>") else { return page };
        let (_, after) = rest.split_once("</NextContinuationToken>").expect("closed");
        format!("{before}{after}")
    })
    .await;
}

#[tokio::test]
async fn a_listing_that_goes_round_is_an_error() {
    never_short(|page| {
        let Some((before, rest)) = page.split_once("<IsTruncated>false") else { return page };
        format!("{before}<IsTruncated>true{rest}").replace(
            "</ListBucketResult>",
            "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>",
        )
    })
    .await;
}

#[tokio::test]
async fn a_page_that_is_cut_inside_is_an_error() {
    never_short(|page| page[..page.len() / 2].to_owned()).await;
    never_short(|page| match page.rfind("<Contents>") {
        Some(at) => {
            let end = page[at..].find("</Contents>").expect("closed") + at + "</Contents>".len();
            format!("{}{}", &page[..at], &page[end..])
        }
        None => page,
    })
    .await;
}

#[tokio::test]
async fn faults_that_stay_end_within_bounds_with_their_name() {
    for (make, name) in [
        (
            Box::new(|| Fault::Answer(503, xml("SlowDown", "")))
                as Box<dyn Fn() -> Fault + Send + Sync>,
            "Overloaded",
        ),
        (Box::new(|| Fault::Cut), "Lost"),
        (Box::new(|| Fault::Stall), "Silent"),
    ] {
        let scene = Scene::with(move |_| make());
        let start = Instant::now();
        let error = scene.store.put(&key("a"), content(10)).await.expect_err("it stays");
        assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("retry_for"), "{error:?}: {hint}");
        assert!(format!("{:?}", fault(error)).starts_with(name), "{name}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_soon_with_the_address() {
    let place = S3Place::of(S3Server::start());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let mut options = options(&place, &endpoint);
    options.limits.retry_for = Duration::from_mins(2);
    let start = Instant::now();
    let error = S3Store::new(options).get(&key("a")).await.expect_err("nobody listens");
    assert!(start.elapsed() < Duration::from_secs(5));
    let fault = fault(error);
    assert!(
        matches!(&fault, ServiceFault::Unreachable { endpoint: e, .. } if *e == endpoint),
        "{fault:?}"
    );
}

#[tokio::test]
async fn tls_to_a_server_without_it_is_told_as_such() {
    let place = S3Place::of(S3Server::start());
    let endpoint = place.endpoint.replace("http://", "https://");
    let error = S3Store::new(options(&place, &endpoint)).get(&key("a")).await.expect_err("no TLS");
    assert!(matches!(fault(error), ServiceFault::Tls { .. }));
}

/// A certificate of its own authority for 127.0.0.1, made by stock `openssl`: the server's side, and the PEM.
fn certificate(
    directory: &std::path::Path,
) -> (std::sync::Arc<rustls::ServerConfig>, std::path::PathBuf) {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let (pem, key) = (directory.join("ca.pem"), directory.join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&pem)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl runs: `tests/setup test` installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let chain = vec![CertificateDer::from_pem_file(&pem).expect("a certificate")];
    let private = PrivateKeyDer::from_pem_file(&key).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .expect("a server");
    (std::sync::Arc::new(config), pem)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_named_and_only_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let (tls, pem) = certificate(directory.path());
    let place = S3Place::of(S3Server::start());
    let proxy = Proxy::secure(place.server().address(), tls);
    let endpoint = proxy.endpoint().replace("http:", "https:");
    let mut options = options(&place, &endpoint);
    options.limits = Limits::default();
    let error = S3Store::new(options.clone()).get(&key("a")).await.expect_err("not trusted");
    assert!(matches!(fault(error), ServiceFault::Tls { .. }));
    options.ca_bundle = Some(pem);
    let store = S3Store::new(options.clone());
    store.put(&key("a"), content(300_000)).await.expect("put");
    assert_eq!(store.get(&key("a")).await.expect("get"), content(300_000));
    options.ca_bundle = Some(directory.path().join("absent.pem"));
    let error = S3Store::new(options).get(&key("a")).await.expect_err("no such file");
    assert!(matches!(fault(error), ServiceFault::Settings(words) if words.contains("absent.pem")));
}

#[tokio::test]
async fn wrong_credentials_are_told_at_once() {
    let scene = Scene::with(|_| Fault::None);
    let mut wrong = options(&scene.place, &scene.proxy.endpoint());
    let given = wrong.credentials.as_mut().expect("given");
    "not it".clone_into(&mut given.secret_access_key);
    let error = S3Store::new(wrong.clone()).put(&key("a"), content(1)).await.expect_err("refused");
    assert!(matches!(fault(error), ServiceFault::Credentials(_)));
    let given = wrong.credentials.as_mut().expect("given");
    "AKIDNOBODY".clone_into(&mut given.access_key_id);
    let error = S3Store::new(wrong).put(&key("a"), content(1)).await.expect_err("refused");
    assert!(matches!(fault(error), ServiceFault::Credentials(_)));
    assert_eq!(scene.proxy.asked().len(), 2, "asked once each");
}

#[tokio::test]
async fn a_signature_that_is_refused_once_is_tried_again() {
    let scene = Scene::with(|asked| match (asked.kind(), asked.nth) {
        ("PUT", 2) => Fault::Answer(403, xml("SignatureDoesNotMatch", "odd")),
        _ => Fault::None,
    });
    scene.store.put(&key("a"), content(1)).await.expect("put");
    scene.store.put(&key("b"), content(1)).await.expect("put");
}

#[tokio::test]
async fn no_bucket_is_told_by_its_name() {
    let scene = Scene::with(|_| Fault::None);
    let mut options = options(&scene.place, &scene.place.endpoint);
    "nowhere".clone_into(&mut options.bucket);
    let store = S3Store::new(options);
    let wanted = ServiceFault::NoBucket("nowhere".to_owned());
    assert_eq!(fault(store.put(&key("a"), content(1)).await.expect_err("put")), wanted);
    assert_eq!(fault(store.get(&key("a")).await.expect_err("get")), wanted);
    let listed: Result<Vec<_>, _> = store.list("").try_collect().await;
    assert_eq!(fault(listed.expect_err("list")), wanted);
    assert_eq!(fault(store.delete(&key("a")).await.expect_err("delete")), wanted);
}

#[tokio::test]
async fn a_wrong_region_is_told_with_the_right_one() {
    let body = xml("AuthorizationHeaderMalformed", "the region is wrong")
        .replace("</Error>", "<Region>eu-central-2</Region></Error>");
    let scene = Scene::with(move |_| Fault::Answer(400, body.clone()));
    let error = scene.store.get(&key("a")).await.expect_err("another region");
    assert_eq!(
        error.hint().as_deref(),
        Some("set repository.region (or AWS_REGION) to `eu-central-2`")
    );
    assert_eq!(scene.proxy.asked().len(), 1);
}

#[tokio::test]
async fn what_is_forbidden_is_told_with_action_and_key() {
    let scene = Scene::with(|_| Fault::Answer(403, xml("AccessDenied", "Access Denied")));
    let full = format!("backups/{}/a", scene.place.prefix);
    for (action, resource, error) in [
        ("s3:PutObject", &*full, scene.store.put(&key("a"), content(1)).await.expect_err("put")),
        ("s3:GetObject", &full, scene.store.get(&key("a")).await.expect_err("get")),
        ("s3:DeleteObject", &full, scene.store.delete(&key("a")).await.expect_err("delete")),
        ("s3:ListBucket", "backups", scene.list("").await.expect_err("list")),
    ] {
        let ServiceFault::Denied { action: told, resource: on, .. } = fault(error) else {
            panic!("{action}: not denied");
        };
        assert_eq!((told, &*on), (action, resource));
    }
}

#[tokio::test]
async fn clocks_that_differ_are_told_with_the_difference() {
    let body = xml("RequestTimeTooSkewed", "The difference is too large.");
    let head =
        "403 Forbidden\r\ndate: Tue, 06 Jan 2015 00:00:00 GMT\r\ncontent-type: application/xml";
    let scene = Scene::with(move |_| raw(head, body.as_bytes()));
    let error = scene.store.get(&key("a")).await.expect_err("skewed");
    let told = fault(error).to_string();
    assert!(
        told.starts_with("this host's clock and the store's differ: this host's is "),
        "{told}"
    );
    assert!(told.ends_with(" h ahead"), "{told}");
    assert_eq!(
        scene.proxy.asked().len(),
        4,
        "the client learns the service's time and tries again"
    );
    let signed = |n: usize| scene.proxy.asked()[n].head.contains("x-amz-date: 2015010");
    assert_eq!((signed(0), signed(1)), (false, true));
}

#[tokio::test]
async fn conditional_headers_and_multipart_are_not_relied_on() {
    let scene = Scene::with(|_| Fault::None);
    scene.store.put(&key("a"), content(8 << 20)).await.expect("put");
    scene.store.put(&key("a"), content(8 << 20)).await.expect("put again");
    assert_eq!(scene.store.get(&key("a")).await.expect("get"), content(8 << 20));
    scene.list("").await.expect("list");
    scene.store.delete(&key("a")).await.expect("delete");
    for one in scene.proxy.asked() {
        for word in ["if-none-match", "if-match", "uploads", "aws-chunked", "x-amz-checksum"] {
            assert!(!one.head.contains(word), "{word}: {}", one.head);
        }
        let ways = ["PUT", "GET", "LIST", "DELETE"];
        assert!(ways.contains(&one.kind()), "{}", one.target);
    }
}

#[tokio::test]
async fn an_object_too_large_is_refused_before_it_is_read() {
    let length = pgkeep::store::s3::OBJECT_MAX + 1;
    let head = format!("HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: {length}\r\n\r\n");
    let scene = Scene::with(move |_| Fault::Raw(head.clone().into_bytes()));
    let error = scene.store.get(&key("huge")).await.expect_err("huge");
    assert!(matches!(fault(error), ServiceFault::TooLarge { .. }));
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_for_their_turn() {
    let place = S3Place::of(S3Server::start());
    let proxy = Proxy::before(place.server().address(), |_| Fault::None)
        .with_latency(Duration::from_millis(30));
    let mut options = options(&place, &proxy.endpoint());
    options.limits = Limits { calls: 8, ..Limits::default() };
    let store = S3Store::new(options);
    let puts = (0..64).map(|n| {
        let store = &store;
        async move { store.put(&key(&format!("n/{n}")), content(1000)).await }
    });
    for result in futures::future::join_all(puts).await {
        result.expect("put");
    }
    assert_eq!(proxy.in_flight_max(), 8);
}

#[tokio::test]
async fn the_password_of_nobody_is_in_a_message() {
    let scene = Scene::with(|_| Fault::Answer(403, xml("SignatureDoesNotMatch", "no")));
    let error = scene.store.get(&key("a")).await.expect_err("refused");
    let told = format!("{error:?} {error} {:?} {:?}", error.hint(), scene.store);
    assert!(!told.contains(s3_server::SECRET_KEY), "{told}");
}
