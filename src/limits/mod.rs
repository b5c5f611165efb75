//! What holds clients back: rate limits, and rules on paths and methods.
//!
//! Walk: `edge` reads a path in every way that a backend might ([`Readings`]), asks the [`Rules`] whether the request may
//! be made at all, and the [`Limits`] whether it may be made now; what stands of the limits goes onto the answer as
//! a [`Tally`].
//!
//! Invariants: no path is spelled around a rule or a limit; what is remembered of clients is bounded; no limit and no
//! rule costs a look at an empty list. Absent on purpose: status codes and answers (`edge`); who the client is (`proxy`).

mod key;
mod limit;
mod metrics;
mod path;
mod rules;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;

pub(crate) use self::key::{Asked, network};
use self::limit::Limit;
use self::metrics::LimitMetrics;
pub(crate) use self::path::{Readings, decoded};
pub(crate) use self::rules::Rules;
pub(crate) use self::tally::Tally;
use crate::bus::Bus;
use crate::observability::Registry;
use crate::settings::LimitSettings;

/// Why a request was refused. The text says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Over a limit; the seconds after which one more passes (429).
    #[error("too many requests: send fewer, and the next one after the time in Retry-After")]
    RateLimited { retry_after: u32 },
    /// Whether it is over a shared limit is not known (503).
    #[error("the count of requests that all gateways share cannot be asked: try again later")]
    Unavailable,
    /// A rule denies it (403).
    #[error("this may not be asked for from here")]
    Forbidden,
    /// A rule denies it by this method; others pass (405).
    #[error("this may not be asked for by this method; those in Allow may be used")]
    MethodNotAllowed(HeaderValue),
    /// A backend could read the path in a way that a rule denies (400).
    #[error(
        "the path can be read in more than one way: send it without encoded or doubled slashes and dots, and with the right capitals"
    )]
    AmbiguousPath,
}

/// Where editions of the [`Limits`] are made, one for each of the settings.
#[derive(Debug)]
pub(crate) struct Limiter {
    bus: Bus,
    metrics: LimitMetrics,
}

impl Limiter {
    pub(crate) fn new(bus: Bus, registry: &mut Registry) -> Self {
        Self { bus, metrics: LimitMetrics::new(registry) }
    }

    /// An edition that takes over what `previous` has counted, where a limit goes on counting the same. It may be dropped
    /// as it is: nothing outside knows of it before [`Self::adopt`].
    pub(crate) fn limits(
        &self,
        settings: &BTreeMap<String, LimitSettings>,
        previous: Option<&Limits>,
    ) -> Limits {
        let previous = previous.map_or(&[][..], |previous| &previous.all);
        let limits: Vec<_> = settings
            .iter()
            // The settings refuse a limit without a rate.
            .filter_map(|(name, settings)| {
                let before = previous.iter().find(|limit| &*limit.name == name);
                Limit::new(name, settings, &self.metrics, before.map(AsRef::as_ref))
            })
            .map(Arc::new)
            .collect();
        let are_shared = limits.iter().any(|limit| limit.shared);
        Limits { all: limits, are_shared, bus: self.bus.clone() }
    }

    /// The metrics tell of `limits` from now on, and no longer of what only `previous` had.
    pub(crate) fn adopt(&self, limits: &Limits, previous: Option<&Limits>) {
        for limit in &limits.all {
            self.metrics.watch(&limit.name, &limit.counts);
        }
        let gone = previous.into_iter().flat_map(|previous| &previous.all);
        for gone in gone.filter(|gone| limits.all.iter().all(|limit| limit.name != gone.name)) {
            self.metrics.forget(&gone.name);
        }
    }
}

/// All rate limits.
#[derive(Debug)]
pub(crate) struct Limits {
    all: Vec<Arc<Limit>>,
    are_shared: bool,
    bus: Bus,
}

impl Limits {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether one of them has to be asked for over the bus, by [`Self::take`].
    pub(crate) fn are_shared(&self) -> bool {
        self.are_shared
    }

    /// Whether [`Asked::region`] makes a difference.
    pub(crate) fn need_region(&self) -> bool {
        self.all.iter().any(|limit| limit.needs_region())
    }

    /// Whether [`Asked::user`] makes a difference.
    pub(crate) fn need_user(&self) -> bool {
        self.all.iter().any(|limit| limit.needs_user())
    }

    /// Counts one request with every limit that it fits, and says where they stand; the refusal where it is over one.
    ///
    /// What one limit refuses is not counted by the others, but for a shared one that was asked before it.
    pub(crate) async fn take(&self, asked: &Asked<'_>) -> (Option<Tally>, Result<(), Refusal>) {
        let Some(mut tally) = self.fitting(asked) else { return (None, Ok(())) };
        let mut taken = Ok(tally.looks_well(asked));
        // Another gateway may come between the look and the answer, so shared ones go first.
        if taken == Ok(true) {
            taken = self.take_shared(&mut tally, asked).await;
        }
        if taken == Ok(true) {
            taken = Ok(tally.take_own(asked));
        }
        let passed = taken.and_then(|taken| if taken { Ok(()) } else { Err(tally.refusal()) });
        (Some(tally), passed)
    }

    /// As [`Self::take`], where none is shared.
    pub(crate) fn take_here(&self, asked: &Asked<'_>) -> (Option<Tally>, Result<(), Refusal>) {
        let Some(mut tally) = self.fitting(asked) else { return (None, Ok(())) };
        let passed = tally.looks_well(asked) && tally.take_own(asked);
        let passed = if passed { Ok(()) } else { Err(tally.refusal()) };
        (Some(tally), passed)
    }

    /// The limits that a request fits; `None` where there is none.
    fn fitting(&self, asked: &Asked<'_>) -> Option<Tally> {
        let mut fitting = self.all.iter().filter(|limit| limit.fits(asked));
        let mut tally = Tally::new(fitting.next()?);
        fitting.for_each(|limit| tally.add(limit));
        Some(tally)
    }

    /// Counts here first: what is over the rate of this gateway alone is over that of all, so that a flood of
    /// one key ends here, and no more than a burst of it is on its way to the bus at once.
    async fn take_shared(&self, tally: &mut Tally, asked: &Asked<'_>) -> Result<bool, Refusal> {
        for standing in tally.standings().filter(|standing| standing.limit.shared) {
            if !standing.take(asked) || !standing.take_from(&self.bus, asked).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
