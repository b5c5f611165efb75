//! Which of several addresses is connected to (RFC 8305, "happy eyeballs").
//!
//! One after the other is begun: the next at once where one has failed, and after a while where none has answered. The
//! first connection wins, and the other attempts end with this future. Whoever awaits it bounds it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long an attempt has before the next one is begun beside it (RFC 8305, 5: Connection Attempt Delay).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A connection, and which addresses it took.
#[derive(Debug)]
pub(super) struct Won<'a> {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    /// Those that were begun before it.
    pub(super) passed: &'a [SocketAddr],
}

/// Connects to the first of `addresses` that answers.
///
/// # Errors
/// The last one, where all have failed.
pub(super) async fn first_of(addresses: &[SocketAddr], delay: Duration) -> io::Result<Won<'_>> {
    let mut attempts = FuturesUnordered::new();
    let mut left = addresses.iter().enumerate();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some((place, address)) = left.next() {
            attempts.push(async move { (place, *address, TcpStream::connect(address).await) });
        }
        let more = left.len() > 0;
        let ended = tokio::select! {
            biased;
            ended = attempts.next() => ended,
            () = sleep(delay), if more => continue,
        };
        match ended {
            Some((place, address, Ok(stream))) => {
                let passed = addresses.get(..place).unwrap_or_default();
                return Ok(Won { stream, address, passed });
            }
            Some((_, _, Err(error))) => last = error,
            None => return Err(last),
        }
    }
}
