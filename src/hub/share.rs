//! What all seats of one user share, so that nobody gets more by opening more sockets.
//!
//! Walk: a [`Share`] is made with the user's first seat and handed to each later one; a session asks it before
//! each message ([`Share::may_send`]), and holds an [`UnderWay`] for as long as the bus has not answered one.
//!
//! Invariant: while many publishes wait for the bus ([`CROWDED`]), no user has more than [`FEW`] new ones there: a
//! bus that has stopped to answer is filled by many, not by the few who send most, and who has sent nothing yet
//! still finds a place.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::limits::Rates;
use crate::rate::{Rate, SharedBudget};

/// Publishes of the whole process under way from which on each user is held to [`FEW`]: half of what the bus takes,
/// and far more than a bus that answers within milliseconds ever has.
const CROWDED: usize = 8_192;

/// … with which it takes a thousand users to fill the other half.
const FEW: usize = 8;

/// Budgets of users who connect, in each region: 32 KiB.
const SLOTS: u64 = 4_096;

/// The sockets that one region takes.
///
/// Users who come and go leave no state behind: each counts in one of [`SLOTS`] budgets, which he may have to share
/// with a few others, by the hash of a key that nobody knows.
#[derive(Debug)]
pub(super) struct Connects {
    all: SharedBudget,
    users: Box<[SharedBudget]>,
    hasher: RandomState,
}

impl Default for Connects {
    fn default() -> Self {
        let users = (0..SLOTS).map(|_| SharedBudget::default()).collect();
        Self { all: SharedBudget::default(), users, hasher: RandomState::new() }
    }
}

impl Connects {
    /// Books one connect of `user`; false where there are too many, or, while half of the burst is used up, too many
    /// of his.
    pub(super) fn take(&self, rates: &Rates, user: &str, now: Duration) -> bool {
        let slot = usize::try_from(self.hasher.hash_one(user) % SLOTS).unwrap_or_default();
        let few =
            self.users.get(slot).is_some_and(|one| one.take(&rates.user_connects, now).is_ok());
        (few || !self.all.is_half_spent(&rates.connects, now))
            && self.all.take(&rates.connects, now).is_ok()
    }
}

/// The publishes of the whole process that are under way.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    under_way: AtomicUsize,
}

/// What one user has used, over all his seats.
#[derive(Debug, Default)]
pub(super) struct Share {
    messages: SharedBudget,
    under_way: AtomicUsize,
}

impl Share {
    /// Books one message; false where it is over the rate.
    pub(super) fn may_send(&self, rate: &Rate, now: Duration) -> bool {
        self.messages.take(rate, now).is_ok()
    }

    /// A place for one publish; none where the crowd is such that others need it more.
    pub(super) fn enter(self: &Arc<Self>, crowd: &Arc<Crowd>) -> Option<UnderWay> {
        let crowded = crowd.under_way.load(Ordering::Relaxed) >= CROWDED;
        if crowded && self.under_way.load(Ordering::Relaxed) >= FEW {
            return None;
        }
        crowd.under_way.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Some(UnderWay { share: self.clone(), crowd: crowd.clone() })
    }
}

/// One publish that the bus has not answered.
#[derive(Debug)]
pub(super) struct UnderWay {
    share: Arc<Share>,
    crowd: Arc<Crowd>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.share.under_way.fetch_sub(1, Ordering::Relaxed);
        self.crowd.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::settings::HubSettings;

    #[test]
    fn a_shared_budget_is_one_budget() {
        let nz = |value| NonZeroU32::new(value).unwrap();
        let rate = Rate::per_second(nz(10), nz(5));
        let budget = SharedBudget::default();
        let now = Duration::from_secs(3);
        let passed: usize = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..100).filter(|_| budget.take(&rate, now).is_ok()).count())
                })
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum()
        });
        assert_eq!(passed, 5);
        assert!(budget.take(&rate, now + Duration::from_millis(100)).is_ok());
    }

    #[test]
    fn who_comes_and_goes_in_a_circle_leaves_turns_for_the_others() {
        let rates = Rates::new(&HubSettings {
            connects_per_second: NonZeroU32::MIN,
            connect_burst: NonZeroU32::new(1_000).unwrap(),
            ..HubSettings::default()
        });
        let (connects, now) = (Connects::default(), Duration::from_secs(9));
        let circling = (0..5_000).filter(|_| connects.take(&rates, "alice", now)).count();
        assert!((500..=502).contains(&circling), "{circling}");
        let others = (0..2_000).filter(|n| connects.take(&rates, &format!("u{n}"), now)).count();
        assert_eq!(circling + others, 1_000, "all turns are given out to those who come once");
    }

    #[test]
    fn who_sends_most_leaves_room_for_who_has_sent_nothing() {
        let crowd = Arc::new(Crowd::default());
        let flooder = Arc::new(Share::default());
        let mut held: Vec<_> = std::iter::from_fn(|| flooder.enter(&crowd)).collect();
        assert_eq!(held.len(), CROWDED);
        for _ in 0..100 {
            let other = Arc::new(Share::default());
            let few: Vec<_> = std::iter::from_fn(|| other.enter(&crowd)).collect();
            assert_eq!(few.len(), FEW);
            held.extend(few);
        }
        assert!(flooder.enter(&crowd).is_none());
        drop(held);
        assert!(flooder.enter(&crowd).is_some(), "answers give the places back");
        assert_eq!(crowd.under_way.load(Ordering::Relaxed), 0);
    }
}
