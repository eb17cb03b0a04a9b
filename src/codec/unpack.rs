//! Takes a file out of gzip or zstd as it is read: what other tools wrapped around their dumps.
//!
//! Unlike [`super::compress`], which opens single frames of our own, this reads streams of any length that
//! others wrote, several members or frames one after the other among them. A stream that ends early is an
//! error of kind `UnexpectedEof`, never a short read; checksums are compared where the format has them.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

/// The largest window that the `zstd` program makes, with `--ultra --long=31`.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;
const BUFFER_BYTES: usize = 256 << 10;

/// What comes out of gzip.
pub fn gzip<'a>(packed: impl Read + Send + 'a) -> Box<dyn Read + Send + 'a> {
    Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, packed)))
}

/// What comes out of zstd.
pub fn zstd<'a>(packed: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut decoder = Decoder::with_buffer(BufReader::with_capacity(BUFFER_BYTES, packed))?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn out(mut reader: Box<dyn Read + Send + '_>) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map(|_| text)
    }

    fn packed() -> [(Vec<u8>, bool); 2] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&b"row\n".repeat(5000)).expect("packs");
        let zstd = zstd::stream::encode_all(&*b"row\n".repeat(5000), 3).expect("packs");
        [(gzip.finish().expect("packs"), true), (zstd, false)]
    }

    fn unpacked(bytes: &[u8], is_gzip: bool) -> io::Result<Vec<u8>> {
        if is_gzip { out(gzip(bytes)) } else { out(zstd(bytes)?) }
    }

    #[test]
    fn streams_of_several_members_come_out_joined() {
        for (bytes, is_gzip) in packed() {
            let text = unpacked(&bytes.repeat(2), is_gzip).expect("whole");
            assert_eq!(text, b"row\n".repeat(10_000));
        }
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_is_an_error() {
        for (bytes, is_gzip) in packed() {
            for cut in 1..bytes.len() {
                let error = unpacked(&bytes[..cut], is_gzip).expect_err("cut");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}: {error}");
            }
        }
    }
}
