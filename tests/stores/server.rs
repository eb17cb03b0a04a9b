//! A stand-alone S3 server for benches and hand tests: `s3s-fs` on 127.0.0.1, optionally far away.
//!
//! `cargo run --example s3-server -- DIRECTORY [PORT [LATENCY_MS]]`: keeps one bucket, `backups`, in the directory,
//! prints the variables that pgkeep needs, and runs until it is ended. With a latency every request waits that
//! long before the server sees it.

#[path = "../it/support/s3_proxy.rs"]
mod s3_proxy;
#[path = "../it/support/s3_server.rs"]
mod s3_server;

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
    let near = if latency == 0 { port } else { 0 };
    let server = S3Server::at(Path::new(&directory), near);
    let far = (latency > 0).then(|| {
        let proxy = Proxy::at(port, server.address(), |_| Fault::None);
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
