//! What the operator says: one section a file, the built-in defaults in each `Default`.
//!
//! Walk: `load` merges the sources (built-in defaults, files, `.env`, environment, command line),
//! the types refuse what one value can get wrong, and `check` what two values can.
//! Every other part sees its own section alone.
//!
//! Absent on purpose: reading of the environment anywhere else.

mod admin;
mod bus;
mod demo;
mod hub;
mod log;
mod page;
mod proxy;
mod region;
mod shutdown;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::admin::AdminSettings;
pub use self::bus::{BusKind, BusSettings, InboxSettings, RedisSettings, Secret};
pub use self::demo::DemoSettings;
pub use self::hub::HubSettings;
pub use self::log::{LogFormat, LogLevel, LogSettings};
pub use self::page::PageSettings;
pub use self::proxy::ProxySettings;
pub use self::region::{BackendSettings, HubPlace, RegionName, RegionNameError, RegionSettings};
pub use self::shutdown::ShutdownSettings;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The region of a request that names none; without it such a request is refused.
    pub default_region: Option<RegionName>,
    /// Threads that serve traffic, each with its own listeners; 0 means one a core.
    pub workers: usize,
    /// The regions by name.
    pub regions: BTreeMap<RegionName, RegionSettings>,
    pub log: LogSettings,
    pub proxy: ProxySettings,
    pub hub: HubSettings,
    pub bus: BusSettings,
    pub admin: AdminSettings,
    pub page: PageSettings,
    pub demo: DemoSettings,
    pub shutdown: ShutdownSettings,
}
