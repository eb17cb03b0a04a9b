use proptest::prelude::*;

use super::*;

const V14: &[u8] = include_bytes!("../../../tests/fixtures/archives/odd-1.14.dump");
const V16: &[u8] = include_bytes!("../../../tests/fixtures/archives/odd-1.16.dump");

/// What format 1.15 changed: the compression is a byte.
fn as_v15(v14: &[u8]) -> Vec<u8> {
    let mut archive = v14.to_vec();
    archive[6] = 15;
    archive.drain(11..15);
    archive
}

fn read(archive: &[u8], piece: usize) -> Result<ArchiveSummary, ArchiveError> {
    let mut reader = ArchiveReader::counting();
    for bytes in archive.chunks(piece.max(1)) {
        reader.push(bytes)?;
    }
    reader.finish()
}

/// Collects what the data blocks hold.
#[derive(Debug, Default, Clone)]
struct Collector(Vec<(String, Vec<u8>)>);

impl DataSink for Collector {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.0.push((entry.tag.to_string(), Vec::new()));
        Ok(())
    }
    fn large_object(&mut self, oid: u32) {
        self.0.push((oid.to_string(), Vec::new()));
    }
    fn bytes(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        self.0.last_mut().expect("something began").1.extend_from_slice(bytes);
    }
    fn end(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
}

#[test]
fn archives_of_every_format_hold_what_the_database_held() {
    for (minor, archive) in [(14, V14.to_vec()), (15, as_v15(V14)), (16, V16.to_vec())] {
        let summary = read(&archive, 4096).expect("a whole archive");
        assert_eq!(summary.toc.header.minor, minor);
        assert_eq!(summary.toc.header.database, "odd");
        assert_eq!(summary.toc.encoding(), Some("UTF8"));
        let rows: Vec<(&str, u64)> =
            summary.tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
        let expected = [
            ("Tab, (le) ünïcode", 3),
            ("customers", 9),
            ("empty_one", 0),
            ("nocols", 2),
            ("onetext", 4),
            ("parts_1", 9),
            ("parts_2", 10),
        ];
        assert_eq!(rows, expected, "1.{minor}");
        assert_eq!(summary.rows(), 37);
        assert_eq!(summary.tables[0].schema, "Odd \"Schema\"");
        assert_eq!(summary.tables[0].columns, ["z col", "Ä(b)", "a\"q", "d"]);
        let customers =
            ["id", "name", "feeling", "attrs", "doc", "raw", "born", "ratio"].map(String::from);
        assert_eq!(summary.tables[1].columns, customers);
        assert!(summary.tables.iter().all(|table| table.via_root.is_none()));
        let sequences: Vec<(&str, i64, bool)> = summary
            .sequences
            .iter()
            .map(|sequence| (sequence.name.as_str(), sequence.last_value, sequence.is_called))
            .collect();
        let expected =
            [("it's a (seq), true", 41, false), ("customers_id_seq", 9, true), ("down", -2, true)];
        assert_eq!(sequences, expected);
        assert_eq!((summary.large_objects, summary.large_object_bytes), (3, 3004));
        assert_eq!(summary.bytes, archive.len() as u64);
    }
}

#[test]
fn rows_and_large_objects_come_out_as_they_are() {
    let mut reader = ArchiveReader::new(Collector::default());
    reader.push(V14).expect("an archive");
    let (_, Collector(found)) = reader.complete().expect("a whole archive");
    let of = |name: &str| {
        let (_, bytes) = found.iter().find(|(tag, _)| tag == name).expect("it is there");
        String::from_utf8_lossy(bytes).into_owned()
    };
    assert_eq!(of("parts_1").lines().next(), Some("0\tv0"));
    assert_eq!(of("onetext"), "\n\n\\\\.\n\n\\.\n\n\n");
    assert_eq!(of("70002"), "");
    assert_eq!(of("3000000000"), "large ".repeat(500));
}

#[test]
fn any_cutting_of_the_stream_gives_the_same() {
    for archive in [V14, V16] {
        let whole = read(archive, usize::MAX);
        for piece in [1, 2, 3, 5, 7, 64, 1000] {
            assert_eq!(read(archive, piece), whole, "pieces of {piece}");
        }
    }
}

#[test]
fn the_head_ends_where_the_first_block_begins() {
    for archive in [V14, V16] {
        let mut reader = ArchiveReader::new(NoSink);
        for bytes in archive.chunks(100) {
            reader.push(bytes).expect("an archive");
        }
        let (toc, bytes) = reader.head().expect("the head is complete");
        let first = toc.entries.iter().filter_map(|entry| entry.data_at).min();
        assert_eq!(Some(bytes), first);
    }
}

#[test]
fn blocks_and_sections_are_where_the_entries_say() {
    let summary = read(V14, 512).expect("a whole archive");
    for entry in summary.toc.entries.iter().filter(|entry| entry.has_data) {
        let at = usize::try_from(entry.data_at.expect("it was seen")).expect("it is small");
        let kind = if entry.is_large_objects() { 3 } else { 1 };
        assert_eq!(V14[at], kind);
        assert_eq!(V14[at + 2..at + 6], entry.dump_id.to_le_bytes());
        assert_eq!(entry.section, Section::Data);
    }
    let of = |desc: &str| {
        let found = summary.toc.entries.iter().find(|entry| &*entry.desc == desc);
        found.map(|entry| entry.section)
    };
    assert_eq!(of("TABLE"), Some(Section::PreData));
    assert_eq!(of("CONSTRAINT"), Some(Section::PostData));
    assert_eq!(of("COMMENT"), Some(Section::None));
}

#[test]
fn refreshes_that_would_read_foreign_tables_are_found() {
    for archive in [V14, V16] {
        let toc = read(archive, 4096).expect("a whole archive").toc;
        let found: Vec<&str> =
            toc.refreshes_over_foreign_tables().iter().map(|at| &*toc.entries[*at].tag).collect();
        assert_eq!(found, ["mv_foreign", "mv_over_mv", "mv_partition"]);
    }
}

#[test]
fn an_archive_that_lacks_its_last_block_is_not_whole() {
    let toc = read(V14, 512).expect("a whole archive").toc;
    let last = toc.entries.iter().filter_map(|entry| entry.data_at).max().expect("there is data");
    let cut = &V14[..usize::try_from(last).expect("it is small")];
    let told = ArchiveError::MissingData { entry: "BLOBS BLOBS".into() };
    assert_eq!(read(cut, 512), Err(told));
}

#[test]
fn other_inputs_are_refused_by_name() {
    let refused = |bytes: &[u8]| read(bytes, 1024).expect_err("it is refused");
    assert_eq!(refused(b"--\n-- PostgreSQL database dump\n--\n"), ArchiveError::NotAnArchive);
    assert!(matches!(refused(b""), ArchiveError::Incomplete { position: 0, .. }));
    assert!(matches!(refused(b"PGD"), ArchiveError::Incomplete { .. }));
    let mut newer = V16.to_vec();
    newer[6] = 17;
    assert_eq!(refused(&newer), ArchiveError::Version { major: 1, minor: 17 });
    let mut packed = V16.to_vec();
    packed[11] = 1;
    assert_eq!(refused(&packed), ArchiveError::Compressed);
    let mut more = V14.to_vec();
    more.extend_from_slice(b"\x01\x00\x01\x00\x00\x00");
    assert!(matches!(refused(&more), ArchiveError::Shape { .. }));
}

#[test]
fn after_an_error_nothing_is_accepted() {
    let mut reader = ArchiveReader::counting();
    assert!(reader.push(b"garbage").is_err());
    assert!(reader.push(V14).is_err());
    assert!(reader.finish().is_err());
}

#[test]
fn every_error_has_a_hint() {
    for error in [ArchiveError::NotAnArchive, ArchiveError::MissingData { entry: "x".into() }] {
        assert!(error.hint().is_some(), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_cut_archive_is_never_whole(cut in 0..V16.len(), piece in 1..4096_usize) {
        prop_assert!(read(&V16[..cut], piece).is_err());
        prop_assert!(read(&V14[..cut.min(V14.len() - 1)], piece).is_err());
    }

    #[test]
    fn a_changed_archive_never_panics(
        changes in prop::collection::vec((0..V14.len(), any::<u8>()), 1..8),
        piece in 1..4096_usize,
    ) {
        let mut archive = V14.to_vec();
        for (at, byte) in changes {
            archive[at] = byte;
        }
        if let Ok(summary) = read(&archive, piece) {
            summary.toc.refreshes_over_foreign_tables();
        }
    }

    #[test]
    fn garbage_behind_the_magic_never_panics(
        rest in prop::collection::vec(any::<u8>(), 0..2000),
        piece in 1..100_usize,
    ) {
        let mut archive = b"PGDMP\x01\x0e\x00\x04\x08\x01\x00\x00\x00\x00\x00".to_vec();
        archive.extend_from_slice(&rest);
        prop_assert!(read(&archive, piece).is_err());
    }

    #[test]
    fn garbage_behind_the_table_of_contents_is_refused(
        rest in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let mut archive = V14.to_vec();
        archive.extend_from_slice(&rest);
        prop_assert!(read(&archive, 100).is_err());
    }
}
