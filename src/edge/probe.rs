//! Whether a client that ended what it says still listens.
//!
//! A FIN does not tell one who is done speaking (RFC 9112, 9.6) from one who is gone: the system of the latter answers
//! only what is sent to it. So where an answer is long in coming, an interim one goes ahead, which every client of
//! HTTP/1.1 passes over (RFC 9110, 15.2). If nobody is there, the next write fails, and the exchange is cancelled at the
//! backend instead of running to its end.
//!
//! Only between a FIN and the answer, and twice at most: who half-closes is rare, and hears no more than four of them.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

/// The one interim answer that even the simplest client knows.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Before each write, the time since the one before it: the second of a pair meets what the first has set off.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_millis(200),
    Duration::from_secs(14),
    Duration::from_millis(200),
];

/// The looks after one client.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Made with the first FIN; most connections never see one while they wait.
    next: Option<Pin<Box<Sleep>>>,
    written: usize,
}

impl Probe {
    /// To be polled while the client has ended what it says and its answer is waited for; ready with the error that
    /// shows that nobody is there.
    pub(super) fn poll_gone(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
    ) -> Poll<io::Error> {
        let mut stream = stream;
        while let Some(pause) = PAUSES.get(self.written) {
            let next = self.next.get_or_insert_with(|| Box::pin(sleep(*pause)));
            ready!(next.as_mut().poll(context));
            match ready!(stream.as_mut().poll_write(context, INTERIM)) {
                Ok(INTERIM_LENGTH) => {}
                // A client whose system takes not even this has an answer before it that it does not read.
                Ok(_) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Err(error) => return Poll::Ready(error),
            }
            if let Poll::Ready(Err(error)) = stream.as_mut().poll_flush(context) {
                return Poll::Ready(error);
            }
            self.written += 1;
            if let Some(pause) = PAUSES.get(self.written) {
                next.as_mut().reset(Instant::now() + *pause);
            }
        }
        Poll::Pending
    }

    /// The answer comes, or another request has begun.
    pub(super) fn rest(&mut self) {
        if self.next.is_some() {
            *self = Self::default();
        }
    }
}

const INTERIM_LENGTH: usize = INTERIM.len();

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_who_listens_hears_four_at_most() {
        let (mut client, mut server) = duplex(1024);
        let mut probe = Probe::default();
        let begun = Instant::now();
        let gone = poll_fn(|context| probe.poll_gone(Pin::new(&mut server), context));
        assert!(timeout(Duration::from_hours(1), gone).await.is_err());
        assert!(begun.elapsed() >= Duration::from_hours(1));
        drop(server);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, INTERIM.repeat(4));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_is_gone_is_found_out() {
        let (client, mut server) = duplex(1024);
        drop(client);
        let (mut probe, begun) = (Probe::default(), Instant::now());
        poll_fn(|context| probe.poll_gone(Pin::new(&mut server), context)).await;
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
