//! The writer key: what a host that writes backups holds. It names chunks and signs; it opens nothing.
//!
//! One line: `pgkeep-writer-key-1:<epoch>:<base64>`, where the bytes are the chunk key (32), the signing
//! secret (32), the key id (8), and the first 4 bytes of the BLAKE3 of the epoch's text and those 72, so
//! that a typing error is an error and not another key. Never in `Debug`, never in an error.

use std::fmt;

use zeroize::Zeroizing;

use super::hash::{ChunkKey, plain_hash};
use super::sign::SigningKey;
use super::text::{decode_base64, encode_base64};
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::EpochId;

const PREFIX: &str = "pgkeep-writer-key-1";
const SECRET_BYTES: usize = 32 + SigningKey::BYTES;

/// Why a text is no writer key. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriterKeyError {
    /// No line that is not a comment.
    #[error("no writer key in this text")]
    Missing,
    /// More than one such line.
    #[error("more than one writer key in this text")]
    Several,
    /// Of a kind that this version does not know.
    #[error("not a writer key of this version")]
    Unknown,
    /// Begins as one, but its check fails.
    #[error("damaged writer key")]
    Damaged,
}

impl Failure for WriterKeyError {
    fn kind(&self) -> FailureKind {
        FailureKind::Key
    }
    fn hint(&self) -> Option<String> {
        Some(
            "a writer key is one line `pgkeep-writer-key-1:…`, written by `pgkeep init`; a lost one is \
             replaced by `pgkeep key rotate`"
                .to_owned(),
        )
    }
}

/// The keys that write within one epoch.
#[derive(Clone)]
pub struct WriterKey {
    /// The epoch they belong to.
    pub epoch: EpochId,
    /// Names chunks.
    pub chunk_key: ChunkKey,
    /// Signs manifests.
    pub signing: SigningKey,
}

impl WriterKey {
    /// The one line, without a line end.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES + 4));
        bytes.extend_from_slice(self.chunk_key.as_bytes());
        bytes.extend_from_slice(&*self.signing.to_bytes());
        let check = check(&self.epoch, &bytes);
        bytes.extend_from_slice(&check);
        let secret = Zeroizing::new(encode_base64(&bytes));
        Zeroizing::new(format!("{PREFIX}:{}:{}", self.epoch, &*secret))
    }

    /// Reads the one line of `text` that is neither empty nor a `#` comment.
    pub fn parse(text: &str) -> Result<Self, WriterKeyError> {
        let mut lines = text.lines().map(str::trim);
        let mut next = || lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let line = next().ok_or(WriterKeyError::Missing)?;
        if next().is_some() {
            return Err(WriterKeyError::Several);
        }
        let rest = line.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(':'));
        let (epoch, secret) =
            rest.and_then(|rest| rest.split_once(':')).ok_or(WriterKeyError::Unknown)?;
        let epoch: EpochId = epoch.parse().map_err(|_| WriterKeyError::Damaged)?;
        let bytes = Zeroizing::new(decode_base64(secret).map_err(|_| WriterKeyError::Damaged)?);
        if bytes.len() != SECRET_BYTES + 4
            || bytes[SECRET_BYTES..] != check(&epoch, &bytes[..SECRET_BYTES])
        {
            return Err(WriterKeyError::Damaged);
        }
        let signing = Zeroizing::new(bytes[32..SECRET_BYTES].try_into().expect("40 bytes"));
        Ok(Self {
            epoch,
            chunk_key: ChunkKey::from_bytes(bytes[..32].try_into().expect("32 bytes")),
            signing: SigningKey::generate(&signing),
        })
    }
}

/// A writer key that is going to take another's place, with the recipients it will write for: the local half of
/// a rotation. A writer key's line below comments, so it may itself be taken as one.
#[derive(Debug, Clone)]
pub struct NextWriterKey {
    /// The key.
    pub writer: WriterKey,
    /// Its epoch's recipients, sorted.
    pub recipients: Vec<String>,
}

const RECIPIENT: &str = "# recipient: ";

impl NextWriterKey {
    /// The text of the file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str("# The next writer key: `pgkeep key rotate` takes it up where it stopped.\n");
        for recipient in &self.recipients {
            for part in [RECIPIENT, recipient, "\n"] {
                text.push_str(part);
            }
        }
        text.push_str(&self.writer.to_text());
        text.push('\n');
        text
    }

    /// Reads that text.
    pub fn parse(text: &str) -> Result<Self, WriterKeyError> {
        let recipients = text.lines().filter_map(|line| line.strip_prefix(RECIPIENT));
        let recipients = recipients.map(|recipient| recipient.trim().to_owned()).collect();
        Ok(Self { writer: WriterKey::parse(text)?, recipients })
    }
}

fn check(epoch: &EpochId, secret: &[u8]) -> [u8; 4] {
    let all = Zeroizing::new([epoch.as_str().as_bytes(), secret].concat());
    plain_hash(&all).0[..4].try_into().expect("4 bytes")
}

impl fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterKey({}, {:?})", self.epoch, self.signing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> WriterKey {
        WriterKey {
            epoch: EpochId::new(0x5f3a_9c21),
            chunk_key: ChunkKey::from_bytes([1; 32]),
            signing: SigningKey::generate(&[2; 40]),
        }
    }

    #[test]
    fn a_writer_key_is_one_line_that_reads_back() {
        let text = key().to_text();
        assert!(text.starts_with("pgkeep-writer-key-1:5f3a9c21:AQEB"), "{}", &*text);
        assert!(!text.contains('\n'));
        let read = WriterKey::parse(&format!("# a comment\n\n{}\r\n", &*text)).expect("own text");
        assert_eq!(read.to_text(), text);
    }

    #[test]
    fn a_next_key_keeps_its_recipients_and_is_a_writer_key() {
        let recipients = vec!["age1a".to_owned(), "age1b".to_owned()];
        let next = NextWriterKey { writer: key(), recipients: recipients.clone() };
        let read = NextWriterKey::parse(&next.to_text()).expect("own text");
        assert_eq!(read.recipients, recipients);
        assert_eq!(read.writer.to_text(), key().to_text());
        assert_eq!(WriterKey::parse(&next.to_text()).expect("a key").to_text(), key().to_text());
    }

    #[test]
    fn a_typing_error_is_an_error_and_not_another_key() {
        let text = key().to_text();
        for at in 0..text.len() {
            let mut typo = text.as_bytes().to_vec();
            typo[at] = if typo[at] == b'7' { b'8' } else { b'7' };
            let typo = String::from_utf8(typo).expect("ASCII");
            assert!(WriterKey::parse(&typo).is_err(), "at {at}");
        }
    }

    #[test]
    fn other_texts_are_told_apart() {
        let text = key().to_text();
        let parse = |text: &str| WriterKey::parse(text).map(drop);
        assert_eq!(parse("# only a comment\n"), Err(WriterKeyError::Missing));
        assert_eq!(parse(&format!("{0}\n{0}", &*text)), Err(WriterKeyError::Several));
        assert_eq!(parse(&text.replace("key-1", "key-2")), Err(WriterKeyError::Unknown));
        assert_eq!(parse("AGE-SECRET-KEY-1XYZ"), Err(WriterKeyError::Unknown));
        assert_eq!(parse(&text[..60]), Err(WriterKeyError::Damaged));
    }

    #[test]
    fn a_writer_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", key()), "WriterKey(5f3a9c21, SigningKey(0202020202020202))");
    }
}
