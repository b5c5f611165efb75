//! How long a backend takes to answer: a peak-sensitive average that is forgotten with time.
//!
//! A slower answer counts at once and in full; faster ones take it down step by step, by how much time has passed
//! and not by how many they are. Where no answers come it fades as well, so that a backend that was slow is tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After this time, in milliseconds, a third (1/e) is left of what was.
const DECAY: f64 = 10_000.0;

/// What a failed exchange counts as: far longer than what answers, and forgotten like it.
pub(super) const PENALTY: Duration = Duration::from_secs(5);

/// A backend's latency. Both halves are in one word, so that no reader sees a new value with an old time.
#[derive(Debug, Default)]
pub(super) struct Latency(
    /// Microseconds as the bits of an `f32`; below them when that was, in milliseconds. 0: not known.
    AtomicU64,
);

impl Latency {
    /// An exchange took so long, or failed and counts as [`PENALTY`]; `now` in milliseconds after the clock's start.
    pub(super) fn observe(&self, took: Duration, now: u64) {
        let took = took.as_secs_f32() * 1e6;
        let update = |old: u64| {
            let micros = match old {
                0 => took,
                old if took >= micros(old) => took,
                old => {
                    let kept = kept(elapsed(old, now));
                    took + (micros(old) - took) * kept
                }
            };
            (old == 0 || micros.to_bits() != micros_bits(old)).then(|| pack(micros, now))
        };
        // A stale word would only repeat the step: the loop ends as soon as nobody else writes.
        let _unchanged = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// What one more exchange costs where `active` are going on: the time that all of them are expected to take, in
    /// microseconds. A backend that has not answered yet gets one at once, to find out, and no other before that is back.
    pub(super) fn cost(&self, active: usize, now: u64) -> f64 {
        let active = f64::from(u32::try_from(active).unwrap_or(u32::MAX));
        match self.expected(now) {
            Some(expected) => expected * (active + 1.0),
            None if active == 0.0 => 0.0,
            None => PENALTY.as_secs_f64() * 1e6 + active,
        }
    }

    fn expected(&self, now: u64) -> Option<f64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            word => Some(f64::from(micros(word) * kept(elapsed(word, now)))),
        }
    }
}

/// What is left of a value after so many milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
fn kept(elapsed: u32) -> f32 {
    (-f64::from(elapsed) / DECAY).exp() as f32
}

fn pack(micros: f32, now: u64) -> u64 {
    // Never 0: that is for what is not known.
    u64::from(micros.max(f32::MIN_POSITIVE).to_bits()) << 32 | now & u64::from(u32::MAX)
}

fn micros_bits(word: u64) -> u32 {
    (word >> 32) as u32
}

fn micros(word: u64) -> f32 {
    f32::from_bits(micros_bits(word))
}

/// Milliseconds since a word was written; wrong only after seven weeks in which nobody wrote, when it matters no more.
#[expect(clippy::cast_possible_truncation, reason = "the clock of a word wraps")]
fn elapsed(word: u64, now: u64) -> u32 {
    let passed = (now as u32).wrapping_sub(word as u32);
    // Another worker may have read its clock a moment later and written first.
    if passed > u32::MAX / 2 { 0 } else { passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expects(latency: &Latency, now: u64, millis: f64) {
        let got = latency.cost(0, now) / 1_000.0;
        assert!((got - millis).abs() < millis / 100.0 + 0.01, "{got} ms instead of {millis}");
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten() {
        let latency = Latency::default();
        latency.observe(Duration::from_millis(10), 0);
        expects(&latency, 0, 10.0);
        latency.observe(Duration::from_millis(200), 1);
        expects(&latency, 1, 200.0);
        latency.observe(Duration::from_millis(10), 1);
        expects(&latency, 1, 200.0);
        latency.observe(Duration::from_millis(10), 10_001);
        expects(&latency, 10_001, 10.0 + 190.0 / std::f64::consts::E);
    }

    #[test]
    fn it_fades_where_nothing_comes() {
        let latency = Latency::default();
        latency.observe(PENALTY, 5);
        expects(&latency, 5, 5_000.0);
        expects(&latency, 10_005, 5_000.0 / std::f64::consts::E);
        assert!(latency.cost(0, 200_000) < 1.0);
    }

    #[test]
    fn who_has_not_answered_yet_gets_one_to_find_out() {
        let (new, old) = (Latency::default(), Latency::default());
        old.observe(Duration::from_millis(1), 0);
        assert!(new.cost(0, 0) < old.cost(0, 0));
        assert!(new.cost(1, 0) > old.cost(1_000, 0));
        assert!(old.cost(1, 0) > old.cost(0, 0), "what goes on costs");
    }

    #[test]
    fn many_answers_within_a_moment_weigh_as_one() {
        let (many, one) = (Latency::default(), Latency::default());
        for latency in [&many, &one] {
            latency.observe(Duration::from_millis(100), 0);
        }
        for step in 1..=1_000 {
            many.observe(Duration::from_millis(10), step);
            many.observe(Duration::from_millis(10), step);
        }
        one.observe(Duration::from_millis(10), 1_000);
        assert!((many.cost(0, 1_000) - one.cost(0, 1_000)).abs() < 500.0);
    }

    #[test]
    fn the_clock_may_wrap_and_may_be_late() {
        let latency = Latency::default();
        let wrap = u64::from(u32::MAX);
        latency.observe(Duration::from_millis(10), wrap);
        expects(&latency, wrap + 1, 10.0);
        expects(&latency, wrap - 3, 10.0);
    }
}
