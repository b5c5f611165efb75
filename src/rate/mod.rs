//! How often something may happen, as pure arithmetic on a clock: budgets of seats, users, regions, and API keys.
//!
//! Each event books one interval of a virtual schedule, and is refused when the bookings would run further ahead of the
//! clock than the burst allows (the generic cell rate algorithm, ITU-T I.371). That is a token bucket in one word of
//! memory, with no timer that refills it.

mod table;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use self::table::{Drawn, Table};

/// How often something may happen, and how many times at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds that one event books.
    interval: u64,
    /// Nanoseconds that bookings may run ahead of the clock before one more is refused.
    ahead: u64,
}

impl Rate {
    /// One event in each `interval` in the long run, `burst` at once.
    pub(crate) fn new(interval: Duration, burst: NonZeroU32) -> Self {
        let interval = nanoseconds(interval).max(1);
        Self { interval, ahead: interval.saturating_mul(u64::from(burst.get()) - 1) }
    }

    /// `count` events a second in the long run, `burst` at once.
    pub(crate) fn per_second(count: NonZeroU32, burst: NonZeroU32) -> Self {
        Self::new(Duration::from_secs(1) / count.get(), burst)
    }

    /// What one event books.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How far bookings may run ahead of the clock before one more is refused.
    pub(crate) fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead)
    }

    /// How many may happen at once.
    pub(crate) fn burst(&self) -> u64 {
        self.ahead / self.interval + 1
    }

    /// The time in which everything is forgiven.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_nanos(self.ahead.saturating_add(self.interval))
    }

    /// What is left where bookings run `ahead` of the clock.
    pub(crate) fn left(&self, ahead: Duration) -> Left {
        let ahead = nanoseconds(ahead);
        let free = self.ahead.saturating_add(self.interval).saturating_sub(ahead);
        let until_next = match free % self.interval {
            _ if ahead == 0 => 0,
            part => self.interval - part,
        };
        Left {
            events: free / self.interval,
            until_next: Duration::from_nanos(until_next),
            until_all: Duration::from_nanos(ahead),
        }
    }

    /// Where the bookings stand after one more event at `now`, in nanoseconds; or the nanoseconds until one may be booked.
    fn book(&self, booked: u64, now: u64) -> Result<u64, u64> {
        match booked.saturating_sub(now.saturating_add(self.ahead)) {
            0 => Ok(booked.max(now).saturating_add(self.interval)),
            wait => Err(wait),
        }
    }
}

/// What is left of a [`Rate`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// How many may happen now.
    pub(crate) events: u64,
    /// Until it is one more; zero where it is all.
    pub(crate) until_next: Duration,
    /// Until it is all.
    pub(crate) until_all: Duration,
}

/// What one task has used of a [`Rate`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    /// Nanoseconds since the clock's start up to which events are booked.
    booked: u64,
}

impl Budget {
    /// Books one event at `now`; false, and nothing booked, when it is over the rate.
    pub(crate) fn take(&mut self, rate: &Rate, now: Duration) -> bool {
        let booked = rate.book(self.booked, nanoseconds(now));
        self.booked = booked.unwrap_or(self.booked);
        booked.is_ok()
    }

    /// How far what is booked runs ahead of `now`.
    pub(crate) fn ahead(self, now: Duration) -> Duration {
        Duration::from_nanos(self.booked.saturating_sub(nanoseconds(now)))
    }

    /// Learns that at `now` bookings run at least so far ahead, by another's count.
    fn learn(&mut self, ahead: Duration, now: Duration) {
        self.booked = self.booked.max(nanoseconds(now).saturating_add(nanoseconds(ahead)));
    }
}

/// A [`Budget`] that several tasks and threads draw on, by one clock.
#[derive(Debug, Default)]
pub(crate) struct SharedBudget {
    booked: AtomicU64,
}

impl SharedBudget {
    /// Books one event at `now`.
    ///
    /// # Errors
    /// How long until one may be booked; nothing is booked then.
    pub(crate) fn take(&self, rate: &Rate, now: Duration) -> Result<(), Duration> {
        let now = nanoseconds(now);
        let book = |booked| rate.book(booked, now).ok();
        match self.booked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, book) {
            Ok(_) => Ok(()),
            Err(booked) => Err(Duration::from_nanos(rate.book(booked, now).err().unwrap_or(0))),
        }
    }

    /// Whether more than half of the burst is used up at `now`.
    pub(crate) fn is_half_spent(&self, rate: &Rate, now: Duration) -> bool {
        self.booked.load(Ordering::Relaxed).saturating_sub(nanoseconds(now)) > rate.ahead / 2
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nz(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let rate = Rate::per_second(nz(10), nz(5));
        let mut budget = Budget::default();
        let start = Duration::from_secs(3);
        for _ in 0..5 {
            assert!(budget.take(&rate, start));
        }
        assert!(!budget.take(&rate, start));
        assert!(!budget.take(&rate, start + Duration::from_millis(99)));
        assert!(budget.take(&rate, start + Duration::from_millis(100)));
        assert!(!budget.take(&rate, start + Duration::from_millis(100)));
    }

    #[test]
    fn time_forgives_up_to_the_burst_and_no_more() {
        let rate = Rate::new(Duration::from_secs(10), nz(3));
        let mut budget = Budget::default();
        for _ in 0..3 {
            assert!(budget.take(&rate, Duration::ZERO));
        }
        assert!(!budget.take(&rate, Duration::ZERO));
        let later = Duration::from_hours(1);
        for _ in 0..3 {
            assert!(budget.take(&rate, later));
        }
        assert!(!budget.take(&rate, later));
    }

    #[test]
    fn a_shared_budget_says_how_long_to_wait() {
        let rate = Rate::per_second(nz(10), nz(5));
        let (budget, start) = (SharedBudget::default(), Duration::from_secs(3));
        for _ in 0..5 {
            budget.take(&rate, start).unwrap();
        }
        assert!(budget.is_half_spent(&rate, start));
        assert_eq!(budget.take(&rate, start), Err(Duration::from_millis(100)));
        let almost = start + Duration::from_millis(99);
        assert_eq!(budget.take(&rate, almost), Err(Duration::from_millis(1)));
        budget.take(&rate, start + Duration::from_millis(100)).unwrap();
        // Time forgives up to the burst, and no more.
        let later = start + Duration::from_hours(1);
        assert!(!budget.is_half_spent(&rate, later));
        for _ in 0..5 {
            budget.take(&rate, later).unwrap();
        }
        assert!(budget.take(&rate, later).is_err());
    }

    #[test]
    fn what_is_left_is_told_with_the_times_until_there_is_more() {
        let rate = Rate::new(Duration::from_secs(12), nz(5));
        assert_eq!((rate.burst(), rate.window()), (5, Duration::from_mins(1)));
        let left = |ahead| {
            let left = rate.left(Duration::from_secs(ahead));
            (left.events, left.until_next.as_secs(), left.until_all.as_secs())
        };
        assert_eq!(left(0), (5, 0, 0));
        assert_eq!(left(12), (4, 12, 12));
        assert_eq!(left(17), (3, 5, 17));
        assert_eq!(left(48), (1, 12, 48));
        assert_eq!(left(50), (0, 2, 50));
        assert_eq!(left(60), (0, 12, 60));
    }

    proptest! {
        /// Whatever the moments, no window holds more than its rate and one burst.
        #[test]
        fn never_more_than_rate_and_burst(
            steps in proptest::collection::vec(0_u64..200, 1..300),
            per_second in 1_u32..50,
            burst in 1_u32..20,
        ) {
            let rate = Rate::per_second(nz(per_second), nz(burst));
            let mut budget = Budget::default();
            let mut now = Duration::ZERO;
            let mut passed = 0_u128;
            for step in steps {
                now += Duration::from_millis(step);
                passed += u128::from(budget.take(&rate, now));
            }
            let most = u128::from(burst) + now.as_millis() * u128::from(per_second) / 1_000 + 1;
            prop_assert!(passed <= most, "{passed} passed, at most {most} may");
        }
    }
}
