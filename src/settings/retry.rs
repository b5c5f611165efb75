//! When a request is sent a second time.

use std::num::NonZeroU8;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[retry]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Off: what was sent once is not sent again, not even on another connection.
    pub enabled: bool,
    /// Times that one request is sent at most, over all backends and regions.
    pub attempts: NonZeroU8,
    /// Of a region's requests in the last ten seconds, in percent: so many may be sent again …
    pub budget_percent: u32,
    /// … and so many a second in any case.
    pub floor_per_second: u32,
    /// While another attempt could follow, one waits no longer than this for its answer; not set, each has
    /// `proxy.first_byte_timeout`.
    #[serde(with = "humantime_serde")]
    pub try_timeout: Option<Duration>,
    /// Answers that count as failures of an idempotent request, where another backend is left.
    pub statuses: Vec<u16>,
    /// An idempotent request's body of at most so many bytes is held, so that it can be sent again.
    pub hold_bytes: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            attempts: NonZeroU8::MIN.saturating_add(2),
            budget_percent: 20,
            floor_per_second: 10,
            try_timeout: None,
            statuses: Vec::new(),
            hold_bytes: 16 * 1024,
        }
    }
}
