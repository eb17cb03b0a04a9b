//! A proxy between pgkeep and a store that makes accidents happen, and counts.
//!
//! It speaks just enough HTTP/1.1 to know where a request and an answer end. A request goes to the server as it
//! came, so its signature holds; the plan sees it first and says what becomes of it. One thread a connection.

#![allow(dead_code, reason = "several test programs share it, and each uses a part")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request, as the plan sees it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// The head as it was sent, in lower case.
    pub(crate) head: String,
    /// Its place among those with the same method, from 1; listings are not gets.
    pub(crate) nth: usize,
}

impl Asked {
    /// Whether it is a listing.
    pub(crate) fn is_list(&self) -> bool {
        self.target.contains("list-type=2")
    }

    /// `GET`, `PUT`, `DELETE`, or `LIST`.
    pub(crate) fn kind(&self) -> &str {
        if self.is_list() { "LIST" } else { &self.method }
    }
}

/// What becomes of a request.
pub(crate) enum Fault {
    /// It is passed on, and its answer back.
    None,
    /// This answer, and nothing is passed on.
    Answer(u16, String),
    /// The connection is cut, and nothing is passed on.
    Cut,
    /// It is passed on; the connection is cut instead of an answer.
    LoseReply,
    /// Passed on; the head and so many bytes of the answer's body come back, then the connection is cut.
    Truncate(usize),
    /// Passed on; as many bytes come back, then nothing more, and the connection stays.
    StallAfter(usize),
    /// Nothing is passed on, and nothing comes.
    Stall,
    /// Passed on; the answer's body comes in so many parts, with so long between them.
    Trickle(usize, Duration),
    /// Passed on; the answer comes byte by byte from its first line on, with so long between them.
    Drip(Duration),
    /// Passed on; the answer's body is changed (its length told rightly).
    Rewrite(Box<dyn Fn(String) -> String + Send>),
    /// Passed on; the answer is dated so.
    Date(String),
    /// These bytes are the answer, head and all, and nothing is passed on.
    Raw(Vec<u8>),
}

type Plan = dyn Fn(&Asked) -> Fault + Send + Sync;

/// What the proxy does to all requests, and what it saw.
#[derive(Default)]
struct Shared {
    latency: Mutex<Duration>,
    /// Bytes a second that bodies of requests are taken at; 0 is as fast as they come.
    upload_rate: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    ended: AtomicBool,
}

/// A running proxy; ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of that server.
    pub(crate) fn before(
        server: SocketAddr,
        plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::at(0, server, plan)
    }

    /// The same on a port that was chosen.
    pub(crate) fn at(
        port: u16,
        server: SocketAddr,
        plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::speaking(None, port, server, plan)
    }

    /// In front of that server, speaking TLS.
    pub(crate) fn secure(server: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Self {
        Self::speaking(Some(tls), 0, server, |_| Fault::None)
    }

    fn speaking(
        tls: Option<Arc<rustls::ServerConfig>>,
        port: u16,
        server: SocketAddr,
        plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let plan: Arc<Plan> = Arc::new(plan);
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if theirs.ended.load(Ordering::Relaxed) {
                    return;
                }
                theirs.connections.fetch_add(1, Ordering::Relaxed);
                let (shared, plan) = (Arc::clone(&theirs), Arc::clone(&plan));
                let tls = tls.clone();
                std::thread::spawn(move || {
                    drop(client.set_nodelay(true));
                    // A side that goes away is what half of the tests are about.
                    if let Some(tls) = tls {
                        let session = rustls::ServerConnection::new(tls).expect("a session");
                        let mut client = rustls::StreamOwned::new(session, client);
                        drop(connection(&mut client, server, &shared, &*plan));
                    } else {
                        drop(connection(&mut &client, server, &shared, &*plan));
                        drop(client.shutdown(Shutdown::Both));
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// Every request waits that long before it is passed on.
    pub(crate) fn with_latency(self, latency: Duration) -> Self {
        *self.shared.latency.lock().expect("not poisoned") = latency;
        self
    }

    /// Bodies of requests are taken at that many bytes a second, all connections together.
    pub(crate) fn with_upload_rate(self, bytes_per_second: usize) -> Self {
        self.shared.upload_rate.store(bytes_per_second, Ordering::Relaxed);
        self
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("not poisoned").clone()
    }

    /// How many of a kind there were.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.asked().iter().filter(|asked| asked.kind() == kind).count()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The most requests that were under way at once.
    pub(crate) fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max.load(Ordering::Relaxed)
    }

    /// Bytes of bodies: of requests, of answers.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let Shared { bytes_up, bytes_down, .. } = &*self.shared;
        (bytes_up.load(Ordering::Relaxed), bytes_down.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // The accepting thread wakes up to see it.
        drop(TcpStream::connect(self.address));
    }
}

/// Serves one connection until a side ends it.
fn connection(
    client: &mut (impl Read + Write),
    server: SocketAddr,
    shared: &Shared,
    plan: &Plan,
) -> io::Result<()> {
    let mut ahead = Vec::new();
    while let Some((head, body_length)) = read_head(client, &mut ahead)? {
        let asked = take_down(&head, shared);
        let _under_way = UnderWay::begin(shared);
        let fault = plan(&asked);
        if matches!(fault, Fault::Cut) {
            return Ok(());
        }
        let body = read_body(client, &mut ahead, body_length, shared)?;
        shared.bytes_up.fetch_add(body.len() as u64, Ordering::Relaxed);
        // Read before the sleep: a lock that is held through it would make all connections wait in line.
        let latency = *shared.latency.lock().expect("not poisoned");
        std::thread::sleep(latency);
        let output = &mut *client;
        match fault {
            Fault::Answer(status, text) => {
                write!(
                    output,
                    "HTTP/1.1 {status} Told\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n{text}",
                    text.len()
                )?;
                continue;
            }
            Fault::Raw(answer) => {
                output.write_all(&answer)?;
                return Ok(());
            }
            Fault::Stall => {
                stall(shared);
                return Ok(());
            }
            _ => {}
        }
        let (head, body) = ask(server, &head, &body)?;
        let body_bytes = match fault {
            Fault::LoseReply => return Ok(()),
            Fault::Truncate(length) | Fault::StallAfter(length) => {
                output.write_all(head.as_bytes())?;
                output.write_all(&body[..length.min(body.len())])?;
                output.flush()?;
                if matches!(fault, Fault::StallAfter(_)) {
                    stall(shared);
                }
                return Ok(());
            }
            Fault::Trickle(parts, pause) => {
                output.write_all(head.as_bytes())?;
                for part in body.chunks(body.len().div_ceil(parts).max(1)) {
                    output.write_all(part)?;
                    output.flush()?;
                    std::thread::sleep(pause);
                }
                body.len()
            }
            Fault::Drip(pause) => {
                for byte in head.as_bytes().iter().chain(&body) {
                    output.write_all(&[*byte])?;
                    output.flush()?;
                    std::thread::sleep(pause);
                }
                body.len()
            }
            Fault::Rewrite(change) => {
                let text = change(String::from_utf8(body).expect("a document"));
                let kept = |line: &&str| {
                    let line = line.to_ascii_lowercase();
                    !line.starts_with("content-length:") && !line.starts_with("transfer-encoding:")
                };
                let lines: Vec<&str> = head.trim_end().lines().filter(kept).collect();
                let head = lines.join("\r\n");
                write!(output, "{head}\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
                text.len()
            }
            Fault::Date(date) => {
                let kept = |line: &&str| !line.to_ascii_lowercase().starts_with("date:");
                let lines: Vec<&str> = head.trim_end().lines().filter(kept).collect();
                write!(output, "{}\r\ndate: {date}\r\n\r\n", lines.join("\r\n"))?;
                output.write_all(&body)?;
                body.len()
            }
            _ => {
                output.write_all(head.as_bytes())?;
                output.write_all(&body)?;
                body.len()
            }
        };
        output.flush()?;
        shared.bytes_down.fetch_add(body_bytes as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Nothing happens until the proxy ends.
fn stall(shared: &Shared) {
    while !shared.ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A request that is under way, for the count.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let now = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        shared.in_flight_max.fetch_max(now, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take_down(head: &str, shared: &Shared) -> Asked {
    let mut words = head.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        head: head.to_ascii_lowercase(),
        nth: 0,
    };
    let mut all = shared.asked.lock().expect("not poisoned");
    let before = all.iter().rev().find(|other| other.kind() == asked.kind());
    asked.nth = before.map_or(0, |other| other.nth) + 1;
    all.push(asked.clone());
    asked
}

/// Reads up to the empty line; what came behind it stays in `ahead`. None at the end of the connection.
fn read_head(input: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<Option<(String, usize)>> {
    let end = loop {
        if let Some(at) = ahead.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if !fill(input, ahead)? {
            return Ok(None);
        }
    };
    let head: Vec<u8> = ahead.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    assert!(header(&head, "transfer-encoding").is_none(), "bodies have a length: {head}");
    Ok(Some((head, length)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn fill(input: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 16 << 10];
    let read = input.read(&mut buffer)?;
    ahead.extend_from_slice(&buffer[..read]);
    Ok(read > 0)
}

fn read_body(
    input: &mut impl Read,
    ahead: &mut Vec<u8>,
    length: usize,
    shared: &Shared,
) -> io::Result<Vec<u8>> {
    let rate = shared.upload_rate.load(Ordering::Relaxed);
    let mut taken = ahead.len();
    while ahead.len() < length {
        if !fill(input, ahead)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // All connections share the rate: each gets its part of it.
        let others = shared.in_flight.load(Ordering::Relaxed).max(1);
        let shares = (ahead.len() - taken) * others * 1_000_000;
        std::thread::sleep(Duration::from_micros(shares.checked_div(rate).unwrap_or(0) as u64));
        taken = ahead.len();
    }
    Ok(ahead.drain(..length).collect())
}

/// Asks the server over a connection of its own, and takes the answer up to its end.
fn ask(server: SocketAddr, head: &str, body: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let mut upstream = TcpStream::connect(server)?;
    upstream.set_nodelay(true)?;
    // Not among the signed headers, so the signature holds.
    let request = format!("{}\r\nconnection: close\r\n\r\n", head.trim_end());
    upstream.write_all(request.as_bytes())?;
    upstream.write_all(body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let body = answer.split_off(at + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let kept = |line: &&str| !line.to_ascii_lowercase().starts_with("connection:");
    let lines: Vec<&str> = head.trim_end().lines().filter(kept).collect();
    let chunked = header(&head, "transfer-encoding").is_some();
    let body = if chunked { unchunk(&body)? } else { body };
    let mut head = String::new();
    for line in lines {
        if !line.to_ascii_lowercase().starts_with("transfer-encoding:") {
            head.push_str(line);
            head.push_str("\r\n");
        }
    }
    if chunked {
        head.push_str("content-length: ");
        head.push_str(&body.len().to_string());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    Ok((head, body))
}

/// A body without the marks of its pieces.
fn unchunk(mut body: &[u8]) -> io::Result<Vec<u8>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|window| window == b"\r\n").ok_or_else(bad)?;
        let size = std::str::from_utf8(&body[..line]).map_err(|_| bad())?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| bad())?;
        body = &body[line + 2..];
        if size == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(body.get(..size).ok_or_else(bad)?);
        body = body.get(size + 2..).ok_or_else(bad)?;
    }
}
