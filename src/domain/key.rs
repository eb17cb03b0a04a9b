//! Object keys: the names of objects inside a repository.

use std::fmt;

/// A key that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an object key")]
pub struct KeyError(pub String);

/// The name of one object below the repository's prefix: segments of `[A-Za-z0-9._-]` joined by `/`.
///
/// No segment is empty or starts with a dot, so a key can never leave the repository, and the local
/// store may keep names of its own that start with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks `text`; 1 to 512 bytes.
    pub fn parse(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        let segment = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() <= 512 && text.split('/').all(segment) {
            Ok(Self(text))
        } else {
            Err(KeyError(text))
        }
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last `/`.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_leave_the_repository() {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".tmp/x", "a b", "a\\b", "ä"] {
            assert!(ObjectKey::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            ObjectKey::parse("a/b.json").map(|k| k.file_name().to_owned()),
            Ok("b.json".into())
        );
    }
}
