//! Under whose name a scratch server runs: PostgreSQL refuses root.
//!
//! As root the server becomes `postgres` where there is such a user, else `nobody`; any other user runs it
//! under its own name. The way down to the scratch directory must be open to that account, which is
//! looked at before anything is made, since `initdb` would only say `Permission denied`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::ScratchError;

/// A user that a server may run under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// The account to switch to; none when this process is no root and stays who it is.
pub fn for_server() -> Result<Option<Account>, ScratchError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = Path::new("/etc/passwd");
    let text = fs::read_to_string(passwd).map_err(ScratchError::io("cannot read", passwd))?;
    choose(&text).map(Some).ok_or(ScratchError::NoAccount)
}

fn choose(passwd: &str) -> Option<Account> {
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name == wanted)?;
            let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { name: name.to_owned(), uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody"))
}

/// Refuses a directory that `account` cannot walk to: the first closed one on the way is named.
///
/// Only the mode bits are read. An access list could open more, so what they close is refused only
/// where neither owner, group nor others may pass.
pub fn can_reach(account: &Account, directory: &Path) -> Result<(), ScratchError> {
    let whole = directory.canonicalize().map_err(ScratchError::io("cannot look at", directory))?;
    for ancestor in whole.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let meta = fs::metadata(ancestor).map_err(ScratchError::io("cannot look at", ancestor))?;
        let bit = if meta.uid() == account.uid {
            0o100
        } else if meta.gid() == account.gid {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            return Err(ScratchError::Unreachable {
                user: account.name.clone(),
                path: ancestor.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn postgres_is_preferred_to_nobody_and_root_is_never_taken() {
        let nobody = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65533::/:/x\n";
        assert_eq!(choose(nobody), Some(Account { name: "nobody".into(), uid: 65534, gid: 65533 }));
        let both = format!("{nobody}postgres:x:101:104::/:/bin/sh\n");
        assert_eq!(choose(&both).map(|account| account.uid), Some(101));
        assert_eq!(choose("postgres:x:0:0::/:/bin/sh\n"), None);
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let closed = root.path().join("closed");
        let below = closed.join("below");
        fs::create_dir_all(&below).expect("directories");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("a mode");
        let stranger = Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 };
        assert!(can_reach(&stranger, root.path()).is_ok());
        match can_reach(&stranger, &below) {
            Err(ScratchError::Unreachable { path, .. }) => {
                assert_eq!(path, closed.canonicalize().expect("a path"));
            }
            other => panic!("{other:?}"),
        }
    }
}
