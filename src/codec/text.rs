//! Base64 (standard alphabet, with padding) for the places where bytes stand in text: the sealed part of a
//! manifest, keys, signatures. Decoding is strict: one text for one value.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Text that is not base64. It is not repeated: it may be a secret with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not base64")]
pub struct Base64Error;

/// Bytes to base64.
pub fn encode_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Base64 to bytes; white space is an error.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, Base64Error> {
    BASE64_STANDARD.decode(text).map_err(|_| Base64Error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_decodes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode_base64(&encode_base64(&bytes)), Ok(bytes));
        }
    }

    #[test]
    fn loose_forms_are_refused() {
        for bad in ["QQ", "QR==", "Q Q==", "QQ==\n", "Q-_="] {
            assert_eq!(decode_base64(bad), Err(Base64Error), "{bad:?}");
        }
        assert_eq!(decode_base64("QQ=="), Ok(b"A".to_vec()));
    }
}
