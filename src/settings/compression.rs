//! Compression of answers on their way to the client.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// A coding that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    Br,
    Zstd,
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Section `[compression]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressionSettings {
    /// Off: answers pass as they are.
    pub enabled: bool,
    /// What is written, the best liked first, where a client likes several equally.
    pub codings: Vec<Coding>,
    /// Bytes below which an answer that states its length is left as it is.
    pub min_bytes: u64,
    /// Media types, as `text/*`; answers that state another pass as they are.
    pub types: Vec<String>,
    /// Answers that are compressed at once; the next pass as they are.
    pub max_active: NonZeroUsize,
}

impl Default for CompressionSettings {
    fn default() -> Self {
        let types = [
            "text/*",
            "application/javascript",
            "application/json",
            "application/xml",
            "application/wasm",
            "image/svg+xml",
        ];
        Self {
            enabled: false,
            codings: vec![Coding::Br, Coding::Zstd, Coding::Gzip],
            min_bytes: 1024,
            types: types.map(str::to_owned).to_vec(),
            max_active: NonZeroUsize::MIN.saturating_add(1_000 - 1),
        }
    }
}
