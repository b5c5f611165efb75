//! Positions: what one connection was given of an inbox, and what is missing.
//!
//! Walk: a connection starts as a [`Cursor`] made of what the client asked for; [`Cursor::judge`] holds it
//! against what the inbox still has, at the join and whenever something may have been missed; between,
//! [`Cursor::live`] holds each message of the live path against the last one given.
//!
//! Invariants: `Continue` is said only where every message after the position is in hand, contiguous, and
//! of the same epoch; a position never goes back without `Restart`. Everything here is arithmetic: the
//! bus is read elsewhere.

use super::relay::{Epoch, Replay, Seq};

/// Where one connection stands in an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The history that `position` belongs to; absent while it is not known.
    epoch: Option<Epoch>,
    /// The last position given to the client.
    position: Seq,
    /// The last position heard on the live path, which only rises within one history.
    heard: Seq,
    /// What to ask the inbox for, while the epoch is not known.
    from: Seq,
    /// A position that was heard again, so that what the client was given there is in doubt.
    doubted: Option<Seq>,
}

/// What an inbox says about a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing is missing: the messages that were read follow the position.
    Continue,
    /// Something is gone, or nothing was known: the cursor now stands at another position, and the messages
    /// that were read follow it.
    Restart,
    /// Another history, of which only a part was read: read all of it, and judge again.
    ReadAll,
}

/// What to do with a message of the live path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The one that follows: give it to the client.
    Next,
    /// Given before, or about to come from the inbox.
    Seen,
    /// Read the inbox: something is missing before this one, or the history may be another.
    Read,
}

impl Cursor {
    /// For a client that wants what comes from now on.
    pub(super) fn fresh() -> Self {
        Self { epoch: None, position: 0, heard: 0, from: Seq::MAX, doubted: None }
    }

    /// For a client that asked to resume in a way that nobody can answer: all that is there follows.
    pub(super) fn unclear() -> Self {
        Self { from: 0, ..Self::fresh() }
    }

    /// For a client that has everything up to `since` of `epoch`.
    pub(super) fn after(since: Seq, epoch: Epoch) -> Self {
        Self { epoch: Some(epoch), position: since, from: since, ..Self::fresh() }
    }

    pub(super) fn position(&self) -> Seq {
        self.position
    }

    /// The history that the position belongs to; empty while it is not known.
    pub(super) fn epoch(&self) -> &str {
        self.epoch.as_deref().unwrap_or_default()
    }

    /// The position to read the inbox after.
    pub(super) fn wants(&self) -> Seq {
        let known = if self.epoch.is_some() { self.position } else { self.from };
        self.doubted.map_or(known, |doubted| known.min(doubted.saturating_sub(1)))
    }

    /// Holds the cursor against `replay`, which was read after position `from`.
    pub(super) fn judge(&mut self, from: Seq, replay: &Replay) -> Judgement {
        let first = replay.messages.first().map_or(replay.top.saturating_add(1), |(seq, _)| *seq);
        let known = self.epoch.as_ref().is_some_and(|epoch| *epoch == replay.epoch);
        let known = known && self.position <= replay.top;
        let trusted = self.doubted.take().is_none();
        let follows = from <= self.position && first <= self.position.saturating_add(1);
        if known && trusted && follows {
            return Judgement::Continue;
        }
        if !known && self.epoch.is_some() && from > 0 {
            return Judgement::ReadAll;
        }
        self.epoch = Some(replay.epoch.clone());
        self.position = first.saturating_sub(1);
        self.heard = 0;
        Judgement::Restart
    }

    /// Holds the position `seq` of a live message against the cursor. `settled` says that the last read is
    /// long enough ago for what it overlapped with to have come.
    pub(super) fn live(&mut self, seq: Seq, settled: bool) -> Verdict {
        let rising = seq > self.heard;
        self.heard = seq;
        if self.epoch.is_none() {
            // What came before this one is not wanted by a client that was there when it came.
            self.from = self.from.min(seq.saturating_sub(1));
            return Verdict::Read;
        }
        if seq == self.position.saturating_add(1) {
            return Verdict::Next;
        }
        if seq <= self.position {
            if rising && !settled {
                return Verdict::Seen;
            }
            // The live path never repeats itself: a lower position, where no read overlaps with it, is counted by
            // another counter, or somebody else than a hub wrote what was given to the client there.
            self.doubted = Some(self.doubted.map_or(seq, |doubted| doubted.min(seq)));
        }
        Verdict::Read
    }

    /// Notes that `seq` was given to the client.
    pub(super) fn gave(&mut self, seq: Seq) {
        self.position = seq;
    }

    /// The live path was interrupted: what it says next may overlap with what it said.
    pub(super) fn interrupted(&mut self) {
        self.heard = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// An inbox that keeps the last `keep` of `top` messages, as [`Replay`] describes it.
    fn replay(epoch: &str, top: Seq, keep: u64, after: Seq) -> Replay {
        let oldest = top.saturating_sub(keep) + 1;
        let messages =
            (oldest..=top).filter(|seq| *seq > after).map(|seq| (seq, Bytes::new())).collect();
        Replay { epoch: Arc::from(epoch), top, messages }
    }

    #[test]
    fn a_fresh_client_starts_at_the_top() {
        let mut cursor = Cursor::fresh();
        let from = cursor.wants();
        assert_eq!(cursor.judge(from, &replay("e", 41, 10, from)), Judgement::Restart);
        assert_eq!((cursor.position(), cursor.epoch()), (41, "e"));
        assert_eq!(cursor.live(42, false), Verdict::Next);
    }

    #[test]
    fn a_position_of_this_history_goes_on() {
        let mut cursor = Cursor::after(35, Arc::from("e"));
        assert_eq!(cursor.judge(35, &replay("e", 41, 10, 35)), Judgement::Continue);
        assert_eq!(cursor.position(), 35);
    }

    #[test]
    fn the_oldest_position_that_can_go_on_is_right_before_what_is_kept() {
        assert_eq!(
            Cursor::after(31, Arc::from("e")).judge(31, &replay("e", 41, 10, 31)),
            Judgement::Continue
        );
        let mut trimmed = Cursor::after(30, Arc::from("e"));
        assert_eq!(trimmed.judge(30, &replay("e", 41, 10, 30)), Judgement::Restart);
        assert_eq!(trimmed.position(), 31);
    }

    #[test]
    fn a_position_over_the_top_is_another_history() {
        let mut cursor = Cursor::after(50, Arc::from("e"));
        assert_eq!(cursor.judge(50, &replay("e", 41, 10, 50)), Judgement::ReadAll);
        assert_eq!(cursor.judge(0, &replay("e", 41, 10, 0)), Judgement::Restart);
        assert_eq!(cursor.position(), 31);
    }

    #[test]
    fn an_epoch_that_changed_gives_all_that_is_kept() {
        let mut cursor = Cursor::after(3, Arc::from("old"));
        assert_eq!(cursor.judge(3, &replay("new", 41, 10, 3)), Judgement::ReadAll);
        assert_eq!(cursor.judge(0, &replay("new", 41, 10, 0)), Judgement::Restart);
        assert_eq!((cursor.position(), cursor.epoch()), (31, "new"));
    }

    #[test]
    fn overlap_is_dropped_and_a_hole_is_read() {
        let mut cursor = Cursor::after(10, Arc::from("e"));
        assert_eq!(cursor.live(9, false), Verdict::Seen);
        assert_eq!(cursor.live(10, false), Verdict::Seen);
        assert_eq!(cursor.live(11, false), Verdict::Next);
        cursor.gave(11);
        assert_eq!(cursor.live(13, false), Verdict::Read);
    }

    #[test]
    fn a_counter_that_began_again_is_noticed() {
        let mut cursor = Cursor::after(10, Arc::from("e"));
        assert_eq!(cursor.live(11, true), Verdict::Next);
        cursor.gave(11);
        assert_eq!(cursor.live(1, false), Verdict::Read, "it fell on the live path");
        let mut idle = Cursor::after(10, Arc::from("e"));
        assert_eq!(idle.live(1, true), Verdict::Read, "no read overlaps with it any more");
    }

    #[test]
    fn a_message_that_another_one_stood_in_for_is_still_given() {
        let mut cursor = Cursor::after(10, Arc::from("e"));
        assert_eq!(cursor.live(11, false), Verdict::Next);
        cursor.gave(11);
        // That one was nobody's; here is the true one.
        assert_eq!(cursor.live(11, false), Verdict::Read);
        let from = cursor.wants();
        assert_eq!(cursor.judge(from, &replay("e", 11, 10, from)), Judgement::Restart);
        assert_eq!(cursor.position(), 10, "it follows, and the client is told");
        cursor.gave(11);
        assert_eq!(cursor.live(12, false), Verdict::Next);
        assert_eq!(cursor.wants(), 11);
    }

    #[test]
    fn the_first_live_message_is_not_lost_to_a_client_that_knows_no_position() {
        let mut cursor = Cursor::fresh();
        assert_eq!(cursor.live(8, false), Verdict::Read);
        assert_eq!(cursor.wants(), 7);
        assert_eq!(cursor.judge(7, &replay("e", 9, 100, 7)), Judgement::Restart);
        assert_eq!(cursor.position(), 7);
    }

    proptest! {
        /// Against a plain list: what the client ends with is complete, or it was told.
        #[test]
        fn continue_is_never_said_over_a_hole(
            since in 0_u64..60, same in any::<bool>(), top in 0_u64..60, keep in 0_u64..60,
        ) {
            let mut cursor = Cursor::after(since, Arc::from("e"));
            let epoch = if same { "e" } else { "f" };
            let kept: Vec<Seq> = (1..=top).filter(|seq| seq + keep > top).collect();
            let first = replay(epoch, top, keep, since);
            let complete = same && since <= top && (since + 1..=top).all(|seq| kept.contains(&seq));
            let (judgement, read) = match cursor.judge(since, &first) {
                Judgement::ReadAll => {
                    let all = replay(epoch, top, keep, 0);
                    (cursor.judge(0, &all), all)
                }
                judgement => (judgement, first),
            };
            prop_assert_eq!(judgement == Judgement::Continue, complete);
            let given: Vec<Seq> = read.messages.iter().map(|(seq, _)| *seq).collect();
            let expected: Vec<Seq> = if complete {
                (since + 1..=top).collect()
            } else {
                let whole_history = !same || since > top;
                kept.into_iter().filter(|seq| whole_history || *seq > since).collect()
            };
            prop_assert_eq!(&given, &expected);
            prop_assert_eq!(cursor.position() + given.len() as u64, top);
        }
    }
}
