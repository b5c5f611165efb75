//! The first seconds of a tunnel, in which a backend can still show that it accepts WebSockets and cannot serve them.
//!
//! A 101 is no good word yet: it would end a row of failures that a backend which drops every socket makes. So nothing
//! is said of it until the tunnel has lasted, or the backend has ended it in order. Invariants: one word for a tunnel at
//! most; none where somebody else went first.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Sleep, sleep};

use super::{EndedBy, SERVER_ERROR};
use crate::proxy::backends::Active;
use crate::proxy::error::Cause;

/// What a gateway between us and the backend closes with that has none (the registry of RFC 6455, 11.7).
const BAD_GATEWAY: u16 = 1014;

/// The time that a tunnel of this backend has to last.
pub(super) struct Probation<'a> {
    active: &'a Active,
    /// From the choice of the backend until the 101.
    took: Duration,
    left: Pin<Box<Sleep>>,
}

impl<'a> Probation<'a> {
    /// Begins it; `took` is what is to be told of the answer.
    pub(super) fn begin(active: &'a Active, took: Duration, limit: Duration) -> Self {
        Self { active, took, left: Box::pin(sleep(limit)) }
    }

    /// Finds out whether there is something to say: `first` has begun to end it, with this Close. Bytes that are no
    /// frames cannot end in order, and say nothing. Ready when there will be nothing more to say.
    pub(super) fn look(
        &mut self,
        first: Option<EndedBy>,
        close: Option<u16>,
        is_broken: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let good = match first {
            None if self.left.as_mut().poll(cx).is_pending() => return Poll::Pending,
            None => true,
            Some(EndedBy::Backend) if !is_broken => is_in_order(close),
            Some(_) => return Poll::Ready(()),
        };
        if good {
            self.active.answered(StatusCode::SWITCHING_PROTOCOLS, self.took);
        } else {
            let backend = &*self.active.upstream.label;
            let code = close.unwrap_or(NO_FRAME);
            tracing::warn!(target: "Proxy", backend, code, "the backend closed a WebSocket that it had just accepted");
            self.active.failed(Cause::EarlyClose);
        }
        Poll::Ready(())
    }
}

/// There was no Close (RFC 6455, 7.1.5).
const NO_FRAME: u16 = 1006;

/// What a backend decides is its own affair, as statuses are: that the client may not (1008), that it restarts (1012) or
/// has too much to do (1013). A connection without a Close is a crash, and these codes speak of one.
fn is_in_order(close: Option<u16>) -> bool {
    close.is_some_and(|code| !matches!(code, SERVER_ERROR | BAD_GATEWAY))
}
