//! How requests are spread over the backends of a region, and what becomes of those that find none free.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Section `[backends]`: the same for every region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendsSettings {
    /// Requests of one region that may wait for a backend while all that are eligible are at their
    /// `max_connections`; 0: none, the answer is 503 at once.
    pub queue_length: usize,
    /// For how long.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// A backend that was added or has come back takes its full weight only after this time; 0s: at once.
    #[serde(with = "humantime_serde")]
    pub slow_start: Duration,
    /// A better tier serves again after it could for this long without a break; 0s: at once.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
}

impl Default for BackendsSettings {
    fn default() -> Self {
        Self {
            queue_length: 100,
            queue_timeout: Duration::from_secs(1),
            slow_start: Duration::ZERO,
            hold: Duration::from_secs(10),
        }
    }
}

/// `regions.*.balance`: which backend gets the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The one with the fewest exchanges going on, for its weight.
    #[default]
    LeastConn,
    /// Of two drawn at random the one that answers faster, by a peak-sensitive average, for what goes on there.
    P2cEwma,
    /// In turn, by weight.
    RoundRobin,
    /// The same one for all requests that have [`HashBy`] in common.
    ConsistentHash,
}

/// `regions.*.hash_by`: what requests have in common that go to the same backend: `client`, `header:NAME` or
/// `cookie:NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address, which stands in also where the header or cookie is missing.
    #[default]
    Client,
    Header(String),
    Cookie(String),
}

/// Why a text is no [`HashBy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requests are kept together by client, header:NAME or cookie:NAME")]
pub struct HashByError;

impl FromStr for HashBy {
    type Err = HashByError;

    fn from_str(text: &str) -> Result<Self, HashByError> {
        // A cookie's name is a token like a header's (RFC 6265, 4.1.1), but its case counts.
        let token = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        match text.split_once(':') {
            None if text == "client" => Ok(Self::Client),
            Some(("header", name)) if token(name) => Ok(Self::Header(name.to_owned())),
            Some(("cookie", name)) if token(name) => Ok(Self::Cookie(name.to_owned())),
            _ => Err(HashByError),
        }
    }
}

impl fmt::Display for HashBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl Serialize for HashBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_requests_together_is_written_in_one_word() {
        for text in ["client", "header:x-user", "header:X-User", "cookie:sid", "cookie:SID_1"] {
            assert_eq!(text.parse::<HashBy>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "clients", "header", "header:", "header:a b", "cookie:", "cookie:a=b", "query:a"]
        {
            assert_eq!(wrong.parse::<HashBy>(), Err(HashByError), "{wrong:?}");
        }
    }
}
