//! Users and their seats.
//!
//! The only file that names the map. Its guards lock a shard, so every method is plain (not async) and
//! returns owned values or runs a short closure that does not come back here.
//!
//! Invariant: a user is here exactly as long as he has a seat.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::outbox::{Bounds, Item, Outbox};
use super::relay::SeatNumber;
use super::share::Share;

/// One socket's place, from before its handshake is answered until it is gone.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) outbox: Outbox,
    /// The same in all seats of one user.
    pub(super) share: Arc<Share>,
    /// What the bus calls it; 0 before it was asked.
    number: AtomicU64,
    evicted: AtomicBool,
    /// From where he came; here and not with the session, which would hold it twice over.
    pub(super) client: OnceLock<IpAddr>,
}

impl Seat {
    /// Notes what the bus calls this seat.
    pub(super) fn name(&self, number: SeatNumber) {
        self.number.store(number, Ordering::Release);
    }

    pub(super) fn number(&self) -> SeatNumber {
        self.number.load(Ordering::Acquire)
    }

    /// Another socket has taken the place of this one.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.outbox.wake();
    }
}

/// Who is connected to this process, by user.
///
/// Names are hashed with a random key: clients choose them.
#[derive(Debug)]
pub(super) struct Registry {
    users: DashMap<Arc<str>, Vec<Arc<Seat>>>,
    bounds: Bounds,
}

impl Registry {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { users: DashMap::new(), bounds }
    }

    /// Takes a seat for `user`, and gives the one name that all his seats share; nothing where he already
    /// has `most`.
    pub(super) fn take_seat(&self, user: &str, most: usize) -> Option<(Arc<str>, Arc<Seat>)> {
        match self.users.entry(Arc::from(user)) {
            Entry::Vacant(entry) => {
                let user = entry.key().clone();
                let seat = Arc::new(Seat::default());
                entry.insert(vec![seat.clone()]);
                Some((user, seat))
            }
            Entry::Occupied(mut entry) if entry.get().len() < most => {
                let share = entry.get().first().map(|seat| seat.share.clone()).unwrap_or_default();
                let seat = Arc::new(Seat { share, ..Seat::default() });
                entry.get_mut().push(seat.clone());
                Some((entry.key().clone(), seat))
            }
            Entry::Occupied(_) => None,
        }
    }

    pub(super) fn leave(&self, user: &Arc<str>, seat: &Arc<Seat>) {
        if let Entry::Occupied(mut entry) = self.users.entry(user.clone()) {
            entry.get_mut().retain(|taken| !Arc::ptr_eq(taken, seat));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Queues `item` for every seat of `user`; the last one gets the original.
    pub(super) fn push(&self, user: &str, item: Item) {
        let Some(seats) = self.users.get(user) else { return };
        if let Some((last, others)) = seats.split_last() {
            for seat in others {
                seat.outbox.push(item.clone(), self.bounds);
            }
            last.outbox.push(item, self.bounds);
        }
    }

    /// Queues `item` for every seat of every user.
    pub(super) fn push_all(&self, item: &Item) {
        for seats in &self.users {
            for seat in seats.value() {
                seat.outbox.push(item.clone(), self.bounds);
            }
        }
    }

    /// Has the session of this seat of `user`'s close.
    pub(super) fn evict(&self, user: &str, number: SeatNumber) {
        let Some(seats) = self.users.get(user) else { return };
        for seat in seats.iter().filter(|seat| seat.number() == number) {
            seat.evict();
        }
    }

    /// Has the oldest sessions of `user` close, down to `most` that stay.
    pub(super) fn evict_over(&self, user: &str, most: usize) {
        let Some(seats) = self.users.get(user) else { return };
        let staying: Vec<_> = seats.iter().filter(|seat| !seat.is_evicted()).collect();
        for seat in staying.iter().take(staying.len().saturating_sub(most)) {
            seat.evict();
        }
    }

    /// The seats of `user`.
    #[cfg(test)]
    pub(super) fn seats(&self, user: &str) -> Vec<Arc<Seat>> {
        self.users.get(user).map(|seats| seats.clone()).unwrap_or_default()
    }

    /// How many users have a seat.
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn registry() -> Registry {
        Registry::new(Bounds { items: 8, bytes: 1_000 })
    }

    fn waiting(seat: &Seat) -> usize {
        let mut batch = VecDeque::new();
        seat.outbox.take(&mut batch);
        batch.len()
    }

    #[test]
    fn every_seat_of_the_user_gets_it_and_nobody_else() {
        let registry = registry();
        let (_, first) = registry.take_seat("bob", 9).unwrap();
        let (_, second) = registry.take_seat("bob", 9).unwrap();
        let (_, other) = registry.take_seat("alice", 9).unwrap();
        registry.push("bob", Item::Signal("x".into()));
        registry.push("carol", Item::Signal("x".into()));
        assert_eq!([&first, &second, &other].map(|seat| waiting(seat)), [1, 1, 0]);
        registry.push_all(&Item::Gap);
        assert_eq!([&first, &second, &other].map(|seat| waiting(seat)), [1, 1, 1]);
    }

    #[test]
    fn seats_are_counted_and_given_back() {
        let registry = registry();
        let (user, first) = registry.take_seat("bob", 2).unwrap();
        let (same, second) = registry.take_seat("bob", 2).unwrap();
        assert!(Arc::ptr_eq(&user, &same), "one name for all seats");
        assert!(registry.take_seat("bob", 2).is_none());
        registry.leave(&user, &first);
        assert!(registry.take_seat("bob", 2).is_some());
        assert_eq!(registry.users(), 1);
        registry.leave(&user, &second);
        assert_eq!(registry.users(), 1);
    }

    #[test]
    fn the_last_seat_takes_the_user_along() {
        let registry = registry();
        let (user, seat) = registry.take_seat("bob", 2).unwrap();
        registry.leave(&user, &seat);
        assert_eq!(registry.users(), 0);
    }
}
