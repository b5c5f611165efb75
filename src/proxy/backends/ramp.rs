//! Since when a backend is well, and how much of its weight that is worth: pure, on a clock that is handed in.
//!
//! Invariant: who was never away costs one load of a word that nobody writes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::balance::UNIT;

/// From the start on.
const EVER: u64 = 0;
/// Not well when last looked at.
const AWAY: u64 = 1;
/// What is added to the milliseconds, so that they are neither of these.
const FIRST: u64 = 2;

/// What a backend that has just come back takes of its weight, in thousandths.
const LEAST: u32 = 100;

/// Since when a backend has been well without a break. Times are milliseconds after the clock's start.
#[derive(Debug, Default)]
pub(super) struct Since(AtomicU64);

impl Since {
    /// Well from `now` on: it has only just come.
    pub(super) fn joined(now: u64) -> Self {
        Self(AtomicU64::new(now.saturating_add(FIRST)))
    }

    /// It is not well.
    pub(super) fn lost(&self) {
        if self.0.load(Ordering::Relaxed) != AWAY {
            self.0.store(AWAY, Ordering::Relaxed);
        }
    }

    /// It is well at `now()`; for how long, in milliseconds, it has been. `None`: for longer than anybody asks.
    pub(super) fn well(&self, now: impl FnOnce() -> u64) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            EVER => None,
            AWAY => {
                let back = now().saturating_add(FIRST);
                // Where another worker was quicker, or it was lost again, that stands.
                let _seen =
                    self.0.compare_exchange(AWAY, back, Ordering::Relaxed, Ordering::Relaxed);
                Some(0)
            }
            since => Some(now().saturating_sub(since - FIRST)),
        }
    }

    /// It has been well for as long as anybody asks: forget since when, so that the clock need not be read.
    pub(super) fn settle(&self) {
        let since = self.0.load(Ordering::Relaxed);
        if since >= FIRST {
            let _lost = self.0.compare_exchange(since, EVER, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// How much counts of what has been well for `well` milliseconds, in thousandths: from a tenth up to all of it after
/// `slow_start`.
pub(super) fn share(well: u64, slow_start: u64) -> u32 {
    if well >= slow_start {
        return UNIT;
    }
    // Below `UNIT`, for `well` is less than `slow_start`.
    let risen = u128::from(UNIT - LEAST) * u128::from(well) / u128::from(slow_start);
    LEAST + u32::try_from(risen).unwrap_or(UNIT - LEAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock_unread() -> u64 {
        panic!("the clock was read")
    }

    #[test]
    fn who_was_never_away_needs_no_clock() {
        assert_eq!(Since::default().well(clock_unread), None);
    }

    #[test]
    fn a_return_counts_from_when_it_is_seen() {
        let since = Since::default();
        since.lost();
        since.lost();
        assert_eq!(since.well(|| 5_000), Some(0));
        assert_eq!(since.well(|| 5_700), Some(700));
        since.lost();
        assert_eq!(since.well(|| 6_000), Some(0), "a break begins anew");
        assert_eq!(since.well(|| 7_000), Some(1_000));
        since.settle();
        assert_eq!(since.well(clock_unread), None);
    }

    #[test]
    fn what_is_away_does_not_settle() {
        let since = Since::default();
        since.lost();
        since.settle();
        assert_eq!(since.well(|| 9), Some(0));
    }

    #[test]
    fn a_newcomer_counts_from_its_coming() {
        let since = Since::joined(0);
        assert_eq!(since.well(|| 0), Some(0));
        assert_eq!(since.well(|| 30), Some(30));
    }

    #[test]
    fn a_share_grows_from_a_tenth_to_all() {
        assert_eq!(share(0, 10_000), 100);
        assert_eq!(share(5_000, 10_000), 550);
        assert_eq!(share(9_999, 10_000), 999);
        assert_eq!(share(10_000, 10_000), 1_000);
        assert_eq!(share(0, 0), 1_000, "without a slow start all counts at once");
    }

    proptest! {
        #[test]
        fn a_share_never_falls(slow in 0_u64..100_000, one in any::<u64>(), other in any::<u64>()) {
            let (less, more) = (one.min(other), one.max(other));
            prop_assert!(share(less, slow) <= share(more, slow));
            prop_assert!((LEAST..=UNIT).contains(&share(one, slow)));
        }
    }
}
