//! Floor 1: bytes to sealed bytes and back; what they are called, and who vouches for them.
//!
//! One vendor, one file: only [`cut`] names fastcdc, [`hash`] BLAKE3, [`compress`] zstd (and [`unpack`], which
//! with flate2 reads what others packed), [`encrypt`] age, [`sign`] Ed25519 and BLAKE2, [`text`] base64,
//! [`random`] the system's source of chance, [`digest`] the hashes of other tools. Nothing here opens files or talks to a store.

pub mod compress;
pub mod cut;
pub mod digest;
pub mod encrypt;
pub mod hash;
pub mod kit;
pub mod random;
pub mod seal;
pub mod sign;
pub mod text;
pub mod unpack;
pub mod writer_key;
