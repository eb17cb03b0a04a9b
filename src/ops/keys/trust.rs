//! `key trust`: signers whose manifests this host believes, added where it looks for them.
//!
//! The one thing that must come from a person and never from the store. Safe to run again.

use std::path::PathBuf;

use super::error::KeysError;
use crate::codec::kit;
use crate::codec::sign::PublicKey;
use crate::config::edit::{replace_file, set_list};

/// Where this host's trusted signers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustPlace {
    /// `encryption.trusted_signers` of this configuration file, which has these now.
    Configuration(PathBuf, Vec<String>),
    /// This recovery kit.
    Kit(PathBuf),
}

impl TrustPlace {
    /// The file.
    pub const fn path(&self) -> &PathBuf {
        match self {
            Self::Configuration(path, _) | Self::Kit(path) => path,
        }
    }
}

/// One signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// His public key.
    pub signer: PublicKey,
    /// Whether he was trusted there already.
    pub before: bool,
}

/// Adds `signers` to those of `place`.
pub fn trust(place: &TrustPlace, signers: &[PublicKey]) -> Result<Vec<Trusted>, KeysError> {
    let failed = |source| KeysError::File { path: place.path().clone(), source };
    let mut all = Vec::new();
    match place {
        TrustPlace::Configuration(path, present) => {
            let known = |signer: &PublicKey, list: &[String]| {
                list.iter().any(|text| PublicKey::parse(text).as_ref() == Ok(signer))
            };
            let mut list = present.clone();
            for signer in signers {
                let before = known(signer, present);
                if !known(signer, &list) {
                    list.push(signer.to_string());
                }
                all.push(Trusted { signer: *signer, before });
            }
            if list != *present {
                set_list(path, "encryption.trusted_signers", &list)?;
            }
        }
        TrustPlace::Kit(path) => {
            let read = std::fs::read_to_string(path).map_err(failed)?;
            let mut text = zeroize::Zeroizing::new(read);
            let present = kit::RecoveryKit::parse(&text)?.signers;
            for signer in signers {
                text = kit::with_signer(&text, signer)?;
                all.push(Trusted { signer: *signer, before: present.contains(signer) });
            }
            if all.iter().any(|one| !one.before) {
                replace_file(path, text.as_bytes()).map_err(failed)?;
            }
        }
    }
    Ok(all)
}
