//! Budgets of one rate by key, as many as there is room for.
//!
//! A key is kept as its hash under a secret of this process: who does not know that cannot make two of them meet, and
//! a long key takes no more room than a short one. The map is in shards, each with two generations. Whoever is seen is in
//! the young one; it becomes the old one when the time has passed in which everything is forgiven, or when it is
//! full, and the old one goes.
//!
//! Invariants: never more than the most that was asked for; what goes for its age had nothing booked any more, so that
//! only want of room forgives early, and then those who were not seen for longest; no lock is held over an await.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{Budget, Rate};

/// Enough that workers rarely meet on one.
const SHARDS: usize = 64;

/// What was used of a [`Rate`], by key.
#[derive(Debug)]
pub(crate) struct Table {
    rate: Rate,
    /// Entries of one generation of one shard.
    most: usize,
    shards: Vec<Mutex<Shard>>,
    secret: RandomState,
}

/// The hashes are good already, so they are hashed no second time to speak of.
type Generation = FxHashMap<u64, Budget>;

#[derive(Debug, Default)]
struct Shard {
    young: Generation,
    old: Generation,
    /// When the present young generation began.
    began: Duration,
    /// Entries that went for want of room, with something booked.
    forgotten: u64,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) granted: bool,
    /// How far bookings run ahead of the clock now.
    pub(crate) ahead: Duration,
}

impl Table {
    /// Of at most about `most` keys (at least one in each shard and generation).
    pub(crate) fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most: (most / (2 * SHARDS)).max(1),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            secret: RandomState::new(),
        }
    }

    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Books one event of `key` at `now`, by the clock of the owner; or says that it is over the rate.
    pub(crate) fn take(&self, key: impl Hash, now: Duration) -> Drawn {
        self.with(key, now, |budget| {
            let granted = budget.take(&self.rate, now);
            Drawn { granted, ahead: budget.ahead(now) }
        })
    }

    /// As [`Self::take`], with nothing booked.
    pub(crate) fn peek(&self, key: impl Hash, now: Duration) -> Drawn {
        self.with(key, now, |budget| {
            let mut copy = *budget;
            Drawn { granted: copy.take(&self.rate, now), ahead: budget.ahead(now) }
        })
    }

    /// Learns that by another's count the bookings of `key` run `ahead` of the clock.
    pub(crate) fn learn(&self, key: impl Hash, ahead: Duration, now: Duration) {
        self.with(key, now, |budget| budget.learn(ahead, now));
    }

    /// Keys that are kept, and those that went with something booked, for want of room.
    pub(crate) fn size(&self) -> (usize, u64) {
        self.shards.iter().map(lock).fold((0, 0), |(kept, forgotten), shard| {
            (kept + shard.young.len() + shard.old.len(), forgotten + shard.forgotten)
        })
    }

    fn with<T>(&self, key: impl Hash, now: Duration, work: impl FnOnce(&mut Budget) -> T) -> T {
        let hash = self.secret.hash_one(key);
        // The map below uses the other end of the hash.
        let index = (hash >> 32) as usize % SHARDS;
        let mut spare = Shard::default();
        let mut shard = match self.shards.get(index) {
            Some(shard) => lock(shard),
            // There are as many as that.
            None => return work(spare.young.entry(hash).or_default()),
        };
        shard.age(now, self.rate.window(), self.most);
        work(shard.touch(hash))
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A panic within leaves nothing half done.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Has the old generation go when it is time, or there is no room.
    fn age(&mut self, now: Duration, window: Duration, most: usize) {
        let since = now.saturating_sub(self.began);
        let is_full = self.young.len() >= most;
        if since < window && !is_full {
            return;
        }
        if since >= window.saturating_mul(2) {
            // Nobody of either generation has anything booked.
            self.young = Generation::default();
        }
        let old = mem::replace(&mut self.old, mem::take(&mut self.young));
        if is_full && since < window {
            let booked = old.values().filter(|budget| !budget.ahead(now).is_zero());
            self.forgotten += booked.count() as u64;
        }
        self.began = now;
    }

    /// The budget of `hash`, which counts as seen.
    fn touch(&mut self, hash: u64) -> &mut Budget {
        let old = &mut self.old;
        self.young.entry(hash).or_insert_with(|| old.remove(&hash).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn rate(interval_ms: u64, burst: u32) -> Rate {
        Rate::new(Duration::from_millis(interval_ms), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn keys_have_budgets_of_their_own() {
        let table = Table::new(rate(1_000, 2), 1_000);
        let now = Duration::from_secs(5);
        assert_eq!(table.take("a", now), Drawn { granted: true, ahead: Duration::from_secs(1) });
        assert!(table.take("a", now).granted);
        let refused = table.take("a", now);
        assert_eq!(refused, Drawn { granted: false, ahead: Duration::from_secs(2) });
        assert_eq!(table.peek("a", now), refused);
        assert!(table.peek("b", now).granted);
        assert_eq!(table.take("b", now).ahead, Duration::from_secs(1));
        assert!(table.take("a", now + Duration::from_secs(1)).granted);
        table.learn("b", Duration::from_secs(2), now);
        assert!(!table.take("b", now).granted);
    }

    #[test]
    fn ten_million_keys_take_no_more_room_than_was_given() {
        let table = Table::new(rate(60_000, 5), 10_000);
        let now = Duration::from_secs(1);
        for key in 0..10_000_000_u32 {
            table.take(key, now);
        }
        let (kept, forgotten) = table.size();
        assert!(kept <= 10_000, "{kept} are kept");
        assert!(kept >= 4_000, "{kept} are kept, which is few");
        assert!(forgotten > 9_900_000, "{forgotten} forgotten");
    }

    #[test]
    fn who_is_seen_again_and_again_outlives_a_flood_of_others() {
        let table = Table::new(rate(60_000, 1), 10_000);
        let now = Duration::from_secs(1);
        assert!(table.take("kept", now).granted);
        for key in 0..100_000_u32 {
            table.take(key, now);
            if key % 1_000 == 0 {
                assert!(!table.take("kept", now).granted, "forgotten at {key}");
            }
        }
    }

    #[test]
    fn idle_keys_go_when_all_is_forgiven() {
        let table = Table::new(rate(1_000, 5), 1_000_000);
        for key in 0..10_000_u32 {
            table.take(key, Duration::from_secs(1));
        }
        for key in 0..1_000_u32 {
            table.take(key % 640, Duration::from_secs(100));
        }
        assert_eq!(table.size(), (640, 0));
    }

    proptest! {
        /// With room for all, a table is nothing but a budget for each key.
        #[test]
        fn age_alone_forgives_nothing(
            steps in proptest::collection::vec((0_u64..3_000, 0_u8..4), 1..200),
            burst in 1_u32..6,
        ) {
            let rate = rate(500, burst);
            let table = Table::new(rate, 1_000_000);
            let mut model: HashMap<u8, Budget> = HashMap::new();
            let mut now = Duration::ZERO;
            for (step, key) in steps {
                now += Duration::from_millis(step);
                let expected = model.entry(key).or_default().take(&rate, now);
                prop_assert_eq!(table.take(key, now).granted, expected);
            }
        }
    }
}
