//! How commands name a backup: a prefix of its id, `latest`, `latest~1`, `latest:pre-migration`.

use std::str::FromStr;

use super::manifest::{Trigger, TriggerError};

/// Which backup is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Any unambiguous prefix of an id, a whole id included.
    Prefix(String),
    /// The newest but `back`, of any trigger or of one.
    Latest {
        /// How many newer ones to pass over.
        back: usize,
        /// Count those of this trigger only.
        trigger: Option<Trigger>,
    },
}

/// A text that names no backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Not hex digits, `T`, `Z` and `-`, nor `latest…`.
    #[error("`{0}` names no backup")]
    Shape(String),
    /// After `latest:`.
    #[error(transparent)]
    Trigger(#[from] TriggerError),
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let shape = || SelectorError::Shape(text.to_owned());
        let Some(rest) = text.strip_prefix("latest") else {
            let of_id = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f' | b'T' | b'Z' | b'-');
            let good = !text.is_empty() && text.bytes().all(of_id);
            return if good { Ok(Self::Prefix(text.to_owned())) } else { Err(shape()) };
        };
        let (rest, back) = match rest.split_once('~') {
            Some((rest, back)) => (rest, back.parse().map_err(|_| shape())?),
            None => (rest, 0),
        };
        let trigger = match rest.strip_prefix(':') {
            Some(word) => Some(word.parse()?),
            None if rest.is_empty() => None,
            None => return Err(shape()),
        };
        Ok(Self::Latest { back, trigger })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_are_understood() {
        let latest = |back, trigger| Ok(Selector::Latest { back, trigger });
        assert_eq!("latest".parse(), latest(0, None));
        assert_eq!("latest~2".parse(), latest(2, None));
        assert_eq!("latest:pre-migration".parse(), latest(0, Some(Trigger::PreMigration)));
        assert_eq!("latest:manual~1".parse(), latest(1, Some(Trigger::Manual)));
        assert_eq!("20261121T".parse(), Ok(Selector::Prefix("20261121T".into())));
        for bad in ["", "latestx", "latest~x", "latest:weekly", "newest"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad:?}");
        }
    }
}
