//! Rules: which routes may be asked for, by which methods and from where.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::RegionName;

/// Section `[rules.<name>]`: of the rules that fit path, regions and networks, the one with the most specific path
/// decides, and among those with the same path the first by name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSettings {
    /// `/admin`, or `/admin/*` for it and all below.
    pub path: String,
    /// Methods it is about; empty: all. GET covers HEAD.
    pub methods: Vec<String>,
    /// Regions whose requests it is about; empty: all.
    pub regions: Vec<RegionName>,
    /// Networks of the clients it is about; empty: all.
    pub from: Vec<IpNet>,
    pub action: RuleAction,
    /// Bytes of a request body that it lets through, instead of `proxy.max_body_bytes`; 0: that one holds.
    pub max_body_bytes: u64,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            path: "/*".to_owned(),
            methods: Vec::new(),
            regions: Vec::new(),
            from: Vec::new(),
            action: RuleAction::Allow,
            max_body_bytes: 0,
        }
    }
}

/// What becomes of a request that a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleAction {
    Allow,
    Deny,
}
