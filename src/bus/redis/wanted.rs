//! What [`Wishes`](super::wishes::Wishes) keeps under its lock: each user who is wished for, the queue, and what is owed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

pub(super) struct Wanted {
    pub(super) users: HashMap<Arc<str>, User>,
    /// Between a restoration and a loss. While it is false nobody is queued, since the next restoration queues
    /// everybody, and nobody is kept who wants nothing: users who come and go meanwhile leave nothing behind.
    pub(super) connected: bool,
    /// Users whose subscription may differ from what is wanted, each once.
    pub(super) queue: VecDeque<Arc<str>>,
    /// Why nothing can be confirmed, until everything is restored.
    pub(super) away: Option<Arc<str>>,
    /// Commands written on this connection, and those the server answered.
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// Restored when this many are answered.
    pub(super) mark: Option<u64>,
    pub(super) owed: Owed,
    /// How many users are `moved`.
    pub(super) moved: usize,
    /// Wanted, and refused by the server; in a Cluster.
    pub(super) displaced: Vec<Arc<str>>,
}

/// Whose inboxes are to be read again.
#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) everyone: bool,
    /// Who was confirmed after being told that this could not be waited for.
    pub(super) of: Vec<Arc<str>>,
}

impl Owed {
    #[cfg(test)]
    pub(super) fn is_nothing(&self) -> bool {
        !self.everyone && self.of.is_empty()
    }
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct User {
    pub(super) wishes: usize,
    pub(super) queued: bool,
    /// The last command written on this connection was `SUBSCRIBE`.
    pub(super) subscribed: bool,
    /// Commands that the server has not answered.
    pub(super) unanswered: u32,
    /// In a Cluster: the server said last that he is subscribed.
    pub(super) heard: bool,
    /// Was told "unavailable" while he wished.
    pub(super) late: bool,
    /// In a Cluster: what came for him until now came another way, and the gap is not reported yet.
    pub(super) moved: bool,
    pub(super) waiting: Vec<oneshot::Sender<Arc<str>>>,
}

impl User {
    pub(super) fn is_confirmed(&self) -> bool {
        self.subscribed && self.unanswered == 0
    }
}

/// Commands for one batch of users.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) subscribe: Vec<Arc<str>>,
    pub(super) unsubscribe: Vec<Arc<str>>,
}

impl Wanted {
    /// An answer came for `name`: he is confirmed, or forgotten, or still waits.
    pub(super) fn came(&mut self, name: &str) {
        let Some(user) = self.users.get_mut(name) else { return };
        if user.is_confirmed() {
            // Dropping the senders is the good news; a text would be the bad.
            user.waiting = Vec::new();
            if std::mem::take(&mut user.late)
                && let Some((name, _)) = self.users.get_key_value(name)
            {
                let name = Arc::clone(name);
                self.forget_moved(&name);
                self.owed.of.push(name);
            }
        } else if user.wishes == 0 && user.unanswered == 0 && !user.queued {
            self.users.remove(name);
        }
    }

    /// Takes `name` for displaced, if he passes for subscribed and is not; true where that is news. Whoever
    /// waits for his confirmation goes on waiting.
    pub(super) fn displace(&mut self, name: &str) -> bool {
        let Some(user) = self.users.get_mut(name) else { return false };
        if !user.subscribed || user.heard {
            return false;
        }
        user.subscribed = false;
        if user.wishes > 0
            && let Some((name, _)) = self.users.get_key_value(name)
        {
            self.displaced.push(Arc::clone(name));
        }
        self.note_moved(name);
        true
    }

    pub(super) fn note_moved(&mut self, name: &str) {
        let Some(user) = self.users.get_mut(name) else { return };
        user.late = true;
        self.moved += usize::from(!std::mem::replace(&mut user.moved, true));
    }

    pub(super) fn forget_moved(&mut self, name: &str) {
        let Some(user) = self.users.get_mut(name) else { return };
        self.moved = self.moved.saturating_sub(usize::from(std::mem::take(&mut user.moved)));
    }

    pub(super) fn enqueue(&mut self, name: &Arc<str>) {
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
