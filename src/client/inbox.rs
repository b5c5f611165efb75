//! What one user has been given: where to resume, and which messages would be repeats. Pure.
//!
//! Invariants: a position moves only within the epoch that the server named on this connection; a message counts
//! as a repeat only where its sender meant it as one, so that an id which somebody uses again days later is heard.

use std::collections::{HashMap, VecDeque};

use super::frames::Message;

/// Messages that are remembered: several times what an inbox keeps by default.
const REMEMBERED: usize = 4_096;

/// For this long the server itself takes the same (from, id) for a repeat: ten minutes, and as much again for
/// clocks that differ.
const WINDOW_MS: u64 = 20 * 60 * 1_000;

/// Where a client begins to read its inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What comes from now on.
    Now,
    /// All that the inbox still holds.
    Retained,
}

/// What was given so far.
#[derive(Debug)]
pub(super) struct Inbox {
    /// (epoch, seq)
    position: Option<(String, u64)>,
    /// The server has named the epoch on this connection.
    placed: bool,
    /// When each was taken, by sender and id.
    known: HashMap<(String, String), Option<u64>>,
    /// The keys of `known`, oldest first.
    order: VecDeque<(String, String)>,
}

impl Inbox {
    pub(super) fn new(start: Start) -> Self {
        // An epoch that no server has: everything that is retained follows.
        let position = (start == Start::Retained).then(|| (String::new(), 0));
        Self { position, placed: false, known: HashMap::new(), order: VecDeque::new() }
    }

    /// What to say in the next handshake: (epoch, since).
    pub(super) fn resume(&self) -> Option<(&str, u64)> {
        self.position.as_ref().map(|(epoch, seq)| (epoch.as_str(), *seq))
    }

    /// Whether the next handshake continues something.
    pub(super) fn has_begun(&self) -> bool {
        self.position.as_ref().is_some_and(|(epoch, _)| !epoch.is_empty())
    }

    /// Whether going on from there passes over something. Before the first place there is nothing to lose, and
    /// after a time without its bus a server names the very place where the client is.
    pub(super) fn loses_by(&self, epoch: &str, seq: u64) -> bool {
        let (ours, at) = self.resume().unwrap_or_default();
        self.has_begun() && (ours != epoch || at < seq)
    }

    /// The server says where it stands; an empty epoch says that it does not know yet, and leaves the place alone.
    pub(super) fn place(&mut self, epoch: String, seq: u64) {
        self.placed = !epoch.is_empty();
        if self.placed {
            self.position = Some((epoch, seq));
        }
    }

    /// The connection is gone, and with it the word about the epoch.
    pub(super) fn leave(&mut self) {
        self.placed = false;
    }

    /// Notes a message; false where it was given before.
    pub(super) fn take(&mut self, message: &Message) -> bool {
        if let Some((_, seq)) = self.position.as_mut().filter(|_| self.placed) {
            *seq = message.seq.max(*seq);
        }
        let key = (message.from.clone(), message.id.clone());
        let taken = message.taken_ms();
        if let Some(before) = self.known.get_mut(&key) {
            let repeat = match (*before, taken) {
                (Some(before), Some(taken)) => before.abs_diff(taken) < WINDOW_MS,
                _ => true,
            };
            *before = taken;
            return !repeat;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.known.insert(key, taken);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, seq: u64, ts: &str) -> Message {
        let (from, ts) = ("al".to_owned(), format!("2026-11-21T{ts}Z"));
        Message { id: id.to_owned(), from, text: None, data: None, seq, ts }
    }

    #[test]
    fn the_position_follows_the_messages_of_a_known_epoch() {
        let mut inbox = Inbox::new(Start::Now);
        assert_eq!((inbox.resume(), inbox.has_begun()), (None, false));
        inbox.place("e".into(), 4);
        inbox.take(&message("c5", 5, "09:00:00"));
        assert_eq!((inbox.resume(), inbox.has_begun()), (Some(("e", 5)), true));
        // A welcome without an epoch promises nothing, and what comes then may be of another history.
        inbox.leave();
        inbox.place(String::new(), 0);
        inbox.take(&message("c9", 9, "09:00:01"));
        assert_eq!(inbox.resume(), Some(("e", 5)));
        assert!(!inbox.loses_by("e", 5) && inbox.loses_by("e", 6) && inbox.loses_by("f", 1));
        inbox.place("f".into(), 2);
        assert_eq!(inbox.resume(), Some(("f", 2)));
    }

    #[test]
    fn the_retained_are_asked_for_by_an_epoch_that_nobody_has() {
        let inbox = Inbox::new(Start::Retained);
        assert_eq!((inbox.resume(), inbox.has_begun()), (Some(("", 0)), false));
        assert!(!inbox.loses_by("e", 9));
    }

    #[test]
    fn a_repeat_is_known_and_an_id_used_again_is_not_one() {
        let mut inbox = Inbox::new(Start::Now);
        assert!(inbox.take(&message("c1", 1, "09:00:00")));
        assert!(!inbox.take(&message("c1", 1, "09:00:00")), "replayed");
        assert!(!inbox.take(&message("c1", 7, "09:05:00")), "sent again after the first was lost");
        assert!(inbox.take(&message("c1", 8, "11:00:00")), "used again");
        assert!(inbox.take(&message("c2", 9, "11:00:00")));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut inbox = Inbox::new(Start::Now);
        for index in 0..=REMEMBERED {
            assert!(inbox.take(&message(&format!("c{index}"), 1, "09:00:00")));
        }
        assert_eq!((inbox.known.len(), inbox.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!inbox.take(&message("c1", 1, "09:00:00")));
        assert!(inbox.take(&message("c0", 1, "09:00:00")), "the oldest is forgotten");
    }
}
