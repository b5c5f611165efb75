//! What one client sends: published in its order, several at a time, each answered when the bus has it.
//!
//! Invariants: a publish is begun the moment its frame was read, and those begun are finished even when
//! the socket is gone; answers keep the order of the frames; at [`MAX_IN_FLIGHT`] the socket is not read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::relay::{BusError, Receipt};
use crate::protocol::outgoing::Outgoing;

/// Publishes of one socket under way at once: covers 3,000 messages a second over a bus 10 ms away.
const MAX_IN_FLIGHT: usize = 32;

/// The answer to one publish; nothing for a frame that is not acknowledged.
pub(super) type Sent = Option<(Outgoing, Result<Receipt, BusError>)>;

type Publish = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// The publishes of one socket, oldest first. Empty, it holds no memory after [`Sending::shrink`].
#[derive(Default)]
pub(super) struct Sending {
    under_way: VecDeque<UnderWay>,
}

enum UnderWay {
    Waiting(Publish),
    /// Answered before an older one was.
    Done(Sent),
}

impl Sending {
    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= MAX_IN_FLIGHT
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Begins `publish`, so that it is on its way behind the earlier ones.
    pub(super) fn begin(
        &mut self,
        publish: impl Future<Output = Sent> + Send + 'static,
        cx: &mut Context<'_>,
    ) {
        let mut publish: Publish = Box::pin(publish);
        self.under_way.push_back(match publish.as_mut().poll(cx) {
            Poll::Ready(sent) => UnderWay::Done(sent),
            Poll::Pending => UnderWay::Waiting(publish),
        });
    }

    /// The next answer, in the order of the frames; pending also where nothing is under way.
    ///
    /// Only the oldest one is polled: the others were begun, and wake the task when it is their turn.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Sent> {
        match self.under_way.pop_front() {
            None => Poll::Pending,
            Some(UnderWay::Done(sent)) => Poll::Ready(sent),
            Some(UnderWay::Waiting(mut publish)) => match publish.as_mut().poll(cx) {
                Poll::Ready(sent) => Poll::Ready(sent),
                Poll::Pending => {
                    self.under_way.push_front(UnderWay::Waiting(publish));
                    Poll::Pending
                }
            },
        }
    }

    pub(super) fn shrink(&mut self) {
        if self.under_way.is_empty() {
            self.under_way = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::incoming::Draft;

    fn outgoing(id: &'static str) -> Outgoing {
        let draft = Draft { to: "bob".into(), id: Some(id.into()), text: None, data: Some("1") };
        Outgoing::compose(&draft, "alice", "1", 0)
    }

    fn next(sending: &mut Sending) -> Option<String> {
        match sending.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(sent) => sent.map(|(outgoing, _)| outgoing.id().to_owned()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn answers_keep_the_order_of_the_frames() {
        let mut sending = Sending::default();
        let receipt = || Ok(Receipt { seq: 1, at_ms: 0, duplicate: false });
        let (answer, wait) = oneshot::channel::<()>();
        let cx = &mut Context::from_waker(Waker::noop());
        sending.begin(wait.map(move |_| Some((outgoing("c1"), receipt()))), cx);
        sending.begin(async move { Some((outgoing("c2"), receipt())) }, cx);
        assert_eq!(next(&mut sending), None, "the second waits for the first");
        answer.send(()).unwrap();
        assert_eq!(next(&mut sending).as_deref(), Some("c1"));
        assert_eq!(next(&mut sending).as_deref(), Some("c2"));
        assert!(sending.is_empty());
    }

    #[test]
    fn it_is_full_at_its_bound() {
        let mut sending = Sending::default();
        for _ in 0..MAX_IN_FLIGHT {
            assert!(!sending.is_full());
            sending.begin(std::future::pending(), &mut Context::from_waker(Waker::noop()));
        }
        assert!(sending.is_full());
    }
}
