//! The head of an archive: header and table of contents.
//!
//! Layout after PostgreSQL's `pg_backup_archiver.c` (`ReadHead`, `ReadToc`, `ReadOffset`): an integer is
//! a sign byte and `intSize` bytes, little end first; a string is its length (-1: none) and its bytes;
//! an offset is a state byte and `offSize` bytes, little end first. What a version adds: 1.15 the
//! compression as one byte, 1.16 the relation kind of an entry.
//!
//! Parsing is transactional: a header or entry that is not all there yet is tried again from its start
//! when more bytes have come. Trying costs only the walk over its fields; strings are copied once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::ArchiveError;

/// Versions 1.x of the format that are read: PostgreSQL 12–15 write 14, 16 writes 15, 17 and 18 write 16.
pub const MINOR_VERSIONS: std::ops::RangeInclusive<u8> = 14..=16;

/// No single string of a table of contents is taken beyond this: garbage must not fill the memory.
const STRING_BYTES_MAX: usize = 256 << 20;

/// `K_OFFSET_POS_SET`: the entry's data block lies at the position that follows.
const OFFSET_SET: u8 = 2;
/// `K_OFFSET_POS_NOT_SET`: the entry has data, somewhere.
const OFFSET_NOT_SET: u8 = 1;
/// `K_OFFSET_NO_DATA`.
const OFFSET_NO_DATA: u8 = 3;

/// What the first bytes of an archive say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveHeader {
    /// The format is 1.`minor`.
    pub minor: u8,
    /// The database that was dumped.
    pub database: String,
    /// Version of its server, as the server says it.
    pub server_version: String,
    /// Version of the `pg_dump` that wrote it.
    pub dump_version: String,
}

/// One entry of the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Its number, unique in the archive; what a `pg_restore -L` list names.
    pub dump_id: u32,
    /// OID of its catalog (`pg_class` is 1259); 0 for entries that are no object.
    pub catalog: u32,
    /// OID of the object in the database that was dumped.
    pub oid: u32,
    /// What it is: `TABLE`, `TABLE DATA`, `EXTENSION`, `COMMENT`…
    pub desc: Arc<str>,
    /// Schema, unquoted.
    pub namespace: Option<Arc<str>>,
    /// Name, unquoted (for `COMMENT` and `ACL`: `EXTENSION hstore`, `COLUMN t.c`…).
    pub tag: Box<str>,
    /// Owner, unquoted; empty where there is none.
    pub owner: Arc<str>,
    /// The SQL that makes it; none where that is empty, and none kept for large objects.
    pub defn: Option<Box<str>>,
    /// Its tablespace, unquoted; none is the database's own.
    pub tablespace: Option<Arc<str>>,
    /// The COPY statement of `TABLE DATA`.
    pub copy_stmt: Option<Box<str>>,
    /// `relkind` of a relation; archives before 1.16 do not tell.
    pub relkind: Option<char>,
    /// Numbers of the entries that this one needs.
    pub dependencies: Box<[u32]>,
    /// Whether a data block belongs to it.
    pub has_data: bool,
    /// When a restore takes it.
    pub section: Section,
    /// Where the entry begins in the archive.
    pub begins_at: u64,
    /// Where its data block begins, once the block was seen.
    pub data_at: Option<u64>,
}

impl TocEntry {
    /// `TABLE DATA public.orders`, for messages.
    pub fn describe(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}.{}", self.desc, self.tag),
            None => format!("{} {}", self.desc, self.tag),
        }
    }

    /// Whether its data block holds large objects.
    pub fn is_large_objects(&self) -> bool {
        &*self.desc == "BLOBS"
    }
}

/// When a restore takes an entry (`teSection` of `pg_backup.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// With what it belongs to: comments, grants, labels.
    None,
    /// Before any row: what rows need to be there.
    PreData,
    /// Rows, large objects, sequence values.
    Data,
    /// After the rows: indexes, constraints, triggers, policies.
    PostData,
}

/// Header and entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The header.
    pub header: ArchiveHeader,
    /// The entries in the archive's order, which is an order of restoring.
    pub entries: Vec<TocEntry>,
}

impl Toc {
    /// The client encoding of the archive's bytes, such as `UTF8`.
    pub fn encoding(&self) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| &*entry.desc == "ENCODING")?;
        entry.defn.as_deref()?.split('\'').nth(1)
    }

    /// Indices of `MATERIALIZED VIEW DATA` entries whose refresh would read a foreign table: directly,
    /// through views, through other materialized views, or through a partition.
    ///
    /// Known by the archive's own dependencies. What a function body reads is in no catalog.
    pub fn refreshes_over_foreign_tables(&self) -> Vec<usize> {
        let mut tainted: BTreeSet<u32> = BTreeSet::new();
        let foreign = self.entries.iter().filter(|entry| &*entry.desc == "FOREIGN TABLE");
        for entry in foreign {
            tainted.insert(entry.dump_id);
        }
        if tainted.is_empty() {
            return Vec::new();
        }
        let descs: HashMap<u32, &str> =
            self.entries.iter().map(|entry| (entry.dump_id, &*entry.desc)).collect();
        let that_are = |entry: &TocEntry, wanted: &'static str| {
            let is_wanted = |id: &u32| descs.get(id) == Some(&wanted);
            entry.dependencies.iter().copied().filter(is_wanted).collect::<Vec<u32>>()
        };
        loop {
            let before = tainted.len();
            for entry in &self.entries {
                let touched = entry.dependencies.iter().any(|id| tainted.contains(id));
                match &*entry.desc {
                    // A partition or a child gives its rows to whoever reads the parent, which it
                    // depends on; and on its schema, which taints nothing.
                    "TABLE ATTACH" if touched => tainted.extend(that_are(entry, "TABLE")),
                    "FOREIGN TABLE" => tainted.extend(that_are(entry, "TABLE")),
                    "TABLE" if tainted.contains(&entry.dump_id) => {
                        tainted.extend(that_are(entry, "TABLE"));
                    }
                    "VIEW" | "MATERIALIZED VIEW" if touched => {
                        tainted.insert(entry.dump_id);
                    }
                    // A view whose definition had to wait is a rule.
                    "RULE" if touched => tainted.extend(that_are(entry, "VIEW")),
                    _ => {}
                }
            }
            if tainted.len() == before {
                break;
            }
        }
        let refresh = |(at, entry): (usize, &TocEntry)| {
            let over = entry.dependencies.iter().any(|id| tainted.contains(id));
            (&*entry.desc == "MATERIALIZED VIEW DATA" && over).then_some(at)
        };
        self.entries.iter().enumerate().filter_map(refresh).collect()
    }
}

/// Why a unit of the head could not be read.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is not all there yet.
    Short,
    /// It never will be.
    Bad(&'static str),
    /// It is a format that is not read.
    Refused(ArchiveError),
}

type Step<T> = Result<T, Stop>;

/// A place in the bytes at hand.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(Stop::Bad("a length beyond all bounds"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    /// Sign and 32-bit magnitude.
    fn int(&mut self) -> Step<i64> {
        let field = self.take(5)?;
        let magnitude = i64::from(u32::from_le_bytes([field[1], field[2], field[3], field[4]]));
        match field[0] {
            0 => Ok(magnitude),
            1 => Ok(-magnitude),
            _ => Err(Stop::Bad("an integer without a sign")),
        }
    }

    fn string(&mut self) -> Step<Option<&'a [u8]>> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(Stop::Bad("a string that is too long"));
        }
        self.take(length).map(Some)
    }

    fn text(&mut self) -> Step<&'a [u8]> {
        Ok(self.string()?.unwrap_or_default())
    }

    fn number(&mut self) -> Step<u32> {
        number_of(self.text()?).ok_or(Stop::Bad("a number that is none"))
    }
}

fn number_of(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn owned(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// What the first bytes of any `pg_dump` archive say, whatever its form, age and compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// The format is 1.`minor`.
    pub minor: u8,
    /// 1 is custom, 3 tar, 5 directory.
    pub format: u8,
    /// Whether its data blocks are compressed.
    pub compressed: bool,
    /// Second, minute, hour, day, month (from 0) and year (from 1900) by the clock of the host that dumped.
    pub created: [i64; 6],
    /// The database that was dumped.
    pub database: String,
    /// Version of its server, as the server says it.
    pub server_version: String,
    /// Version of the `pg_dump` that wrote it.
    pub dump_version: String,
}

impl Preamble {
    /// Reads the first bytes; none where they are no archive's, or too few.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        read_preamble(bytes).ok().map(|(preamble, _)| preamble)
    }
}

/// The first format whose header tells the versions: `pg_dump` 9.0.
const OLDEST_MINOR: u8 = 12;

fn read_preamble(bytes: &[u8]) -> Step<(Preamble, usize)> {
    let mut cursor = Cursor { bytes, at: 0 };
    let magic = b"PGDMP";
    let there = bytes.len().min(magic.len());
    if bytes[..there] != magic[..there] {
        return Err(Stop::Refused(ArchiveError::NotAnArchive));
    }
    cursor.take(magic.len())?;
    let (major, minor, _revision) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    if major != 1 || minor < OLDEST_MINOR {
        return Err(Stop::Refused(ArchiveError::Version { major, minor }));
    }
    let (int_size, offset_size, format) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    if int_size != 4 || offset_size != 8 {
        return Err(Stop::Bad("integers or offsets of a size that no supported system writes"));
    }
    let compression = if minor >= 15 { i64::from(cursor.byte()?) } else { cursor.int()? };
    let mut created = [0; 6];
    for field in &mut created {
        *field = cursor.int()?;
    }
    let _summer_time = cursor.int()?;
    let preamble = Preamble {
        minor,
        format,
        compressed: compression != 0,
        created,
        database: owned(cursor.text()?),
        server_version: owned(cursor.text()?),
        dump_version: owned(cursor.text()?),
    };
    Ok((preamble, cursor.at))
}

/// The header and the number of entries; returns also how many bytes they take.
pub(super) fn read_header(bytes: &[u8]) -> Step<(ArchiveHeader, u32, usize)> {
    let version = bytes.get(5..7);
    if let Some(&[major, minor]) = version
        && bytes.starts_with(b"PGDMP")
        && (major != 1 || !MINOR_VERSIONS.contains(&minor))
    {
        return Err(Stop::Refused(ArchiveError::Version { major, minor }));
    }
    let (preamble, at) = read_preamble(bytes)?;
    if preamble.format != 1 {
        return Err(Stop::Bad("it is not in custom format"));
    }
    if preamble.compressed {
        return Err(Stop::Refused(ArchiveError::Compressed));
    }
    let mut cursor = Cursor { bytes, at };
    let count =
        u32::try_from(cursor.int()?).map_err(|_| Stop::Bad("a negative number of entries"))?;
    let Preamble { minor, database, server_version, dump_version, .. } = preamble;
    Ok((ArchiveHeader { minor, database, server_version, dump_version }, count, cursor.at))
}

/// Keeps one copy of words that come again and again.
#[derive(Debug, Default)]
pub(super) struct Words(HashMap<Box<[u8]>, Arc<str>>);

impl Words {
    fn get(&mut self, text: &[u8]) -> Arc<str> {
        if let Some(word) = self.0.get(text) {
            return Arc::clone(word);
        }
        let word: Arc<str> = owned(text).into();
        self.0.insert(text.into(), Arc::clone(&word));
        word
    }
}

/// One entry; `position` is where `bytes` begin in the archive. Returns also how many bytes it takes.
pub(super) fn read_entry(
    bytes: &[u8],
    position: u64,
    minor: u8,
    words: &mut Words,
) -> Step<(TocEntry, usize)> {
    let mut cursor = Cursor { bytes, at: 0 };
    let dump_id = u32::try_from(cursor.int()?).unwrap_or(0);
    if dump_id == 0 {
        return Err(Stop::Bad("an entry without a number"));
    }
    let had_dumper = cursor.int()? != 0;
    let (catalog, oid) = (cursor.number()?, cursor.number()?);
    let (tag, desc) = (cursor.text()?, cursor.text()?);
    let section = match cursor.int()? {
        1 => Section::None,
        2 => Section::PreData,
        3 => Section::Data,
        4 => Section::PostData,
        _ => return Err(Stop::Bad("an entry of unknown section")),
    };
    let (defn, _drop, copy) = (cursor.string()?, cursor.string()?, cursor.string()?);
    let namespace = cursor.string()?;
    let (tablespace, _access_method) = (cursor.string()?, cursor.string()?);
    let relkind = if minor >= 16 { cursor.int()? } else { 0 };
    let owner = cursor.text()?;
    let _with_oids = cursor.string()?;
    let mut dependencies = Vec::new();
    while let Some(text) = cursor.string()? {
        dependencies.push(number_of(text).ok_or(Stop::Bad("a dependency that is no number"))?);
    }
    let state = cursor.byte()?;
    if !matches!(state, OFFSET_SET | OFFSET_NOT_SET | OFFSET_NO_DATA) {
        return Err(Stop::Bad("an offset of unknown state"));
    }
    cursor.take(8)?;
    let some = |text: Option<&[u8]>| {
        text.filter(|text| !text.is_empty()).map(|text| owned(text).into_boxed_str())
    };
    // There may be a million of them, and nobody asks for what their name already says.
    let large_object = desc.starts_with(b"BLOB");
    let entry = TocEntry {
        dump_id,
        catalog,
        oid,
        desc: words.get(desc),
        namespace: namespace.filter(|text| !text.is_empty()).map(|text| words.get(text)),
        tag: owned(tag).into_boxed_str(),
        owner: words.get(owner),
        defn: if large_object { None } else { some(defn) },
        tablespace: tablespace.filter(|text| !text.is_empty()).map(|text| words.get(text)),
        copy_stmt: some(copy),
        relkind: u8::try_from(relkind).ok().filter(u8::is_ascii_alphabetic).map(char::from),
        dependencies: dependencies.into_boxed_slice(),
        has_data: had_dumper && state != OFFSET_NO_DATA,
        section,
        begins_at: position,
        data_at: None,
    };
    Ok((entry, cursor.at))
}
