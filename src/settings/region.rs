//! A region: its name, its backends, its hub.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::backends::{Balance, HashBy};
use super::failover::{Failover, SpillFactor};
use super::{ProcessSettings, RegionHealthSettings};

/// The longest name of a region, in bytes.
const MAX_NAME: usize = 32;

/// A region's name: 1 to 32 characters of `A-Z a-z 0-9 _ -`; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionName(Arc<str>);

/// Why a text is not the name of a region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a region is named by 1 to 32 characters of A-Z a-z 0-9 _ -")]
pub struct RegionNameError;

impl RegionName {
    /// Whether `text` follows the rule of region names.
    pub fn is_valid(text: &str) -> bool {
        (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }

    pub fn new(text: &str) -> Result<Self, RegionNameError> {
        if Self::is_valid(text) { Ok(Self(Arc::from(text))) } else { Err(RegionNameError) }
    }

    /// For names written in this source.
    pub(crate) fn literal(text: &'static str) -> Self {
        debug_assert!(Self::is_valid(text));
        Self(Arc::from(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for RegionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for RegionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RegionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(|error| serde::de::Error::custom(format!("{error}; got {text:?}")))
    }
}

/// Section `[regions.<name>]`: backends, a hub, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionSettings {
    /// Where HTTP of this region goes.
    pub backends: Vec<BackendSettings>,
    /// Which of them gets the next request …
    pub balance: Balance,
    /// … and under `consistent_hash`, what requests have in common that go to the same one.
    pub hash_by: HashBy,
    /// Where chat of this region goes.
    pub hub: Option<HubPlace>,
    /// Programs that the gateway starts and keeps running, by name; their instances are backends.
    pub processes: BTreeMap<String, ProcessSettings>,
    /// What of `[health]` is otherwise here.
    pub health: RegionHealthSettings,
    /// Who else may serve it.
    pub failover: Failover,
    /// Under `spill`: the region keeps all of its traffic while its healthy share times this is 1 or more; not set, 1.4.
    pub spill_factor: Option<SpillFactor>,
    /// Sockets a second that are asked to connect anew where another region or tier serves them and this one, or a better one,
    /// is well again; 0: they stay where they are.
    pub rebalance_rate: u32,
}

impl RegionSettings {
    /// Backends and instances of processes together.
    pub const MOST_BACKENDS: usize = 64;

    /// How many backends there may be at once: those of the list, and the instances of each process with one in reserve,
    /// which takes another's place.
    pub(super) fn most_at_once(&self) -> usize {
        let instances = self.processes.values().map(|process| process.instances.count() + 1);
        self.backends.len() + instances.sum::<usize>()
    }
}

/// One backend: in a file `"http://host:port"`, or a table with `url` and what differs from the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Written")]
pub struct BackendSettings {
    /// `http://host:port`, checked when the settings are read.
    pub url: String,
    /// 0 for primaries; a backend of the next tier is used only when none of the one before can be. `backup = true`
    /// is tier 1.
    pub tier: u8,
    /// Its share among those of its tier; 0 takes nothing new.
    pub weight: u16,
    /// Exchanges and tunnels at once; 0 means no bound.
    pub max_connections: u32,
    /// Speak HTTP/2 to it.
    pub http2: bool,
}

/// A region's hub: hosted by this process (`port`), by another (`url`), or, for a configuration that
/// several processes share, both: then the process that starts the hub binds the port, and the others
/// reach it by the URL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubPlace {
    pub bind: IpAddr,
    /// `WS_SERVER_<region>_PORT`; 0 lets the system choose.
    pub port: Option<u16>,
    /// `http://host:port` of the hub's listener elsewhere.
    pub url: Option<String>,
}

impl Default for HubPlace {
    fn default() -> Self {
        Self { bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: None, url: None }
    }
}

impl BackendSettings {
    /// The greatest weight.
    pub const MAX_WEIGHT: u16 = 1_000;
    /// What may be said of one in a table.
    pub(super) const KEYS: [&str; 6] =
        ["url", "backup", "tier", "weight", "max_connections", "http2"];

    /// A backend as its URL alone describes it.
    pub fn primary(url: impl Into<String>) -> Self {
        Self { url: url.into(), tier: 0, weight: 1, max_connections: 0, http2: false }
    }

    /// One that is used only when no primary can be.
    pub fn backup(url: impl Into<String>) -> Self {
        Self { tier: 1, ..Self::primary(url) }
    }
}

/// A backend as it may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Url(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: String,
    #[serde(default)]
    backup: bool,
    tier: Option<u8>,
    weight: Option<u16>,
    #[serde(default)]
    max_connections: u32,
    #[serde(default)]
    http2: bool,
}

impl From<Written> for BackendSettings {
    fn from(written: Written) -> Self {
        match written {
            Written::Url(url) => Self::primary(url),
            Written::Table(Table { url, backup, tier, weight, max_connections, http2 }) => Self {
                url,
                tier: tier.unwrap_or(u8::from(backup)),
                weight: weight.unwrap_or(1),
                max_connections,
                http2,
            },
        }
    }
}
