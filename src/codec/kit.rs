//! The recovery kit: the one file that recovers everything, together with store credentials.
//!
//! It is an age identity file, so `age -d -i KIT` takes it as it is; what age reads as comments says where
//! the repository is and whose signatures to trust. It must leave the host that writes backups.
//!
//! A comment that pgkeep does not know is passed over; a `# signer:` line that is no key is an error, since
//! trust must not shrink or grow by a typing error.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::encrypt::{EncryptionError, Identities};
use super::sign::{PublicKey, SignError};
use crate::domain::failure::{Failure, FailureKind};

/// Why a text is no recovery kit.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] EncryptionError),
    /// One of its signers.
    #[error("line {line} of the recovery kit")]
    Signer {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: SignError,
    },
}

impl Failure for KitError {
    fn kind(&self) -> FailureKind {
        FailureKind::Key
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Signer { .. } => Some(
                "a signer is written `# signer: RW…`; `pgkeep key show` on the writing host prints it"
                    .to_owned(),
            ),
        }
    }
}

/// What a recovery kit (or a bare identity file) says.
#[derive(Clone)]
pub struct RecoveryKit {
    /// The secret keys.
    pub identities: Identities,
    /// Where the repository is.
    pub repository: Option<String>,
    /// Whose signatures to trust, in the order of the file.
    pub signers: Vec<PublicKey>,
}

impl RecoveryKit {
    /// The text of a kit around `identity`, a line `AGE-SECRET-KEY-1…`. `repository` is an address without
    /// secrets.
    pub fn render(
        identity: &str,
        repository: &str,
        signers: &[PublicKey],
        created: Timestamp,
    ) -> Result<Zeroizing<String>, KitError> {
        let identities = Identities::parse(identity)?;
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str(
            "# pgkeep recovery kit. Who holds this file can read every backup; without it, no one can.\n\
             # Keep it away from the servers that are backed up. It is an age identity file.\n",
        );
        // One line each, whatever the address holds.
        let repository: String = repository.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(text, "# repository: {repository}");
        for signer in signers {
            let _ = writeln!(text, "# signer: {signer}");
        }
        let _ = writeln!(text, "# created: {}", created.strftime("%Y-%m-%dT%H:%M:%SZ"));
        for recipient in identities.recipients().as_strings() {
            let _ = writeln!(text, "# public key: {recipient}");
        }
        for line in identity.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                let _ = writeln!(text, "{line}");
            }
        }
        Ok(text)
    }

    /// Reads a kit; an identity file without our comments is one too.
    pub fn parse(text: &str) -> Result<Self, KitError> {
        let identities = Identities::parse(text)?;
        let (mut repository, mut signers) = (None, Vec::new());
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = line.trim().strip_prefix('#') else { continue };
            let Some((name, value)) = comment.split_once(':') else { continue };
            match name.trim() {
                "repository" => repository = Some(value.trim().to_owned()),
                "signer" => {
                    let signer = PublicKey::parse(value.trim())
                        .map_err(|source| KitError::Signer { line: at + 1, source })?;
                    if !signers.contains(&signer) {
                        signers.push(signer);
                    }
                }
                _ => {}
            }
        }
        Ok(Self { identities, repository, signers })
    }
}

/// The text of a kit that trusts one more signer, named before the others; as it is where he is known already.
pub fn with_signer(text: &str, signer: &PublicKey) -> Result<Zeroizing<String>, KitError> {
    if RecoveryKit::parse(text)?.signers.contains(signer) {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let of_signer = |line: &str| {
        line.trim().strip_prefix('#').is_some_and(|rest| rest.trim_start().starts_with("signer:"))
    };
    let mut at = 0;
    let places = text.split_inclusive('\n').map(|line| {
        at += line.len();
        (at - line.len(), line)
    });
    let at = places.into_iter().find(|(_, line)| of_signer(line)).map_or(0, |(at, _)| at);
    Ok(Zeroizing::new(format!("{}# signer: {signer}\n{}", &text[..at], &text[at..])))
}

impl fmt::Debug for RecoveryKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryKit")
            .field("identities", &self.identities)
            .field("repository", &self.repository)
            .field("signers", &self.signers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::encrypt::generate_identity;
    use super::super::sign::SigningKey;
    use super::*;

    fn signer(seed: u8) -> PublicKey {
        SigningKey::generate(&[seed; 40]).public()
    }

    #[test]
    fn a_kit_reads_back_as_written() {
        let (secret, recipient) = generate_identity();
        let signers = [signer(1), signer(2)];
        let created = "2026-11-21T02:00:00.5Z".parse().expect("a time");
        let text = RecoveryKit::render(&secret, "/srv/back ups:1", &signers, created);
        let text = text.expect("own key");
        assert!(text.contains("\n# created: 2026-11-21T02:00:00Z\n"));
        assert!(text.contains(&format!("\n# public key: {recipient}\n")));
        let kit = RecoveryKit::parse(&text).expect("own text");
        assert_eq!(kit.identities.recipients().as_strings(), [recipient]);
        assert_eq!(kit.repository.as_deref(), Some("/srv/back ups:1"));
        assert_eq!(kit.signers, signers);
        assert!(!format!("{kit:?}").contains("SECRET"));
    }

    #[test]
    fn a_bare_identity_file_is_a_kit_that_knows_little() {
        let (secret, _) = generate_identity();
        let kit = RecoveryKit::parse(&secret).expect("an identity");
        assert_eq!((kit.repository, kit.signers.len()), (None, 0));
    }

    #[test]
    fn a_signer_is_added_once_and_nothing_else_changes() {
        let (secret, _) = generate_identity();
        let kit = RecoveryKit::render(&secret, "/srv", &[signer(1)], Timestamp::UNIX_EPOCH);
        let kit = kit.expect("own key");
        let more = with_signer(&kit, &signer(2)).expect("a kit");
        assert_eq!(RecoveryKit::parse(&more).expect("a kit").signers, [signer(2), signer(1)]);
        assert_eq!(more.replace(&format!("# signer: {}\n", signer(2)), ""), *kit);
        assert_eq!(with_signer(&more, &signer(2)).expect("a kit"), more);
        let bare = with_signer(&secret, &signer(1)).expect("an identity");
        assert_eq!(RecoveryKit::parse(&bare).expect("a kit").signers, [signer(1)]);
        assert!(with_signer("# nothing\n", &signer(1)).is_err());
    }

    #[test]
    fn an_address_cannot_add_lines() {
        let (secret, _) = generate_identity();
        let address = format!("/srv\n# signer: {}", signer(9));
        let text = RecoveryKit::render(&secret, &address, &[], Timestamp::UNIX_EPOCH);
        let kit = RecoveryKit::parse(&text.expect("own key")).expect("own text");
        assert!(kit.signers.is_empty());
    }

    #[test]
    fn a_signer_that_is_no_key_is_named_by_its_line() {
        let (secret, _) = generate_identity();
        let error = RecoveryKit::parse(&format!("# signer: RWxx\n{}", &*secret));
        assert_eq!(error.expect_err("no key").to_string(), "line 1 of the recovery kit");
        assert!(RecoveryKit::parse("# repository: /srv\n").is_err());
    }
}
