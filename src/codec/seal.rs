//! Sealing: compress, then encrypt; and back. What is stored is a plain zstd frame in a plain age file, so
//! that `age -d -i KIT | zstd -d` opens it without us.
//!
//! **Fails closed.** A sealer that encrypts cannot be made without recipients, an opener that was given
//! identities refuses what is not encrypted, and plaintext is a variant of its own that someone asked for
//! by name (`--insecure-plaintext`).
//!
//! Sealing is work of milliseconds per mebibyte: call it on a blocking thread.

use std::sync::Arc;

use super::compress::{CompressError, compress, decompress};
use super::encrypt::{EncryptionError, Identities, Recipients};
use crate::domain::failure::{Failure, FailureKind};

pub use super::encrypt::is_age_file;

/// The zstd level that ships.
pub const SHIPPED_LEVEL: i32 = 1;

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Encrypting or decrypting.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// Compressing or decompressing.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// Encrypted, where a repository in plaintext was to be read.
    #[error("the object is encrypted, and no identity was given")]
    Encrypted,
}

impl Failure for SealError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Encryption(error) => error.kind(),
            Self::Compress(error) => error.kind(),
            Self::Encrypted => FailureKind::Key,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Encryption(error) => error.hint(),
            Self::Compress(error) => error.hint(),
            Self::Encrypted => Some("give the recovery kit in PGKEEP_IDENTITY_FILE".to_owned()),
        }
    }
}

/// How objects are sealed.
#[derive(Debug, Clone)]
pub enum Sealing {
    /// To these recipients.
    Age(Recipients),
    /// Compressed only, readable by all: `--insecure-plaintext`.
    InsecurePlaintext,
}

/// Seals; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sealer {
    sealing: Arc<Sealing>,
    level: i32,
}

impl Sealer {
    /// Seals to `recipients`, compressing at zstd `level`.
    pub fn new(recipients: &Recipients, level: i32) -> Self {
        Self::with(Sealing::Age(recipients.clone()), level)
    }

    /// Compresses only.
    pub fn insecure_plaintext(level: i32) -> Self {
        Self::with(Sealing::InsecurePlaintext, level)
    }

    /// Seals as said.
    pub fn with(sealing: Sealing, level: i32) -> Self {
        Self { sealing: Arc::new(sealing), level }
    }

    /// How this one seals.
    pub fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// The stored form of `plain`. Twice the same gives two different texts (age draws a key for each).
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut frame = compress(plain, self.level)?;
        match &*self.sealing {
            Sealing::Age(recipients) => Ok(recipients.encrypt(&frame)?),
            Sealing::InsecurePlaintext => {
                frame.shrink_to_fit();
                Ok(frame)
            }
        }
    }
}

/// Opens; cheap to clone.
#[derive(Debug, Clone)]
pub struct Opener {
    /// None reads a repository in plaintext.
    identities: Option<Arc<Identities>>,
}

impl Opener {
    /// Opens what one of `identities` can.
    pub fn new(identities: Identities) -> Self {
        Self { identities: Some(Arc::new(identities)) }
    }

    /// Opens what was never encrypted.
    pub fn insecure_plaintext() -> Self {
        Self { identities: None }
    }

    /// What was sealed, when that is at most `max_plain` bytes; memory stays within that and the size of
    /// what is stored.
    pub fn open(&self, sealed: &[u8], max_plain: usize) -> Result<Vec<u8>, SealError> {
        match &self.identities {
            Some(identities) => Ok(decompress(&identities.decrypt(sealed)?, max_plain)?),
            None if is_age_file(sealed) => Err(SealError::Encrypted),
            None => Ok(decompress(sealed, max_plain)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encrypt::generate_identity;
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Sealer, Opener) {
        let (secret, public) = generate_identity();
        let recipients = Recipients::parse(&[public]).expect("own key");
        let identities = Identities::parse(&secret).expect("own key");
        (Sealer::new(&recipients, SHIPPED_LEVEL), Opener::new(identities))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_was_sealed_opens(plain in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (sealer, opener) = pair();
            let sealed = sealer.seal(&plain).expect("seals");
            prop_assert!(is_age_file(&sealed));
            prop_assert_eq!(opener.open(&sealed, plain.len()).ok(), Some(plain));
        }
    }

    #[test]
    fn larger_than_a_stream_chunk_of_age_opens_too() {
        let (sealer, opener) = pair();
        let mut plain = vec![0; 4 << 20];
        crate::codec::hash::ChunkKey::from_bytes([3; 32]).derive_into("noise", &mut plain);
        let stored = sealer.seal(&plain).expect("seals");
        assert!(stored.len() > 4 << 20 && stored.len() < (4 << 20) + 4096);
        assert_eq!(opener.open(&stored, 4 << 20).expect("opens"), plain);
        assert!(opener.open(&stored, (4 << 20) - 1).is_err());
    }

    #[test]
    fn an_opener_with_identities_refuses_plaintext() {
        let open = Sealer::insecure_plaintext(1).seal(b"rows").expect("compresses");
        let error = pair().1.open(&open, 100).expect_err("not encrypted");
        assert!(matches!(error, SealError::Encryption(EncryptionError::NotAge)));
        assert_eq!(Opener::insecure_plaintext().open(&open, 100).ok(), Some(b"rows".to_vec()));
    }

    #[test]
    fn plaintext_is_not_read_where_it_is_encrypted() {
        let sealed = pair().0.seal(b"rows").expect("seals");
        let error = Opener::insecure_plaintext().open(&sealed, 100).expect_err("encrypted");
        assert!(matches!(error, SealError::Encrypted));
    }

    #[test]
    fn sealers_and_openers_go_to_other_threads() {
        fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
        let (sealer, opener) = pair();
        shared(&sealer);
        shared(&opener);
    }
}
