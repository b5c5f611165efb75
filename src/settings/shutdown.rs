//! How long a stop may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[shutdown]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// From the first signal until everything that is still open is cut. Sockets are closed evenly
    /// over at most four fifths of it, so that the last one has time for its close handshake.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        // Thirty seconds is what orchestrators wait before they kill.
        Self { grace: Duration::from_secs(25) }
    }
}
