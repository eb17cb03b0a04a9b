//! Names that are parsed at the door: backup ids, clusters, epochs.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `YYYYMMDDTHHMMSSZ-xxxxxxxx`.
    #[error("`{0}` is not a backup id")]
    BackupId(String),
    /// Outside `[a-z0-9][a-z0-9_-]{0,62}`.
    #[error("`{0}` is not a cluster name")]
    Cluster(String),
    /// Outside 8 hex digits.
    #[error("`{0}` is not an epoch")]
    Epoch(String),
}

/// The id of a backup (and of its intent): sortable by time, unique without trusting the clock alone.
///
/// `20261121T020000Z-5f3a9c21`: seconds in UTC, then 32 random bits in hex. The random part is also
/// the suffix of every chunk name that this backup writes, which is why a name is used once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// An id for a backup that starts at `now`, with 32 bits of chance.
    pub fn new(now: Timestamp, random: u32) -> Self {
        Self(format!("{}-{random:08x}", now.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The time half of the id: text that sorts as time does, to the second.
    pub fn second(&self) -> &str {
        &self.0[..16]
    }

    /// When it began, to the second; none of a time that never was.
    pub fn began(&self) -> Option<Timestamp> {
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", self.second()).ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
    }

    /// The same id a second after `other`, unless it is behind that one already: a clock that stands behind puts
    /// nothing in front of what was there before it.
    #[must_use]
    pub fn behind(self, other: &Self) -> Self {
        if self.second() > other.second() {
            return self;
        }
        let second = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", other.second());
        let next = second.ok().and_then(|time| time.checked_add(jiff::Span::new().seconds(1)).ok());
        // Nothing comes behind the end of time.
        next.map_or(self.clone(), |time| {
            Self(format!("{}-{}", time.strftime("%Y%m%dT%H%M%SZ"), self.suffix()))
        })
    }

    /// The 8 hex digits that end every chunk name this backup writes.
    pub fn suffix(&self) -> &str {
        &self.0[17..]
    }
}

impl FromStr for BackupId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let shape = bytes.len() == 25
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                8 => *byte == b'T',
                15 => *byte == b'Z',
                16 => *byte == b'-',
                0..=14 => byte.is_ascii_digit(),
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if shape { Ok(Self(text.to_owned())) } else { Err(NameError::BackupId(text.to_owned())) }
    }
}

/// The name that the configuration gives a PostgreSQL cluster; part of object names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        let good = (1..=63).contains(&text.len())
            && text.as_bytes().first().is_some_and(plain)
            && text.bytes().all(|byte| plain(&byte) || byte == b'-' || byte == b'_');
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Cluster(text.to_owned())) }
    }
}

/// An epoch: 8 hex digits, drawn by chance when its keys are made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EpochId(String);

impl EpochId {
    /// An epoch named by 32 bits of chance.
    pub fn new(random: u32) -> Self {
        Self(format!("{random:08x}"))
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EpochId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text.to_owned())) } else { Err(NameError::Epoch(text.to_owned())) }
    }
}

macro_rules! text_forms {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}
text_forms!(BackupId, ClusterName, EpochId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_time_and_its_chance() {
        let id = BackupId::new("2026-11-21T02:00:00Z".parse().expect("a time"), 0x5f3a_9c21);
        assert_eq!(id.as_str(), "20261121T020000Z-5f3a9c21");
        assert_eq!(id.suffix(), "5f3a9c21");
        assert_eq!(id.began(), "2026-11-21T02:00:00Z".parse().ok());
        assert_eq!(id.as_str().parse(), Ok(id));
        let never: BackupId = "20261399T020000Z-5f3a9c21".parse().expect("of that shape");
        assert_eq!(never.began(), None);
    }

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for bad in ["", "../x", "Main", "a/b", "-a", "a b", "é"] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
        for bad in ["20261121T020000Z-5F3A9C21", "20261121T020000Z5f3a9c21", "latest"] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?}");
        }
    }
}
