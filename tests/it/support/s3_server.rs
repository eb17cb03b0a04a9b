//! An S3 server: the crates `s3s` and `s3s-fs` behind real HTTP on 127.0.0.1, with real signatures.
//!
//! `s3s-fs` keeps objects as files, so a key that is a directory to it is not quite absent; here it is.

#![allow(dead_code, reason = "several test programs share it, and each uses a part")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::runtime::Runtime;

pub(crate) const ACCESS_KEY: &str = "AKIDTEST";
pub(crate) const SECRET_KEY: &str = "only-for-tests";
pub(crate) const BUCKET: &str = "backups";

/// A server with one empty bucket; gone when dropped.
pub(crate) struct S3Server {
    address: SocketAddr,
    root: PathBuf,
    own: Option<tempfile::TempDir>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// In a directory that is removed with it, on a port that is free.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("s3-").tempdir().expect("a directory");
        let mut server = Self::at(dir.path(), 0);
        server.own = Some(dir);
        server
    }

    /// In a directory of the caller's.
    pub(crate) fn at(root: &Path, port: u16) -> Self {
        Self::serving(root, port, |files| Strict { files, root: root.to_owned() })
    }

    /// As [`S3Server::at`], with all that `s3s-fs` knows: other programs ask for more than pgkeep does.
    pub(crate) fn for_everyone(root: &Path, port: u16) -> Self {
        Self::serving(root, port, |files| files)
    }

    fn serving<S: S3>(root: &Path, port: u16, of: impl FnOnce(FileSystem) -> S) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).expect("a bucket");
        let mut builder = S3ServiceBuilder::new(of(FileSystem::new(root).expect("a directory")));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
        listener.set_nonblocking(true).expect("a mode");
        let address = listener.local_addr().expect("an address");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(serve(listener, service));
        Self { address, root: root.to_owned(), own: None, runtime: Some(runtime) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory that is the bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move {
            // A client that goes away is no failure of the server.
            drop(connection.await);
        });
    }
}

/// What pgkeep asks of a store, and nothing else: anything more is answered with 501.
struct Strict {
    files: FileSystem,
    root: PathBuf,
}

impl Strict {
    fn is_directory(&self, bucket: &str, key: &str) -> bool {
        self.root.join(bucket).join(key).is_dir()
    }
}

#[async_trait::async_trait]
impl S3 for Strict {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        if !self.root.join(&request.input.bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        self.files.put_object(request).await
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = &request.input;
        if !self.root.join(&input.bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        if self.is_directory(&input.bucket, &input.key) {
            return Err(s3_error!(NoSuchKey));
        }
        self.files.get_object(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = &request.input;
        if self.is_directory(&input.bucket, &input.key) {
            return Ok(S3Response::new(DeleteObjectOutput::default()));
        }
        self.files.delete_object(request).await
    }
}

/// A bucket to work in, under a prefix of this test's own: that of a server in this process, or the one
/// that `make test-stores` names in `TEST_S3_ENDPOINT`, `TEST_S3_BUCKET`, `TEST_S3_REGION`, `TEST_S3_ACCESS_KEY`
/// and `TEST_S3_SECRET_KEY`.
pub(crate) struct S3Place {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    server: Option<S3Server>,
}

impl S3Place {
    /// The place of this run.
    pub(crate) fn of_this_run() -> Self {
        let outer = |name: &str| {
            let name = format!("TEST_S3_{name}");
            std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set"))
        };
        match std::env::var("TEST_S3_ENDPOINT") {
            Ok(endpoint) => Self {
                endpoint,
                bucket: outer("BUCKET"),
                prefix: own_prefix(),
                region: outer("REGION"),
                access_key: outer("ACCESS_KEY"),
                secret_key: outer("SECRET_KEY"),
                server: None,
            },
            Err(_) => Self::of(S3Server::start()),
        }
    }

    /// A place in that server.
    pub(crate) fn of(server: S3Server) -> Self {
        Self {
            endpoint: format!("http://{}", server.address()),
            bucket: BUCKET.to_owned(),
            prefix: own_prefix(),
            region: "us-east-1".to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            server: Some(server),
        }
    }

    /// The server of this process.
    pub(crate) fn server(&self) -> &S3Server {
        self.server.as_ref().expect("this test brings its own server")
    }

    /// Where its objects lie as files, if the server is this process's.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        Some(self.server.as_ref()?.bucket().join(&self.prefix))
    }

    pub(crate) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }
}

fn own_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test/{}-{next}", std::process::id())
}
