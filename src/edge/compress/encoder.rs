//! The three codings behind one face: bytes in, coded bytes out.
//!
//! Windows and qualities are chosen for answers made while a client waits, thousands at once: a few hundred KiB each.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;

use crate::settings::Coding;

/// Brotli's quality and the exponent of its window: dynamic content, 256 KiB.
const BROTLI: (i32, i32) = (4, 18);
/// zstd's level and the exponent of its window.
const ZSTD: (i32, u32) = (3, 18);

/// Writes one body in one coding.
pub(super) enum Encoder {
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// Nothing where the library has no memory for one.
    pub(super) fn new(coding: Coding) -> Option<Self> {
        Some(match coding {
            Coding::Br => {
                let (quality, lgwin) = BROTLI;
                let params =
                    BrotliEncoderParams { quality, lgwin, ..BrotliEncoderParams::default() };
                Self::Br(Box::new(brotli::CompressorWriter::with_params(Vec::new(), 4096, &params)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD.0).ok()?;
                encoder.window_log(ZSTD.1).ok()?;
                Self::Zstd(encoder)
            }
            Coding::Gzip => {
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5)))
            }
        })
    }

    /// Takes `data`; what is ready of its coded form is the answer, and may be nothing.
    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Br(encoder) => encoder.write_all(data)?,
            Self::Zstd(encoder) => encoder.write_all(data)?,
            Self::Gzip(encoder) => encoder.write_all(data)?,
        }
        Ok(self.take())
    }

    /// Everything that was taken so far, so that it can be read without what comes later.
    pub(super) fn flush(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Br(encoder) => encoder.flush()?,
            Self::Zstd(encoder) => encoder.flush()?,
            Self::Gzip(encoder) => encoder.flush()?,
        }
        Ok(self.take())
    }

    /// The end of the coded body.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(Bytes::from(match self {
            Self::Br(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
        }))
    }

    fn take(&mut self) -> Bytes {
        let written = match self {
            Self::Br(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        };
        Bytes::from(std::mem::take(written))
    }
}
