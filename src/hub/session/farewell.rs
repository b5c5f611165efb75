//! How a session ends once it is decided that it does: bounded in time, whatever the peer does.
//!
//! Walk: what was begun is finished where that makes sense, the close frame goes out, and the peer gets a
//! moment to answer it. Where reading has failed, what still comes is thrown away for that moment: a
//! connection that is closed with unread bytes is reset, and the peer might never see the close frame.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::ending::End;
use super::Session;
use crate::protocol::{Close, outgoing};
use crate::shutdown::Drain;

/// For publishes under way, and for what is queued.
const SETTLE: Duration = Duration::from_secs(1);
/// For the peer to take the close frame and answer it.
const LINGER: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Ends the session for the reason `end`, or, where there is none, when its turn in the drain comes;
    /// and at once when the drain cuts.
    pub(super) async fn finish(&mut self, end: Option<End>, drain: &Drain) {
        let cut = tokio::select! {
            biased;
            () = drain.cutting() => true,
            () = self.wind_down(end, drain) => false,
        };
        if cut {
            self.cut_off();
        }
    }

    async fn wind_down(&mut self, end: Option<End>, drain: &Drain) {
        let end = match end {
            Some(end) => end,
            None => self.live(Some(drain.turn())).await,
        };
        self.record.end = end;
        self.delivery.stop_reading();
        match end {
            End::Network => self.settle_publishes().await,
            End::Client(_) => {
                self.record.place.vacate();
                self.settle_publishes().await;
                drop(timeout(LINGER, self.hang_up()).await);
            }
            End::Server(close) => {
                if !matches!(close, Close::NoPong | Close::TooSlow) {
                    drop(timeout(SETTLE, std::future::poll_fn(|cx| self.settled(cx))).await);
                }
                // Who comes back at once finds his seat free.
                self.record.place.vacate();
                drop(timeout(LINGER, self.close(close)).await);
            }
        }
    }

    /// Tells the peer what can be told without waiting.
    fn cut_off(&mut self) {
        self.record.end = End::Server(Close::Away);
        if self.start_close(Close::Away).is_ok() {
            drop(self.socket.flush().now_or_never());
        }
    }

    async fn settle_publishes(&mut self) {
        let settled = std::future::poll_fn(|cx| {
            while !self.sending.is_empty() {
                std::task::ready!(self.sending.poll_next(cx));
            }
            Poll::Ready(())
        });
        drop(timeout(SETTLE, settled).await);
    }

    /// Ready when all publishes are answered and all that waits is written.
    fn settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.place().seat.outbox.register(cx.waker());
        self.collect_answers(cx);
        match self.write(cx, Instant::now()) {
            Err(_) => Poll::Ready(()),
            Ok(()) if self.sending.is_empty() && !self.unflushed && !self.blocked => {
                Poll::Ready(())
            }
            Ok(()) => Poll::Pending,
        }
    }

    async fn close(&mut self, close: Close) {
        // Behind all that was queued: who goes at once when he hears it has everything.
        if close == Close::Restart && self.delivery.has_joined() {
            let after = self.place().hub.drain.comeback();
            if self.start_send(Message::Text(outgoing::reconnect(after))).is_err() {
                return;
            }
        }
        if self.start_close(close).is_ok() && self.socket.flush().await.is_ok() {
            self.hang_up().await;
        }
    }

    fn start_close(&mut self, close: Close) -> Result<(), End> {
        let frame = CloseFrame { code: close.code().into(), reason: close.reason().into() };
        self.start_send(Message::Close(Some(frame)))
    }

    /// Reads until the peer is done, and lets go of the connection.
    async fn hang_up(&mut self) {
        while let Some(Ok(_late)) = self.socket.next().await {}
        let connection = self.socket.get_mut();
        if connection.shutdown().await.is_ok() {
            let mut waste = [0; 256];
            while connection.read(&mut waste).await.is_ok_and(|count| count > 0) {}
        }
    }
}
