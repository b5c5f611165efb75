//! What one client was given last, to tell how much of another history it has already.
//!
//! Walk: [`Trail::gave`] notes each message; when the epoch changed under a live socket, [`Trail::shared`] holds what
//! the inbox has now against the notes, and what both have in common is not given again.
//!
//! Invariant: a position is shared only where every note up to it that the inbox can still be held against is of the
//! same frame: a history that went another way before is never taken for the one the client knows.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use bytes::Bytes;
use rustc_hash::FxHasher;

use super::relay::Seq;

/// Messages noted: 1 KiB for a client that is given many, nothing for one that is given none.
const NOTES: usize = 128;

/// The last messages that were given, without a hole.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// The position of the first note.
    first: Seq,
    notes: VecDeque<u64>,
}

impl Trail {
    /// Notes that the message `frame` was given at `seq`.
    pub(super) fn gave(&mut self, seq: Seq, frame: &[u8]) {
        if self.first.saturating_add(self.notes.len() as u64) != seq {
            self.notes.clear();
            self.first = seq;
        }
        if self.notes.len() == NOTES {
            self.notes.pop_front();
            self.first = self.first.saturating_add(1);
        }
        self.notes.push_back(note(frame));
    }

    /// The last position up to which `messages`, an inbox in its order, is what the client was given.
    pub(super) fn shared(&self, messages: &[(Seq, Bytes)]) -> Option<Seq> {
        let known = messages.iter().filter_map(|(seq, frame)| {
            let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
            Some((*seq, *self.notes.get(index)? == note(frame)))
        });
        known.take_while(|(_, same)| *same).last().map(|(seq, _)| seq)
    }
}

/// A frame has its sender, id and time, so that two of one position are the same message or differ.
fn note(frame: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(frame);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inbox(
        seqs: std::ops::RangeInclusive<Seq>,
        other_from: Seq,
    ) -> impl Iterator<Item = (Seq, Bytes)> {
        seqs.map(move |seq| {
            let writer = if seq >= other_from { "other" } else { "one" };
            (seq, Bytes::from(format!("{writer} {seq}")))
        })
    }

    fn trail(seqs: std::ops::RangeInclusive<Seq>) -> Trail {
        let mut trail = Trail::default();
        inbox(seqs, Seq::MAX).for_each(|(seq, frame)| trail.gave(seq, &frame));
        trail
    }

    #[test]
    fn who_was_given_nothing_shares_nothing() {
        assert_eq!(Trail::default().shared(&inbox(0..=9, Seq::MAX).collect::<Vec<_>>()), None);
    }

    #[test]
    fn a_hole_begins_anew() {
        let mut trail = trail(1..=5);
        trail.gave(9, b"one 9");
        assert_eq!(trail.shared(&inbox(1..=5, Seq::MAX).collect::<Vec<_>>()), None);
        assert_eq!(trail.shared(&inbox(9..=12, Seq::MAX).collect::<Vec<_>>()), Some(9));
    }

    #[test]
    fn notes_are_bounded() {
        let trail = trail(1..=1_000);
        assert_eq!((trail.notes.len(), trail.first), (NOTES, 1_001 - NOTES as u64));
    }

    proptest! {
        /// Nothing that the client was not given is passed over, whatever became of the inbox.
        #[test]
        fn only_what_was_given_is_shared(
            given in 1_u64..200, oldest in 1_u64..200, len in 0_u64..200, other_from in 1_u64..400,
        ) {
            let messages: Vec<_> = inbox(oldest..=oldest + len, other_from).collect();
            let shared = trail(1..=given).shared(&messages);
            if let Some(shared) = shared {
                prop_assert!(shared <= given && shared < other_from);
            }
            // And nothing twice that the notes reach.
            let noted = given.saturating_sub(NOTES as u64) + 1;
            let first = oldest.max(noted);
            let last = given.min(oldest + len).min(other_from - 1);
            prop_assert_eq!(shared, (first <= last).then_some(last));
        }
    }
}
