//! What a power cut may take: seen from outside, in the calls that the kernel got and the order it got them in
//! (`strace`). A file is synced before it has its name, the name's directory and each new directory above it after that,
//! all of it before the manifest has its own; and a manifest that goes is gone for good before the first of its chunks.

use std::path::{Path, PathBuf};

use crate::support::{Keeper, Server};

const CALLS: &str = "fsync,fdatasync,?rename,?renameat,renameat2,?link,linkat,?mkdir,mkdirat,\
                     ?unlink,unlinkat";

/// A call that succeeded: what was asked, of which paths, and between which lines of the trace the kernel did it.
#[derive(Debug, Clone)]
struct Call {
    name: String,
    paths: Vec<PathBuf>,
    begun: usize,
    ended: usize,
}

/// What one command asked of the kernel.
struct Trace(Vec<Call>);

impl Trace {
    /// Runs a command that must succeed.
    #[track_caller]
    fn of(keeper: &Keeper, args: &str) -> Self {
        let file = keeper.work().join("trace");
        let strace = format!(
            "exec strace --follow-forks --seccomp-bpf --decode-fds=path --string-limit=4096 \
             --trace='{CALLS}' --output='{}' -- \"$PGKEEP\" {args}",
            file.display()
        );
        keeper.shell(&strace).env("PGKEEP", env!("CARGO_BIN_EXE_pgkeep")).run().expect_code(0);
        Self::read(&std::fs::read_to_string(file).expect("strace wrote it"))
    }

    /// A line is a call, or where another thread's came in between: its first half, or its second.
    fn read(text: &str) -> Self {
        let mut calls = Vec::new();
        let mut open: Vec<(&str, usize, &str)> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (thread, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim_start();
            if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
                open.push((thread, at, first));
            } else if rest.starts_with("<... ") {
                let place = open.iter().position(|(other, ..)| *other == thread);
                let (_, begun, first) = open.remove(place.expect("it was begun"));
                calls.extend(rest.ends_with(" = 0").then(|| Call::of(first, begun, at)));
            } else if rest.ends_with(" = 0") {
                calls.push(Call::of(rest, at, at));
            }
        }
        Self(calls)
    }

    fn first(&self, of: impl Fn(&Call) -> bool) -> Option<&Call> {
        self.0.iter().filter(|call| of(call)).min_by_key(|call| call.ended)
    }

    /// When a path got its name.
    #[track_caller]
    fn named(&self, path: &Path) -> &Call {
        let call = self.first(|call| call.gives_name() && call.paths[1] == path);
        call.unwrap_or_else(|| panic!("{} was never named", path.display()))
    }

    /// The line by which what is in a directory after line `after` is there for good.
    #[track_caller]
    fn synced(&self, directory: &Path, after: usize) -> usize {
        let sync = self.first(|call| call.syncs(directory) && call.begun > after);
        sync.unwrap_or_else(|| panic!("{} is not synced after {after}", directory.display())).ended
    }

    /// The line by which no power cut takes an object any more; its bytes were there before its name.
    #[track_caller]
    fn durable(&self, object: &Path) -> usize {
        let named = self.named(object);
        let written = self.first(|call| call.syncs(&named.paths[0]) && call.ended < named.begun);
        assert!(written.is_some(), "{} was named before its bytes were synced", object.display());
        let directory = object.parent().expect("it has one");
        let mut durable = self.synced(directory, named.ended);
        for above in directory.ancestors() {
            let made = self.first(|call| call.name.starts_with("mkdir") && call.paths[0] == above);
            if let Some(made) = made {
                durable = durable.max(self.synced(above.parent().expect("a parent"), made.ended));
            }
        }
        durable
    }

    #[track_caller]
    fn removed(&self, object: &Path) -> &Call {
        let call = self.first(|call| call.name.starts_with("unlink") && call.paths[0] == object);
        call.unwrap_or_else(|| panic!("{} was not removed", object.display()))
    }
}

impl Call {
    /// `name(…)`, with paths in quotes and those of descriptors in angle brackets.
    fn of(text: &str, begun: usize, ended: usize) -> Self {
        let (name, arguments) = text.split_once('(').expect("a call");
        let own = if name.ends_with("sync") { ('<', '>') } else { ('"', '"') };
        let mut paths = Vec::new();
        let mut rest = arguments;
        while let Some((_, after)) = rest.split_once(own.0) {
            let (path, after) = after.split_once(own.1).expect("it is closed");
            paths.push(PathBuf::from(path));
            rest = after;
        }
        assert!(!paths.is_empty(), "{text}");
        Self { name: name.to_owned(), paths, begun, ended }
    }

    fn gives_name(&self) -> bool {
        (self.name.starts_with("rename") || self.name.starts_with("link")) && self.paths.len() == 2
    }

    fn syncs(&self, path: &Path) -> bool {
        self.name.ends_with("sync") && self.paths[0] == path
    }
}

/// The one object whose name begins and ends so.
#[track_caller]
fn one(objects: &[(String, PathBuf)], begin: &str, end: &str) -> PathBuf {
    let mut found = objects.iter().filter(|(key, _)| key.starts_with(begin) && key.ends_with(end));
    let (_, path) = found.next().unwrap_or_else(|| panic!("no {begin}…{end}"));
    assert!(found.next().is_none(), "several {begin}…{end}");
    path.clone()
}

#[test]
fn everything_a_manifest_relies_on_is_durable_before_the_manifest_has_its_name() {
    let database = Server::newer().database("durable");
    let keeper = Keeper::new(&database.shop(3000).url());
    let trace = Trace::of(&keeper, "init");
    let made = keeper.objects();
    let document = one(&made, "pgkeep-repository.json", "json");
    for (key, path) in made.iter().filter(|(_, path)| *path != document) {
        assert!(trace.durable(path) < trace.named(&document).begun, "{key}");
    }
    trace.durable(&document);

    let trace = Trace::of(&keeper, "snapshot");
    let mut all = keeper.objects();
    all.retain(|object| !made.contains(object));
    let manifest = one(&all, "clusters/main/snapshots/", ".json");
    let (done, event) =
        (one(&all, "intents/", ".done"), one(&all, "clusters/main/events/", ".json"));
    let after =
        [manifest.clone(), done.clone(), event.clone(), event.with_extension("json.minisig")];
    let before: Vec<_> = all.iter().filter(|(_, path)| !after.contains(path)).collect();
    assert!(before.iter().filter(|(key, _)| key.starts_with("chunks/")).count() > 1, "{all:?}");
    for (key, path) in before {
        assert!(trace.durable(path) < trace.named(&manifest).begun, "{key}");
    }
    assert!(trace.durable(&manifest) < trace.named(&done).begun);
    for path in after {
        trace.durable(&path);
    }
}

#[test]
fn a_manifest_is_gone_for_good_before_the_first_of_its_chunks_goes() {
    let database = Server::newer().database("undone");
    let mut keeper = Keeper::initialised(&database.shop(3000).url());
    keeper
        .set("PGKEEP__CLUSTERS__MAIN__RETENTION__KEEP_LAST", "1")
        .set("PGKEEP__REPOSITORY__GRACE", "0s");
    keeper.snapshot();
    let manifest = one(&keeper.objects(), "clusters/main/snapshots/", ".json");
    database.psql("UPDATE orders SET note = note || '!'");
    keeper.snapshot();
    let before = keeper.objects();
    let trace = Trace::of(&keeper, "prune");
    let after = keeper.objects();
    let gone = trace.removed(&manifest);
    let for_good = trace.synced(manifest.parent().expect("it has one"), gone.ended);
    let chunks: Vec<_> = before
        .iter()
        .filter(|object| object.0.starts_with("chunks/") && !after.contains(object))
        .collect();
    assert!(!chunks.is_empty());
    for (key, path) in chunks {
        assert!(for_good < trace.removed(path).begun, "{key}");
        trace.synced(path.parent().expect("it has one"), trace.removed(path).ended);
    }
    // What says that they go was there before any of them went.
    let is_list = |call: &&Call| {
        call.gives_name() && call.paths[1].starts_with(keeper.repository().join("condemned"))
    };
    let lists: Vec<_> = trace.0.iter().filter(is_list).map(|call| &call.paths[1]).collect();
    assert!(!lists.is_empty());
    for list in lists {
        assert!(trace.durable(list) < gone.begun, "{}", list.display());
    }
}
