//! The budget of one key, as arithmetic on a clock: each request books one interval, and is refused when the bookings
//! run further ahead than the burst allows (the generic cell rate algorithm, ITU-T I.371).

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often something may happen, and how many times at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Nanoseconds that one event books.
    interval: u64,
    /// Nanoseconds that bookings may run ahead of the clock before one more is refused.
    ahead: u64,
}

impl Rate {
    /// `count` events a second in the long run, `burst` at once.
    pub(super) fn per_second(count: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = (1_000_000_000 / u64::from(count.get())).max(1);
        Self { interval, ahead: interval.saturating_mul(u64::from(burst.get()) - 1) }
    }
}

/// What has been used of a [`Rate`], by all threads together.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Nanoseconds since the clock's start up to which events are booked.
    booked: AtomicU64,
}

impl Budget {
    /// Books one event at `now`.
    ///
    /// # Errors
    /// How long until one may be booked; nothing is booked then.
    pub(super) fn take(&self, rate: &Rate, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let book = |booked: u64| {
            (booked <= now.saturating_add(rate.ahead))
                .then(|| booked.max(now).saturating_add(rate.interval))
        };
        match self.booked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, book) {
            Ok(_) => Ok(()),
            Err(booked) => {
                Err(Duration::from_nanos(booked.saturating_sub(now.saturating_add(rate.ahead))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let (count, burst) = (NonZeroU32::new(10).unwrap(), NonZeroU32::new(5).unwrap());
        let rate = Rate::per_second(count, burst);
        let (budget, start) = (Budget::default(), Duration::from_secs(3));
        for _ in 0..5 {
            budget.take(&rate, start).unwrap();
        }
        assert_eq!(budget.take(&rate, start), Err(Duration::from_millis(100)));
        let almost = start + Duration::from_millis(99);
        assert_eq!(budget.take(&rate, almost), Err(Duration::from_millis(1)));
        budget.take(&rate, start + Duration::from_millis(100)).unwrap();
        // Time forgives up to the burst, and no more.
        let later = start + Duration::from_hours(1);
        for _ in 0..5 {
            budget.take(&rate, later).unwrap();
        }
        assert!(budget.take(&rate, later).is_err());
    }
}
