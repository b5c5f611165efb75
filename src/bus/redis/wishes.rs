//! Which users are listened for: what this process wants, and how far Redis has followed.
//!
//! Walk: a [`Wish`] counts up its user and queues him; the subscriber, which alone writes to the
//! subscribed connection, takes users from the queue in batches ([`Wishes::take`]), writes what each lacks,
//! and reports what the server confirmed. After a loss everybody is queued again ([`Wishes::restore`]).
//!
//! Invariants: the wanted set lives here and survives every connection; commands of one user go out
//! in the order in which he was taken, so a late unsubscription cannot undo a newer subscription;
//! whoever was told that his subscription could not be confirmed is followed by a gap report
//! once it is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::bus::BusError;
use crate::bus::metrics::Metrics;

/// Users taken at once: two channels each make the 512 channels of a batch.
const BATCH: usize = 256;

/// Users whose commands may be unconfirmed at once; so a storm is paced by the server's answers.
const WINDOW: u64 = 4 * BATCH as u64;

/// The wanted users, shared by everyone who wishes and by the subscriber.
pub(super) struct Wishes {
    wanted: Mutex<Wanted>,
    changed: Notify,
    patience: Duration,
    metrics: Metrics,
}

struct Wanted {
    users: HashMap<Arc<str>, User>,
    /// Between a restoration and a loss. While it is false nobody is queued, since the next restoration queues
    /// everybody, and nobody is kept who wants nothing: users who come and go meanwhile leave nothing behind.
    connected: bool,
    /// Users whose subscription may differ from what is wanted, each once.
    queue: VecDeque<Arc<str>>,
    /// Why nothing can be confirmed, until everything is restored.
    away: Option<Arc<str>>,
    /// Commands written on this connection, and those the server answered.
    sent: u64,
    answered: u64,
    /// Restored when this many are answered.
    mark: Option<u64>,
    /// Somebody was confirmed after being told that this could not be waited for.
    gap_owed: bool,
}

#[derive(Default)]
struct User {
    wishes: usize,
    queued: bool,
    /// The last command written on this connection was `SUBSCRIBE`.
    subscribed: bool,
    /// Commands that the server has not answered.
    unanswered: u32,
    /// Was told "unavailable" while he wished.
    late: bool,
    waiting: Vec<oneshot::Sender<Arc<str>>>,
}

impl User {
    fn is_confirmed(&self) -> bool {
        self.subscribed && self.unanswered == 0
    }
}

/// Commands for one batch of users.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) subscribe: Vec<Arc<str>>,
    pub(super) unsubscribe: Vec<Arc<str>>,
}

impl Wishes {
    pub(super) fn new(patience: Duration, metrics: Metrics) -> Arc<Self> {
        let wanted = Wanted {
            users: HashMap::new(),
            connected: false,
            queue: VecDeque::new(),
            away: Some(Arc::from("not connected to Redis yet")),
            sent: 0,
            answered: 0,
            mark: None,
            gap_owed: false,
        };
        Arc::new(Self { wanted: Mutex::new(wanted), changed: Notify::new(), patience, metrics })
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wish(self: &Arc<Self>, user: &str) -> Wish {
        let user: Arc<str> = Arc::from(user);
        let mut wanted = self.lock();
        let entry = wanted.users.entry(Arc::clone(&user)).or_default();
        entry.wishes += 1;
        if entry.wishes == 1 {
            self.metrics.wanted.inc();
            wanted.enqueue(&user);
            self.changed.notify_one();
        }
        drop(wanted);
        Wish { wishes: Arc::clone(self), user }
    }

    /// Ends when there may be something to [`take`](Self::take).
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A connection stands: everything is to be subscribed again. Gives how many users that is.
    pub(super) fn restore(&self) -> usize {
        let mut wanted = self.lock();
        let Wanted { users, queue, .. } = &mut *wanted;
        users.retain(|_, user| user.wishes > 0);
        queue.clear();
        for (name, user) in users.iter_mut() {
            (user.subscribed, user.unanswered, user.queued) = (false, 0, true);
            queue.push_back(Arc::clone(name));
        }
        (wanted.sent, wanted.answered, wanted.mark) = (0, 0, None);
        wanted.connected = true;
        self.changed.notify_one();
        wanted.users.len()
    }

    /// The connection is lost: whoever waits for a confirmation is told so. The report that follows the
    /// restoration is for them, too.
    pub(super) fn lose(&self, why: &Arc<str>) {
        let mut wanted = self.lock();
        wanted.away = Some(Arc::clone(why));
        wanted.connected = false;
        wanted.queue = VecDeque::new();
        wanted.users.retain(|_, user| user.wishes > 0);
        for user in wanted.users.values_mut() {
            (user.subscribed, user.unanswered, user.queued) = (false, 0, false);
            for waiting in std::mem::take(&mut user.waiting) {
                // One that waits no more needs no answer.
                drop(waiting.send(Arc::clone(why)));
            }
        }
    }

    /// Whether the server has answered enough for another batch.
    pub(super) fn has_room(&self) -> bool {
        let wanted = self.lock();
        wanted.sent - wanted.answered < WINDOW
    }

    /// What is to be written next. Unsubscriptions go first: a user who came later than another one left
    /// is confirmed later, too.
    pub(super) fn take(&self) -> Batch {
        let mut batch = Batch::default();
        let mut wanted = self.lock();
        for _ in 0..BATCH {
            let Some(name) = wanted.queue.pop_front() else { break };
            let Some(user) = wanted.users.get_mut(&name) else { continue };
            user.queued = false;
            match (user.wishes > 0, user.subscribed) {
                (true, false) => batch.subscribe.push(name),
                (false, true) => batch.unsubscribe.push(name),
                (true, true) => continue,
                (false, false) => {
                    if user.unanswered == 0 {
                        wanted.users.remove(&name);
                    }
                    continue;
                }
            }
            user.subscribed = !user.subscribed;
            user.unanswered += 1;
            wanted.sent += 1;
        }
        if !wanted.queue.is_empty() {
            self.changed.notify_one();
        } else if wanted.away.is_some() && wanted.mark.is_none() {
            wanted.mark = Some(wanted.sent);
        }
        batch
    }

    /// The server took the last command that was not answered yet for `user`.
    pub(super) fn answered(&self, user: &str) {
        let mut wanted = self.lock();
        wanted.answered += 1;
        let Some(entry) = wanted.users.get_mut(user) else { return };
        entry.unanswered = entry.unanswered.saturating_sub(1);
        if entry.is_confirmed() {
            let late = std::mem::take(&mut entry.late);
            // Dropping the senders is the good news; a text would be the bad.
            entry.waiting = Vec::new();
            wanted.gap_owed |= late;
        } else if entry.wishes == 0 && entry.unanswered == 0 && !entry.queued {
            wanted.users.remove(user);
        }
    }

    /// Whether everything has just been restored; said once for each connection.
    pub(super) fn restored(&self) -> bool {
        let mut wanted = self.lock();
        let restored = wanted.mark.is_some_and(|mark| wanted.answered >= mark);
        if restored {
            wanted.mark = None;
            wanted.away = None;
        }
        restored
    }

    /// Everybody is to look into his inbox again, for another reason than the subscriptions.
    pub(super) fn owe_gap(&self) {
        self.lock().gap_owed = true;
    }

    /// Whether a gap report is owed for somebody who was confirmed late; asking settles it.
    pub(super) fn owes_gap(&self) -> bool {
        std::mem::take(&mut self.lock().gap_owed)
    }

    fn confirmation(&self, name: &str) -> Result<Option<oneshot::Receiver<Arc<str>>>, BusError> {
        let mut wanted = self.lock();
        let away = wanted.away.clone();
        // The caller's own wish keeps the user here.
        let Some(user) = wanted.users.get_mut(name) else { return Ok(None) };
        match away {
            Some(why) => {
                user.late = true;
                Err(BusError::Unavailable(why))
            }
            None if user.is_confirmed() => Ok(None),
            None => {
                let (sender, receiver) = oneshot::channel();
                user.waiting.retain(|waiting| !waiting.is_closed());
                user.waiting.push(sender);
                Ok(Some(receiver))
            }
        }
    }

    /// Notes that somebody gave up waiting; false where he was confirmed at that very moment.
    fn gave_up(&self, name: &str) -> bool {
        let mut wanted = self.lock();
        let Some(user) = wanted.users.get_mut(name) else { return false };
        let confirmed = user.is_confirmed();
        user.late |= !confirmed;
        !confirmed
    }
}

impl Wanted {
    fn enqueue(&mut self, name: &Arc<str>) {
        if !self.connected {
            return;
        }
        if let Some(user) = self.users.get_mut(name)
            && !user.queued
        {
            user.queued = true;
            self.queue.push_back(Arc::clone(name));
        }
    }
}

/// One wish to hear a user; dropped, it counts no more.
pub(in crate::bus) struct Wish {
    wishes: Arc<Wishes>,
    user: Arc<str>,
}

impl Wish {
    pub(in crate::bus) async fn confirmed(&self) -> Result<(), BusError> {
        let Some(receiver) = self.wishes.confirmation(&self.user)? else { return Ok(()) };
        match tokio::time::timeout(self.wishes.patience, receiver).await {
            Ok(Err(_closed)) => Ok(()),
            Ok(Ok(why)) => Err(BusError::Unavailable(why)),
            Err(_elapsed) if self.wishes.gave_up(&self.user) => Err(BusError::Unavailable(
                Arc::from("Redis did not confirm a subscription in time"),
            )),
            Err(_elapsed) => Ok(()),
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut wanted = self.wishes.lock();
        let Some(user) = wanted.users.get_mut(&self.user) else { return };
        user.wishes -= 1;
        if user.wishes == 0 {
            user.late = false;
            self.wishes.metrics.wanted.dec();
            if wanted.connected {
                wanted.enqueue(&self.user);
                self.wishes.changed.notify_one();
            } else {
                wanted.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
#[path = "wishes_tests.rs"]
mod tests;
