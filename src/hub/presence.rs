//! Who is told of whose presence.
//!
//! Walk: a client's list becomes a [`Watching`], which enters its seat here for each user on it. A user who is new,
//! or of whom the bus says that something may have changed, is queued; [`Watchers::run`] asks the bus for each, a few at a
//! time, and queues the answer for every seat that watches him. The session tells its client what differs from what
//! it told last.
//!
//! Invariants: a user is here exactly as long as a seat watches him, is watched on the bus as long, and is asked
//! for once, however many seats watch him; one question a user at a time, so that answers keep their order; no lock is
//! held over an await. While the bus is away nobody is asked for, and all are when it is back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::outbox::{Bounds, Item};
use super::registry::Seat;
use super::relay::{BusError, Presence, Relay, SeatNumber, Watch};
use crate::protocol::outgoing;

/// Users asked for at once: the death of a node makes many be asked for, which must not crowd out the rest.
const QUESTIONS: usize = 32;

/// A user whose question failed though the bus works is asked for again after this time.
const RETRY: Duration = Duration::from_millis(500);

/// Every user of the process whose presence is watched.
pub(super) struct Watchers {
    state: Mutex<State>,
    changed: Notify,
    relay: Relay,
    bounds: Bounds,
}

#[derive(Default)]
struct State {
    users: HashMap<Arc<str>, Watched>,
    /// Users to be asked for, each once.
    queue: VecDeque<Arc<str>>,
}

struct Watched {
    watch: Arc<Watch>,
    seats: HashMap<SeatNumber, Arc<Seat>>,
    asking: Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    /// The last answer counts.
    No,
    /// In the queue.
    Queued,
    UnderWay,
    /// The answer under way may be outdated.
    Again,
}

/// One question.
struct Asked {
    user: Arc<str>,
    watch: Arc<Watch>,
}

impl Watchers {
    pub(super) fn new(relay: Relay, bounds: Bounds) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), relay, bounds }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have changed: `user` is asked for again, where he is watched.
    pub(super) fn unsure(&self, user: &str) {
        if self.lock().enqueue(user) {
            self.changed.notify_one();
        }
    }

    /// How many users are watched.
    #[cfg(test)]
    pub(super) fn users(&self) -> usize {
        self.lock().users.len()
    }

    fn enter(&self, seat: &Arc<Seat>, user: &Arc<str>) {
        let mut state = self.lock();
        let watched = state.users.entry(Arc::clone(user)).or_insert_with(|| Watched {
            watch: Arc::new(self.relay.watch(user)),
            seats: HashMap::new(),
            asking: Asking::No,
        });
        watched.seats.insert(seat.number(), Arc::clone(seat));
        state.enqueue(user);
    }

    fn leave(&self, seat: &Arc<Seat>, user: &Arc<str>) {
        let mut state = self.lock();
        let Some(watched) = state.users.get_mut(user) else { return };
        watched.seats.remove(&seat.number());
        if watched.seats.is_empty() {
            let gone = state.users.remove(user);
            // The bus is told without the lock.
            drop(state);
            drop(gone);
        }
    }

    /// Asks for whoever is queued, until `stop`.
    pub(super) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.ask_all() => {}
        }
    }

    async fn ask_all(&self) {
        let mut asked = FuturesUnordered::new();
        let mut failed: Vec<Asked> = Vec::new();
        let mut retry_at = Instant::now();
        loop {
            self.relay.up().await;
            while asked.len() < QUESTIONS
                && let Some(next) = self.next()
            {
                asked.push(self.ask(next));
            }
            tokio::select! {
                Some((asked, answer)) = asked.next() => match answer {
                    Ok(presence) => self.tell(&asked, presence),
                    Err(error) => {
                        tracing::debug!(target: "Hub", "presence of user={} not known: {error}", asked.user);
                        if failed.is_empty() {
                            retry_at = Instant::now() + RETRY;
                        }
                        failed.push(asked);
                    }
                },
                () = self.changed.notified(), if asked.len() < QUESTIONS => {}
                () = tokio::time::sleep_until(retry_at), if !failed.is_empty() => {
                    for asked in failed.drain(..) {
                        self.ask_again(&asked);
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<Asked> {
        let mut state = self.lock();
        loop {
            let user = state.queue.pop_front()?;
            if let Some(watched) = state.users.get_mut(&user)
                && watched.asking == Asking::Queued
            {
                watched.asking = Asking::UnderWay;
                let watch = Arc::clone(&watched.watch);
                return Some(Asked { user, watch });
            }
        }
    }

    async fn ask(&self, asked: Asked) -> (Asked, Result<Presence, BusError>) {
        // A change between the answer and the watch would never be told.
        let answer = match asked.watch.confirmed().await {
            Ok(()) => self.relay.presence(&asked.user).await,
            Err(error) => Err(error),
        };
        (asked, answer)
    }

    fn tell(&self, asked: &Asked, presence: Presence) {
        let user = &asked.user;
        let mut state = self.lock();
        let Some(watched) = asked.among(&mut state.users) else { return };
        let again = std::mem::replace(&mut watched.asking, Asking::No) == Asking::Again;
        // Copies, since a user may be watched by very many, and who reads the bus may wait for the lock.
        let seats: Vec<_> = watched.seats.values().cloned().collect();
        if again {
            state.enqueue(user);
        }
        drop(state);
        for seat in seats {
            seat.outbox.push(Item::Presence { user: Arc::clone(user), presence }, self.bounds);
        }
    }

    /// Queues a user whose question failed.
    fn ask_again(&self, asked: &Asked) {
        let mut state = self.lock();
        if let Some(watched) = asked.among(&mut state.users) {
            watched.asking = Asking::No;
            state.enqueue(&asked.user);
        }
    }
}

impl Asked {
    /// The user, unless nobody watched him meanwhile: a question from before says nothing to who watches since.
    fn among<'a>(&self, users: &'a mut HashMap<Arc<str>, Watched>) -> Option<&'a mut Watched> {
        users.get_mut(&self.user).filter(|watched| Arc::ptr_eq(&watched.watch, &self.watch))
    }
}

impl State {
    /// True where the user is in the queue only now.
    fn enqueue(&mut self, user: &str) -> bool {
        let Some((name, _)) = self.users.get_key_value(user) else { return false };
        let name = Arc::clone(name);
        let Some(watched) = self.users.get_mut(user) else { return false };
        match watched.asking {
            Asking::No => {
                watched.asking = Asking::Queued;
                self.queue.push_back(name);
                true
            }
            Asking::UnderWay => {
                watched.asking = Asking::Again;
                false
            }
            Asking::Queued | Asking::Again => false,
        }
    }
}

/// Whom one client watches, and what it was told of each; dropped, it watches nobody.
pub(super) struct Watching {
    watchers: Arc<Watchers>,
    seat: Arc<Seat>,
    /// In the order of the names.
    list: Vec<Told>,
}

struct Told {
    user: Arc<str>,
    /// The last frame's; the time only of one who is offline, since that of others goes on.
    last: Option<(bool, Option<u64>)>,
}

impl Watching {
    /// Watches `users` for the client of `seat`, in the place of `earlier`; each is answered anew.
    pub(super) fn replace(
        earlier: Option<Box<Self>>,
        watchers: &Arc<Watchers>,
        seat: &Arc<Seat>,
        users: Vec<Arc<str>>,
    ) -> Option<Box<Self>> {
        let mut users = users;
        users.sort_unstable();
        users.dedup();
        // Entered before the earlier ones are left, so that who is in both lists stays watched on the bus.
        for user in &users {
            watchers.enter(seat, user);
        }
        if let Some(mut earlier) = earlier {
            earlier.list.retain(|told| users.binary_search(&told.user).is_err());
        }
        watchers.changed.notify_one();
        let list: Vec<_> = users.into_iter().map(|user| Told { user, last: None }).collect();
        let new = Self { watchers: Arc::clone(watchers), seat: Arc::clone(seat), list };
        (!new.list.is_empty()).then(|| Box::new(new))
    }

    /// The frame that tells the client, where it was not told the same before.
    pub(super) fn tell(&mut self, user: &Arc<str>, presence: Presence) -> Option<Utf8Bytes> {
        let place = self.list.binary_search_by(|told| told.user.cmp(user)).ok()?;
        let told = self.list.get_mut(place)?;
        let Presence { online, last_seen_ms } = presence;
        let now = Some((online, last_seen_ms.filter(|_| !online)));
        if told.last == now {
            return None;
        }
        told.last = now;
        Some(outgoing::presence(user, online, last_seen_ms))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for told in &self.list {
            self.watchers.leave(&self.seat, &told.user);
        }
    }
}
