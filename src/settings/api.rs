//! The gateway's own HTTP API: its listener, its keys, its bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// The longest key, in bytes.
const MAX_KEY: usize = 256;
/// Begins a key that is given by its digest.
const DIGEST: &str = "sha256:";
/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;
/// Stands for a key wherever settings are printed.
const MASK: &str = "***";

/// Section `[api]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// Whether there is an API at all.
    pub enabled: bool,
    pub bind: IpAddr,
    /// `API_PORT`; 0 lets the system choose. Not set it is [`Self::DEFAULT_PORT`], and where another program has that, this
    /// process goes without the listener: nobody who never asked for an API should be kept from starting by it.
    pub port: Option<u16>,
    /// Where the proxy listener serves the API as well, as `/api`; empty: nowhere, since backends have an `/api` of
    /// their own.
    pub mount: String,
    /// Requests a second that one key may make in the long run; over it, 429.
    pub requests_per_second: NonZeroU32,
    /// … and how many at once before the rate counts.
    pub request_burst: NonZeroU32,
    /// Bytes of one request body; a longer one gets 413.
    pub max_body_bytes: NonZeroUsize,
    /// Bytes of all request bodies that are held at once; over it, 503.
    pub max_buffered_bytes: NonZeroUsize,
    /// A request whose body has not come in this time gets 408.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Open connections of the listener; over it, the next waits in the system's queue.
    pub max_connections: NonZeroUsize,
    /// Names of keys, which are labels of metrics, and their secrets; `API_KEY` is the one named `default`.
    pub keys: BTreeMap<String, ApiKey>,
}

impl ApiSettings {
    /// Where the API listens if nothing else is said.
    pub const DEFAULT_PORT: u16 = 8080;

    /// Whether `name` may name a key: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
    pub(super) fn is_key_name(name: &str) -> bool {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: None,
            mount: String::new(),
            requests_per_second: NonZeroU32::MIN.saturating_add(1_000 - 1),
            request_burst: NonZeroU32::MIN.saturating_add(2_000 - 1),
            max_body_bytes: NonZeroUsize::MIN.saturating_add(20 * 1024 * 1024 - 1),
            max_buffered_bytes: NonZeroUsize::MIN.saturating_add(256 * 1024 * 1024 - 1),
            body_timeout: Duration::from_secs(30),
            max_connections: NonZeroUsize::MIN.saturating_add(10_000 - 1),
            keys: BTreeMap::new(),
        }
    }
}

/// An API key as the operator wrote it: the secret, or `sha256:` and its digest. Never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ApiKey(String);

/// What an [`ApiKey`] says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyText<'a> {
    Secret(&'a str),
    /// 64 hexadecimal digits of the secret's SHA-256.
    Digest(&'a str),
}

impl ApiKey {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The value itself; keep it out of logs and errors.
    pub fn expose(&self) -> KeyText<'_> {
        match self.0.strip_prefix(DIGEST) {
            Some(digits) => KeyText::Digest(digits),
            None => KeyText::Secret(&self.0),
        }
    }

    /// Whether `text` is no key; the mask that stands for one in print is none.
    pub(super) fn is_invalid(text: &str) -> bool {
        if let Some(digits) = text.strip_prefix(DIGEST) {
            return digits.len() != DIGEST_DIGITS
                || !digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        }
        !(1..=MAX_KEY).contains(&text.len())
            || text == MASK
            || !text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for ApiKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}
