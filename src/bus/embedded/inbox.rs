//! What one user has on the embedded bus, and what it weighs.
//!
//! Invariants: messages are contiguous up to `top`; `weight` is always the sum of what is held. The weights of
//! things are estimates of what the allocator gives for them, halfway between tables just grown and full.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::time::Instant;

use crate::bus::{Epoch, Receipt, Seq};
use crate::settings::InboxSettings;

/// Bytes of a user beside his name: the inbox itself, his place in a shard, and the smallest tables.
const USER: usize = size_of::<Mutex<Inbox>>() + 2 * size_of::<(Box<str>, Arc<()>)>() + 320;

/// Bytes of a message beside its text: its place, and the count of its shares.
const MESSAGE: usize = size_of::<Bytes>() * 3 / 2 + 32;

/// Bytes of what is remembered of a message beside its key: two places, and the count of its shares.
const REPEAT: usize =
    size_of::<(Arc<str>, Receipt)>() * 3 / 2 + size_of::<(Instant, Arc<str>)>() + 32;

/// A few words while nothing was ever sent to him.
pub(super) struct Inbox {
    pub(super) epoch: Epoch,
    pub(super) top: Seq,
    /// The last ones, contiguous up to `top`.
    pub(super) messages: VecDeque<Bytes>,
    /// When the last message came.
    pub(super) touched: Instant,
    pub(super) seen: HashMap<Arc<str>, Receipt>,
    /// The keys of `seen`, oldest first.
    seen_order: VecDeque<(Instant, Arc<str>)>,
    pub(super) subscribers: usize,
    /// Bytes of all this.
    pub(super) weight: usize,
}

/// What an empty inbox of `user` weighs.
pub(super) fn of_user(user: &str) -> usize {
    USER + user.len()
}

/// What a message of so many bytes weighs.
pub(super) fn of_message(bytes: usize) -> usize {
    MESSAGE + bytes
}

/// What is remembered of a message, to know it again by this key, weighs.
pub(super) fn of_repeat(key: &str) -> usize {
    REPEAT + key.len()
}

impl Inbox {
    pub(super) fn new(epoch: Epoch, user: &str) -> Self {
        Self {
            epoch,
            top: 0,
            messages: VecDeque::new(),
            touched: Instant::now(),
            seen: HashMap::new(),
            seen_order: VecDeque::new(),
            subscribers: 0,
            weight: of_user(user),
        }
    }

    /// Nothing is kept but the count.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.seen.is_empty()
    }

    /// What the message weighs that has to go for one more.
    pub(super) fn outgoing(&self, settings: &InboxSettings) -> usize {
        let is_full = self.messages.len() >= settings.max_messages.get();
        self.messages.front().filter(|_| is_full).map_or(0, |oldest| of_message(oldest.len()))
    }

    /// Drops the message that has to go for one more.
    pub(super) fn make_way(&mut self, settings: &InboxSettings) {
        self.weight -= self.outgoing(settings);
        if self.messages.len() >= settings.max_messages.get() {
            self.messages.pop_front();
        }
    }

    /// Takes the message of the next position.
    pub(super) fn push(&mut self, now: Instant, payload: Bytes, key: &str, receipt: Receipt) {
        self.weight += of_message(payload.len()) + of_repeat(key);
        self.top = receipt.seq;
        self.messages.push_back(payload);
        self.touched = now;
        let key: Arc<str> = Arc::from(key);
        self.seen.insert(Arc::clone(&key), receipt);
        self.seen_order.push_back((now, key));
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, now: Instant, settings: &InboxSettings) {
        if !self.messages.is_empty() && now.duration_since(self.touched) >= settings.max_age {
            let messages = std::mem::take(&mut self.messages);
            self.weight -= messages.iter().map(|message| of_message(message.len())).sum::<usize>();
        }
        while let Some((at, key)) = self.seen_order.front() {
            if now.duration_since(*at) < settings.dedupe_window {
                break;
            }
            self.seen.remove(key);
            self.weight -= of_repeat(key);
            self.seen_order.pop_front();
        }
        // A burst leaves no lasting room behind, which the weight does not know of.
        if self.seen.capacity() > 8 * self.seen.len() {
            self.seen.shrink_to_fit();
            self.seen_order.shrink_to_fit();
        }
    }
}
