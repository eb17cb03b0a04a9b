//! A stand-alone S3 server for benches and hand tests: `s3s-fs` on 127.0.0.1, optionally far away.
//!
//! `cargo run --example s3-server -- DIRECTORY [PORT [LATENCY_MS [LOG]]]`: keeps one bucket, `backups`, in the directory,
//! prints the variables that pgkeep needs, and runs until it is ended. With a latency every request waits that
//! long before the server sees it; with a log, each adds a line to it: `PUT`, `GET`, `LIST` and so on. Other programs than pgkeep
//! are served too.

#[path = "../it/support/s3_proxy.rs"]
mod s3_proxy;
#[path = "../it/support/s3_server.rs"]
mod s3_server;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use s3_proxy::{Fault, Proxy};
use s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
fn main() {
    let mut args = std::env::args().skip(1);
    let Some(directory) = args.next() else {
        eprintln!("usage: s3-server DIRECTORY [PORT [LATENCY_MS]]");
        std::process::exit(2);
    };
    let mut number = || args.next().map(|text| text.parse::<u16>().expect("a number"));
    let (port, latency) = (number().unwrap_or(0), number().unwrap_or(0));
    let log = args.next().map(|path| File::options().append(true).create(true).open(path));
    let log = log.map(|file| file.expect("a log"));
    let far = latency > 0 || log.is_some();
    let server = S3Server::for_everyone(Path::new(&directory), if far { 0 } else { port });
    let far = far.then(|| {
        let proxy = Proxy::at(port, server.address(), move |asked| {
            if let Some(mut log) = log.as_ref() {
                // One write, so that lines of requests at once do not mix.
                log.write_all(format!("{}\n", asked.kind()).as_bytes()).expect("a line");
            }
            Fault::None
        });
        proxy.with_latency(Duration::from_millis(u64::from(latency)))
    });
    let endpoint = match &far {
        Some(proxy) => proxy.endpoint(),
        None => format!("http://{}", server.address()),
    };
    println!("export AWS_ENDPOINT_URL={endpoint} AWS_REGION=us-east-1");
    println!("export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}");
    println!("export PGKEEP_REPOSITORY=s3://{BUCKET}/repository");
    loop {
        std::thread::park();
    }
}
