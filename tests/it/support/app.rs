//! A small application that says how it is: each path answers with its own status, or never.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers GETs: `/ok` with 200, `/sick` with 503, `/late` with 503 twice and then 200, `/hang` never.
pub(crate) struct App {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl App {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (hears, late) = (Arc::clone(&asked), Arc::new(AtomicUsize::new(0)));
        // It ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (hears, late) = (Arc::clone(&hears), Arc::clone(&late));
                std::thread::spawn(move || answer(&stream, &hears, &late));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often that path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.asked.lock().expect("nobody panics").iter().filter(|one| *one == path).count()
    }
}

fn answer(mut stream: &TcpStream, asked: &Mutex<Vec<String>>, late: &AtomicUsize) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let _ = lines.take_while(|line| !line.is_empty()).count();
    asked.lock().expect("nobody panics").push(path.clone());
    let status = match path.as_str() {
        "/ok" => "200 OK",
        "/late" if late.fetch_add(1, Ordering::Relaxed) >= 2 => "200 OK",
        "/hang" => {
            std::thread::sleep(Duration::from_mins(5));
            return;
        }
        _ => "503 Service Unavailable",
    };
    // Who asked may have gone.
    drop(write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
}
