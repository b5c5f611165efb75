//! The sections of the settings that the proxy goes by, of one edition.

use std::ops::Deref;

use crate::settings::{
    BackendsSettings, BreakerSettings, HealthSettings, ProxySettings, RetrySettings, Settings,
    TlsBackendSettings,
};

/// What holds for the exchanges of every region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    pub proxy: ProxySettings,
    pub backends: BackendsSettings,
    pub retry: RetrySettings,
    /// `[tls.backends]`.
    pub tls: TlsBackendSettings,
    pub health: HealthSettings,
    pub breaker: BreakerSettings,
}

/// Most of it is section `[proxy]`.
impl Deref for Bounds {
    type Target = ProxySettings;

    fn deref(&self) -> &ProxySettings {
        &self.proxy
    }
}

impl From<&Settings> for Bounds {
    fn from(settings: &Settings) -> Self {
        Self {
            proxy: settings.proxy.clone(),
            backends: settings.backends.clone(),
            retry: settings.retry.clone(),
            tls: settings.tls.backends.clone(),
            health: settings.health.clone(),
            breaker: settings.breaker.clone(),
        }
    }
}

/// With the defaults of the other sections.
impl From<&ProxySettings> for Bounds {
    fn from(proxy: &ProxySettings) -> Self {
        Self { proxy: proxy.clone(), ..Self::default() }
    }
}
