//! age: seals to recipients, opens with identities. Binary files, as `age -e` and `age -d` know them.
//!
//! Native recipients (`age1…`, X25519) only: a verification must be able to open what was sealed without
//! a person and his hardware key at hand. Secret keys never appear in errors or `Debug`.
//!
//! age authenticates content against change, not its author: who wrote an object is proved by signatures
//! and hashes above this floor.

use std::fmt;
use std::io::{self, Read as _, Write as _};

use age::secrecy::ExposeSecret as _;
use age::x25519;
use age::{DecryptError, Decryptor, EncryptError, Encryptor};
use zeroize::Zeroizing;

use crate::domain::failure::{Failure, FailureKind};

/// What every age file begins with.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
const SECRET_PREFIX: &str = "AGE-SECRET-KEY-";

/// Why something could not be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// Not a recipient of the kind we use.
    #[error("`{0}` is not an age recipient that can be used here")]
    Recipient(String),
    /// A secret stands where a public key belongs; it is not repeated.
    #[error("a secret key stands where a recipient belongs")]
    SecretAsRecipient,
    /// No recipients at all: nothing is ever stored in the open by accident.
    #[error("no recipients")]
    NoRecipients,
    /// The library could not encrypt.
    #[error("cannot encrypt")]
    Encrypt(#[source] EncryptError),
    /// A line of an identity file is none; the line is not repeated.
    #[error("line {0} is not an age identity")]
    Identity(usize),
    /// An identity file without an identity.
    #[error("no identity in the identity file")]
    NoIdentities,
    /// The bytes do not begin as an age file does.
    #[error("not an age file")]
    NotAge,
    /// None of the identities is a recipient.
    #[error("sealed to other recipients")]
    NoMatch,
    /// An age file with wrong insides.
    #[error("damaged age file")]
    Damaged(#[source] DecryptError),
    /// An age file that is cut off or changed after its header.
    #[error("damaged age file")]
    DamagedBody(#[source] io::Error),
}

impl Failure for EncryptionError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Recipient(_) => FailureKind::Usage,
            Self::Encrypt(_) => FailureKind::Unexpected,
            Self::NotAge | Self::Damaged(_) | Self::DamagedBody(_) => FailureKind::Damage,
            _ => FailureKind::Key,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Recipient(_) => {
                "give the public key that `age-keygen` prints: `age1` and 58 more characters"
            }
            Self::SecretAsRecipient => {
                "take it out at once: recipients are the public keys, `age1…`; consider the secret \
                 key as known to others"
            }
            Self::NoRecipients => "set `recipients` or PGKEEP_RECIPIENTS",
            Self::Encrypt(_) => "check the memory that is left to this process",
            Self::Identity(_) | Self::NoIdentities => {
                "give the recovery kit, or a file from `age-keygen`: a line `AGE-SECRET-KEY-1…`"
            }
            Self::NoMatch => {
                "another recovery kit opens this backup; `pgkeep show` names its recipients"
            }
            Self::NotAge | Self::Damaged(_) | Self::DamagedBody(_) => {
                "run `pgkeep verify` to see which backups are whole"
            }
        }
        .to_owned())
    }
}

/// Public keys, at least one, each once, in order of their text.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipients(Vec<(String, x25519::Recipient)>);

impl Recipients {
    /// Reads `age1…` keys.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, EncryptionError> {
        let mut keys = Vec::with_capacity(texts.len());
        for text in texts {
            let text = text.as_ref().trim();
            if text.to_ascii_uppercase().contains(SECRET_PREFIX) {
                return Err(EncryptionError::SecretAsRecipient);
            }
            let key: x25519::Recipient =
                text.parse().map_err(|_| EncryptionError::Recipient(text.to_owned()))?;
            keys.push((key.to_string(), key));
        }
        if keys.is_empty() {
            return Err(EncryptionError::NoRecipients);
        }
        keys.sort_by(|one, two| one.0.cmp(&two.0));
        keys.dedup_by(|one, two| one.0 == two.0);
        Ok(Self(keys))
    }

    /// Their texts, sorted: two sets are equal when these are.
    pub fn as_strings(&self) -> Vec<String> {
        self.0.iter().map(|(text, _)| text.clone()).collect()
    }

    /// An age file that each of them opens.
    pub fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        let recipients = self.0.iter().map(|(_, key)| key as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(EncryptionError::Encrypt)?;
        // Header, a stanza each with some grease, nonce, and a tag for every 64 KiB.
        let room = 512 + 128 * self.0.len() + plain.len() + plain.len() / 2048;
        let sealed = || {
            let mut writer = encryptor.wrap_output(Vec::with_capacity(room))?;
            writer.write_all(plain)?;
            writer.finish()
        };
        sealed().map_err(|error: io::Error| EncryptionError::Encrypt(error.into()))
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(text, _)| text)).finish()
    }
}

/// Secret keys, at least one. age wipes them when they are dropped.
#[derive(Clone)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads an age identity file; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, EncryptionError> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.push(line.parse().map_err(|_| EncryptionError::Identity(at + 1))?);
        }
        if keys.is_empty() { Err(EncryptionError::NoIdentities) } else { Ok(Self(keys)) }
    }

    /// Their public keys.
    pub fn recipients(&self) -> Recipients {
        let texts: Vec<_> = self.0.iter().map(|key| key.to_public().to_string()).collect();
        Recipients::parse(&texts).expect("public keys of our own, at least one")
    }

    /// What the age file holds; never more than its own size.
    pub fn decrypt(&self, sealed: &[u8]) -> Result<Vec<u8>, EncryptionError> {
        if !is_age_file(sealed) {
            return Err(EncryptionError::NotAge);
        }
        let of_header = |error| match error {
            DecryptError::NoMatchingKeys => EncryptionError::NoMatch,
            DecryptError::Io(error) => EncryptionError::DamagedBody(error),
            other => EncryptionError::Damaged(other),
        };
        let decryptor = Decryptor::new_buffered(sealed).map_err(of_header)?;
        let identities = self.0.iter().map(|key| key as &dyn age::Identity);
        let mut reader = decryptor.decrypt(identities).map_err(of_header)?;
        let mut plain = Vec::with_capacity(sealed.len());
        reader.read_to_end(&mut plain).map_err(EncryptionError::DamagedBody)?;
        Ok(plain)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({} of {:?})", self.0.len(), self.recipients())
    }
}

/// Whether bytes begin as a (binary) age file does: what a host without keys can tell.
pub fn is_age_file(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// A new secret key as text, and its recipient.
pub fn generate_identity() -> (Zeroizing<String>, String) {
    let identity = x25519::Identity::generate();
    let secret = identity.to_string();
    (Zeroizing::new(secret.expose_secret().to_owned()), identity.to_public().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Identities, Recipients) {
        let (secret, public) = generate_identity();
        (Identities::parse(&secret).expect("own key"), Recipients::parse(&[public]).expect("own"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_changed_or_missing_byte_is_noticed(
            plain in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let (identities, recipients) = pair();
            let sealed = recipients.encrypt(&plain).expect("seals");
            prop_assert_eq!(identities.decrypt(&sealed).ok(), Some(plain));
            let at = at.index(sealed.len());
            prop_assert!(identities.decrypt(&sealed[..at]).is_err());
            let mut flipped = sealed;
            flipped[at] ^= 1_u8 << bit;
            prop_assert!(identities.decrypt(&flipped).is_err());
        }
    }

    #[test]
    fn each_recipient_opens_and_no_one_else() {
        let ((one, to_one), (two, to_two), (other, _)) = (pair(), pair(), pair());
        let both = Recipients::parse(&[to_one.as_strings(), to_two.as_strings()].concat());
        let sealed = both.expect("two").encrypt(b"rows").expect("seals");
        assert!(is_age_file(&sealed));
        for identity in [one, two] {
            assert_eq!(identity.decrypt(&sealed).ok().as_deref(), Some(&b"rows"[..]));
        }
        assert!(matches!(other.decrypt(&sealed), Err(EncryptionError::NoMatch)));
    }

    #[test]
    fn order_and_repetition_of_recipients_do_not_matter() {
        let (one, two) = (generate_identity().1, generate_identity().1);
        let parse = |texts: &[&String]| Recipients::parse(texts).expect("two keys");
        assert_eq!(parse(&[&one, &two]), parse(&[&two, &one, &two]));
        assert_eq!(parse(&[&one, &two]).as_strings().len(), 2);
    }

    #[test]
    fn a_secret_key_is_never_repeated() {
        let (secret, _) = generate_identity();
        let broken = format!("{}x", &secret[..40]);
        for text in [&*secret, &broken, &secret.to_lowercase()] {
            let error = Recipients::parse(&[text]).expect_err("a secret is no recipient");
            assert!(!format!("{error} {error:?}").contains(&text[20..]), "{error}");
        }
        let error = Identities::parse(&format!("# kit\n{broken}")).expect_err("broken");
        assert_eq!(error.to_string(), "line 2 is not an age identity");
        let identities = Identities::parse(&secret).expect("own key");
        assert!(!format!("{identities:?}").contains("SECRET"));
    }

    #[test]
    fn an_identity_file_may_have_comments_and_windows_line_ends() {
        let (secret, public) = generate_identity();
        let text = format!("# created: today\r\n# public key: {public}\r\n\r\n{}\r\n", &*secret);
        assert_eq!(Identities::parse(&text).expect("one").recipients().as_strings(), [public]);
        assert!(matches!(Identities::parse("# none\n"), Err(EncryptionError::NoIdentities)));
    }

    #[test]
    fn what_is_no_recipient_is_named() {
        for bad in ["age1pq1xyz", "ssh-ed25519 AAAA", "bob"] {
            let error = Recipients::parse(&[bad]).expect_err("no recipient");
            assert_eq!(
                error.to_string(),
                format!("`{bad}` is not an age recipient that can be used here")
            );
        }
        assert!(matches!(Recipients::parse::<&str>(&[]), Err(EncryptionError::NoRecipients)));
    }

    #[test]
    fn a_file_of_the_stock_tool_opens() {
        // printf 'rows\n' | age -r age1…, with the key beside it, by age 1.1.1.
        let identities = Identities::parse(STOCK_KEY).expect("a key of age-keygen");
        let sealed = crate::codec::text::decode_base64(STOCK_FILE).expect("base64");
        assert_eq!(identities.decrypt(&sealed).ok().as_deref(), Some(&b"rows\n"[..]));
    }

    const STOCK_KEY: &str =
        "AGE-SECRET-KEY-1WYWJHYAESU3T0L7J6HGLU2EMLVJFEASJVMW2GMEJU5XRECKLEK7QUF5G72";
    const STOCK_FILE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBYbHY3LzRjMDJWbXZTUFFHTXNuQXNxeUpScmE4MEU1\
        SDMvb0ZRbDNmM2pNCi9YbXM4UGpUTFE5L0ZkQVprWEY5SU1aUmZkUFpwL0VsMnRzTERxME8zQW8KLS0tIFFO\
        Ty9QblY3YlRlaFduNkhvZ3dZWno4MzhoWlR2ZTc5ZlJMeGVEb1EyZHcKlPNfkC7Dzmthr9kS0l3G+lVarE8L\
        uKotsXJijIZiDvCWkf0+Kg==";
}
