//! TLS.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    pub backends: TlsBackendSettings,
}

/// Section `[tls.backends]`: how backends and hubs whose URL says https are reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsBackendSettings {
    /// Authorities (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// A certificate (PEM) for backends that ask for one …
    pub cert: Option<PathBuf>,
    /// … and its key.
    pub key: Option<PathBuf>,
    /// Whether a backend's certificate must be good, and for the host of its URL.
    pub verify: bool,
}

impl Default for TlsBackendSettings {
    fn default() -> Self {
        Self { ca: None, cert: None, key: None, verify: true }
    }
}
