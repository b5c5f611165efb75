//! Headers that tell a browser to be careful.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which headers are added to answers that do not have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecurityProfile {
    /// None.
    #[default]
    Off,
    /// For pages: types are not guessed, frames only of the same origin, referrers without paths.
    Web,
    /// For pages that need nothing of other origins: a content security policy, and isolation from them.
    Strict,
    /// For answers that are no pages: nothing may be loaded or framed.
    Api,
}

/// Section `[security]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecuritySettings {
    pub profile: SecurityProfile,
    /// For how long browsers reach this host by TLS alone (RFC 6797); only said over TLS. Not set, it is not said.
    #[serde(with = "humantime_serde")]
    pub hsts: Option<Duration>,
    /// The same for all names below this host's.
    pub hsts_subdomains: bool,
    /// Headers of backends that are taken away, as `["server", "x-powered-by"]`.
    pub remove_headers: Vec<String>,
}
