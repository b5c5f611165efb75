//! How long to wait before the next attempt: full jitter, so that many clients that lost one gateway do not come
//! back to the next in step.

use std::time::Duration;

/// Even a lucky draw leaves a pause: nothing here may become a busy loop.
const LEAST: Duration = Duration::from_millis(50);

/// A time drawn from the whole range up to `first`, doubled with each `attempt` that failed, up to `most`.
pub(super) fn pause(attempt: u32, first: Duration, most: Duration) -> Duration {
    let ceiling = first.saturating_mul(2_u32.saturating_pow(attempt)).min(most);
    ceiling.mul_f64(fastrand::f64()).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_fill_their_range_and_have_a_ceiling() {
        let (first, most) = (Duration::from_millis(400), Duration::from_secs(10));
        for (attempt, ceiling) in [(0, first), (3, first * 8), (40, most), (u32::MAX, most)] {
            let drawn: Vec<_> = (0..2_000).map(|_| pause(attempt, first, most)).collect();
            assert!(drawn.iter().all(|pause| (LEAST..=ceiling).contains(pause)));
            assert!(drawn.iter().any(|pause| *pause > ceiling.mul_f64(0.9)));
            assert!(drawn.iter().any(|pause| *pause < ceiling.mul_f64(0.3)));
        }
    }
}
