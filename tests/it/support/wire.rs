//! A proxy between pgkeep's programs and a server of PostgreSQL, that cuts or holds connections.
//!
//! It reads who speaks (`application_name`) out of the first packet, and passes everything on as it is. The plan
//! sees each piece before it is passed on, and says what becomes of it and of its connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::server::Server;

/// One piece on its way.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    /// Who connected: `pgkeep/pg_dump` and the like.
    pub(crate) who: &'a str,
    /// Bytes that this connection had from the server before.
    pub(crate) down: u64,
    /// What the client says; none where the server speaks.
    pub(crate) said: Option<&'a [u8]>,
}

impl Piece<'_> {
    /// Whether the client says these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        let words = words.as_bytes();
        self.said.is_some_and(|said| said.windows(words.len()).any(|window| window == words))
    }
}

/// What becomes of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is passed on.
    Pass,
    /// The connection is cut on both sides.
    Cut,
    /// It is passed on, and then the connection is cut.
    PassAndCut,
    /// Nothing is passed on from here, in either direction; the connection stays until the client ends it.
    Hold,
    /// It waits until [`Wire::open`].
    Wait,
}

type Plan = dyn Fn(&Piece<'_>) -> Fate + Send + Sync;

/// A running proxy; ends when dropped.
pub(crate) struct Wire {
    /// The server as it is reached through the proxy.
    pub(crate) server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    plan: Box<Plan>,
    port: u16,
    /// Pieces wait no longer.
    open: AtomicBool,
    /// A piece waits, or a connection is held or was cut.
    reached: AtomicBool,
    ended: AtomicBool,
}

struct Connection {
    who: OnceLock<String>,
    down: AtomicU64,
    held: AtomicBool,
    client: TcpStream,
    upstream: TcpStream,
    /// One piece at a time.
    turn: Mutex<()>,
}

impl Wire {
    /// In front of that server.
    pub(crate) fn before(
        server: &Server,
        plan: impl Fn(&Piece<'_>) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            plan: Box::new(plan),
            port: server.port,
            open: AtomicBool::new(false),
            reached: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if theirs.ended.load(Ordering::Relaxed) {
                    return;
                }
                // A server that is down refuses; so does its proxy.
                let Ok(upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, theirs.port)) else {
                    continue;
                };
                serve(client, upstream, &theirs);
            }
        });
        Self { server: Server { port, ..server.clone() }, shared }
    }

    /// Whether the plan has done anything but pass.
    pub(crate) fn has_reached(&self) -> bool {
        self.shared.reached.load(Ordering::Relaxed)
    }

    /// What waits goes on, and nothing waits any more.
    pub(crate) fn open(&self) {
        self.shared.open.store(true, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // The accepting thread wakes up to see it.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.server.port)));
    }
}

fn serve(client: TcpStream, upstream: TcpStream, shared: &Arc<Shared>) {
    for stream in [&client, &upstream] {
        drop(stream.set_nodelay(true));
    }
    let connection = Arc::new(Connection {
        who: OnceLock::new(),
        down: AtomicU64::new(0),
        held: AtomicBool::new(false),
        client,
        upstream,
        turn: Mutex::new(()),
    });
    for is_client in [true, false] {
        let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
        std::thread::spawn(move || {
            let (mut from, mut to) = if is_client {
                (&connection.client, &connection.upstream)
            } else {
                (&connection.upstream, &connection.client)
            };
            let mut buffer = [0; 16 << 10];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if !connection.pass(&shared, is_client, &buffer[..read], &mut to) {
                    break;
                }
            }
            // A client that is held and goes away ends it; a server that ends is not seen through a hold.
            if is_client || !connection.held.load(Ordering::Relaxed) {
                connection.cut();
            }
        });
    }
}

impl Connection {
    /// Whether it goes on.
    fn pass(&self, shared: &Shared, is_client: bool, piece: &[u8], to: &mut impl Write) -> bool {
        if is_client && self.who.get().is_none() {
            drop(name(piece).map(|who| self.who.set(who)));
        }
        let who = self.who.get().map_or("", String::as_str);
        let said = is_client.then_some(piece);
        let turn = self.turn.lock().expect("not poisoned");
        if self.held.load(Ordering::Relaxed) {
            return true;
        }
        let down = self.down.load(Ordering::Relaxed);
        let fate = (shared.plan)(&Piece { who, down, said });
        if fate != Fate::Pass {
            shared.reached.store(true, Ordering::Relaxed);
        }
        if fate == Fate::Hold {
            self.held.store(true, Ordering::Relaxed);
        }
        drop(turn);
        match fate {
            Fate::Hold => return true,
            Fate::Cut => return false,
            Fate::Pass | Fate::PassAndCut => {}
            Fate::Wait => {
                while !shared.open.load(Ordering::Relaxed) {
                    if shared.ended.load(Ordering::Relaxed) {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        if !is_client {
            self.down.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        to.write_all(piece).is_ok() && fate != Fate::PassAndCut
    }

    fn cut(&self) {
        for stream in [&self.client, &self.upstream] {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

/// What a first packet says of who connects. A request for TLS comes before it and says nothing.
fn name(packet: &[u8]) -> Option<String> {
    let key = b"application_name\0";
    let at = packet.windows(key.len()).position(|window| window == key)? + key.len();
    let value = packet[at..].split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(value).into_owned())
}
