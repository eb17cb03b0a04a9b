//! Dumps that other tools made: what a file is, told by its content and never by its name.
//!
//! [`wrapping`] tells what was put around a dump, [`form`] what the dump itself is; both look at the first
//! [`HEAD_BYTES`] only. [`script::Scanner`] reads a plain one.

pub mod creation;
pub mod script;
pub mod statement;

use super::archive::Preamble;
use super::failure::{Failure, FailureKind};

/// So many first bytes tell what a file is: the comments that begin a plain dump, or the header of an archive.
pub const HEAD_BYTES: usize = 16 << 10;

/// A tar's header block, after which its first member begins.
const TAR_BLOCK: usize = 512;

/// What may be around a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// What a dump is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// SQL for psql.
    Plain,
    /// `--format=custom`.
    Custom(Preamble),
    /// `--format=tar`.
    Tar(Preamble),
}

/// Why a file is no dump that can be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADump {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Encrypted by another program.
    #[error("it is encrypted ({0})")]
    Encrypted(&'static str),
    /// Compressed or packed in a way that is not read.
    #[error("it is packed with {0}")]
    Packed(&'static str),
    /// Of another database system.
    #[error("it is a dump of {0}, not of PostgreSQL")]
    Foreign(&'static str),
    /// Every database of a server.
    #[error("it is a dump of a whole server, made by pg_dumpall")]
    WholeServer,
    /// A tar that is not `pg_dump`'s.
    #[error("it is a tar archive, and not one that pg_dump made")]
    OtherTar,
    /// `toc.dat` alone.
    #[error("it is the table of contents of a dump that is a directory")]
    PartOfDirectory,
    /// Text in two-byte units.
    #[error("it is in UTF-16")]
    Utf16,
    /// An archive whose header cannot be read.
    #[error("it begins as a pg_dump archive, and its header cannot be read")]
    Header,
    /// None of it.
    #[error("it is no dump that pg_dump made")]
    Unknown,
}

impl Failure for NotADump {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Empty | Self::Header => FailureKind::Damage,
            _ => FailureKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty => "the dump failed or its disk was full when it was made; use another one".to_owned(),
            Self::Encrypted("age") => {
                "decrypt it first: `age -d -i KEY FILE | pgkeep import - --database NAME`".to_owned()
            }
            Self::Encrypted(_) => "decrypt it first, and import what comes out".to_owned(),
            Self::Packed(_) => {
                "unpack it first; gzip and zstd are unpacked by pgkeep itself".to_owned()
            }
            Self::Foreign(_) => {
                "move it into a PostgreSQL database with a tool for that (such as pgloader), then run `pgkeep snapshot`"
                    .to_owned()
            }
            Self::WholeServer => {
                "load it into a server of its own and run `pgkeep snapshot` there, or dump each database with pg_dump"
                    .to_owned()
            }
            Self::OtherTar => {
                "if it holds a directory that pg_dump made, unpack it and import that directory".to_owned()
            }
            Self::PartOfDirectory => "name the directory instead of a file in it".to_owned(),
            Self::Utf16 => "convert it first: `iconv -f UTF-16 -t UTF-8`".to_owned(),
            Self::Header => "it is cut off or damaged, or of a pg_dump before 9.0".to_owned(),
            Self::Unknown => {
                "files of `pg_dump` in any of its formats are imported, also within gzip or zstd; load anything else \
                 into a database yourself and run `pgkeep snapshot`"
                    .to_owned()
            }
        })
    }
}

/// What is around a dump that begins so.
pub fn wrapping(head: &[u8]) -> Option<Wrapping> {
    if head.starts_with(&[0x1f, 0x8b]) {
        Some(Wrapping::Gzip)
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Some(Wrapping::Zstd)
    } else {
        None
    }
}

/// What begins so; `head` is at most [`HEAD_BYTES`] of it, out of its wrapping.
pub fn form(head: &[u8]) -> Result<Form, NotADump> {
    if head.is_empty() {
        return Err(NotADump::Empty);
    }
    if head.starts_with(b"PGDMP") {
        return Ok(Form::Custom(Preamble::read(head).ok_or(NotADump::Header)?));
    }
    if head.get(257..262) == Some(b"ustar") {
        if !head.starts_with(b"toc.dat\0") {
            return Err(NotADump::OtherTar);
        }
        return Ok(Form::Tar(Preamble::read(&head[TAR_BLOCK..]).ok_or(NotADump::Header)?));
    }
    if let Some(other) = other_by_magic(head) {
        return Err(other);
    }
    let has = |words: &str| memchr::memmem::find(head, words.as_bytes()).is_some();
    if has("-- PostgreSQL database cluster dump") {
        Err(NotADump::WholeServer)
    } else if has("-- PostgreSQL database dump") {
        Ok(Form::Plain)
    } else if has("-- MySQL dump") || has("-- MariaDB dump") || has("-- phpMyAdmin") {
        Err(NotADump::Foreign("MySQL"))
    } else if head.starts_with(b"PRAGMA foreign_keys") || head.starts_with(b"SQLite format 3\0") {
        Err(NotADump::Foreign("SQLite"))
    } else {
        Err(NotADump::Unknown)
    }
}

fn other_by_magic(head: &[u8]) -> Option<NotADump> {
    let magics: [(&[u8], NotADump); 12] = [
        (b"age-encryption.org/v1", NotADump::Encrypted("age")),
        (b"-----BEGIN AGE ENCRYPTED FILE-----", NotADump::Encrypted("age")),
        (b"-----BEGIN PGP MESSAGE-----", NotADump::Encrypted("PGP")),
        (b"Salted__", NotADump::Encrypted("openssl enc")),
        (b"\xfd7zXZ\0", NotADump::Packed("xz")),
        (b"BZh", NotADump::Packed("bzip2")),
        (b"\x04\x22\x4d\x18", NotADump::Packed("lz4")),
        (b"PK\x03\x04", NotADump::Packed("zip")),
        (b"7z\xbc\xaf\x27\x1c", NotADump::Packed("7z")),
        // A wrapping within a wrapping.
        (b"\x1f\x8b", NotADump::Packed("gzip, twice")),
        (b"\xff\xfe", NotADump::Utf16),
        (b"\xfe\xff", NotADump::Utf16),
    ];
    magics.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, what)| what)
}

/// The major version in `15.18 (Debian 15.18-1)`, `9.6.24` or `18beta1`.
pub fn major_of(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V14: &[u8] = include_bytes!("../../../tests/fixtures/archives/odd-1.14.dump");

    #[test]
    fn a_file_is_known_by_its_content() {
        let Ok(Form::Custom(preamble)) = form(V14) else { panic!("an archive") };
        assert_eq!((preamble.minor, &*preamble.database), (14, "odd"));
        assert!(major_of(&preamble.server_version).is_some());
        let mut tar = vec![0; TAR_BLOCK];
        tar[..7].copy_from_slice(b"toc.dat");
        tar[257..262].copy_from_slice(b"ustar");
        tar.extend_from_slice(V14);
        assert!(matches!(form(&tar), Ok(Form::Tar(_))));
        tar[..7].copy_from_slice(b"shop/to");
        assert_eq!(form(&tar), Err(NotADump::OtherTar));
        assert_eq!(form(b"--\n-- PostgreSQL database dump\n--\n"), Ok(Form::Plain));
        for (head, what) in [
            (&b""[..], NotADump::Empty),
            (b"PGDMP\x01", NotADump::Header),
            (b"--\n-- PostgreSQL database cluster dump\n--\n", NotADump::WholeServer),
            (b"-- MySQL dump 10.13  Distrib 8.0\n", NotADump::Foreign("MySQL")),
            (b"age-encryption.org/v1\n-> X25519", NotADump::Encrypted("age")),
            (b"\xff\xfe-\0-\0", NotADump::Utf16),
            (b"hello", NotADump::Unknown),
        ] {
            assert_eq!(form(head), Err(what));
        }
    }

    #[test]
    fn what_is_around_a_dump_is_known_by_its_first_bytes() {
        assert_eq!(wrapping(b"\x1f\x8b\x08\0"), Some(Wrapping::Gzip));
        assert_eq!(wrapping(b"\x28\xb5\x2f\xfd"), Some(Wrapping::Zstd));
        assert_eq!(wrapping(b"PGDMP"), None);
    }

    #[test]
    fn the_major_of_a_version_is_read() {
        for (version, major) in [("15.18 (Debian)", 15), ("9.6.24", 9), ("18beta1", 18)] {
            assert_eq!(major_of(version), Some(major));
        }
        assert_eq!(major_of("none"), None);
    }
}
