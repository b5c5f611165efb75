//! How long to wait before the next attempt: doubling, with jitter, so that many processes that lost one
//! Redis do not come back to it in step.

use std::time::Duration;

/// The pauses of one connection.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        // A pause of nothing would be a busy loop.
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), ceiling: min }
    }

    /// The next pause: anything between the shortest one and a ceiling that doubles.
    pub(super) fn pause(&mut self) -> Duration {
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        self.min + self.ceiling.saturating_sub(self.min).mul_f64(fastrand::f64())
    }

    /// A connection ended that had stood this long. Where that was long enough to call it good, the next
    /// pauses start over; one that is made and lost at once keeps the pauses growing.
    pub(super) fn lived(&mut self, stood: Duration) {
        if stood >= self.max {
            self.ceiling = self.min;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_between_the_bounds_and_start_over() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        assert!((min..=2 * min).contains(&backoff.pause()));
        let later: Vec<_> = (0..200).map(|_| backoff.pause()).collect();
        assert!(later.iter().all(|pause| (min..=max).contains(pause)));
        assert!(later.iter().any(|pause| *pause > max / 2), "it never grew: {later:?}");
        backoff.lived(max / 2);
        let still: Vec<_> = (0..200).map(|_| backoff.pause()).collect();
        assert!(still.iter().any(|pause| *pause > max / 2), "it started over too soon");
        backoff.lived(max);
        assert!((min..=2 * min).contains(&backoff.pause()));
    }
}
