//! Which users are listened for: what this process wants, and how far Redis has followed.
//!
//! A name here is a user's, which stands for the channels of his messages and signals; or the channel of his presence,
//! wished for by who watches him.
//!
//! Walk: a [`Wish`] counts up its user and queues him; the subscriber, which alone writes to the
//! subscribed connection, takes users from the queue in batches ([`Wishes::take`]), writes what each lacks,
//! and reports what the server confirmed. After a loss everybody is queued again ([`Wishes::restore`]).
//!
//! A Cluster's server answers a command for a slot that it serves no more with an error that names no channel, and ends
//! subscriptions unasked when a slot leaves it. There, what was heard of each user is noted ([`Wishes::heard`]), and a
//! batch counts as answered when the ping behind it is ([`Wishes::settled`]); whoever turns out not to be
//! subscribed is *displaced*: he waits for another look at who serves him, which moves him or has him
//! tried again ([`Wishes::retry`]).
//!
//! Invariants: the wanted set lives here and survives every connection; commands of one user go out
//! in the order in which he was taken, so a late unsubscription cannot undo a newer subscription;
//! whoever was told that his subscription could not be confirmed is followed by a gap report
//! once it is.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, oneshot};

use super::names;
use super::wanted::Wanted;
pub(super) use super::wanted::{Batch, Owed};
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
            owed: Owed::default(),
            moved: 0,
            displaced: Vec::new(),
        };
        Arc::new(Self { wanted: Mutex::new(wanted), changed: Notify::new(), patience, metrics })
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
            self.gauge(&user).inc();
            wanted.enqueue(&user);
            self.changed.notify_one();
        }
        drop(wanted);
        Wish { wishes: Arc::clone(self), user }
    }

    /// Like [`wish`](Self::wish), for somebody whose messages came another way until now: something may be missing.
    pub(super) fn wish_late(self: &Arc<Self>, user: &str) -> Wish {
        let wish = self.wish(user);
        self.lock().note_moved(user);
        wish
    }

    /// The users who are wished for.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let wanted = self.lock();
        let names = wanted.users.keys().filter(|name| names::watched(name).is_none());
        names.cloned().collect()
    }

    /// What counts wishes like the one for `name`.
    fn gauge(&self, name: &str) -> &Gauge<i64> {
        if names::watched(name).is_some() { &self.metrics.watches } else { &self.metrics.wanted }
    }

    /// The users whose presence is wished for.
    pub(super) fn watched(&self) -> Vec<Arc<str>> {
        let wanted = self.lock();
        wanted.users.keys().filter_map(|name| names::watched(name)).map(Arc::from).collect()
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
            // One report will be for everybody.
            (user.heard, user.moved) = (false, false);
            queue.push_back(Arc::clone(name));
        }
        (wanted.sent, wanted.answered, wanted.mark) = (0, 0, None);
        (wanted.displaced, wanted.moved) = (Vec::new(), 0);
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

    /// In a Cluster: the server said that it listens for `name`, or does so no more. True where nobody asked for that.
    pub(super) fn heard(&self, name: &str, subscribed: bool) -> bool {
        let mut wanted = self.lock();
        let Some(user) = wanted.users.get_mut(name) else { return false };
        user.heard = subscribed;
        user.unanswered == 0 && wanted.displace(name)
    }

    /// In a Cluster: whether what comes for `user` is to be passed over, since it may belong to another history than
    /// what came before; the report that follows makes all be read.
    pub(super) fn is_moved(&self, user: &str) -> bool {
        let wanted = self.lock();
        wanted.moved > 0 && wanted.users.get(user).is_some_and(|user| user.moved)
    }

    /// In a Cluster: every command of `batch` is answered, one way or the other. True where some were refused.
    pub(super) fn settled(&self, batch: &Batch) -> bool {
        let mut refused = false;
        for name in batch.unsubscribe.iter().chain(&batch.subscribe) {
            let mut wanted = self.lock();
            wanted.answered += 1;
            let Some(user) = wanted.users.get_mut(name) else { continue };
            user.unanswered = user.unanswered.saturating_sub(1);
            refused |= user.unanswered == 0 && wanted.displace(name);
            wanted.came(name);
        }
        refused
    }

    /// Another look was had at who serves whom, and whoever was displaced is here still: he is tried again.
    pub(super) fn retry(&self) {
        let mut wanted = self.lock();
        for name in std::mem::take(&mut wanted.displaced) {
            wanted.enqueue(&name);
        }
        self.changed.notify_one();
    }

    /// The server took the last command that was not answered yet for `user`.
    pub(super) fn answered(&self, user: &str) {
        let mut wanted = self.lock();
        wanted.answered += 1;
        let Some(entry) = wanted.users.get_mut(user) else { return };
        entry.unanswered = entry.unanswered.saturating_sub(1);
        wanted.came(user);
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
        self.lock().owed.everyone = true;
    }

    /// Whose gap is to be reported, since they were confirmed late, or for another reason; asking settles it.
    pub(super) fn take_owed(&self) -> Owed {
        std::mem::take(&mut self.lock().owed)
    }

    /// Waits until the server has confirmed `name`, whom somebody wishes for all the while.
    pub(super) async fn confirmed(&self, name: &str) -> Result<(), BusError> {
        let Some(receiver) = self.confirmation(name)? else { return Ok(()) };
        match tokio::time::timeout(self.patience, receiver).await {
            Ok(Err(_closed)) => Ok(()),
            Ok(Ok(why)) => Err(BusError::Unavailable(why)),
            Err(_elapsed) if self.gave_up(name) => Err(BusError::Unavailable(Arc::from(
                "Redis did not confirm a subscription in time",
            ))),
            Err(_elapsed) => Ok(()),
        }
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

/// One wish to hear a user; dropped, it counts no more.
pub(in crate::bus) struct Wish {
    wishes: Arc<Wishes>,
    user: Arc<str>,
}

impl Wish {
    pub(super) fn wishes(&self) -> &Arc<Wishes> {
        &self.wishes
    }

    pub(in crate::bus) async fn confirmed(&self) -> Result<(), BusError> {
        self.wishes.confirmed(&self.user).await
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut wanted = self.wishes.lock();
        let Some(user) = wanted.users.get_mut(&self.user) else { return };
        user.wishes -= 1;
        if user.wishes == 0 {
            user.late = false;
            wanted.forget_moved(&self.user);
            self.wishes.gauge(&self.user).dec();
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
