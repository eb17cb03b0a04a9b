//! The commit that is checked out, read from `.git` itself: no git is needed, and none is run.

use std::path::{Path, PathBuf};

/// Links from one reference to another are followed so often.
const LINKS_MAX: u32 = 5;

/// The commit of the working tree around that directory; none where there is no repository that can be read.
pub(super) fn commit(directory: &Path) -> Option<String> {
    let git = directory.ancestors().find_map(git_directory)?;
    // The references of a linked working tree are in the repository that it belongs to.
    let common = std::fs::read_to_string(git.join("commondir"))
        .map_or_else(|_| git.clone(), |common| git.join(common.trim()));
    let mut head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    for _ in 0..LINKS_MAX {
        let Some(name) = head.trim().strip_prefix("ref:").map(str::trim) else { break };
        let loose = [&git, &common].map(|place| std::fs::read_to_string(place.join(name)));
        let found = loose.into_iter().find_map(Result::ok).or_else(|| packed(&common, name));
        head = found?;
    }
    let head = head.trim();
    let is_commit =
        matches!(head.len(), 40 | 64) && head.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| head.to_owned())
}

/// `.git`, a directory, or a file that says where it is.
fn git_directory(place: &Path) -> Option<PathBuf> {
    let path = place.join(".git");
    if path.is_dir() {
        return Some(path);
    }
    let text = std::fs::read_to_string(path).ok()?;
    Some(place.join(text.trim().strip_prefix("gitdir:")?.trim()))
}

fn packed(common: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(common.join("packed-refs")).ok()?;
    text.lines().find_map(|line| {
        let (commit, own) = line.split_once(' ')?;
        (own == name).then(|| commit.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    #[test]
    fn the_commit_is_found_loose_packed_detached_and_from_a_linked_tree() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path();
        std::fs::create_dir_all(root.join("app/db")).expect("a directory");
        assert_eq!(commit(&root.join("app/db")), None);
        write(root, ".git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(commit(root), None);
        write(root, ".git/packed-refs", &format!("# pack-refs\n{TWO} refs/heads/main\n"));
        assert_eq!(commit(&root.join("app/db")).as_deref(), Some(TWO));
        write(root, ".git/refs/heads/main", &format!("{ONE}\n"));
        assert_eq!(commit(root).as_deref(), Some(ONE));
        write(
            root,
            "tree/.git",
            &format!("gitdir: {}\n", root.join(".git/worktrees/tree").display()),
        );
        write(root, ".git/worktrees/tree/HEAD", "ref: refs/heads/main\n");
        write(root, ".git/worktrees/tree/commondir", "../..\n");
        assert_eq!(commit(&root.join("tree")).as_deref(), Some(ONE));
        write(root, ".git/HEAD", &format!("{TWO}\n"));
        assert_eq!(commit(root).as_deref(), Some(TWO));
        write(root, ".git/HEAD", "not a commit\n");
        assert_eq!(commit(root), None);
    }
}
