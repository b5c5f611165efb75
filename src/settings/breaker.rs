//! When a backend gets nothing at all for a while, and how it is tried again.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[breaker]`. What is a failure, `[health]` says (`count_statuses`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    pub enabled: bool,
    /// Failures in a row that open it; 0 for any number.
    pub consecutive: u32,
    /// Percent of the exchanges of a window that open it when they fail; 0 for none.
    pub failure_percent: u32,
    /// The time over which that is reckoned …
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// … and the exchanges that it must have seen.
    pub min_requests: NonZeroU32,
    /// An answer whose head takes longer than this counts as a failure; unset, none does.
    #[serde(with = "humantime_serde")]
    pub slow: Option<Duration>,
    /// It stays open this long the first time, twice as long each time that the trials fail …
    #[serde(with = "humantime_serde")]
    pub open: Duration,
    /// … up to this; up to a fifth is added to each, so that not all are tried at once.
    #[serde(with = "humantime_serde")]
    pub open_max: Duration,
    /// Exchanges that a half-open one lets through at once.
    pub trials: NonZeroU32,
    /// Trials in a row that must go well until it closes.
    pub close_after: NonZeroU32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            consecutive: 10,
            failure_percent: 50,
            window: Duration::from_secs(10),
            min_requests: NonZeroU32::MIN.saturating_add(20 - 1),
            slow: None,
            open: Duration::from_secs(5),
            open_max: Duration::from_mins(1),
            trials: NonZeroU32::MIN.saturating_add(3 - 1),
            close_after: NonZeroU32::MIN.saturating_add(5 - 1),
        }
    }
}
