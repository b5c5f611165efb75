//! A region: its name, its backends, its hub.

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionSettings {
    /// Where HTTP of this region goes.
    pub backends: Vec<BackendSettings>,
    /// Where chat of this region goes.
    pub hub: Option<HubPlace>,
}

/// One backend: in a file `"http://host:port"`, or a table with `url` and `backup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSettings {
    /// `http://host:port`, checked when the settings are read.
    pub url: String,
    /// Used only when no backend without this mark can be.
    pub backup: bool,
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
    /// A backend that is not a backup.
    pub fn primary(url: impl Into<String>) -> Self {
        Self { url: url.into(), backup: false }
    }
}

impl<'de> Deserialize<'de> for BackendSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            url: String,
            #[serde(default)]
            backup: bool,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Url(String),
            Table(Table),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Url(url) => Self { url, backup: false },
            Written::Table(Table { url, backup }) => Self { url, backup },
        })
    }
}
