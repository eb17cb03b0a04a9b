//! Chance, from the operating system. The floors above draw it here and pass it down as an argument.

use crate::domain::failure::{Failure, FailureKind};

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes from the operating system: {0}")]
pub struct RandomError(getrandom::Error);

impl Failure for RandomError {
    fn kind(&self) -> FailureKind {
        FailureKind::Unexpected
    }
    fn hint(&self) -> Option<String> {
        Some("check that getrandom(2) or /dev/urandom is available to this process".to_owned())
    }
}

/// Random bytes fit for keys.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let draw = || random_bytes::<32>().expect("chance");
        assert_ne!(draw(), draw());
    }
}
