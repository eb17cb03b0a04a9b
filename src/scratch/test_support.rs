//! A real server for tests: a scratch cluster of the newest programs on this host.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cluster::{ScratchCluster, ServerMemory};
use super::directory::ScratchDirectory;
use crate::domain::inventory::DatabaseFacts;
use crate::postgres::programs::Programs;

/// How long the server of a test may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Server programs; a host without them fails the test.
pub(crate) fn programs() -> Programs {
    Programs::find_server(12, None).expect("PostgreSQL's server programs are installed")
}

/// A directory that any user can come to, as `scratch_dir` must be when tests run as root.
pub(crate) fn scratch_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("pk").permissions(permissions).tempdir().expect("a directory")
}

/// A running cluster below `parent`.
pub(crate) async fn cluster(parent: &std::path::Path) -> ScratchCluster {
    let directory = ScratchDirectory::create(parent, 1).expect("a scratch directory");
    let memory = ServerMemory { shared_buffers_bytes: 16 << 20, maintenance_bytes: 16 << 20 };
    ScratchCluster::start(directory, &programs(), memory, &CancellationToken::new())
        .await
        .expect("a cluster")
}

/// The facts of a plain database.
pub(crate) fn facts(name: &str) -> DatabaseFacts {
    DatabaseFacts {
        name: name.to_owned(),
        owner: "postgres".to_owned(),
        encoding: "UTF8".to_owned(),
        locale_provider: "libc".to_owned(),
        collate: "C".to_owned(),
        ctype: "C".to_owned(),
        icu_locale: None,
        icu_rules: None,
        lc_monetary: "C".to_owned(),
        tablespace: "pg_default".to_owned(),
        connection_limit: -1,
        is_template: false,
        comment: None,
        acl: Vec::new(),
        settings: Vec::new(),
    }
}
