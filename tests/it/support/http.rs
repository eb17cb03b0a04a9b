//! HTTP for stories: asks a daemon, and hears what it tells.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The status and the body of what is answered to a GET.
#[track_caller]
pub(crate) fn get(url: &str) -> (u16, String) {
    ask("GET", url, "")
}

/// Likewise, by that method and with these lines in its head.
#[track_caller]
pub(crate) fn ask(method: &str, url: &str, head: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").expect("plain");
    let (address, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let asked = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n{head}\r\n"
    );
    stream.write_all(asked.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head}")), body.to_owned())
}

/// Whom a daemon tells: takes every request with a good word.
pub(crate) struct Ear {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(String, String)>>>,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let hears = Arc::clone(&heard);
        // It ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who goes away within a request has said nothing.
                if let Ok(said) = hear(&stream) {
                    hears.lock().expect("nobody panics").push(said);
                }
            }
        });
        Self { address, heard }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests came for that path.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.count(|(at, _)| at == path)
    }

    /// What was said with these words in it, each once however often it was said.
    pub(crate) fn messages(&self, words: &str) -> BTreeSet<String> {
        let heard = self.heard.lock().expect("nobody panics");
        heard
            .iter()
            .filter(|(_, body)| body.contains(words))
            .map(|(_, body)| body.clone())
            .collect()
    }

    /// How many requests had these words in their body.
    pub(crate) fn told(&self, words: &str) -> usize {
        self.count(|(_, body)| body.contains(words))
    }

    fn count(&self, which: impl Fn(&(String, String)) -> bool) -> usize {
        self.heard.lock().expect("nobody panics").iter().filter(|said| which(said)).count()
    }
}

/// Path and body of one request, which is answered.
fn hear(stream: &TcpStream) -> std::io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.trim_end().to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if path.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
        }
        if lower.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut answer = stream;
    answer.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
    Ok((path, String::from_utf8_lossy(&body).into_owned()))
}
