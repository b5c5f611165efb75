//! The chat page that the binary carries.

use serde::{Deserialize, Serialize};

/// Section `[page]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageSettings {
    /// Where the proxy listener serves the page, with a slash at both ends; empty turns it off.
    pub path: String,
}
