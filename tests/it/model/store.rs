//! The model: what of each user's messages the store still must have, and which positions may still be resumed.
//!
//! It does not know how the store works. It counts, for each user, the events that may take something from him; a
//! position is *sound* while no such event has come since it was given and nothing after it was pushed
//! out of the inbox. A sound position must be resumed; any other may be refused, and must be wherever resuming it
//! would be a lie, which the bookkeeper sees.

use std::time::Duration;

/// After all may have been taken, the nodes find out one by one, at the latest with their next probe, and may tell of
/// a loss once more.
const UNREST: Duration = Duration::from_secs(3);

/// Counts the events that may take something away; while they are the same, nothing was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    all: u64,
    own: u64,
    /// It may go on changing by itself.
    unrest: bool,
}

impl Age {
    /// Nothing is known of what was taken since.
    pub(super) const UNKNOWN: Self = Self { all: 0, own: 0, unrest: true };
}

#[derive(Debug, Default)]
struct User {
    events: u64,
    /// The position of the last message that was acknowledged.
    last: u64,
}

/// The store, as far as promises go.
#[derive(Debug)]
pub(super) struct Store {
    users: Vec<User>,
    events: u64,
    /// Messages that an inbox keeps.
    most: u64,
    unrest_until: Duration,
    /// Somebody took things out of it by hand; after a restart that may pass for a loss.
    tampered: bool,
}

impl Store {
    pub(super) fn new(users: usize, most: u64) -> Self {
        let users = (0..users).map(|_| User::default()).collect();
        Self { users, events: 0, most, unrest_until: Duration::ZERO, tampered: false }
    }

    pub(super) fn age(&self, now: Duration, user: usize) -> Age {
        let own = self.users[user].events;
        Age { all: self.events, own, unrest: now < self.unrest_until }
    }

    /// A message was acknowledged at position `seq`.
    pub(super) fn stored(&mut self, user: usize, seq: u64) {
        self.users[user].last = seq;
    }

    /// The position of the last message that was acknowledged.
    pub(super) fn last(&self, user: usize) -> u64 {
        self.users[user].last
    }

    /// Something of this user was taken.
    pub(super) fn took(&mut self, user: usize) {
        self.users[user].events += 1;
        self.tampered = true;
    }

    /// Something of anybody may have been taken.
    pub(super) fn took_all(&mut self, now: Duration) {
        self.events += 1;
        self.unrest_until = now + UNREST;
    }

    /// Everything was taken by hand.
    pub(super) fn flushed(&mut self, now: Duration) {
        self.took_all(now);
        self.tampered = true;
    }

    /// It was started again, with or without all that it had.
    pub(super) fn restarted(&mut self, now: Duration, whole: bool) {
        if std::mem::take(&mut self.tampered) || !whole {
            self.took_all(now);
        }
    }

    /// Whether nothing was taken since the user's age was `age`.
    pub(super) fn is_whole(&self, now: Duration, user: usize, age: Age) -> bool {
        !age.unrest && age == self.age(now, user)
    }

    /// Whether position `seq`, given when the user's age was `age`, must be resumed.
    pub(super) fn is_sound(&self, now: Duration, user: usize, age: Age, seq: u64) -> bool {
        self.is_whole(now, user, age) && self.users[user].last.saturating_sub(seq) <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Duration = Duration::from_secs(100);

    #[test]
    fn a_position_is_sound_while_nothing_after_it_is_gone() {
        let mut store = Store::new(2, 3);
        let age = store.age(EARLY, 0);
        store.stored(0, 3);
        assert!(store.is_sound(EARLY, 0, age, 0));
        store.stored(0, 4);
        assert!(!store.is_sound(EARLY, 0, age, 0) && store.is_sound(EARLY, 0, age, 1));
        store.took(1);
        assert!(store.is_sound(EARLY, 0, age, 4));
        store.took(0);
        assert!(!store.is_sound(EARLY, 0, age, 4));
        assert!(store.is_sound(EARLY, 0, store.age(EARLY, 0), 4));
    }

    #[test]
    fn what_is_taken_from_all_is_taken_from_each_and_not_known_at_once() {
        let mut store = Store::new(2, 3);
        let ages = [store.age(EARLY, 0), store.age(EARLY, 1)];
        store.took_all(EARLY);
        let late = EARLY + UNREST;
        assert!(!store.is_sound(late, 0, ages[0], 0) && !store.is_sound(late, 1, ages[1], 0));
        let during = store.age(EARLY, 0);
        assert!(!store.is_sound(EARLY, 0, during, 0) && !store.is_sound(late, 0, during, 0));
        assert!(store.is_sound(late, 0, store.age(late, 0), 0));
    }

    #[test]
    fn a_restart_takes_nothing_unless_data_is_gone_or_was_tampered_with() {
        let mut store = Store::new(1, 3);
        let sound = |store: &mut Store, whole| {
            let age = store.age(EARLY, 0);
            store.restarted(EARLY, whole);
            store.is_sound(EARLY, 0, age, 0)
        };
        assert!(sound(&mut store, true));
        store.took(0);
        assert!(!sound(&mut store, true));
        let mut store = Store::new(1, 3);
        assert!(!sound(&mut store, false));
    }
}
