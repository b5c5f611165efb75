//! The record of each exchange and socket: what a line says, and where it goes. Whether there are any, `log.access` says.

use std::num::NonZeroU16;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[access]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// Not set, as `log.format`.
    pub format: Option<AccessFormat>,
    /// Not set, standard error, among the other lines of the log.
    pub file: Option<PathBuf>,
    /// Bytes after which a new file is begun; 0: whatever its size.
    pub rotate_bytes: u64,
    /// Whether each day (of UTC) has a file of its own.
    pub rotate_daily: bool,
    /// Earlier files that are kept: `<file>.1` is the latest of them.
    pub rotate_keep: NonZeroU16,
    /// Whether lines have the query of a request, which may hold secrets.
    pub queries: bool,
    pub client: ClientShown,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            format: None,
            file: None,
            rotate_bytes: 100 << 20,
            rotate_daily: false,
            rotate_keep: NonZeroU16::MIN.saturating_add(10 - 1),
            queries: false,
            client: ClientShown::Full,
        }
    }
}

/// The shape of an access line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// As the text log: `[<RFC 3339>] [INFO] [Proxy] GET /x 200 - 2ms region=1 …`
    Text,
    /// As the JSON log: one object a line.
    Json,
    /// What Apache named so, and most programs read.
    Combined,
}

/// How much of a client's address lines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientShown {
    Full,
    /// Of IPv4 the first 24 bits, of IPv6 the first 48.
    Truncated,
    None,
}
