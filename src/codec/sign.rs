//! Signatures in minisign's format: Ed25519 over the BLAKE2b-512 of a message (`ED`, prehashed), and a
//! second one over the first and a trusted comment. `minisign -V -P RW… -m FILE -x FILE.minisig` accepts
//! them.
//!
//! **Invariants.** Only the prehashed form is written and accepted, verification is the strict one of RFC
//! 8032 (no weak keys, no malleable signatures), and a signature that verifies gives its trusted comment to
//! the caller, who must compare it: it says which object of which repository was signed, so that a signed
//! object cannot stand in for another. Secret halves are wiped when dropped and never shown.
//!
//! Format (<https://jedisct1.github.io/minisign/>):
//! ```text
//! untrusted comment: <anything>
//! base64("ED" ‖ key id (8) ‖ signature (64))
//! trusted comment: <text>
//! base64(signature over (signature ‖ text) (64))
//! ```

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::text::{decode_base64, encode_base64};
use crate::domain::failure::{Failure, FailureKind};

const PUBLIC_ALGORITHM: [u8; 2] = *b"Ed";
const PREHASHED: [u8; 2] = *b"ED";
const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// Why a signature or a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a public key of minisign's.
    #[error("`{0}` is not a minisign public key")]
    PublicKey(String),
    /// Not a signature file, or one of a form we do not accept.
    #[error("not a minisign signature")]
    Malformed,
    /// Made by another key.
    #[error("signed by key {found}, not by {wanted}")]
    OtherKey {
        /// The id in the signature.
        found: String,
        /// The id of the key it was checked against.
        wanted: String,
    },
    /// The message is not the one that was signed.
    #[error("the signature does not match the content")]
    Content,
    /// The trusted comment is not the one that was signed.
    #[error("the signature does not match its trusted comment")]
    Comment,
}

impl Failure for SignError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::PublicKey(_) => FailureKind::Usage,
            _ => FailureKind::Key,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::PublicKey(_) => "a public key is `RW` and 54 more characters on one line",
                Self::OtherKey { .. } => {
                    "if that key is yours, add its public key to `trusted_signers`; if not, someone \
                     else wrote this"
                }
                Self::Malformed | Self::Content | Self::Comment => {
                    "the object was changed after it was signed, or moved; do not trust it, use \
                     another backup"
                }
            }
            .to_owned(),
        )
    }
}

/// Names a key in a signature; it is no proof of anything.
type KeyId = [u8; 8];

/// As minisign prints it: the 8 bytes as a little-endian number, in hex.
fn key_id_text(id: KeyId) -> String {
    format!("{:016X}", u64::from_le_bytes(id))
}

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey {
    id: KeyId,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// Bytes of [`SigningKey::generate`] and [`SigningKey::to_bytes`].
    pub const BYTES: usize = 40;

    /// The key made of 40 random bytes: 32 of secret, 8 of key id.
    pub fn generate(random: &[u8; Self::BYTES]) -> Self {
        let (secret, id) = random.split_at(32);
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(secret.try_into().expect("32 bytes"));
        Self {
            id: id.try_into().expect("8 bytes"),
            key: ed25519_dalek::SigningKey::from_bytes(&secret),
        }
    }

    /// What [`SigningKey::generate`] makes this key of again.
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::BYTES]> {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        bytes[..32].copy_from_slice(self.key.as_bytes());
        bytes[32..].copy_from_slice(&self.id);
        bytes
    }

    /// The key that verifies.
    pub fn public(&self) -> PublicKey {
        PublicKey { id: self.id, key: self.key.verifying_key() }
    }

    /// The key id as minisign prints it.
    pub fn key_id(&self) -> String {
        key_id_text(self.id)
    }

    /// The text of a `.minisig` file. The comment is one line of printable text.
    pub fn sign(&self, message: &[u8], trusted_comment: &str) -> String {
        assert!(is_comment(trusted_comment), "a trusted comment is one line");
        let signature = self.key.sign(&Blake2b512::digest(message)).to_bytes();
        let global = self.key.sign(&[&signature, trusted_comment.as_bytes()].concat()).to_bytes();
        let first = encode_base64(&[&PREHASHED[..], &self.id, &signature].concat());
        let second = encode_base64(&global);
        let id = self.key_id();
        format!("{UNTRUSTED}pgkeep {id}\n{first}\n{TRUSTED}{trusted_comment}\n{second}\n")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.key_id())
    }
}

fn is_comment(text: &str) -> bool {
    // minisign reads at most 8 KiB and prints the comment to a terminal.
    text.len() <= 4096 && !text.chars().any(char::is_control)
}

/// A key that verifies; its text is minisign's `RW…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    id: KeyId,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads `RW…`, or all of a `.pub` file.
    pub fn parse(text: &str) -> Result<Self, SignError> {
        let refused = || SignError::PublicKey(text.trim().to_owned());
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line =
            lines.find(|line| !line.starts_with(UNTRUSTED.trim_end())).ok_or_else(refused)?;
        let bytes = decode_base64(line).map_err(|_| refused())?;
        let bytes: [u8; 42] = bytes.try_into().map_err(|_| refused())?;
        let key = bytes[10..].try_into().expect("32 bytes");
        let key = VerifyingKey::from_bytes(key).map_err(|_| refused())?;
        if bytes[..2] != PUBLIC_ALGORITHM || key.is_weak() || lines.next().is_some() {
            return Err(refused());
        }
        Ok(Self { id: bytes[2..10].try_into().expect("8 bytes"), key })
    }

    /// The key id as minisign prints it.
    pub fn key_id(&self) -> String {
        key_id_text(self.id)
    }

    /// Checks that this key signed `message`, and gives the trusted comment, which the caller must compare
    /// with what he expects.
    pub fn verify(&self, message: &[u8], minisig: &str) -> Result<String, SignError> {
        let parsed = Minisig::parse(minisig)?;
        if parsed.id != self.id {
            let found = key_id_text(parsed.id);
            return Err(SignError::OtherKey { found, wanted: self.key_id() });
        }
        self.key
            .verify_strict(&Blake2b512::digest(message), &parsed.signature)
            .map_err(|_| SignError::Content)?;
        let bound = [&parsed.signature.to_bytes()[..], parsed.comment.as_bytes()].concat();
        self.key.verify_strict(&bound, &parsed.global).map_err(|_| SignError::Comment)?;
        Ok(parsed.comment.to_owned())
    }
}

/// The key id that a signature names, as minisign prints it; for messages and for choosing a key.
pub fn signature_key_id(minisig: &str) -> Result<String, SignError> {
    Ok(key_id_text(Minisig::parse(minisig)?.id))
}

struct Minisig<'a> {
    id: KeyId,
    signature: Signature,
    comment: &'a str,
    global: Signature,
}

impl<'a> Minisig<'a> {
    fn parse(text: &'a str) -> Result<Self, SignError> {
        let parse = || {
            let mut lines = text.lines();
            lines.next()?.strip_prefix(UNTRUSTED)?;
            let first: [u8; 74] = decode_base64(lines.next()?).ok()?.try_into().ok()?;
            let comment = lines.next()?.strip_prefix(TRUSTED)?;
            let global: [u8; 64] = decode_base64(lines.next()?).ok()?.try_into().ok()?;
            if first[..2] != PREHASHED || !is_comment(comment) || lines.next().is_some() {
                return None;
            }
            Some(Self {
                id: first[2..10].try_into().ok()?,
                signature: Signature::from_bytes(first[10..].try_into().ok()?),
                comment,
                global: Signature::from_bytes(&global),
            })
        };
        parse().ok_or(SignError::Malformed)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&PUBLIC_ALGORITHM[..], &self.id, self.key.as_bytes()].concat();
        f.write_str(&encode_base64(&bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = SignError;
    fn from_str(text: &str) -> Result<Self, SignError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = SignError;
    fn try_from(text: String) -> Result<Self, SignError> {
        Self::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::generate(&[seed; 40])
    }

    // printf 'pgkeep test vector\n' > m; minisign -S -W -s s.key -m m -t 'repository x object y'
    // by minisign 0.11.
    const STOCK_MESSAGE: &[u8] = b"pgkeep test vector\n";
    const STOCK_PUBLIC: &str = "RWQ1QECqRBPf+SpYrmkv/W41km89DVUn07ApjQLSoA92GlMpogJrL7cf";
    const STOCK_SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUQ1QECqRBPf+cQYKxMOxSkSo+lAi6Ar1TibOTvr6k6WPAx86Xt7LCvMD4UR96QQ5C+1Kjf9WwBNwEuwQssfApJGi5pPEPpDJAY=\n\
        trusted comment: repository x object y\n\
        IR/V+2vuVdDOMmygFU0WbS7dtAtz8fOiW6PFObHlZWPOlUZ2aa+A8g3XsEW3Fsq2L/orHa7mno7P4i4sa6b/AQ==\n";

    #[test]
    fn a_signature_of_stock_minisign_verifies() {
        let key = PublicKey::parse(STOCK_PUBLIC).expect("minisign's own");
        assert_eq!(key.key_id(), "F9DF1344AA404035");
        assert_eq!(key.to_string(), STOCK_PUBLIC);
        let file = format!("untrusted comment: minisign public key F9DF\n{STOCK_PUBLIC}\n");
        assert_eq!(PublicKey::parse(&file), Ok(key));
        let comment = key.verify(STOCK_MESSAGE, STOCK_SIGNATURE);
        assert_eq!(comment.as_deref(), Ok("repository x object y"));
        assert_eq!(key.verify(b"other", STOCK_SIGNATURE), Err(SignError::Content));
    }

    proptest! {
        #[test]
        fn what_was_signed_verifies_and_nothing_else_does(
            message in proptest::collection::vec(any::<u8>(), 0..300),
            comment in "[ -~]{0,80}",
            at in any::<prop::sample::Index>(),
        ) {
            let text = key(1).sign(&message, &comment);
            prop_assert_eq!(key(1).public().verify(&message, &text), Ok(comment));
            // Any letter after the untrusted comment changed.
            let start = text.find('\n').expect("four lines") + 1;
            let at = start + at.index(text.len() - 1 - start);
            let mut bytes = text.into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            prop_assert!(key(1).public().verify(&message, &changed).is_err());
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            let _ = PublicKey::parse(&text);
            let _ = key(1).public().verify(b"", &text);
        }
    }

    #[test]
    fn the_key_of_another_is_named() {
        let text = key(1).sign(b"m", "c");
        assert_eq!(signature_key_id(&text), Ok(key(1).key_id()));
        let wanted = key(2).key_id();
        let error = SignError::OtherKey { found: "0101010101010101".to_owned(), wanted };
        assert_eq!(key(2).public().verify(b"m", &text), Err(error));
    }

    #[test]
    fn the_form_without_prehash_is_refused() {
        let text = key(1).sign(b"m", "c");
        let legacy = text.replacen("RUQ", "RWQ", 1);
        assert_ne!(legacy, text);
        assert_eq!(key(1).public().verify(b"m", &legacy), Err(SignError::Malformed));
    }

    #[test]
    fn a_key_reads_back_as_written_and_keeps_its_secret() {
        let key = key(9);
        assert_eq!(SigningKey::generate(&key.to_bytes()).public(), key.public());
        assert_eq!(PublicKey::parse(&key.public().to_string()), Ok(key.public()));
        assert_eq!(format!("{key:?}"), "SigningKey(0909090909090909)");
        let text = serde_json::to_string(&key.public()).expect("a string");
        assert_eq!(serde_json::from_str::<PublicKey>(&text).ok(), Some(key.public()));
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        // The identity point: every message would verify against it.
        let mut weak = [0; 42];
        weak[..2].copy_from_slice(b"Ed");
        weak[10] = 1;
        for bad in ["", "RW", "untrusted comment: x", &encode_base64(&weak), &STOCK_PUBLIC[..50]] {
            assert!(PublicKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
