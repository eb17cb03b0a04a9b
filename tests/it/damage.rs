//! A repository that was damaged or tampered with: found, named, and never restored from in silence.

use std::path::{Path, PathBuf};

use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Chance, Database, Keeper, Server, seed};

/// A keeper with one snapshot of a small shop, and where its manifest and chunks lie.
struct Scene {
    keeper: Keeper,
    id: String,
    chunks: Vec<PathBuf>,
    manifest: PathBuf,
    database: Database,
    /// Where its objects lie, if that is a bucket.
    _place: Option<S3Place>,
}

impl Scene {
    #[track_caller]
    fn new(name: &str) -> Self {
        Self::of(name, |url| (Keeper::initialised(url), None))
    }

    #[track_caller]
    fn in_bucket(name: &str) -> Self {
        Self::of(name, |url| {
            let place = S3Place::of(S3Server::start());
            let keeper = Keeper::in_bucket(url, &place, &place.endpoint);
            keeper.pgkeep(["init"]).run().expect_code(0);
            (keeper, Some(place))
        })
    }

    #[track_caller]
    fn of(name: &str, keeper: impl FnOnce(&str) -> (Keeper, Option<S3Place>)) -> Self {
        let database = Server::older().database(name);
        // More than the largest chunk, so that there are several wherever the key makes the cuts fall, and two can
        // be exchanged.
        database.shop(100_000);
        let (keeper, place) = keeper(&database.url());
        let id = keeper.snapshot_id();
        let manifest = format!("/snapshots/{id}.json");
        let all = keeper.objects();
        let (_, manifest) =
            all.into_iter().find(|(key, _)| key.ends_with(&manifest)).expect("a manifest");
        // In the order of the streams: the archive's, then one of the globals.
        let list = std::fs::read_to_string(manifest.with_extension("chunks")).expect("a list");
        let names = list.lines().map(|line| line.split(' ').next().expect("a name"));
        let stored = keeper.objects_under("chunks/");
        let path = |name: &str| {
            let found = stored.iter().find(|(key, _)| key.ends_with(name));
            found.unwrap_or_else(|| panic!("no chunk {name}")).1.clone()
        };
        let chunks: Vec<_> = names.map(path).collect();
        let source_bytes = keeper.list()[0]["source_bytes"].as_u64();
        assert!(source_bytes > Some(u64::from(4_u32 << 20)), "{source_bytes:?}");
        assert!(chunks.len() >= 3, "{chunks:?}");
        Self { keeper, id, chunks, manifest, database, _place: place }
    }

    /// Every way to read it says `code`, and nothing is made.
    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        let copy = format!("{}_copy", self.database.name);
        self.keeper.pgkeep(["restore", &self.id, "--as", &copy]).run().expect_failure(code, words);
        assert!(!self.database.server.has_database(&copy));
        assert_eq!(self.keeper.leftovers(), [""; 0]);
        self.keeper.pgkeep(["verify", &self.id]).run().expect_code(code);
    }
}

fn change(path: &Path, alter: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("an object");
    alter(&mut bytes);
    std::fs::write(path, bytes).expect("it can be written");
}

/// What is done to an object's bytes.
type Alter<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Each kind of damage in turn, mended before the next.
#[test]
fn damage_in_a_bucket_is_told_as_in_a_directory() {
    let scene = Scene::in_bucket("bucket");
    let (chunk, other) = (&scene.chunks[0], std::fs::read(&scene.chunks[1]).expect("a chunk"));
    let signature = PathBuf::from(format!("{}.minisig", scene.manifest.display()));
    let (_, keys) = scene.keeper.objects_under("keys/").remove(0);
    let foreign = signed_by_another_key(&scene);
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    let cases: [(&str, &Path, Option<Alter<'_>>, i32); 9] = [
        ("a missing chunk", chunk, None, 3),
        ("a truncated chunk", chunk, Some(&half), 3),
        ("a flipped bit", chunk, Some(&flip), 3),
        ("another chunk", chunk, Some(&|bytes| other.clone_into(bytes)), 3),
        ("an edited manifest", &scene.manifest, Some(&flip), 7),
        ("a truncated manifest", &scene.manifest, Some(&half), 7),
        ("no signature", &signature, None, 7),
        ("a signature by another key", &signature, Some(&|bytes| foreign.clone_into(bytes)), 7),
        ("other keys", &keys, Some(&flip), 7),
    ];
    for (what, path, alter, code) in cases {
        println!("{what}");
        let whole = std::fs::read(path).expect("an object");
        match alter {
            Some(alter) => change(path, alter),
            None => std::fs::remove_file(path).expect("an object"),
        }
        scene.refused(code, &[]);
        std::fs::write(path, whole).expect("mended");
    }
    scene.keeper.verify(&[&scene.id, "--check", "full"]);
}

#[test]
fn a_missing_chunk_is_damage() {
    let scene = Scene::new("missing");
    std::fs::remove_file(&scene.chunks[0]).expect("a chunk");
    scene.refused(3, &[]);
}

#[test]
fn a_truncated_chunk_is_damage() {
    let scene = Scene::new("truncated");
    change(&scene.chunks[0], |bytes| bytes.truncate(bytes.len() / 2));
    scene.refused(3, &[]);
}

#[test]
fn one_flipped_bit_in_a_chunk_is_damage() {
    let scene = Scene::new("flipped");
    let mut chance = Chance(seed("one_flipped_bit_in_a_chunk_is_damage"));
    let chunk = &scene.chunks[chance.below(scene.chunks.len() - 1)];
    change(chunk, |bytes| {
        let at = chance.below(bytes.len());
        bytes[at] ^= 1 << chance.below(8);
    });
    scene.refused(3, &[]);
}

#[test]
fn a_chunk_swapped_for_another_valid_one_is_damage() {
    let scene = Scene::new("swapped");
    std::fs::copy(&scene.chunks[1], &scene.chunks[0]).expect("a chunk");
    scene.refused(3, &[]);
}

#[test]
fn damage_in_the_globals_is_found_by_verify() {
    let scene = Scene::new("globals");
    std::fs::remove_file(scene.chunks.last().expect("a chunk")).expect("the globals");
    scene.keeper.pgkeep(["verify", &scene.id]).run().expect_code(3);
}

#[test]
fn an_edited_manifest_is_not_trusted() {
    let scene = Scene::new("edited");
    change(&scene.manifest, |bytes| {
        let text = String::from_utf8_lossy(bytes).replacen("manual", "import", 1);
        *bytes = text.replacen("\"import\"", "\"imported\"", 1).into_bytes();
    });
    scene.refused(7, &["sign"]);
}

#[test]
fn a_truncated_manifest_is_not_trusted() {
    let scene = Scene::new("cut");
    change(&scene.manifest, |bytes| bytes.truncate(bytes.len() - 10));
    scene.refused(7, &["sign"]);
}

#[test]
fn a_manifest_without_its_signature_is_not_trusted() {
    let scene = Scene::new("unsigned");
    let signature = format!("{}.minisig", scene.manifest.display());
    std::fs::remove_file(signature).expect("the signature");
    scene.refused(7, &["sign"]);
}

/// A signature of the manifest that is good in itself, by a key that the keeper does not know.
fn signed_by_another_key(scene: &Scene) -> Vec<u8> {
    let work = scene.keeper.work().display().to_string();
    let manifest = scene.manifest.display();
    let made = format!(
        "minisign -G -W -p {work}/pub -s {work}/sec >/dev/null && \
         minisign -S -s {work}/sec -m '{manifest}' -x {work}/foreign.minisig >/dev/null"
    );
    scene.keeper.shell(&made).run().expect_code(0);
    std::fs::read(format!("{work}/foreign.minisig")).expect("a signature")
}

#[test]
fn a_manifest_signed_by_another_key_is_not_trusted() {
    let scene = Scene::new("foreign");
    let signature = format!("{}.minisig", scene.manifest.display());
    std::fs::write(signature, signed_by_another_key(&scene)).expect("it can be written");
    scene.refused(7, &[]);
}

#[test]
fn a_good_manifest_under_another_name_is_not_trusted() {
    let scene = Scene::new("renamed");
    // Signature and manifest are true; the place they were signed for is another.
    let other = scene.id.replacen("20", "21", 1);
    let text = scene.manifest.display().to_string();
    let target = text.replace(&scene.id, &other);
    std::fs::copy(&scene.manifest, &target).expect("the manifest");
    std::fs::copy(format!("{text}.minisig"), format!("{target}.minisig")).expect("the signature");
    let output = scene.keeper.pgkeep(["restore", &other, "--as", "never_made"]).run();
    output.expect_code(7);
    assert!(!scene.database.server.has_database("never_made"));
}

#[test]
fn a_lost_signer_list_is_no_way_in() {
    let scene = Scene::new("signers");
    let (_, keys) = scene.keeper.objects_under("keys/").remove(0);
    change(&keys, |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    });
    scene.refused(7, &[]);
}

#[test]
fn a_repository_of_a_newer_format_is_refused() {
    let scene = Scene::new("newer");
    let path = scene.keeper.repository().join("pgkeep-repository.json");
    change(&path, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let newer = text.replacen("\"format\": 1", "\"format\": 99", 1);
        let newer = newer.replacen("\"format\":1", "\"format\":99", 1);
        assert_ne!(newer, text, "the document tells its format");
        *bytes = newer.into_bytes();
    });
    for verb in [&["snapshot"][..], &["list"], &["restore", "latest", "--as", "never"], &["verify"]]
    {
        let output = scene.keeper.pgkeep(verb).run();
        assert_ne!(output.code, 0);
        let code = output.code;
        output.expect_failure(code, &["99"]);
    }
}

#[test]
fn a_damaged_chunk_is_written_afresh_by_no_one_but_named_to_all() {
    let scene = Scene::new("named");
    std::fs::remove_file(&scene.chunks[0]).expect("a chunk");
    // The next snapshot sees at its commit that a chunk it counted on is not there.
    let output = scene.keeper.pgkeep(["snapshot"]).run();
    if output.code == 0 {
        // It was written again: then the new snapshot must be whole.
        scene.keeper.verify(&["latest", "--check", "full"]);
    } else {
        output.expect_failure(3, &[]);
        assert_eq!(scene.keeper.listed(), [&*scene.id]);
    }
}

#[test]
fn damage_that_a_verification_found_is_in_no_later_snapshot() {
    let scene = Scene::new("healed");
    // All of them, each of its old size: which one holds only what later snapshots share is not told.
    for chunk in &scene.chunks {
        change(chunk, |bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        });
    }
    scene.keeper.pgkeep(["verify"]).run().expect_code(3);
    // As the failed verification advises.
    scene.keeper.snapshot();
    scene.keeper.verify(&["latest", "--check", "full"]);
    // And the one after relies on the good one.
    let stored = scene.keeper.objects_under("chunks/").len();
    scene.keeper.snapshot();
    assert!(scene.keeper.objects_under("chunks/").len() < stored + scene.chunks.len());
    scene.keeper.verify(&["latest", "--check", "full"]);
}
