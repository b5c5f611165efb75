//! When the failures of a backend take it out of its region for a while; pure.
//!
//! Walk: failures in a row are told at once, the share of failures with each tick. An ejection ends by its time alone:
//! nothing is sent to one that is out, so nothing can show it well. Each that follows takes twice as long, and each
//! `eject` of good time between them takes one doubling back.
//!
//! Absent on purpose: how many may be out at once, which is for whoever sees all of them (`share`).

use super::rules::Passive;
use super::window::{Tally, Window};

/// The most doublings, so that a shift does not overflow; `eject_max` ends them long before.
const MAX_DOUBLINGS: u32 = 32;

/// Why a backend was ejected, or its breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// So many failures in a row.
    Consecutive(u32),
    /// So many of the exchanges of a window, which took this many milliseconds.
    Rate(Tally, u64),
    /// A trial of a half-open breaker failed.
    Trial,
}

/// What happened to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Ejected until then.
    Ejected(Reason, u64),
    Returned,
}

/// How the exchanges of one backend have gone. Time is milliseconds.
#[derive(Debug, Default)]
pub(super) struct Outlier {
    /// Until when it is out.
    out_until: Option<u64>,
    /// Ejections that good time has not made up for.
    doublings: u32,
    /// When the next one is made up for.
    better_at: u64,
    window: Window,
}

impl Outlier {
    /// So many exchanges in a row have failed.
    pub(super) fn failed_in_a_row(
        &mut self,
        now: u64,
        run: u32,
        rules: &Passive,
    ) -> Option<Change> {
        if self.out_until.is_some() || rules.consecutive == 0 || run < rules.consecutive {
            return None;
        }
        Some(self.eject(now, Reason::Consecutive(run), rules))
    }

    /// Time has passed; `more` is what happened since the tick before.
    pub(super) fn tick(
        &mut self,
        now: u64,
        more: Tally,
        rules: Option<&Passive>,
    ) -> Option<Change> {
        let Some(rules) = rules else {
            // Turned off: whoever is out comes back.
            let was_out = self.out_until.is_some();
            *self = Self::default();
            return was_out.then_some(Change::Returned);
        };
        if let Some(until) = self.out_until {
            // What comes in meanwhile was begun before, or in a panic: it is judged after the return.
            if now < until {
                return None;
            }
            self.out_until = None;
            self.better_at = now.saturating_add(rules.eject);
            return Some(Change::Returned);
        }
        while self.doublings > 0 && now >= self.better_at {
            self.doublings -= 1;
            self.better_at = self.better_at.saturating_add(rules.eject.max(1));
        }
        let Passive { rate, .. } = rules;
        let tally = self.window.push(now, rate.window, more);
        tally
            .exceeds(rate.percent, rate.least)
            .then(|| self.eject(now, Reason::Rate(tally, rate.window), rules))
    }

    pub(super) fn is_out(&self) -> bool {
        self.out_until.is_some()
    }

    fn eject(&mut self, now: u64, reason: Reason, rules: &Passive) -> Change {
        let time = (rules.eject << self.doublings.min(MAX_DOUBLINGS)).min(rules.eject_max);
        let until = now.saturating_add(time);
        self.doublings = self.doublings.saturating_add(1).min(MAX_DOUBLINGS);
        self.out_until = Some(until);
        self.window.forget();
        Change::Ejected(reason, until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::health::rules::Rate;

    const RULES: Passive = Passive {
        consecutive: 5,
        rate: Rate { percent: 50, window: 10_000, least: 20 },
        eject: 10_000,
        eject_max: 60_000,
    };

    /// Ejects at `now`, and says for how long.
    fn length(outlier: &mut Outlier, now: u64) -> u64 {
        match outlier.failed_in_a_row(now, 5, &RULES) {
            Some(Change::Ejected(Reason::Consecutive(5), until)) => until - now,
            other => panic!("{other:?}"),
        }
    }

    fn quiet(outlier: &mut Outlier, now: u64) -> Option<Change> {
        outlier.tick(now, Tally::default(), Some(&RULES))
    }

    #[test]
    fn failures_in_a_row_eject_and_time_brings_back() {
        let mut outlier = Outlier::default();
        assert_eq!(outlier.failed_in_a_row(0, 4, &RULES), None);
        assert_eq!(length(&mut outlier, 0), 10_000);
        assert_eq!(outlier.failed_in_a_row(1, 9, &RULES), None, "it is out already");
        assert_eq!(quiet(&mut outlier, 9_999), None);
        assert_eq!(quiet(&mut outlier, 10_000), Some(Change::Returned));
        assert!(!outlier.is_out());
    }

    #[test]
    fn each_ejection_takes_twice_as_long_until_good_time_makes_up_for_it() {
        let mut outlier = Outlier::default();
        let mut now = 0;
        for expected in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert_eq!(length(&mut outlier, now), expected);
            now += expected;
            assert_eq!(quiet(&mut outlier, now), Some(Change::Returned));
        }
        // Five ejections, of which good time takes back four.
        now += 40_000;
        assert_eq!(quiet(&mut outlier, now), None);
        assert_eq!(length(&mut outlier, now), 20_000);
        now += 20_000;
        quiet(&mut outlier, now);
        now += 1_000_000;
        quiet(&mut outlier, now);
        assert_eq!(length(&mut outlier, now), 10_000);
    }

    #[test]
    fn a_share_of_failures_ejects_and_is_forgotten() {
        let mut outlier = Outlier::default();
        let tally = Tally { good: 10, bad: 10 };
        let reason = Reason::Rate(tally, 10_000);
        let change = outlier.tick(100, tally, Some(&RULES));
        assert_eq!(change, Some(Change::Ejected(reason, 10_100)));
        // What came in meanwhile does not eject it again.
        assert_eq!(outlier.tick(10_100, tally, Some(&RULES)), Some(Change::Returned));
        assert_eq!(quiet(&mut outlier, 10_200), None);
    }

    #[test]
    fn turned_off_it_lets_everybody_in() {
        let mut outlier = Outlier::default();
        length(&mut outlier, 0);
        assert_eq!(outlier.tick(1, Tally::default(), None), Some(Change::Returned));
        assert_eq!(outlier.tick(2, Tally { good: 0, bad: 99 }, None), None);
    }

    proptest! {
        #[test]
        fn an_ejection_ends_within_its_bounds(
            steps in prop::collection::vec((0_u64..30_000, 0_u32..8, 0_u32..30, 0_u32..30), 1..200),
        ) {
            let mut outlier = Outlier::default();
            let (mut now, mut out): (u64, Option<u64>) = (0, None);
            for (pause, run, good, bad) in steps {
                now += pause;
                let changes = [
                    outlier.tick(now, Tally { good, bad }, Some(&RULES)),
                    outlier.failed_in_a_row(now, run, &RULES),
                ];
                for change in changes.into_iter().flatten() {
                    match change {
                        Change::Ejected(_, until) => {
                            prop_assert_eq!(out, None);
                            prop_assert!((10_000..=60_000).contains(&(until - now)));
                            out = Some(until);
                        }
                        Change::Returned => {
                            prop_assert!(out.take().is_some_and(|until| now >= until));
                        }
                    }
                }
                prop_assert_eq!(outlier.is_out(), out.is_some());
            }
        }
    }
}
