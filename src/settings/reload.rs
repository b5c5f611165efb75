//! Whether the configuration is read again by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[reload]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadSettings {
    /// Whether a changed file is a wish to reload, as SIGHUP is.
    pub watch: bool,
    /// How often the files are looked at. A change is taken over once two looks have found the same.
    #[serde(with = "humantime_serde")]
    pub watch_interval: Duration,
}

impl Default for ReloadSettings {
    fn default() -> Self {
        Self { watch: false, watch_interval: Duration::from_secs(5) }
    }
}
