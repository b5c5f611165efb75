//! When a backend gets nothing at all, and how it is tried again; pure.
//!
//! Closed, everything passes. It opens on failures in a row, on the share of failures or slow answers, and stays open
//! for a time; then, half-open, it lets a few exchanges through on trial. One that fails opens it again for twice as
//! long; so many good ones in a row close it.
//!
//! Absent on purpose: how many trials are going on, which is counted where exchanges begin and end.

use super::outlier::Reason;
use super::rules::Trip;
use super::window::{Tally, Window};

/// The most doublings, so that a shift does not overflow; `open_max` ends them long before.
const MAX_DOUBLINGS: u32 = 32;

/// What happened to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Open until then.
    Opened(Reason, u64),
    HalfOpened,
    Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: u64,
    },
    HalfOpen {
        /// Trials in a row that went well.
        good: u32,
    },
}

/// The breaker of one backend. Time is milliseconds.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    phase: Phase,
    /// Openings since it was closed last.
    doublings: u32,
    window: Window,
}

impl Breaker {
    /// So many exchanges in a row have failed or were slow. `jitter` is from 0 to 1.
    pub(super) fn failed_in_a_row(
        &mut self,
        now: u64,
        run: u32,
        rules: &Trip,
        jitter: f64,
    ) -> Option<Change> {
        let trips = self.phase == Phase::Closed && rules.consecutive > 0;
        (trips && run >= rules.consecutive)
            .then(|| self.open(now, Reason::Consecutive(run), rules, jitter))
    }

    /// An exchange that it let through on trial has gone so.
    pub(super) fn tried(
        &mut self,
        now: u64,
        well: bool,
        rules: &Trip,
        jitter: f64,
    ) -> Option<Change> {
        let Phase::HalfOpen { good } = &mut self.phase else {
            // One that began before another opened it again, or closed it.
            return None;
        };
        if !well {
            return Some(self.open(now, Reason::Trial, rules, jitter));
        }
        *good += 1;
        if *good < rules.close_after {
            return None;
        }
        *self = Self::default();
        Some(Change::Closed)
    }

    /// Time has passed; `more` is what happened since the tick before, with the slow among the bad.
    pub(super) fn tick(
        &mut self,
        now: u64,
        more: Tally,
        rules: Option<&Trip>,
        jitter: f64,
    ) -> Option<Change> {
        let Some(rules) = rules else {
            let was_closed = self.phase == Phase::Closed;
            *self = Self::default();
            return (!was_closed).then_some(Change::Closed);
        };
        match self.phase {
            Phase::Closed => {
                let tally = self.window.push(now, rules.rate.window, more);
                let reason = Reason::Rate(tally, rules.rate.window);
                tally
                    .exceeds(rules.rate.percent, rules.rate.least)
                    .then(|| self.open(now, reason, rules, jitter))
            }
            Phase::Open { until } if now >= until => {
                self.phase = Phase::HalfOpen { good: 0 };
                Some(Change::HalfOpened)
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    fn open(&mut self, now: u64, reason: Reason, rules: &Trip, jitter: f64) -> Change {
        let time = (rules.open << self.doublings.min(MAX_DOUBLINGS)).min(rules.open_max);
        let until = now.saturating_add(time).saturating_add(fifth_of(time, jitter));
        self.doublings = self.doublings.saturating_add(1).min(MAX_DOUBLINGS);
        self.phase = Phase::Open { until };
        self.window.forget();
        Change::Opened(reason, until)
    }
}

/// Up to a fifth of a time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a time in milliseconds, and a fifth of it at most"
)]
fn fifth_of(time: u64, jitter: f64) -> u64 {
    (time as f64 * 0.2 * jitter.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::health::rules::Rate;

    const RULES: Trip = Trip {
        consecutive: 3,
        rate: Rate { percent: 50, window: 10_000, least: 20 },
        slow: None,
        open: 5_000,
        open_max: 60_000,
        trials: 3,
        close_after: 2,
    };

    fn opened(change: Option<Change>) -> u64 {
        match change {
            Some(Change::Opened(_, until)) => until,
            other => panic!("{other:?}"),
        }
    }

    fn quiet(breaker: &mut Breaker, now: u64) -> Option<Change> {
        breaker.tick(now, Tally::default(), Some(&RULES), 0.0)
    }

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.failed_in_a_row(0, 2, &RULES, 0.0), None);
        assert_eq!(opened(breaker.failed_in_a_row(0, 3, &RULES, 0.0)), 5_000);
        assert_eq!(breaker.tried(1, true, &RULES, 0.0), None, "no trial yet");
        assert_eq!(quiet(&mut breaker, 4_999), None);
        assert_eq!(quiet(&mut breaker, 5_000), Some(Change::HalfOpened));
        assert_eq!(breaker.tried(5_001, true, &RULES, 0.0), None);
        assert_eq!(breaker.tried(5_002, true, &RULES, 0.0), Some(Change::Closed));
        assert!(breaker.is_closed());
        assert_eq!(opened(breaker.failed_in_a_row(5_003, 3, &RULES, 0.0)), 10_003, "anew");
    }

    #[test]
    fn each_failed_trial_doubles_the_time() {
        let mut breaker = Breaker::default();
        let mut until = opened(breaker.failed_in_a_row(0, 3, &RULES, 0.0));
        for expected in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert_eq!(quiet(&mut breaker, until), Some(Change::HalfOpened));
            assert_eq!(breaker.tried(until, true, &RULES, 0.0), None, "one good is not enough");
            let next = opened(breaker.tried(until, false, &RULES, 0.0));
            assert_eq!(next - until, expected);
            until = next;
        }
    }

    #[test]
    fn a_share_of_failures_opens_it() {
        let mut breaker = Breaker::default();
        let tally = Tally { good: 10, bad: 10 };
        let change = breaker.tick(0, tally, Some(&RULES), 0.0);
        assert_eq!(change, Some(Change::Opened(Reason::Rate(tally, 10_000), 5_000)));
        assert_eq!(breaker.tick(1, tally, None, 0.0), Some(Change::Closed), "turned off");
    }

    proptest! {
        #[test]
        fn the_time_open_is_jittered_within_a_fifth(jitter in 0.0_f64..=1.0, doublings in 0_u32..40) {
            let mut breaker = Breaker { doublings, ..Breaker::default() };
            let time = opened(breaker.failed_in_a_row(7, 3, &RULES, jitter)) - 7;
            let plain = (5_000_u64 << doublings.min(8)).min(60_000);
            prop_assert!((plain..=plain + plain / 5).contains(&time));
        }

        #[test]
        fn it_never_leaves_its_order(
            steps in prop::collection::vec((0_u64..9_000, 0_u32..5, any::<bool>()), 1..300),
        ) {
            let mut breaker = Breaker::default();
            let (mut now, mut last) = (0, Change::Closed);
            for (pause, run, well) in steps {
                now += pause;
                let changes = [
                    quiet(&mut breaker, now),
                    breaker.failed_in_a_row(now, run, &RULES, 0.5),
                    breaker.tried(now, well, &RULES, 0.5),
                ];
                for change in changes.into_iter().flatten() {
                    let follows = match (last, change) {
                        (Change::Closed, Change::Opened(reason, _)) => reason != Reason::Trial,
                        (Change::Opened(_, until), Change::HalfOpened) => now >= until,
                        (Change::HalfOpened, Change::Opened(reason, _)) => reason == Reason::Trial,
                        (Change::HalfOpened, Change::Closed) => true,
                        _ => false,
                    };
                    prop_assert!(follows, "{change:?} after {last:?}");
                    last = change;
                }
            }
        }
    }
}
