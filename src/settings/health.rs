//! What finds out that a backend is ill: probes of our own, and how its exchanges go.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Statuses;

/// Section `[health]`; a region may say some of it anew ([`RegionHealthSettings`]).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSettings {
    /// Whether backends are probed, and how.
    pub active: ProbeKind,
    /// What an `http` or `ws` probe asks for.
    pub path: String,
    /// The `Host` of such a probe; without it, the backend's own address.
    pub host: Option<String>,
    /// Statuses of an `http` probe's answer that mean "well".
    pub expect: Statuses,
    /// A text that must stand in the first 4 KiB of such an answer.
    pub expect_body: Option<String>,
    /// Between two probes of one backend, give or take a tenth.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// A probe that has no answer by then has failed.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Probes that must go well in a row until a backend that was down is up …
    pub rise: NonZeroU32,
    /// … and that must fail in a row until it is down.
    pub fall: NonZeroU32,
    /// Whether a backend whose exchanges fail is ejected for a while.
    pub passive: bool,
    /// Failures in a row that eject; 0 for any number.
    pub consecutive: u32,
    /// Percent of the exchanges of a window that eject when they fail; 0 for none.
    pub failure_percent: u32,
    /// The time over which that is reckoned …
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// … and the exchanges that it must have seen.
    pub min_requests: NonZeroU32,
    /// A WebSocket that the backend ends without a Close, or with 1011 or 1014, so soon after its 101 counts as a failure; 0 for
    /// none.
    #[serde(with = "humantime_serde")]
    pub early_close: Duration,
    /// Statuses of a backend's answers that count as failures, here and for the breaker.
    pub count_statuses: Statuses,
    /// The first ejection takes this long, each that follows too soon twice as long as the one before …
    #[serde(with = "humantime_serde")]
    pub eject: Duration,
    /// … up to this.
    #[serde(with = "humantime_serde")]
    pub eject_max: Duration,
    /// Of the backends of a region, no more than this are ejected at once.
    pub max_ejected_percent: u32,
    /// What becomes of a region of which more should be.
    pub when_exceeded: WhenExceeded,
}

/// How backends are probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    #[default]
    Off,
    /// A GET, whose answer is looked at.
    Http,
    /// A connection, which for `https` includes TLS.
    Tcp,
    /// A WebSocket handshake, whose answer is looked at.
    Ws,
}

impl HealthSettings {
    /// What a probe does, in words.
    pub fn asks(&self) -> String {
        match self.active {
            ProbeKind::Off => "none".to_owned(),
            ProbeKind::Http => format!("GET {}", self.path),
            ProbeKind::Tcp => "a connection".to_owned(),
            ProbeKind::Ws => format!("a WebSocket handshake at {}", self.path),
        }
    }
}

impl ProbeKind {
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

/// What becomes of a region of which more backends should be ejected than may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenExceeded {
    /// No ejection counts: all of its backends are used.
    #[default]
    Panic,
    /// The region has no backend: it fails over, or answers 503.
    Fail,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            active: ProbeKind::Off,
            path: "/health".to_owned(),
            host: None,
            expect: Statuses::range(200, 399),
            expect_body: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: NonZeroU32::MIN.saturating_add(1),
            fall: NonZeroU32::MIN.saturating_add(2),
            passive: true,
            consecutive: 5,
            failure_percent: 50,
            window: Duration::from_secs(10),
            min_requests: NonZeroU32::MIN.saturating_add(20 - 1),
            early_close: Duration::from_secs(5),
            count_statuses: Statuses::default(),
            eject: Duration::from_secs(10),
            eject_max: Duration::from_mins(5),
            max_ejected_percent: 50,
            when_exceeded: WhenExceeded::Panic,
        }
    }
}

/// Section `[regions.<name>.health]`: what of `[health]` is otherwise for one region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegionHealthSettings {
    pub active: Option<ProbeKind>,
    pub path: Option<String>,
    pub host: Option<String>,
    pub expect: Option<Statuses>,
    pub expect_body: Option<String>,
    pub passive: Option<bool>,
    pub max_ejected_percent: Option<u32>,
    pub when_exceeded: Option<WhenExceeded>,
}

impl RegionHealthSettings {
    /// The general settings with this region's own in their place.
    pub fn over(&self, general: &HealthSettings) -> HealthSettings {
        let mut health = general.clone();
        let own = self.clone();
        health.active = own.active.unwrap_or(health.active);
        health.path = own.path.unwrap_or(health.path);
        health.host = own.host.or(health.host);
        health.expect = own.expect.unwrap_or(health.expect);
        health.expect_body = own.expect_body.or(health.expect_body);
        health.passive = own.passive.unwrap_or(health.passive);
        health.max_ejected_percent = own.max_ejected_percent.unwrap_or(health.max_ejected_percent);
        health.when_exceeded = own.when_exceeded.unwrap_or(health.when_exceeded);
        health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_says_some_of_it_anew() {
        let general = HealthSettings { host: Some("a".to_owned()), ..HealthSettings::default() };
        assert_eq!(RegionHealthSettings::default().over(&general), general);
        let own = RegionHealthSettings {
            active: Some(ProbeKind::Tcp),
            passive: Some(false),
            when_exceeded: Some(WhenExceeded::Fail),
            ..RegionHealthSettings::default()
        };
        let expected = HealthSettings {
            active: ProbeKind::Tcp,
            passive: false,
            when_exceeded: WhenExceeded::Fail,
            ..general.clone()
        };
        assert_eq!(own.over(&general), expected);
    }
}
