//! The private listener: metrics, health, readiness, status, and what an operator may do.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// Section `[admin]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Loopback unless said otherwise: what it serves is not for the public.
    pub bind: IpAddr,
    /// `ADMIN_PORT`; 0 lets the system choose.
    pub port: u16,
    /// Names under which it may be asked for status and actions, besides addresses and `localhost`: a page elsewhere that
    /// points a name of its own here (DNS rebinding) gets nothing.
    pub hosts: Vec<String>,
    /// What status and actions ask for, as `Authorization: Bearer …`. Without one, they are for loopback alone.
    pub token: Option<Secret>,
    /// Open connections; over it, the next waits in the system's queue.
    pub max_connections: NonZeroUsize,
    /// A connection that for so long neither brings a whole request nor takes its answer is closed.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 9600,
            hosts: Vec::new(),
            token: None,
            max_connections: NonZeroUsize::MIN.saturating_add(255),
            idle_timeout: Duration::from_mins(1),
        }
    }
}
