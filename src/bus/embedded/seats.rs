//! Seats and presence within one process.
//!
//! Walk: a user's seats lie in a sharded map, oldest first; taking and giving back lock his shard alone, and what
//! that changed is told after the lock is let go. Who has left stays with the time of it, up to a bound, the
//! earliest forgotten first.
//!
//! Invariants: never more seats than the limit; no lock is held while delivering.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::{EmbeddedBus, Shared, lock};
use crate::bus::{Presence, SeatError, SeatLimit, SeatNumber};
use crate::settings::OverLimit;

/// Enough that workers rarely meet on one.
const SHARDS: usize = 64;

/// Users in a shard who are away and whose last time is remembered; 65,536 in all.
const AWAY: usize = 1_024;

/// Every seat of the process.
pub(super) struct Seats {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    next: AtomicU64,
}

#[derive(Default)]
struct Shard {
    users: HashMap<Arc<str>, User>,
    /// Who left, and when, earliest first; some are back since.
    away: VecDeque<(u64, Arc<str>)>,
}

/// Here while he has a seat, is watched, or is remembered.
#[derive(Default)]
struct User {
    /// Oldest first.
    seats: Vec<SeatNumber>,
    last_seen_ms: Option<u64>,
    watches: usize,
}

/// What a change is to be followed by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effects {
    evicted: Vec<SeatNumber>,
    /// Somebody watches, and the user came or left.
    turned: bool,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            next: AtomicU64::new(1),
        }
    }

    /// Runs `change` on the shard of `user`.
    fn in_shard<T: Default>(&self, user: &str, change: impl FnOnce(&mut Shard) -> T) -> T {
        let index = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).unwrap_or_default();
        self.shards.get(index).map(|shard| change(&mut lock(shard))).unwrap_or_default()
    }

    /// Nothing where the user has all seats he may have.
    fn take(&self, user: &Arc<str>, number: SeatNumber, limit: SeatLimit) -> Option<Effects> {
        self.in_shard(user, |shard| {
            let entry = shard.users.entry(Arc::clone(user)).or_default();
            let over = (entry.seats.len() + 1).saturating_sub(limit.most.max(1));
            if over > 0 && limit.over == OverLimit::Refuse {
                return None;
            }
            let turned = entry.seats.is_empty() && entry.watches > 0;
            let evicted = entry.seats.drain(..over).collect();
            entry.seats.push(number);
            Some(Effects { evicted, turned })
        })
    }

    fn leave(&self, user: &Arc<str>, number: SeatNumber) -> Effects {
        self.in_shard(user, |shard| {
            let Some(entry) = shard.users.get_mut(user) else { return Effects::default() };
            let before = entry.seats.len();
            entry.seats.retain(|taken| *taken != number);
            if entry.seats.len() == before || !entry.seats.is_empty() {
                // It was evicted before, or he has others.
                return Effects::default();
            }
            entry.seats = Vec::new();
            let now = now_ms();
            entry.last_seen_ms = Some(now);
            let turned = entry.watches > 0;
            shard.remember(now, user);
            Effects { evicted: Vec::new(), turned }
        })
    }

    fn presence(&self, user: &str) -> Presence {
        self.in_shard(user, |shard| {
            let user = shard.users.get(user);
            let online = user.is_some_and(|user| !user.seats.is_empty());
            let last_seen_ms =
                if online { Some(now_ms()) } else { user.and_then(|user| user.last_seen_ms) };
            Some(Presence { online, last_seen_ms })
        })
        .unwrap_or(Presence { online: false, last_seen_ms: None })
    }

    fn watch(&self, user: &Arc<str>, by: impl FnOnce(usize) -> usize) {
        self.in_shard(user, |shard| {
            let entry = shard.users.entry(Arc::clone(user)).or_default();
            entry.watches = by(entry.watches);
            if entry.is_nobody() {
                shard.users.remove(user);
            }
        });
    }
}

impl Shard {
    /// Notes when `user` left, and forgets whoever left before all others.
    fn remember(&mut self, now: u64, user: &Arc<str>) {
        self.away.push_back((now, Arc::clone(user)));
        while self.away.len() > AWAY {
            let Some((at, name)) = self.away.pop_front() else { return };
            let Some(user) = self.users.get_mut(&name) else { continue };
            // One who left again later stands further behind.
            if user.seats.is_empty() && user.last_seen_ms == Some(at) {
                user.last_seen_ms = None;
            }
            if user.is_nobody() {
                self.users.remove(&name);
            }
        }
    }
}

impl User {
    fn is_nobody(&self) -> bool {
        self.seats.is_empty() && self.watches == 0 && self.last_seen_ms.is_none()
    }
}

impl EmbeddedBus {
    pub(in crate::bus) fn take_seat(&self, user: &str, limit: SeatLimit) -> Chair {
        let (shared, user) = (Arc::clone(&self.shared), Arc::<str>::from(user));
        let number = shared.seats.next.fetch_add(1, Ordering::Relaxed);
        let effects = shared.seats.take(&user, number, limit);
        let taken = effects.is_some();
        match effects {
            Some(effects) => shared.follow(&user, &effects),
            None => drop(shared.metrics.seats_refused.inc()),
        }
        Chair { shared, user, number, taken }
    }

    pub(in crate::bus) fn presence(&self, user: &str) -> Presence {
        self.shared.seats.presence(user)
    }

    pub(in crate::bus) fn watch(&self, user: &str) -> Watch {
        let user = Arc::<str>::from(user);
        self.shared.seats.watch(&user, |watches| watches + 1);
        self.shared.metrics.watches.inc();
        Watch { shared: Arc::clone(&self.shared), user }
    }
}

impl Shared {
    fn follow(&self, user: &str, effects: &Effects) {
        let Some(deliver) = self.deliver.get() else { return };
        for seat in &effects.evicted {
            self.metrics.seats_evicted.inc();
            deliver.evict(user, *seat);
        }
        if effects.turned {
            deliver.presence_changed(user);
        }
    }
}

/// One seat, or the refusal of one.
pub(in crate::bus) struct Chair {
    shared: Arc<Shared>,
    user: Arc<str>,
    number: SeatNumber,
    taken: bool,
}

impl Chair {
    pub(in crate::bus) fn number(&self) -> SeatNumber {
        self.number
    }

    pub(in crate::bus) fn granted(&self) -> Result<(), SeatError> {
        if self.taken { Ok(()) } else { Err(SeatError::Full) }
    }
}

impl Drop for Chair {
    fn drop(&mut self) {
        if self.taken {
            let effects = self.shared.seats.leave(&self.user, self.number);
            self.shared.follow(&self.user, &effects);
        }
    }
}

/// One watch of a user.
pub(in crate::bus) struct Watch {
    shared: Arc<Shared>,
    user: Arc<str>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.seats.watch(&self.user, |watches| watches.saturating_sub(1));
        self.shared.metrics.watches.dec();
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_first_is_forgotten_first() {
        let seats = Seats::new();
        let limit = SeatLimit { most: 1, over: OverLimit::Refuse };
        for number in 0..(2 * SHARDS * AWAY) as u64 {
            let user = Arc::from(number.to_string());
            seats.take(&user, number, limit).unwrap();
            seats.leave(&user, number);
        }
        assert_eq!(seats.presence("0"), Presence { online: false, last_seen_ms: None });
        let last = (2 * SHARDS * AWAY - 1).to_string();
        assert!(seats.presence(&last).last_seen_ms.is_some());
        let held: usize = seats.shards.iter().map(|shard| lock(shard).users.len()).sum();
        assert_eq!(held, SHARDS * AWAY);
    }

    #[test]
    fn who_came_back_is_not_forgotten_for_having_left_before() {
        let mut shard = Shard::default();
        let bob: Arc<str> = Arc::from("bob");
        for at in 0..=AWAY as u64 {
            let last_seen_ms = Some(at);
            shard.users.insert(Arc::clone(&bob), User { last_seen_ms, ..User::default() });
            shard.remember(at, &bob);
        }
        assert_eq!(shard.users["bob"].last_seen_ms, Some(AWAY as u64));
    }
}
