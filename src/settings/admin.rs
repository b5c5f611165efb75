//! The private listener: metrics, health, readiness.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Section `[admin]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Loopback unless said otherwise: what it serves is not for the public.
    pub bind: IpAddr,
    /// `ADMIN_PORT`; 0 lets the system choose.
    pub port: u16,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 9600 }
    }
}
