//! TLS on the public side: the listener, its certificates, and what is demanded of a handshake.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[tls]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// `PROXY_TLS_PORT`; 0 lets the system choose. Not set there is no TLS listener, except with `dev`, where it is
    /// [`Self::DEV_PORT`].
    pub port: Option<u16>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether HTTP/2 is offered (by ALPN).
    pub http2: bool,
    /// Streams that one HTTP/2 connection may have open at once.
    pub max_streams: NonZeroU32,
    /// A client whose handshake is not over in this time is closed.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How often the files are looked at for a change.
    #[serde(with = "humantime_serde")]
    pub watch_interval: Duration,
    /// Who names nobody, or somebody else, is shown this one; not set, the first by name.
    pub default: Option<String>,
    /// Whether a certificate of an authority of its own is made for this machine.
    pub dev: bool,
    /// Whether that may be done in production, too.
    pub dev_in_production: bool,
    /// Where that authority and its certificate are kept.
    pub dev_folder: Option<PathBuf>,
    /// The certificates by names of the operator's own, which are labels of metrics.
    pub certificates: BTreeMap<String, CertificateSettings>,
    /// `PROXY_REDIRECT_PORT`: plain HTTP that sends everybody to [`Self::redirect_host`]; not set, there is none.
    pub redirect_port: Option<u16>,
    /// `PROXY_REDIRECT_HOST`: the host of the TLS listener as clients know it, with its port where that is not 443.
    pub redirect_host: Option<String>,
    pub backends: TlsBackendSettings,
}

/// Section `[tls.certificates.NAME]`: two files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateSettings {
    /// The certificate, and the chain behind it.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsSettings {
    /// Where the development certificate is shown if nothing else is said.
    pub const DEV_PORT: u16 = 3443;
    /// The name of the development certificate.
    pub const DEV_NAME: &'static str = "dev";

    /// The port of the TLS listener, where there is one.
    pub fn listens_on(&self) -> Option<u16> {
        self.port.or_else(|| self.dev.then_some(Self::DEV_PORT))
    }

    /// Where the development authority is kept.
    pub fn dev_folder(&self) -> PathBuf {
        self.dev_folder.clone().unwrap_or_else(|| PathBuf::from(".meridian"))
    }

    /// Whether `name` may name a certificate: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    pub(super) fn is_certificate_name(name: &str) -> bool {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    }
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            port: None,
            min_version: TlsVersion::default(),
            http2: true,
            max_streams: NonZeroU32::MIN.saturating_add(128 - 1),
            handshake_timeout: Duration::from_secs(10),
            watch_interval: Duration::from_secs(10),
            default: None,
            dev: false,
            dev_in_production: false,
            dev_folder: None,
            certificates: BTreeMap::new(),
            redirect_port: None,
            redirect_host: None,
            backends: TlsBackendSettings::default(),
        }
    }
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
