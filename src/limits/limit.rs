//! One rate limit: whose requests it counts, and what it has counted.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use tokio::time::Instant;

use super::key::{self, Asked, By};
use super::metrics::{LimitMetrics, Series};
use super::path::Pattern;
use crate::rate::{Rate, Table};
use crate::settings::{LimitSettings, OnError, RegionName};

#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: Arc<str>,
    pattern: Pattern,
    methods: Vec<Method>,
    regions: Vec<RegionName>,
    pub(super) by: By,
    pub(super) rate: Rate,
    pub(super) shared: bool,
    pub(super) on_error: OnError,
    pub(super) timeout: Duration,
    pub(super) counts: Arc<Counts>,
    /// As it stands in `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
    /// The burst, as it stands in `RateLimit-Limit`.
    pub(super) burst: HeaderValue,
    pub(super) series: Series,
}

/// What was counted; a reload hands it on.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) table: Table,
    most: NonZeroUsize,
    started: Instant,
}

impl Counts {
    fn new(rate: Rate, most: NonZeroUsize) -> Self {
        Self { table: Table::new(rate, most.get()), most, started: Instant::now() }
    }

    /// The clock that its bookings go by.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Limit {
    /// `None` without a rate. Goes on with what `before` has counted, where that is the same.
    pub(super) fn new(
        name: &str,
        settings: &LimitSettings,
        metrics: &LimitMetrics,
        before: Option<&Self>,
    ) -> Option<Self> {
        let frequency = settings.rate?;
        let rate = Rate::new(frequency.interval(), settings.burst.unwrap_or(frequency.count));
        let by = By::new(&settings.key);
        let most = settings.max_keys;
        let counts = before
            .filter(|before| before.by == by && before.rate == rate && before.counts.most == most)
            .map_or_else(|| Arc::new(Counts::new(rate, most)), |same| Arc::clone(&same.counts));
        let window = rate.window().as_secs_f64().ceil();
        let policy = format!("\"{name}\";q={};w={window}", rate.burst());
        // Names of limits are plain ASCII, and so it is a value.
        let policy = HeaderValue::try_from(policy).ok()?;
        Some(Self {
            name: Arc::from(name),
            pattern: Pattern::new(&settings.path),
            methods: key::methods(&settings.methods),
            regions: settings.regions.clone(),
            by,
            rate,
            shared: settings.shared,
            on_error: settings.on_error,
            timeout: settings.timeout,
            counts,
            policy,
            burst: HeaderValue::from(rate.burst()),
            series: metrics.of(name),
        })
    }

    pub(super) fn needs_region(&self) -> bool {
        self.by == By::Region || !self.regions.is_empty()
    }

    pub(super) fn needs_user(&self) -> bool {
        self.by == By::User
    }

    /// Whether it counts this request.
    pub(super) fn fits(&self, asked: &Asked<'_>) -> bool {
        key::has_method(&self.methods, asked.method)
            && asked.path.all().any(|path| self.pattern.fits_in_any_case(path))
            && (self.regions.is_empty()
                || asked
                    .region
                    .is_some_and(|region| self.regions.iter().any(|name| name.as_str() == region)))
    }
}
