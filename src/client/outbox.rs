//! Messages that are not acknowledged yet. Pure.
//!
//! One is under way at a time: only so is the order kept where one is refused for the moment (the bus is away, too
//! many at once) and the next would be taken. The server's rate, not the round trip, is what bounds a long batch.
//!
//! Invariants: a message leaves only by its ack or a refusal for good; what a lost connection left open goes out again
//! first, with the same id.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::backoff;
use super::frames::Draft;

/// Messages that may wait.
const MOST: usize = 1_000;

/// A message without an answer for this long: the connection only looks open.
const ANSWER: Duration = Duration::from_secs(15);

/// After a refusal for the moment, the first pause, and the longest.
const HOLD_FIRST: Duration = Duration::from_millis(200);
const HOLD_MOST: Duration = Duration::from_secs(5);

/// The outbox takes no more for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} messages wait already")]
pub struct OutboxFull;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Draft>,
    state: State,
    /// Refusals for the moment, in a row.
    refusals: u32,
}

/// How it stands with the first of the waiting.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Ready,
    UnderWay {
        since: Instant,
    },
    Held {
        until: Instant,
    },
}

impl Outbox {
    pub(super) fn push(&mut self, draft: Draft) -> Result<(), OutboxFull> {
        if self.waiting.len() >= MOST {
            return Err(OutboxFull);
        }
        self.waiting.push_back(draft);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The frame to send now, which is then under way.
    pub(super) fn next(&mut self, now: Instant) -> Option<Utf8Bytes> {
        let may = match self.state {
            State::Ready => true,
            State::UnderWay { .. } => false,
            State::Held { until } => until <= now,
        };
        let frame = self.waiting.front().filter(|_| may)?.frame();
        self.state = State::UnderWay { since: now };
        Some(frame)
    }

    /// The next moment at which something is due here: a held message, or an answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Ready => None,
            State::UnderWay { since } => Some(since + ANSWER),
            State::Held { until } => Some(until),
        }
    }

    /// Whether an answer should have come by now.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        matches!(self.state, State::UnderWay { since } if since + ANSWER <= now)
    }

    /// Takes out a message that is acknowledged, or refused for good.
    pub(super) fn settle(&mut self, id: &str) -> Option<Draft> {
        let place = self.waiting.iter().position(|draft| draft.id == id)?;
        if place == 0 {
            self.state = State::Ready;
            self.refusals = 0;
        }
        self.waiting.remove(place)
    }

    /// Takes out the message that is under way.
    pub(super) fn settle_under_way(&mut self) -> Option<Draft> {
        let id = self.waiting.front()?.id.clone();
        matches!(self.state, State::UnderWay { .. }).then(|| self.settle(&id)).flatten()
    }

    /// Takes out the first message where it is over `most` bytes and would only be refused.
    pub(super) fn settle_too_big(&mut self, most: usize) -> Option<Draft> {
        let first = self.waiting.front().filter(|draft| draft.size() > most)?;
        let id = first.id.clone();
        self.settle(&id)
    }

    /// The message was refused for the moment: it goes out again after a pause, before all others.
    pub(super) fn hold(&mut self, id: &str, now: Instant) {
        if self.waiting.front().is_some_and(|draft| draft.id == id) {
            let pause = backoff::pause(self.refusals, HOLD_FIRST, HOLD_MOST);
            self.refusals = self.refusals.saturating_add(1);
            self.state = State::Held { until: now + pause };
        }
    }

    /// The connection is gone: nothing is under way.
    pub(super) fn disconnected(&mut self) {
        self.state = State::Ready;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(ids: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        for id in ids {
            let text = Some("hi".to_owned());
            let draft = Draft { id: (*id).to_owned(), to: "bob".to_owned(), text, data: None };
            outbox.push(draft).unwrap();
        }
        outbox
    }

    #[track_caller]
    fn sends(outbox: &mut Outbox, now: Instant, id: Option<&str>) {
        let frame = outbox.next(now).map(|frame| frame.to_string());
        let wanted = id.map(|id| format!("\"id\":\"{id}\""));
        assert_eq!(frame.is_some(), wanted.is_some(), "{frame:?}");
        assert!(frame.unwrap_or_default().contains(&wanted.unwrap_or_default()));
    }

    #[test]
    fn one_is_under_way_at_a_time_and_a_refusal_for_the_moment_keeps_the_order() {
        let (mut outbox, now) = (outbox(&["a", "b"]), Instant::now());
        sends(&mut outbox, now, Some("a"));
        sends(&mut outbox, now, None);
        outbox.hold("a", now);
        sends(&mut outbox, now, None);
        let due = outbox.deadline().unwrap();
        sends(&mut outbox, due, Some("a"));
        assert_eq!(outbox.settle("a").unwrap().id, "a");
        sends(&mut outbox, due, Some("b"));
        assert!(!outbox.is_overdue(due) && outbox.is_overdue(due + ANSWER));
        assert_eq!(outbox.settle_under_way().unwrap().id, "b");
        assert_eq!((outbox.len(), outbox.deadline()), (0, None));
        assert!(outbox.settle("b").is_none(), "a second ack changes nothing");
    }

    #[test]
    fn what_a_lost_connection_left_open_goes_out_again_first() {
        let (mut outbox, now) = (outbox(&["a", "b"]), Instant::now());
        sends(&mut outbox, now, Some("a"));
        outbox.disconnected();
        assert!(outbox.settle_under_way().is_none());
        sends(&mut outbox, now, Some("a"));
    }

    #[test]
    fn there_is_a_bound_and_what_is_too_big_does_not_stop_the_rest() {
        let mut outbox = outbox(&vec!["a"; MOST]);
        let (to, text) = ("bob".to_owned(), None);
        let one_more = Draft { id: "b".into(), to, text, data: None };
        assert_eq!(outbox.push(one_more), Err(OutboxFull));
        assert!(outbox.settle_too_big(2).is_none());
        assert!(outbox.settle_too_big(1).is_some());
        assert_eq!(outbox.len(), MOST - 1);
    }
}
