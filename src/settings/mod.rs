//! What the operator says: one section a file, the built-in defaults in each `Default`.
//!
//! Walk: `load` merges the sources (built-in defaults, files, `.env`, environment, command line);
//! the types, with the table in `keys`, refuse what one value can get wrong, and `check` what two
//! values can. Every other part sees its own section alone.
//!
//! Absent on purpose: reading of the environment anywhere else.

mod access;
mod admin;
mod api;
mod backends;
mod breaker;
mod bus;
mod check;
mod compression;
mod demo;
mod diff;
mod doubt;
mod environment;
mod failover;
mod files;
mod health;
mod hub;
mod idle;
mod keys;
mod kinds;
mod limits;
mod load;
mod log;
mod manager;
mod page;
mod parts;
mod print;
mod problem;
mod process;
mod proxy;
mod redis_place;
mod region;
mod reload;
mod retry;
mod rules;
mod security;
mod shutdown;
mod statuses;
mod tls;
mod urls;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::access::{AccessFormat, AccessSettings, ClientShown};
pub use self::admin::AdminSettings;
pub use self::api::{ApiKey, ApiSettings, KeyText};
pub use self::backends::{BackendsSettings, Balance, HashBy, HashByError};
pub use self::breaker::BreakerSettings;
pub use self::bus::{BusKind, BusSettings, Fence, InboxSettings, RedisSettings, Secret};
pub use self::compression::{Coding, CompressionSettings};
pub use self::demo::DemoSettings;
pub use self::diff::{Step, step};
pub use self::doubt::{Content, Doubt};
pub use self::environment::Environment;
pub use self::failover::{Failover, FailoverError, SpillFactor};
pub use self::files::StaticSettings;
pub use self::health::{HealthSettings, ProbeKind, RegionHealthSettings, WhenExceeded};
pub use self::hub::{DeliveryMode, HubSettings, OverLimit};
pub use self::limits::{Frequency, LimitKey, LimitSettings, OnError};
pub use self::load::{Fingerprint, LoadOptions, Loaded, fingerprint, hidden_variables, load};
pub use self::log::{LogFormat, LogLevel, LogSettings};
pub use self::manager::ServiceManager;
pub use self::page::PageSettings;
pub use self::parts::Parts;
pub use self::print::render;
pub use self::problem::{Problem, Provenance, SettingsErrors, Source};
pub use self::process::{Instances, ProcessSettings, StopSignal};
pub use self::proxy::{ProxyProtocol, ProxySettings, TraceMode};
pub use self::redis_place::{RedisMode, RedisNode, RedisPlace};
pub use self::region::{BackendSettings, HubPlace, RegionName, RegionNameError, RegionSettings};
pub use self::reload::ReloadSettings;
pub use self::retry::RetrySettings;
pub use self::rules::{RuleAction, RuleSettings};
pub use self::security::{SecurityProfile, SecuritySettings};
pub use self::shutdown::ShutdownSettings;
pub use self::statuses::{Statuses, StatusesError};
pub use self::tls::{CertificateSettings, TlsBackendSettings, TlsSettings, TlsVersion};

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
    pub access: AccessSettings,
    pub proxy: ProxySettings,
    pub retry: RetrySettings,
    pub tls: TlsSettings,
    pub backends: BackendsSettings,
    /// Rate limits by name, which is a label of metrics.
    pub limits: BTreeMap<String, LimitSettings>,
    /// Rules on methods and paths by name.
    pub rules: BTreeMap<String, RuleSettings>,
    pub health: HealthSettings,
    pub breaker: BreakerSettings,
    pub hub: HubSettings,
    pub bus: BusSettings,
    pub admin: AdminSettings,
    pub api: ApiSettings,
    pub page: PageSettings,
    /// Folders that are served here, by name.
    #[serde(rename = "static")]
    pub mounts: BTreeMap<String, StaticSettings>,
    pub compression: CompressionSettings,
    pub security: SecuritySettings,
    pub demo: DemoSettings,
    pub reload: ReloadSettings,
    pub shutdown: ShutdownSettings,
}

impl Settings {
    /// Adds a backend to a region, unless it is there already or the region is not configured;
    /// says whether it did.
    pub fn add_backend(&mut self, region: &RegionName, url: &str) -> bool {
        let Some(region) = self.regions.get_mut(region) else {
            return false;
        };
        let is_new = region.backends.iter().all(|backend| backend.url != url);
        if is_new {
            region.backends.push(BackendSettings::primary(url));
        }
        is_new
    }
}

#[cfg(test)]
mod tests;
