//! How often what a backend may have seen is sent again: a share of a region's live requests, plus a floor.
//!
//! Counting a request is one addition. Only when something has failed does anybody look at a clock: then the count is
//! noted with its time, and the requests of the last ten seconds are reckoned from the notes, evenly between two of
//! them. So a healthy region pays nothing for its budget, and an ailing one has it exact to a fraction of a second.
//!
//! Shared by all workers, and by retries within a region and beyond its border.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::RetrySettings;

/// What counts as live.
const WINDOW: Duration = Duration::from_secs(10);
/// Notes are no closer together than this, so that there are never more than some dozens.
const GRAIN: Duration = Duration::from_millis(250);

/// The budget of one region.
#[derive(Debug)]
pub(super) struct Budget {
    started: Instant,
    requests: AtomicU64,
    notes: Mutex<VecDeque<Note>>,
}

/// What was counted up to a time.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// After the start.
    at: Duration,
    requests: u64,
    /// Repeats from here to the next note.
    repeats: u64,
}

impl Default for Budget {
    fn default() -> Self {
        let notes = VecDeque::from([Note::default()]);
        Self { started: Instant::now(), requests: AtomicU64::new(0), notes: Mutex::new(notes) }
    }
}

impl Budget {
    /// One more request, whatever becomes of it; says how many there were before.
    pub(super) fn request(&self) -> usize {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        // Only its lower digits matter, where a word is shorter.
        usize::try_from(before & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// Whether one more may be sent again; if so, it is counted.
    pub(super) fn take(&self, settings: &RetrySettings) -> bool {
        let (now, requests) = (self.started.elapsed(), self.requests.load(Ordering::Relaxed));
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = u64::from(settings.floor_per_second) * WINDOW.as_secs();
        let share = live(&notes, now, requests) * u64::from(settings.budget_percent) / 100;
        advance(&mut notes, now, requests);
        let spent: u64 = notes.iter().skip(1).map(|note| note.repeats).sum();
        let granted = spent < floor + share;
        if granted && let Some(last) = notes.back_mut() {
            last.repeats += 1;
        }
        granted
    }
}

/// The requests of the last window before `now`, up to which `requests` were counted.
fn live(notes: &VecDeque<Note>, now: Duration, requests: u64) -> u64 {
    let begin = now.saturating_sub(WINDOW);
    let newer = notes.iter().position(|note| note.at > begin).unwrap_or(notes.len());
    let Some(before) = newer.checked_sub(1).and_then(|index| notes.get(index)) else {
        return requests;
    };
    let after = notes.get(newer).map_or((now, requests), |note| (note.at, note.requests));
    let span = after.0.saturating_sub(before.at);
    let between = after.1.saturating_sub(before.requests);
    let passed = ratio(begin.saturating_sub(before.at), span, between);
    requests.saturating_sub(before.requests + passed)
}

/// The part of `count` that falls into `part` of `whole`.
fn ratio(part: Duration, whole: Duration, count: u64) -> u64 {
    let passed = u128::from(count) * part.as_nanos() / whole.as_nanos().max(1);
    u64::try_from(passed).unwrap_or(count)
}

/// Makes the last note one that repeats at `now` belong to, and forgets what is out of date: the first note is the last
/// one before the window, and its repeats count no more.
fn advance(notes: &mut VecDeque<Note>, now: Duration, requests: u64) {
    if notes.len() == 1 || notes.back().is_none_or(|last| now.saturating_sub(last.at) >= GRAIN) {
        notes.push_back(Note { at: now, requests, repeats: 0 });
    }
    let Some(begin) = now.checked_sub(WINDOW) else { return };
    while notes.get(1).is_some_and(|second| second.at <= begin) {
        notes.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance as pass;

    use super::*;

    fn settings(budget_percent: u32, floor_per_second: u32) -> RetrySettings {
        RetrySettings { budget_percent, floor_per_second, ..RetrySettings::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_and_no_more_without_traffic() {
        let (budget, settings) = (Budget::default(), settings(20, 10));
        let granted = (0..1_000).filter(|_| budget.take(&settings)).count();
        assert_eq!(granted, 100, "ten a second for ten seconds");
        pass(WINDOW.saturating_sub(GRAIN)).await;
        assert!(!budget.take(&settings));
        pass(GRAIN).await;
        assert!(budget.take(&settings), "the first ones are out of date");
    }

    #[tokio::test(start_paused = true)]
    async fn a_region_that_fails_wholly_is_asked_a_fifth_more() {
        for floor in [0, 10] {
            let (budget, settings) = (Budget::default(), settings(20, floor));
            let (mut requests, mut attempts) = (0_u32, 0_u32);
            // A thousand requests a second, each of which fails and would be sent twice more.
            for _ in 0..60_000 {
                budget.request();
                requests += 1;
                attempts += 1;
                attempts += u32::from(budget.take(&settings)) + u32::from(budget.take(&settings));
                pass(Duration::from_millis(1)).await;
            }
            let most = requests * 12 / 10 + floor * 60;
            assert!(attempts <= most + 20, "{attempts} of {requests}");
            assert!(attempts > most - most / 50, "{attempts}: the budget is there to be used");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_long_ago_gives_nothing() {
        let (budget, settings) = (Budget::default(), settings(20, 0));
        for _ in 0..1_000 {
            budget.request();
        }
        assert!(budget.take(&settings));
        pass(WINDOW * 2).await;
        assert!(!budget.take(&settings));
        budget.request();
        pass(WINDOW).await;
        assert!(!budget.take(&settings), "a fifth of one is none");
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_looks_requests_count_as_spread_evenly() {
        let (budget, settings) = (Budget::default(), settings(10, 0));
        for _ in 0..100 {
            for _ in 0..10 {
                budget.request();
            }
            pass(Duration::from_secs(1)).await;
        }
        let granted = (0..1_000).filter(|_| budget.take(&settings)).count();
        assert_eq!(granted, 10, "a tenth of the last ten seconds, not of all");
    }

    #[test]
    fn notes_stay_few() {
        let mut notes = VecDeque::from([Note::default()]);
        for step in 0..100_000_u64 {
            advance(&mut notes, Duration::from_millis(step * 7), step);
            assert!(notes.len() <= 44, "{}", notes.len());
        }
    }
}
