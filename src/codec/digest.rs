//! The checksums by which migration tools know their files again. Nothing of pgkeep's own is named or proved by them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256, Sha384};

/// SHA-256, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-384, in hex.
pub fn sha384(bytes: &[u8]) -> String {
    hex(&Sha384::digest(bytes))
}

/// CRC-32 (as in gzip) of the lines of a text without their ends, as the signed number that Java makes of it.
pub fn lines_crc32(text: &str) -> String {
    let mut crc = flate2::Crc::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        crc.update(line.as_bytes());
    }
    crc.sum().cast_signed().to_string()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(sha384(b"abc").starts_with("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"));
        // The check value of CRC-32, 0xcbf43926.
        assert_eq!(lines_crc32("1234\r\n56789\n"), "-873187034");
        assert_eq!(lines_crc32("\u{feff}123456789"), "-873187034");
    }
}
