//! Which seats this process holds, and how far Redis has followed.
//!
//! Walk: a seat is entered before Redis is asked for it, noted as granted when it is, and taken out when it is given
//! back. What Redis does not know yet queues its user; whoever settles takes an [`Errand`] for one user, and brings it
//! back where it failed.
//!
//! Invariants: one errand a user at a time, so that what is said last is what was meant last; a seat that Redis was
//! never asked for is given back without a word; no lock is held over an await.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::bus::{SeatLimit, SeatNumber};

/// Enough that workers rarely meet on one, and that going through one takes well under a millisecond.
pub(super) const SHARDS: usize = 256;

/// Every seat of the process.
pub(super) struct Book {
    shards: Vec<Mutex<HashMap<Arc<str>, User>>>,
    hasher: RandomState,
    queue: Mutex<VecDeque<Arc<str>>>,
    queued: Notify,
}

struct User {
    limit: SeatLimit,
    seats: Vec<Held>,
    /// Given back, and Redis is to be told.
    given_back: Vec<SeatNumber>,
    /// The seats are to be said again.
    again: bool,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Idle,
    Queued,
    UnderWay,
    /// Something came up after the errand was taken.
    More,
}

struct Held {
    number: SeatNumber,
    /// In milliseconds since the Unix epoch; nothing while Redis is asked.
    opened: Option<u64>,
    /// Redis may know of it.
    told: bool,
}

/// What is to be said of one user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Errand {
    pub(super) user: Arc<str>,
    pub(super) limit: SeatLimit,
    pub(super) given_back: Vec<SeatNumber>,
    /// With the times when they were opened.
    pub(super) again: Vec<(SeatNumber, u64)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            queue: Mutex::default(),
            queued: Notify::new(),
        }
    }

    fn with<T: Default>(
        &self,
        user: &str,
        change: impl FnOnce(&mut HashMap<Arc<str>, User>) -> T,
    ) -> T {
        let index = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).unwrap_or_default();
        self.shards.get(index).map(|shard| change(&mut lock(shard))).unwrap_or_default()
    }

    /// Enters a seat that Redis is not asked for yet.
    pub(super) fn enter(&self, user: &Arc<str>, number: SeatNumber, limit: SeatLimit) {
        self.with(user, |users| {
            let user = users.entry(Arc::clone(user)).or_insert_with(|| User {
                limit,
                seats: Vec::new(),
                given_back: Vec::new(),
                again: false,
                progress: Progress::Idle,
            });
            user.limit = limit;
            user.seats.push(Held { number, opened: None, told: false });
        });
    }

    /// Redis is asked for the seat from now on.
    pub(super) fn told(&self, user: &str, number: SeatNumber) {
        self.with_seat(user, number, |seat| seat.told = true);
    }

    /// Redis has granted the seat.
    pub(super) fn granted(&self, user: &str, number: SeatNumber, opened: u64) {
        self.with_seat(user, number, |seat| seat.opened = Some(opened));
    }

    fn with_seat(&self, user: &str, number: SeatNumber, change: impl FnOnce(&mut Held)) {
        self.with(user, |users| {
            let seats = users.get_mut(user).map(|user| &mut user.seats);
            if let Some(seat) = seats.into_iter().flatten().find(|seat| seat.number == number) {
                change(seat);
            }
        });
    }

    /// The seats of `user` are to be said again.
    pub(super) fn again(&self, user: &Arc<str>) {
        let is_new = self.with(user, |users| {
            users.get_mut(user).is_some_and(|user| {
                user.again = true;
                user.enqueue()
            })
        });
        self.enqueue_if(is_new, user);
    }

    /// Redis does not have this seat, whatever it was asked: there is nothing to be given back.
    pub(super) fn refused(&self, user: &str, number: SeatNumber) {
        self.with_seat(user, number, |seat| seat.told = false);
    }

    /// The seat is given back.
    pub(super) fn leave(&self, user: &Arc<str>, number: SeatNumber) {
        let is_new = self.with(user, |users| {
            let Some(entry) = users.get_mut(user) else { return false };
            let Some(place) = entry.seats.iter().position(|seat| seat.number == number) else {
                return false;
            };
            if entry.seats.swap_remove(place).told {
                entry.given_back.push(number);
                return entry.enqueue();
            }
            if entry.is_done() {
                users.remove(user);
            }
            false
        });
        self.enqueue_if(is_new, user);
    }

    fn enqueue_if(&self, is_new: bool, user: &Arc<str>) {
        if is_new {
            lock(&self.queue).push_back(Arc::clone(user));
            self.queued.notify_one();
        }
    }

    /// Ends when there may be somebody in the queue.
    pub(super) async fn queued(&self) {
        self.queued.notified().await;
    }

    /// The next user of the queue.
    pub(super) fn next(&self) -> Option<Errand> {
        loop {
            let user = lock(&self.queue).pop_front()?;
            if let Some(errand) = self.take(&user) {
                return Some(errand);
            }
        }
    }

    /// The errand of `user`, unless there is none, or one is under way.
    fn take(&self, name: &Arc<str>) -> Option<Errand> {
        self.with(name, |users| {
            let user = users.get_mut(name)?;
            if matches!(user.progress, Progress::UnderWay | Progress::More) {
                user.progress = Progress::More;
                return None;
            }
            let again = std::mem::take(&mut user.again);
            let held = user.seats.iter().filter(|_| again);
            let errand = Errand {
                user: Arc::clone(name),
                limit: user.limit,
                given_back: std::mem::take(&mut user.given_back),
                again: held.filter_map(|seat| Some((seat.number, seat.opened?))).collect(),
            };
            if errand.is_empty() {
                user.progress = Progress::Idle;
                if user.is_done() {
                    users.remove(name);
                }
                return None;
            }
            for seat in user.seats.iter_mut().filter(|seat| again && seat.opened.is_some()) {
                seat.told = true;
            }
            user.progress = Progress::UnderWay;
            Some(errand)
        })
    }

    /// The errand is done.
    pub(super) fn done(&self, errand: &Errand) {
        self.end(errand, |_| {});
    }

    /// The errand failed: all of it is still to be said.
    pub(super) fn failed(&self, errand: &Errand) {
        self.end(errand, |user| {
            user.given_back.extend(&errand.given_back);
            user.again |= !errand.again.is_empty();
            user.progress = Progress::More;
        });
    }

    fn end(&self, errand: &Errand, change: impl FnOnce(&mut User)) {
        let is_new = self.with(&errand.user, |users| {
            let Some(user) = users.get_mut(&errand.user) else { return false };
            change(user);
            let more = user.progress == Progress::More;
            user.progress = Progress::Idle;
            if user.is_done() {
                users.remove(&errand.user);
                return false;
            }
            more && user.enqueue()
        });
        self.enqueue_if(is_new, &errand.user);
    }

    /// The users of one of the [`SHARDS`] parts.
    pub(super) fn users_of(&self, part: usize) -> Vec<Arc<str>> {
        self.shards.get(part).map(|shard| lock(shard).keys().cloned().collect()).unwrap_or_default()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).is_empty())
    }
}

impl User {
    /// Nothing is held, and nothing is to be said.
    fn is_done(&self) -> bool {
        self.seats.is_empty() && self.given_back.is_empty() && self.progress == Progress::Idle
    }

    /// True where the user is in the queue only now.
    fn enqueue(&mut self) -> bool {
        match self.progress {
            Progress::Idle => {
                self.progress = Progress::Queued;
                true
            }
            Progress::UnderWay => {
                self.progress = Progress::More;
                false
            }
            Progress::Queued | Progress::More => false,
        }
    }
}

impl Errand {
    fn is_empty(&self) -> bool {
        self.given_back.is_empty() && self.again.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OverLimit;

    const LIMIT: SeatLimit = SeatLimit { most: 9, over: OverLimit::Refuse };

    fn book() -> (Book, Arc<str>) {
        (Book::new(), Arc::from("bob"))
    }

    #[test]
    fn what_redis_was_never_asked_for_is_given_back_without_a_word() {
        let (book, bob) = book();
        book.enter(&bob, 1, LIMIT);
        book.leave(&bob, 1);
        assert_eq!(book.next(), None);
        book.enter(&bob, 2, LIMIT);
        book.told(&bob, 2);
        book.refused(&bob, 2);
        book.leave(&bob, 2);
        assert_eq!(book.next(), None);
        assert!(book.is_empty());
    }

    #[test]
    fn a_seat_is_given_back_once_redis_may_know_of_it() {
        let (book, bob) = book();
        book.enter(&bob, 1, LIMIT);
        book.told(&bob, 1);
        book.leave(&bob, 1);
        let errand = book.next().unwrap();
        assert_eq!((&errand.given_back, &errand.again), (&vec![1], &vec![]));
        book.failed(&errand);
        let again = book.next().unwrap();
        assert_eq!(again, errand);
        book.done(&again);
        assert_eq!(book.next(), None);
        assert!(book.is_empty());
    }

    #[test]
    fn one_errand_at_a_time_and_the_next_says_what_came_meanwhile() {
        let (book, bob) = book();
        for number in [1, 2] {
            book.enter(&bob, number, LIMIT);
            book.told(&bob, number);
            book.granted(&bob, number, number * 10);
        }
        book.enter(&bob, 3, LIMIT);
        book.again(&bob);
        book.again(&bob);
        let errand = book.next().unwrap();
        assert_eq!(errand.again, [(1, 10), (2, 20)], "the third is being asked for");
        book.leave(&bob, 1);
        assert_eq!(book.next(), None, "one is under way");
        book.done(&errand);
        let errand = book.next().unwrap();
        assert_eq!((&errand.given_back, &errand.again), (&vec![1], &vec![]));
        book.done(&errand);
        assert_eq!(book.next(), None);
    }

    #[test]
    fn a_failed_errand_says_only_what_still_holds() {
        let (book, bob) = book();
        book.enter(&bob, 1, LIMIT);
        book.granted(&bob, 1, 10);
        book.again(&bob);
        let errand = book.next().unwrap();
        book.leave(&bob, 1);
        book.failed(&errand);
        let errand = book.next().unwrap();
        assert_eq!((&errand.given_back, &errand.again), (&vec![1], &vec![]));
        book.done(&errand);
        assert!(book.is_empty());
    }
}
