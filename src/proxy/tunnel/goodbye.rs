//! The last words of a tunnel, each bounded in time: at its turn to both ends, and to one when the other is gone.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::way::Farewell;
use super::{EndedBy, GOING_AWAY, SERVICE_RESTART, Tally, Ways};

/// How long a client may take to answer our Close before the backend is told without it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the whole goodbye may take.
pub(super) const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the transports below may take for theirs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(100);

impl Ways {
    /// Begins the goodbye; false where nothing can be said.
    fn leave(&mut self, tally: &mut Tally) -> bool {
        if self.are_broken() {
            return false;
        }
        // Where the ends are closing already, nothing is to be added but the bound.
        if self.are_open() {
            (self.down.farewell, self.up.farewell) = (Farewell::Next, Farewell::InPlace);
            tally.close = Some(SERVICE_RESTART);
        }
        true
    }

    /// The client did not answer: the backend is told without it.
    fn give_client_up(&mut self) {
        if self.up.farewell == Farewell::InPlace {
            self.up.farewell = Farewell::Next;
        }
    }
}

/// Says it to both ends, from the turn to the end of both.
pub(super) async fn leave<C, B>(ways: &mut Ways, client: &mut C, backend: &mut B, tally: &mut Tally)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    if ways.leave(tally) {
        part(ways, client, backend, tally).await;
    }
}

async fn part<C, B>(ways: &mut Ways, client: &mut C, backend: &mut B, tally: &mut Tally)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let close = tally.close;
    let mut sleep = pin!(sleep_until(began + ANSWER_TIMEOUT));
    let mut given_up = false;
    poll_fn(|cx| {
        loop {
            let ended = ways.poll(client, backend, cx);
            ways.note(tally);
            tally.close = close.or(tally.close);
            if ended.is_ready() || (given_up && ways.down.done) {
                return Poll::Ready(());
            }
            ready!(sleep.as_mut().poll(cx));
            if given_up {
                return Poll::Ready(());
            }
            given_up = true;
            ways.give_client_up();
            sleep.as_mut().reset(began + GOODBYE_TIMEOUT);
        }
    })
    .await;
    shut(client, backend).await;
}

/// Tells one end that the other is gone: the backend that its client went away, the client that it may connect anew.
/// In the middle of a frame nothing can be said.
pub(super) async fn mourn<C, B>(
    ways: &mut Ways,
    client: &mut C,
    backend: &mut B,
    lost: EndedBy,
    tally: &mut Tally,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (told, other, code) = match lost {
        EndedBy::ClientLost => (&mut ways.up, &mut ways.down, GOING_AWAY),
        _ => (&mut ways.down, &mut ways.up, SERVICE_RESTART),
    };
    if !told.frames.is_boundary() {
        return;
    }
    (told.farewell, told.code) = (Farewell::Next, code);
    other.mute();
    tally.close = Some(code);
    tell(ways, client, backend).await;
}

/// Until the other end has answered, or its time is over.
async fn tell<C, B>(ways: &mut Ways, client: &mut C, backend: &mut B)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut sleep = pin!(sleep(ANSWER_TIMEOUT));
    poll_fn(|cx| {
        let ended = ways.poll(client, backend, cx);
        // One way is done when the end that is there has answered; the other way leads from the one that is not.
        if ended.is_ready() || ways.halves_done() {
            return Poll::Ready(());
        }
        sleep.as_mut().poll(cx)
    })
    .await;
    shut(client, backend).await;
}

/// Told to both in order, where they still listen: TLS and HTTP/2 have an end of their own.
async fn shut<C, B>(client: &mut C, backend: &mut B)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let both = async { tokio::join!(client.shutdown(), backend.shutdown()) };
    drop(timeout(SHUTDOWN_TIMEOUT, both).await);
}
