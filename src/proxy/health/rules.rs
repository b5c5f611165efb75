//! The settings of one region's health, as numbers that are compared with.

use std::time::Duration;

use crate::proxy::backends::millis;
use crate::settings::{
    BreakerSettings, HealthSettings, RegionHealthSettings, Statuses, WhenExceeded,
};

/// What the health of one region's backends is judged by; replaced whole by a reload. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Rules {
    /// The settings of probes, where there are any.
    pub(super) probe: Option<HealthSettings>,
    pub(super) passive: Option<Passive>,
    pub(super) breaker: Option<Trip>,
    /// Statuses that count as failures.
    pub(super) statuses: Statuses,
    /// One that could not be reached is passed over this long.
    pub(super) fail_timeout: u64,
    pub(super) share: Share,
}

/// What ejects a backend, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passive {
    /// Failures in a row; 0 for any number.
    pub(super) consecutive: u32,
    pub(super) rate: Rate,
    pub(super) eject: u64,
    pub(super) eject_max: u64,
}

/// What opens a breaker, and what closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trip {
    /// Failures in a row; 0 for any number.
    pub(super) consecutive: u32,
    pub(super) rate: Rate,
    /// A longer answer is a failure.
    pub(super) slow: Option<Duration>,
    pub(super) open: u64,
    pub(super) open_max: u64,
    pub(super) trials: u32,
    pub(super) close_after: u32,
}

/// A share of failures that is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// 0 for no share.
    pub(super) percent: u32,
    pub(super) window: u64,
    pub(super) least: u32,
}

/// How many backends may be ejected at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Share {
    pub(super) percent: u32,
    pub(super) when_exceeded: WhenExceeded,
}

impl Rules {
    pub(in crate::proxy) fn new(
        general: &HealthSettings,
        region: &RegionHealthSettings,
        breaker: &BreakerSettings,
        fail_timeout: Duration,
    ) -> Self {
        let health = region.over(general);
        let passive = Passive {
            consecutive: health.consecutive,
            rate: Rate {
                percent: health.failure_percent,
                window: millis(health.window),
                least: health.min_requests.get(),
            },
            eject: millis(health.eject),
            eject_max: millis(health.eject_max),
        };
        let trip = Trip {
            consecutive: breaker.consecutive,
            rate: Rate {
                percent: breaker.failure_percent,
                window: millis(breaker.window),
                least: breaker.min_requests.get(),
            },
            slow: breaker.slow,
            open: millis(breaker.open),
            open_max: millis(breaker.open_max),
            trials: breaker.trials.get(),
            close_after: breaker.close_after.get(),
        };
        Self {
            passive: health.passive.then_some(passive),
            breaker: breaker.enabled.then_some(trip),
            statuses: health.count_statuses.clone(),
            fail_timeout: millis(fail_timeout),
            share: Share {
                percent: health.max_ejected_percent,
                when_exceeded: health.when_exceeded,
            },
            probe: health.active.is_on().then_some(health),
        }
    }

    /// Of what is not probed and not judged: a hub.
    pub(in crate::proxy) fn of_hub(fail_timeout: Duration) -> Self {
        Self { fail_timeout: millis(fail_timeout), ..Self::default() }
    }

    pub(in crate::proxy) fn share(&self) -> Share {
        self.share
    }
}
