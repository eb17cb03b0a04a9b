//! Against a small HTTP server on this host.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Condvar, MutexGuard};
use std::time::Instant;

use serde_json::Value as Json;

use super::*;

/// A request as it came in.
#[derive(Debug, Clone)]
struct Asked {
    /// Such as `POST /hook HTTP/1.1`.
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Asked {
    fn json(&self) -> Json {
        serde_json::from_str(&self.body).expect("a document")
    }

    fn text(&self) -> String {
        self.json()["text"].as_str().expect("a text").to_owned()
    }
}

/// What the server does with one.
enum Answer {
    /// A status line, and headers.
    Say(&'static str),
    /// Nothing, and keeps the connection.
    Hang,
    /// Closes the connection.
    Cut,
}

const TAKEN: Answer = Answer::Say("204 No Content");
const BROKEN: Answer = Answer::Say("500 Internal Server Error");

/// A server that lives as long as the process.
struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Site {
    /// Answers as `plan` says for the nth request (from 0) to come in.
    fn with(plan: impl Fn(usize, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(0, plan)
    }

    fn at(port: u16, plan: impl Fn(usize, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (plan, all) = (Arc::new(plan), Arc::clone(&asked));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (plan, all) = (Arc::clone(&plan), Arc::clone(&all));
                std::thread::spawn(move || serve(socket, &*plan, &all));
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> Secret {
        Secret::new(format!("http://{}{path}", self.address))
    }

    fn webhook(&self, name: &str) -> Webhook {
        let on = vec![News::Failure, News::Recovery, News::Overdue, News::Success];
        Webhook { name: name.to_owned(), url: self.url("/hook"), template: Template::Json, on }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }

    async fn asked_for(&self, count: usize) -> Vec<Asked> {
        until(|| self.asked().len() >= count).await;
        self.asked()
    }
}

fn serve(socket: TcpStream, plan: &dyn Fn(usize, &Asked) -> Answer, all: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(socket);
    let mut line = || {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).ok()?;
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    };
    let Some(first) = line() else { return };
    let headers: Vec<String> =
        std::iter::from_fn(|| line().filter(|line| !line.is_empty())).collect();
    let length =
        headers.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body = String::from_utf8(body).expect("a text");
    let asked = Asked { line: first, headers, body };
    let mut all = all.lock().expect("not poisoned");
    let answer = plan(all.len(), &asked);
    all.push(asked);
    drop(all);
    match answer {
        Answer::Say(status) => {
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            // A client that has gone away is no failure of the server.
            drop(reader.get_mut().write_all(head.as_bytes()));
        }
        Answer::Hang => loop {
            std::thread::park();
        },
        Answer::Cut => {}
    }
}

/// Polls until it is so.
async fn until(mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come to be");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the log holds of everything that runs on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let logs = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || log.clone());
        tracing::subscriber::set_default(logs.finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("a text")
    }

    fn count(&self, level: &str) -> usize {
        self.text().lines().filter(|line| line.contains(level)).count()
    }
}

fn impatient() -> Limits {
    Limits {
        keep: Duration::from_secs(10),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        proxies: false,
        ..Limits::default()
    }
}

fn notifier(webhooks: Vec<Webhook>, limits: Limits) -> Notifier {
    let config = NotifyConfig { webhooks, limits };
    Notifier::start(config, &CancellationToken::new()).expect("it starts")
}

fn message(text: &str) -> Message {
    Message {
        news: String::new(),
        text: text.to_owned(),
        at: Timestamp::UNIX_EPOCH,
        host: "db1".to_owned(),
        verb: Some("snapshot".to_owned()),
        cluster: Some("main".to_owned()),
        database: Some("shop".to_owned()),
        run: Some("20261121T020000Z-5f3a9c21".to_owned()),
        backup: None,
        exit_code: Some(5),
        hint: Some("check the store".to_owned()),
    }
}

fn texts(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(Asked::text).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_webhook_gets_the_news_it_asked_for_as_a_document() {
    let place = Site::with(|_, _| TAKEN);
    let some = Webhook { on: vec![News::Overdue, News::Success], ..place.webhook("some") };
    let notifier = notifier(vec![some], impatient());
    notifier.tell(News::Failure, message("not asked for"));
    notifier.tell(News::Overdue, message("late"));
    notifier.tell(News::Recovery, message("a run that succeeded again has succeeded"));
    notifier.tell(News::Recovery, Message { run: None, ..message("no run has") });
    notifier.drain(LONG).await;
    let asked = place.asked();
    assert_eq!(texts(&asked), ["late", "a run that succeeded again has succeeded"]);
    assert_eq!(asked[0].line, "POST /hook HTTP/1.1");
    assert!(asked[0].headers.iter().any(|line| line == "content-type: application/json"));
    let expected = json!({
        "news": "overdue", "text": "late", "at": "1970-01-01T00:00:00Z", "host": "db1", "verb": "snapshot",
        "cluster": "main", "database": "shop", "run": "20261121T020000Z-5f3a9c21", "backup": null, "exit_code": 5,
        "hint": "check the store",
    });
    assert_eq!(asked[0].json(), expected);
}

#[tokio::test]
async fn slack_gets_a_text_with_its_markup_escaped() {
    let place = Site::with(|_, _| TAKEN);
    let slack = Webhook { template: Template::Slack, ..place.webhook("slack") };
    let notifier = notifier(vec![slack], impatient());
    notifier.tell(News::Failure, message("<!channel> & more"));
    notifier.tell(News::Success, Message { hint: None, ..message("fine") });
    notifier.drain(LONG).await;
    let told: Vec<_> = place.asked().iter().map(Asked::json).collect();
    let text = "pgkeep on db1: failure: &lt;!channel&gt; &amp; more\nhint: check the store";
    assert_eq!(told, [json!({ "text": text }), json!({ "text": "pgkeep on db1: success: fine" })]);
}

#[tokio::test]
async fn texts_that_are_too_long_are_cut_between_characters() {
    let place = Site::with(|_, _| TAKEN);
    let notifier = notifier(vec![place.webhook("ops")], impatient());
    notifier.tell(News::Failure, message(&"é".repeat(TEXT_MAX + 1)));
    notifier.drain(LONG).await;
    assert_eq!(place.asked()[0].text(), format!("{}…", "é".repeat(TEXT_MAX)));
}

#[tokio::test]
async fn what_was_answered_with_500_or_cut_off_is_told_again_and_warned_of_once() {
    let (log, place) = (
        Log::default(),
        Site::with(|nth, _| match nth {
            0 => BROKEN,
            1 => Answer::Cut,
            2 => Answer::Say("429 Too Many Requests"),
            _ => TAKEN,
        }),
    );
    let _listening = log.listen();
    let notifier = notifier(vec![place.webhook("ops")], impatient());
    notifier.tell(News::Failure, message("again"));
    notifier.drain(LONG).await;
    assert_eq!(texts(&place.asked()), ["again"; 4]);
    let text = log.text();
    assert_eq!(log.count(" WARN "), 1, "{text}");
    assert!(
        text.contains("webhook `ops` at 127.0.0.1 cannot be told: HTTP 500 Internal Server Error"),
        "{text}"
    );
    assert!(text.contains("answers again; 0 messages were dropped"), "{text}");
}

#[tokio::test]
async fn an_endpoint_that_comes_up_later_is_told_then() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let log = Log::default();
    let _listening = log.listen();
    let url = Secret::new(format!("http://{address}/hook"));
    let webhook = Webhook { url, ..Site::with(|_, _| TAKEN).webhook("late") };
    let notifier = notifier(vec![webhook], impatient());
    notifier.tell(News::Failure, message("refused at first"));
    until(|| log.text().contains("cannot connect: Connection refused")).await;
    let place = Site::at(address.port(), |_, _| TAKEN);
    assert_eq!(texts(&place.asked_for(1).await), ["refused at first"]);
}

#[tokio::test]
async fn a_place_that_asks_for_patience_gets_it() {
    let place = Site::with(|nth, _| match nth {
        0 => Answer::Say("503 Service Unavailable\r\nretry-after: 1"),
        _ => TAKEN,
    });
    let limits = Limits { longest_pause: Duration::from_secs(5), ..impatient() };
    let notifier = notifier(vec![place.webhook("ops")], limits);
    let start = Instant::now();
    notifier.tell(News::Failure, message("later"));
    notifier.drain(LONG).await;
    assert_eq!(place.asked().len(), 2);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_is_not_taken_in_time_is_dropped_and_the_next_is_told() {
    let place = Site::with(|_, asked| if asked.text() == "bad" { BROKEN } else { TAKEN });
    let log = Log::default();
    let _listening = log.listen();
    let limits = Limits { keep: Duration::from_millis(300), ..impatient() };
    let notifier = notifier(vec![place.webhook("ops")], limits);
    notifier.tell(News::Failure, message("bad"));
    until(|| log.text().contains("a message was dropped")).await;
    notifier.tell(News::Failure, message("good"));
    notifier.drain(LONG).await;
    let told = texts(&place.asked());
    assert_eq!(told.last().map(String::as_str), Some("good"));
    assert!(told.iter().filter(|text| *text == "bad").count() >= 3, "{told:?}");
    assert_eq!(log.count(" WARN "), 1, "{}", log.text());
    assert!(log.text().contains("answers again; 1 messages were dropped"), "{}", log.text());
}

#[tokio::test]
async fn what_a_place_will_never_take_is_not_told_twice() {
    let place = Site::with(|nth, _| if nth == 0 { Answer::Say("404 Not Found") } else { TAKEN });
    let notifier = notifier(vec![place.webhook("ops")], impatient());
    notifier.tell(News::Failure, message("refused"));
    notifier.tell(News::Failure, message("taken"));
    notifier.drain(LONG).await;
    assert_eq!(texts(&place.asked()), ["refused", "taken"]);
}

#[tokio::test]
async fn an_endpoint_that_hangs_holds_up_neither_the_caller_nor_the_others() {
    let (hanging, well) = (Site::with(|_, _| Answer::Hang), Site::with(|_, _| TAKEN));
    let log = Log::default();
    let _listening = log.listen();
    let limits = Limits { timeout: Duration::from_secs(3), ..impatient() };
    let notifier = notifier(vec![hanging.webhook("hangs"), well.webhook("well")], limits);
    let start = Instant::now();
    for n in 0..100 {
        notifier.tell(News::Failure, message(&n.to_string()));
        notifier.ping(&hanging.url("/ping"), Ping::Start, "");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    well.asked_for(100).await;
    assert_eq!(log.count("`hangs` at 127.0.0.1 cannot be told"), 0, "before it was given up");
    until(|| log.text().contains("webhook `hangs` at 127.0.0.1 cannot be told: no answer in time"))
        .await;
    assert!(!log.text().contains("`well`"), "{}", log.text());
}

#[tokio::test]
async fn messages_to_one_place_stay_in_order_through_failures() {
    let place = Site::with(|nth, _| if nth % 3 == 1 { BROKEN } else { TAKEN });
    let notifier = notifier(vec![place.webhook("ops")], impatient());
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for text in &all {
        notifier.tell(News::Success, message(text));
    }
    notifier.drain(LONG).await;
    let mut told = texts(&place.asked());
    assert!(told.len() > all.len(), "{told:?}");
    told.dedup();
    assert_eq!(told, all);
}

#[tokio::test]
async fn more_than_the_queue_holds_is_dropped_and_said() {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Arc::clone(&open);
    let place = Site::with(move |_, _| {
        let (open, opened) = &*gate;
        let held: MutexGuard<'_, bool> = open.lock().expect("not poisoned");
        drop(opened.wait_while(held, |open| !*open).expect("not poisoned"));
        TAKEN
    });
    let log = Log::default();
    let _listening = log.listen();
    let limits = Limits { queue: 4, timeout: Duration::from_secs(15), ..impatient() };
    let notifier = notifier(vec![place.webhook("ops")], limits);
    notifier.tell(News::Failure, message("under way"));
    // Taken out of the queue, which is empty then.
    until(|| {
        let open = notifier.open();
        open.as_ref().is_some_and(|open| open.webhooks[0].2.is_empty())
    })
    .await;
    for n in 0..10 {
        notifier.tell(News::Failure, message(&n.to_string()));
    }
    *open.0.lock().expect("not poisoned") = true;
    open.1.notify_all();
    notifier.drain(LONG).await;
    assert_eq!(texts(&place.asked()), ["under way", "0", "1", "2", "3"]);
    assert!(log.text().contains("too many messages wait for it"), "{}", log.text());
    assert!(log.text().contains("6 messages were dropped"), "{}", log.text());
}

#[tokio::test]
async fn pings_go_where_healthchecks_expects_them_in_order_with_a_word() {
    let place = Site::with(|_, _| TAKEN);
    let notifier = notifier(Vec::new(), impatient());
    let url = place.url("/ping/uuid?create=1#x");
    notifier.ping(&url, Ping::Start, "");
    notifier.ping(&url, Ping::Fail, "store: cannot reach it");
    notifier.ping(&url, Ping::Success, "");
    notifier.drain(LONG).await;
    let asked = place.asked();
    let lines: Vec<_> = asked.iter().map(|one| one.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "GET /ping/uuid/start?create=1 HTTP/1.1",
            "POST /ping/uuid/fail?create=1 HTTP/1.1",
            "GET /ping/uuid?create=1 HTTP/1.1"
        ]
    );
    assert_eq!(asked[1].body, "store: cannot reach it");
    let with = |url: &str, ping: Ping| {
        let place = http::Place::parse(&Secret::new(url.to_owned())).expect("a URL");
        place.with(ping.suffix()).text().to_owned()
    };
    assert_eq!(with("https://hc.example/a/", Ping::Start), "https://hc.example/a/start");
    assert_eq!(with("https://hc.example/a/", Ping::Success), "https://hc.example/a/");
    assert_eq!(with("https://u:p@hc.example:8443", Ping::Fail), "https://u:p@hc.example:8443/fail");
}

#[tokio::test]
async fn a_place_may_send_on_what_goes_along_and_no_further_than_three_times() {
    let place = Site::with(|nth, asked| match &*asked.line {
        "POST /hook HTTP/1.1" => Answer::Say("308 Permanent Redirect\r\nlocation: /moved"),
        "POST /loop HTTP/1.1" => Answer::Say("307 Temporary Redirect\r\nlocation: /loop"),
        "POST /lost HTTP/1.1" if nth < 8 => Answer::Say("302 Found\r\nlocation: /lost"),
        _ => TAKEN,
    });
    let pause = Duration::from_mins(1);
    let once = Limits { first_pause: pause, longest_pause: pause, ..impatient() };
    let hook = |path: &str| Webhook { url: place.url(path), ..place.webhook(path) };
    let moved = notifier(vec![hook("/hook")], impatient());
    moved.tell(News::Failure, message("moved"));
    moved.drain(LONG).await;
    let asked = place.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!((&*asked[1].line, asked[1].text()), ("POST /moved HTTP/1.1", "moved".to_owned()));
    let secret_way = |line: &String| line.starts_with("referer:");
    assert!(!asked[1].headers.iter().any(secret_way), "{asked:?}");

    let looping = notifier(vec![hook("/loop")], once);
    looping.tell(News::Failure, message("loop"));
    looping.drain(LONG).await;
    let asked = place.asked().len() - 2;
    assert_eq!(asked, 4);

    // A GET of nothing would have been taken, and the message lost.
    let before = place.asked().len();
    let lost = notifier(vec![hook("/lost")], impatient());
    lost.tell(News::Failure, message("lost"));
    lost.drain(LONG).await;
    let after = place.asked();
    assert!(after.len() > before, "told");
    assert!(after[before..].iter().all(|one| one.line == "POST /lost HTTP/1.1"), "{after:?}");
}

#[tokio::test]
async fn tls_is_spoken_and_a_place_without_it_is_told_as_such() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let first = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut start = [0; 3];
        socket.read_exact(&mut start).expect("the beginning of a handshake");
        drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        start
    });
    let log = Log::default();
    let _listening = log.listen();
    let url = Secret::new(format!("https://{address}/s3cr3t"));
    let notifier = notifier(Vec::new(), impatient());
    notifier.ping(&url, Ping::Success, "");
    until(|| log.count(" WARN ") >= 1).await;
    assert_eq!(first.join().expect("it ends")[..2], [0x16, 3], "a TLS handshake");
    let text = log.text();
    assert!(text.contains("ping at 127.0.0.1 cannot be told: cannot connect: "), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[tokio::test]
async fn no_secret_of_a_url_reaches_the_log_or_an_error() {
    const SECRET: &str = "s3cr3t";
    let place =
        Site::with(|_, asked| match asked.line.as_bytes().get(6..).and_then(<[u8]>::first) {
            Some(b'a') => BROKEN,
            Some(b'b') => Answer::Cut,
            Some(b'c') => Answer::Hang,
            Some(b'd') => Answer::Say("302 Found\r\nlocation: http://127.0.0.1:1/s3cr3t"),
            Some(b'e') => {
                Answer::Say("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/s3cr3t")
            }
            Some(b'f') => Answer::Say("307 Temporary Redirect\r\nlocation: s3cr3t://127.0.0.1"),
            _ => Answer::Say("403 s3cr3t"),
        });
    let log = Log::default();
    let _listening = log.listen();
    let limits =
        Limits { keep: Duration::from_secs(2), timeout: Duration::from_millis(200), ..impatient() };
    let urls: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"]
        .map(|path| {
            format!("http://{SECRET}:{SECRET}@{}/{path}/{SECRET}?t={SECRET}", place.address)
        })
        .into_iter()
        .chain([
            format!("http://127.0.0.1:1/{SECRET}"),
            format!("http://no-such-host.invalid/{SECRET}"),
            format!("https://{}/{SECRET}", place.address),
        ])
        .collect();
    let hook = |(n, url): (usize, &String)| {
        let url = Secret::new(url.clone());
        Webhook { url, ..place.webhook(&format!("w{n}")) }
    };
    let webhooks: Vec<_> = urls.iter().enumerate().map(hook).collect();
    let shown = format!("{webhooks:?}");
    let notifier = notifier(webhooks, limits);
    notifier.tell(News::Failure, message("something failed"));
    for url in &urls {
        notifier.ping(&Secret::new(url.clone()), Ping::Fail, "it failed");
    }
    notifier.ping(&Secret::new(format!("ftp://{SECRET}")), Ping::Fail, "it failed");
    notifier.drain(LONG).await;
    let text = log.text();
    // Each webhook and each ping once, and the one that is none.
    assert_eq!(log.count("cannot be told"), 2 * urls.len(), "{text}");
    assert_eq!(log.count("the URL of a ping cannot be used"), 1, "{text}");
    assert!(!text.contains(SECRET), "{text}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!format!("{notifier:?}").contains(SECRET));
}

#[tokio::test]
async fn urls_that_are_none_are_refused_by_name_without_being_shown() {
    let place = Site::with(|_, _| TAKEN);
    for (url, reason) in [
        ("s3cr3t", "it is no URL"),
        ("https://", "it is no URL"),
        ("file:///s3cr3t", "neither with https:// nor with http://"),
    ] {
        let url = Secret::new(url.to_owned());
        assert!(check_url(&url).is_err_and(|why| why.contains(reason)));
        let webhooks = vec![Webhook { url, ..place.webhook("ops") }];
        let config = NotifyConfig { webhooks, limits: impatient() };
        let error = Notifier::start(config, &CancellationToken::new()).expect_err("refused");
        let told = format!("{error} {error:?} {:?}", error.hint());
        assert!(told.contains("`ops`") && told.contains(reason), "{told}");
        assert!(!told.contains("s3cr3t"), "{told}");
        assert_eq!(error.kind(), FailureKind::Usage);
    }
    assert_eq!(check_url(&place.url("/hook")), Ok(()));
}

#[tokio::test]
async fn draining_takes_no_longer_than_it_may_and_takes_nothing_more() {
    let place = Site::with(|_, _| Answer::Hang);
    let log = Log::default();
    let _listening = log.listen();
    let notifier = notifier(vec![place.webhook("ops")], impatient());
    notifier.tell(News::Failure, message("one"));
    notifier.tell(News::Failure, message("two"));
    place.asked_for(1).await;
    let start = Instant::now();
    notifier.drain(Duration::from_millis(100)).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(
        log.text().contains("webhook `ops` at 127.0.0.1: 2 messages are dropped, pgkeep ends"),
        "{}",
        log.text()
    );
    notifier.tell(News::Failure, message("three"));
    notifier.ping(&place.url("/ping"), Ping::Start, "");
    notifier.drain(LONG).await;
    assert_eq!(place.asked().len(), 1);
}

#[tokio::test]
async fn a_cancelled_notifier_ends_at_once() {
    let place = Site::with(|_, _| Answer::Hang);
    let cancel = CancellationToken::new();
    let config = NotifyConfig { webhooks: vec![place.webhook("ops")], limits: impatient() };
    let notifier = Notifier::start(config, &cancel).expect("it starts");
    notifier.tell(News::Failure, message("one"));
    place.asked_for(1).await;
    cancel.cancel();
    let start = Instant::now();
    notifier.drain(LONG).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_waits_is_delivered_though_the_notifier_was_dropped() {
    let place = Site::with(|nth, _| if nth == 0 { BROKEN } else { TAKEN });
    let notifier = notifier(vec![place.webhook("ops")], impatient());
    notifier.tell(News::Failure, message("one"));
    notifier.tell(News::Failure, message("two"));
    drop(notifier);
    assert_eq!(texts(&place.asked_for(3).await), ["one", "one", "two"]);
}
