//! The bus within one process: no server, and gone with the process.
//!
//! Walk: a user's [`Inbox`] is found by name in a sharded map; publishing locks that inbox alone, gives
//! the next position, stores, and delivers before the lock is let go, which keeps the order. A
//! subscription is a share of the inbox and a count in it. A sweep, one shard at a time, forgets what is
//! too old. Where a message does not fit into the [`Room`] of all, those who are not listened for are
//! forgotten, the least recently written first, and it is tried again.
//!
//! Invariants: positions of an epoch are never given out twice (the epoch is renewed before a counter is
//! forgotten); no lock is held over an await; a shard's lock is held for a look-up or a sweep of that
//! shard, never while delivering. Locks are taken in the order room, shard, inbox, epoch.

mod draws;
mod inbox;
mod room;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::draws::Draws;
use self::inbox::{Inbox, of_message, of_repeat, of_user};
use self::room::{Pass, Room};
use self::seats::Seats;
pub(super) use self::seats::{Chair, Watch};
use super::metrics::Metrics;
use super::{
    BusError, BusState, Deliver, Draw, Envelope, Epoch, Receipt, Replay, Seq, dedupe_key, epoch,
};
use crate::observability::Registry;
use crate::rate::Drawn;
use crate::settings::InboxSettings;

/// Enough that workers rarely meet on one, and that sweeping one takes well under a millisecond with a
/// million users.
const SHARDS: usize = 256;

/// How often every shard is swept.
const SWEEP: Duration = Duration::from_mins(1);

/// Why a message is refused.
const FULL: &str = "bus.inbox.max_total_bytes is reached, by the inboxes of connected users alone";

/// Between room made and room taken others may fill it, a quarter of the bound: hardly once, never so often.
const ATTEMPTS: usize = 8;

/// Digits of the longest position.
const LONGEST_SEQ: usize = 20;

/// The bus within one process; clones are the same bus.
#[derive(Clone)]
pub struct EmbeddedBus {
    shared: Arc<Shared>,
}

type Shard = HashMap<Box<str>, Arc<Mutex<Inbox>>>;

struct Shared {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// The epoch of inboxes made from now on.
    epoch: Mutex<Epoch>,
    room: Room,
    seats: Seats,
    draws: Draws,
    settings: InboxSettings,
    deliver: OnceLock<Arc<dyn Deliver>>,
    state: watch::Sender<BusState>,
    metrics: Metrics,
}

/// A panic while holding one of these locks leaves nothing half done that a reader could trip over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedBus {
    pub(super) fn new(settings: &InboxSettings, registry: &mut Registry) -> Self {
        let metrics = Metrics::new(registry);
        metrics.up.set(1);
        metrics.nodes.set(1);
        Self {
            shared: Arc::new(Shared {
                shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
                hasher: RandomState::new(),
                epoch: Mutex::new(epoch()),
                room: Room::new(settings.max_total_bytes.get()),
                seats: Seats::new(),
                draws: Draws::new(),
                settings: settings.clone(),
                deliver: OnceLock::new(),
                state: watch::Sender::new(BusState::Up),
                metrics,
            }),
        }
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        self.shared.deliver.set(deliver).is_ok()
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut next = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = next.tick() => {}
            }
            for shard in &self.shared.shards {
                self.shared.forget(shard, Inbox::is_empty);
                tokio::task::yield_now().await;
            }
        }
    }

    pub(super) fn publish(&self, envelope: Envelope<'_>) -> Result<Receipt, BusError> {
        let key = dedupe_key(envelope.from, envelope.id);
        let text = envelope.head.len() + envelope.tail.len() + LONGEST_SEQ;
        let need = of_user(envelope.to) + of_message(text) + of_repeat(&key);
        for _ in 0..ATTEMPTS {
            if let Some(receipt) = self.shared.store(&envelope, &key, need) {
                return Ok(receipt);
            }
            // Here no lock is held, and no share, so that the recipient too may be forgotten.
            if !self.shared.make_room(need) {
                break;
            }
        }
        self.shared.metrics.unavailable.inc();
        Err(BusError::Unavailable(Arc::from(FULL)))
    }

    pub(super) fn cast(&self, envelope: Envelope<'_>) {
        self.shared.metrics.unstored.inc();
        self.hand_on(envelope.to, |deliver| {
            if deliver.takes_unstored() {
                self.shared.metrics.received.inc();
                deliver.message(envelope.to, 0, envelope.render(0));
            } else {
                self.shared.metrics.foreign.inc();
            }
        });
    }

    pub(super) fn take(&self, draw: Draw<'_>) -> Drawn {
        self.shared.draws.take(draw)
    }

    pub(super) fn signal(&self, to: &str, payload: Bytes) {
        self.hand_on(to, |deliver| {
            self.shared.metrics.received.inc();
            deliver.signal(to, payload);
        });
    }

    /// Delivers something that passes, in the order of the user's messages, where anybody listens.
    fn hand_on(&self, to: &str, deliver: impl FnOnce(&dyn Deliver)) {
        let Some(inbox) = self.shared.existing(to) else { return };
        let inbox = lock(&inbox);
        if inbox.subscribers > 0
            && let Some(receiver) = self.shared.deliver.get()
        {
            deliver(receiver.as_ref());
        }
    }

    pub(super) fn subscribe(&self, user: &str) -> Share {
        if !self.shared.room.fits(of_user(user)) {
            // Nobody is refused; but users who only look in, under many names, leave something behind.
            self.shared.make_room(of_user(user));
        }
        let inbox = self.shared.inbox(user);
        let mut held = lock(&inbox);
        held.subscribers += 1;
        if held.subscribers == 1 {
            self.shared.metrics.wanted.inc();
        }
        drop(held);
        Share { shared: Arc::clone(&self.shared), inbox }
    }

    pub(super) fn read(&self, user: &str, after: Seq) -> Replay {
        let inbox = self.shared.inbox(user);
        let mut inbox = lock(&inbox);
        self.shared.expire(&mut inbox, Instant::now());
        let before = inbox.top - inbox.messages.len() as Seq;
        let skip = usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
        let messages = (before + 1..).zip(inbox.messages.iter().cloned()).skip(skip).collect();
        Replay { epoch: Arc::clone(&inbox.epoch), top: inbox.top, messages }
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.shared.state.subscribe()
    }
}

impl Shared {
    fn shard(&self, user: &str) -> Option<&Mutex<Shard>> {
        // The lower bits of the hash choose the shard; `% SHARDS` keeps the index in range.
        let index = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).ok()?;
        self.shards.get(index)
    }

    fn existing(&self, user: &str) -> Option<Arc<Mutex<Inbox>>> {
        lock(self.shard(user)?).get(user).map(Arc::clone)
    }

    fn inbox(&self, user: &str) -> Arc<Mutex<Inbox>> {
        let fresh = || {
            let inbox = Inbox::new(Arc::clone(&lock(&self.epoch)), user);
            self.room.add(inbox.weight);
            Arc::new(Mutex::new(inbox))
        };
        let Some(shard) = self.shard(user) else { return fresh() };
        let mut shard = lock(shard);
        if let Some(inbox) = shard.get(user) {
            return Arc::clone(inbox);
        }
        let inbox = fresh();
        shard.insert(Box::from(user), Arc::clone(&inbox));
        inbox
    }

    /// Stores and delivers; `None`, with nothing done, where there is no room. `need` is the most that it takes.
    fn store(&self, envelope: &Envelope<'_>, key: &str, need: usize) -> Option<Receipt> {
        let inbox = match self.existing(envelope.to) {
            Some(inbox) => inbox,
            None if self.room.fits(need) => self.inbox(envelope.to),
            None => return None,
        };
        let mut inbox = lock(&inbox);
        let now = Instant::now();
        self.expire(&mut inbox, now);
        if let Some(first) = inbox.seen.get(key) {
            self.metrics.duplicate.inc();
            return Some(Receipt { duplicate: true, ..first.clone() });
        }
        let seq = inbox.top + 1;
        let receipt = Receipt { seq, at_ms: envelope.at_ms, duplicate: false };
        let payload = envelope.render(seq);
        let more = of_message(payload.len()) + of_repeat(key);
        if !self.room.replace(inbox.outgoing(&self.settings), more) {
            return None;
        }
        inbox.make_way(&self.settings);
        inbox.push(now, payload.clone(), key, receipt.clone());
        self.metrics.stored.inc();
        if inbox.subscribers > 0
            && let Some(deliver) = self.deliver.get()
        {
            self.metrics.received.inc();
            deliver.message(envelope.to, seq, payload);
        }
        Some(receipt)
    }

    /// Drops what is too old; gives the bytes that this freed.
    fn expire(&self, inbox: &mut Inbox, now: Instant) -> usize {
        let before = inbox.weight;
        inbox.expire(now, &self.settings);
        let freed = before - inbox.weight;
        if freed > 0 {
            self.room.give_back(freed);
        }
        freed
    }

    /// Drops what is too old in one shard, and of users to whom nobody listens those who are to `go`;
    /// gives the bytes that this freed.
    fn forget(&self, shard: &Mutex<Shard>, mut go: impl FnMut(&Inbox) -> bool) -> usize {
        let now = Instant::now();
        let mut shard = lock(shard);
        let (mut counters, mut freed) = (false, 0);
        shard.retain(|_, inbox| {
            // A share that is held elsewhere means a subscription, or a call at this moment; since a new
            // share is only made under the shard's lock, one that is alone stays alone here.
            let is_alone = Arc::strong_count(inbox) == 1;
            let mut inbox = match inbox.try_lock() {
                Ok(inbox) => inbox,
                Err(TryLockError::Poisoned(inbox)) => inbox.into_inner(),
                // A call is at it, and may be delivering.
                Err(TryLockError::WouldBlock) => return true,
            };
            freed += self.expire(&mut inbox, now);
            // Looked at once: what is found here and goes is what the epoch is renewed for.
            let goes = is_alone && go(&inbox);
            if goes {
                counters |= inbox.top > 0;
                self.room.give_back(inbox.weight);
                freed += inbox.weight;
            }
            !goes
        });
        if counters {
            // Before the shard is let go of, and with it the names that were forgotten.
            *lock(&self.epoch) = epoch();
        }
        // A storm of users leaves no lasting room behind.
        if shard.capacity() > 4 * shard.len() {
            shard.shrink_to_fit();
        }
        freed
    }

    /// Forgets users to whom nobody listens, the least recently written first, until `need` more fits well;
    /// false where there was nothing to be had.
    ///
    /// It looks at every user, twice, so it frees a quarter of the bound at a time; where it finds little, because
    /// most is of those who are listened for, it is not done again for a while.
    fn make_room(&self, need: usize) -> bool {
        let mut last = lock(&self.room.last);
        if self.room.fits(need) {
            return true;
        }
        if !self.room.is_worth_a_pass(last.as_ref()) {
            return false;
        }
        let (mut idle, mut freed) = (Vec::new(), 0);
        for shard in &self.shards {
            freed += self.forget(shard, |inbox| {
                let goes = inbox.is_empty();
                if !goes {
                    idle.push((inbox.touched, inbox.weight));
                }
                goes
            });
        }
        let target = self.room.target(need);
        let mut excess = self.room.used().saturating_sub(target);
        idle.sort_unstable();
        let youngest = idle.into_iter().map_while(|(touched, weight)| {
            let goes = excess > 0;
            excess = excess.saturating_sub(weight);
            goes.then_some(touched)
        });
        let mut forgotten: u64 = 0;
        if let Some(youngest) = youngest.last() {
            for shard in &self.shards {
                freed += self.forget(shard, |inbox| {
                    // Of those that were written in one moment, as many as need be.
                    let goes = inbox.touched < youngest
                        || (inbox.touched == youngest && self.room.used() > target);
                    forgotten += u64::from(goes);
                    goes
                });
            }
        }
        *last = Some(Pass::ended(freed));
        drop(last);
        self.metrics.forgotten.inc_by(forgotten);
        tracing::warn!(
            target: "Bus",
            forgotten,
            freed,
            "bus.inbox.max_total_bytes is reached: users who are not connected lose their inboxes"
        );
        freed > 0
    }
}

/// One subscription: a share of the inbox, counted in it.
pub(super) struct Share {
    shared: Arc<Shared>,
    inbox: Arc<Mutex<Inbox>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut inbox = lock(&self.inbox);
        inbox.subscribers -= 1;
        if inbox.subscribers == 0 {
            self.shared.metrics.wanted.dec();
        }
    }
}
