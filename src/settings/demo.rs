//! The sample backends of development.

use serde::{Deserialize, Serialize};

use super::RegionName;

/// Section `[demo]`: two small HTTP servers on loopback, so that one command shows routing at work.
///
/// Where they are enabled, their addresses join the backends of their regions.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemoSettings {
    pub enabled: bool,
    /// `HTTP_SERVER_A_PORT`; 0 lets the system choose.
    pub port_a: u16,
    /// The region that server A belongs to.
    pub region_a: RegionName,
    /// `HTTP_SERVER_B_PORT`; 0 lets the system choose.
    pub port_b: u16,
    /// The region that server B belongs to.
    pub region_b: RegionName,
}

impl Default for DemoSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            port_a: 4001,
            region_a: RegionName::literal("1"),
            port_b: 4002,
            region_b: RegionName::literal("2"),
        }
    }
}
