//! When an instance that has ended is started again; pure, with a clock and a chance that the caller brings.
//!
//! Pauses double from one failure to the next, and begin anew once an instance has held for longer than the longest
//! pause. Too many restarts within a window are a crash loop: then it is tried at long intervals, until it holds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The bounds, from the settings of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) min: Duration,
    pub(super) max: Duration,
    /// Restarts within `window` after which it is a crash loop.
    pub(super) most: u32,
    pub(super) window: Duration,
    /// Between two tries of a crash loop.
    pub(super) retry: Duration,
}

/// What becomes of an instance that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Started again after this pause.
    Pause(Duration),
    /// The same, but it does not hold.
    CrashLoop(Duration),
}

/// The restarts of one instance.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Failures since it last held.
    failures: u32,
    /// When it was restarted, no longer ago than the window.
    recent: VecDeque<Instant>,
    /// It was restarted too often, and has not held since.
    looping: bool,
}

impl Restarts {
    /// It has ended after it was ready for `held` (zero where it never was); `chance` is from 0 to 1.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        held: Duration,
        chance: f64,
        policy: &Policy,
    ) -> Verdict {
        if held > policy.max {
            self.failures = 0;
        }
        if held > policy.window {
            (self.looping, self.recent) = (false, VecDeque::new());
        }
        while self.recent.front().is_some_and(|then| now.duration_since(*then) > policy.window) {
            self.recent.pop_front();
        }
        // The tries of a loop are further apart than the window may be: only one that holds ends it.
        self.looping |= self.recent.len() >= usize::try_from(policy.most).unwrap_or(usize::MAX);
        if self.looping {
            return Verdict::CrashLoop(policy.retry);
        }
        self.recent.push_back(now);
        let doubled =
            policy.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = (self.failures + 1).min(31);
        // Instances that fell together do not all come back at one moment.
        Verdict::Pause(doubled.min(policy.max).mul_f64(1.0 - chance.clamp(0.0, 1.0) / 4.0))
    }

    /// An operator, or new settings, begin anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy { min: SECOND, max: SECOND * 8, most: 5, window: SECOND * 100, retry: SECOND * 300 }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_then_it_is_a_loop() {
        let (mut restarts, mut now) = (Restarts::default(), Instant::now());
        let mut said = Vec::new();
        for _ in 0..7 {
            let verdict = restarts.ended(now, Duration::ZERO, 0.0, &policy());
            let (Verdict::Pause(pause) | Verdict::CrashLoop(pause)) = verdict;
            now += pause;
            said.push((matches!(verdict, Verdict::CrashLoop(_)), pause.as_secs()));
        }
        let expected =
            [(false, 1), (false, 2), (false, 4), (false, 8), (false, 8), (true, 300), (true, 300)];
        // A retry that fails is a loop still, though the window is long over.
        assert_eq!(said, expected);
        restarts.forget();
        assert_eq!(restarts.ended(now, Duration::ZERO, 0.0, &policy()), Verdict::Pause(SECOND));
    }

    #[test]
    fn one_that_held_begins_anew() {
        let (mut restarts, now) = (Restarts::default(), Instant::now());
        for _ in 0..5 {
            restarts.ended(now, Duration::ZERO, 0.0, &policy());
        }
        let verdict = restarts.ended(now, SECOND * 99, 0.0, &policy());
        assert_eq!(verdict, Verdict::CrashLoop(SECOND * 300));
        assert_eq!(restarts.ended(now, SECOND * 101, 0.0, &policy()), Verdict::Pause(SECOND));
    }

    #[test]
    fn few_failures_within_the_window_are_no_loop() {
        let (mut restarts, mut now) = (Restarts::default(), Instant::now());
        for _ in 0..50 {
            let verdict = restarts.ended(now, SECOND * 10, 1.0, &policy());
            assert_eq!(verdict, Verdict::Pause(SECOND.mul_f64(0.75)));
            now += SECOND * 30;
        }
    }
}
