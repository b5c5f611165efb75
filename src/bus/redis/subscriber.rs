//! The connection that listens: follows the wishes, and hands on what comes.
//!
//! Walk: connect, log in, subscribe the own probe channel; then one loop that reads frames, writes
//! batches of subscriptions, and reports the gap once everything wanted is restored. It ends when the
//! connection does; after a pause it begins anew.
//!
//! Invariants: this task alone writes to the connection; it waits for nothing but the socket, and only routes
//! what it reads, so that Redis never has to cut it off for being slow; reading never waits for writing.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::health::{Health, Part};
use super::names::{self, Channel};
use super::resp::{self, Frame};
use super::server::Server;
use super::wishes::Wishes;
use crate::bus::metrics::Metrics;
use crate::bus::{Deliver, Seq};

/// Room for reading: a burst of some hundred messages in one call.
const READ_BUFFER: usize = 64 * 1024;

/// A reader that has grown beyond this for a large message gives the room back.
const KEPT_BUFFER: usize = 1024 * 1024;

/// Gap reports for users who were confirmed late are gathered this long, since each report makes every
/// user's inbox be read.
const GAP_PACE: Duration = Duration::from_secs(1);

/// The listening side.
pub(super) struct Subscriber {
    pub(super) wishes: Arc<Wishes>,
    pub(super) deliver: OnceLock<Arc<dyn Deliver>>,
    /// The number of the last probe that came back.
    pub(super) probed: watch::Sender<u64>,
    server: Server,
    probe_channel: String,
    patience: Duration,
    /// Of the present connection.
    breaker: Mutex<Breaker>,
    metrics: Metrics,
}

/// The position in a payload; the rest is not looked at.
#[derive(Deserialize)]
struct Position {
    seq: Seq,
}

impl Subscriber {
    pub(super) fn new(server: Server, node: &str, patience: Duration, metrics: Metrics) -> Self {
        Self {
            wishes: Wishes::new(patience, metrics.clone()),
            deliver: OnceLock::new(),
            probed: watch::Sender::new(0),
            server,
            probe_channel: names::probe(node),
            patience,
            breaker: Mutex::default(),
            metrics,
        }
    }

    /// The breaker of the present connection.
    pub(super) fn breaker(&self) -> Breaker {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects, listens, and begins anew, until `stop`.
    pub(super) async fn run(
        &self,
        health: &Health,
        mut backoff: Backoff,
        stop: &CancellationToken,
    ) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => None,
                why = self.listen(health, &mut backoff) => Some(why),
            };
            let why: Arc<str> = ended.as_deref().map_or_else(|| "stopped".into(), Arc::from);
            self.wishes.lose(&why);
            health.down(Part::Subscriber, &why);
            if ended.is_none() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    /// The life of one connection; gives why it ended.
    async fn listen(&self, health: &Health, backoff: &mut Backoff) -> String {
        let breaker = Breaker::default();
        *self.breaker.lock().unwrap_or_else(PoisonError::into_inner) = breaker.clone();
        let mut connection = match tokio::time::timeout(self.patience, self.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return format!("cannot listen at {}: {error}", self.server),
            Err(_elapsed) => return format!("{} did not answer in time", self.server),
        };
        let began = Instant::now();
        tracing::info!(target: "Bus", "connected to Redis at {}, to listen", self.server);
        let ended = tokio::select! {
            why = breaker.tripped() => why,
            Err(error) = self.serve(&mut connection, health) => error.to_string(),
        };
        backoff.lived(began.elapsed());
        self.metrics.reconnects.inc();
        tracing::warn!(target: "Bus", "lost Redis at {}, listening: {ended}", self.server);
        format!("lost Redis at {}: {ended}", self.server)
    }

    /// A connection that is logged in and hears its own probes.
    async fn connect(&self) -> Result<Connection, Lost> {
        let stream = TcpStream::connect(self.server.address()).await?;
        stream.set_nodelay(true)?;
        let input = BytesMut::with_capacity(READ_BUFFER);
        let mut connection = Connection { stream, input, output: Vec::new() };
        if let Some(credentials) = self.server.credentials() {
            let words: Vec<_> = ["AUTH"].into_iter().chain(credentials).collect();
            resp::command(&mut connection.output, words);
        }
        resp::command(&mut connection.output, ["SUBSCRIBE", self.probe_channel.as_str()]);
        connection.stream.write_all(&connection.output).await?;
        connection.output.clear();
        loop {
            while let Some((frame, length)) = resp::parse(&connection.input)? {
                match frame {
                    Frame::Refused(why) => return Err(Lost::refused(why)),
                    Frame::Confirmed { .. } => {
                        connection.input.advance(length);
                        return Ok(connection);
                    }
                    Frame::Message { .. } | Frame::Other => connection.input.advance(length),
                }
            }
            if connection.stream.read_buf(&mut connection.input).await? == 0 {
                return Err(Lost::Closed);
            }
        }
    }

    /// Reads and writes until the connection ends.
    async fn serve(
        &self,
        connection: &mut Connection,
        health: &Health,
    ) -> Result<std::convert::Infallible, Lost> {
        let Connection { stream, input, output } = connection;
        let (mut reader, mut writer) = stream.split();
        let mut written = 0;
        let began = Instant::now();
        let users = self.wishes.restore();
        let mut pace = tokio::time::interval(GAP_PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let writing = written < output.len();
            let may_take = !writing && self.wishes.has_room();
            tokio::select! {
                read = reader.read_buf(input) => {
                    if read? == 0 {
                        return Err(Lost::Closed);
                    }
                    self.route_all(input)?;
                }
                sent = writer.write(output.get(written..).unwrap_or_default()), if writing => {
                    written += sent?;
                }
                () = self.wishes.changed(), if may_take => {
                    (*output, written) = (self.next_commands(), 0);
                }
                _ = pace.tick() => {
                    if self.wishes.owes_gap() {
                        self.gap();
                    }
                }
            }
            if self.wishes.restored() {
                let took = began.elapsed().as_millis();
                tracing::info!(target: "Bus", "restored {users} subscriptions in {took}ms");
                self.gap();
                health.up(Part::Subscriber);
            }
        }
    }

    fn gap(&self) {
        // One report covers whatever was owed so far.
        self.wishes.owes_gap();
        if let Some(deliver) = self.deliver.get() {
            deliver.gap();
        }
    }

    /// The next batch, as bytes.
    fn next_commands(&self) -> Vec<u8> {
        let batch = self.wishes.take();
        let mut output = Vec::new();
        for (verb, users) in [("UNSUBSCRIBE", batch.unsubscribe), ("SUBSCRIBE", batch.subscribe)] {
            if users.is_empty() {
                continue;
            }
            // A user's signals come second: their confirmation says that both are.
            let channels: Vec<_> = users
                .iter()
                .flat_map(|user| [names::messages(user), names::signals(user)])
                .collect();
            let words: Vec<_> =
                [verb].into_iter().chain(channels.iter().map(String::as_str)).collect();
            resp::command(&mut output, words);
        }
        output
    }

    fn route_all(&self, input: &mut BytesMut) -> Result<(), Lost> {
        while let Some((frame, length)) = resp::parse(input)? {
            self.route(frame)?;
            input.advance(length);
        }
        if input.is_empty() && input.capacity() > KEPT_BUFFER {
            *input = BytesMut::with_capacity(READ_BUFFER);
        }
        input.reserve(READ_BUFFER / 4);
        Ok(())
    }

    fn route(&self, frame: Frame<'_>) -> Result<(), Lost> {
        match frame {
            Frame::Message { channel, payload } => match Channel::parse(channel) {
                Channel::Messages(user) => self.message(user, payload),
                Channel::Signals(user) => {
                    self.metrics.received.inc();
                    if let Some(deliver) = self.deliver.get() {
                        deliver.signal(user, Bytes::copy_from_slice(payload));
                    }
                }
                Channel::Other => self.probe(channel, payload),
            },
            Frame::Confirmed { channel } => {
                if let Channel::Signals(user) = Channel::parse(channel) {
                    self.wishes.answered(user);
                }
            }
            Frame::Refused(why) => return Err(Lost::refused(why)),
            Frame::Other => {}
        }
        Ok(())
    }

    fn message(&self, user: &str, payload: &[u8]) {
        let deliver = self.deliver.get();
        let unstored = deliver.is_some_and(|deliver| deliver.takes_unstored());
        match serde_json::from_slice(payload) {
            Ok(Position { seq }) if seq > 0 || unstored => {
                self.metrics.received.inc();
                if let Some(deliver) = deliver {
                    // A copy, so that a message that waits for a slow reader keeps no read buffer alive.
                    deliver.message(user, seq, Bytes::copy_from_slice(payload));
                }
            }
            _ => {
                self.metrics.foreign.inc();
            }
        }
    }

    fn probe(&self, channel: &[u8], payload: &[u8]) {
        let number = str::from_utf8(payload).ok().and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number
            && channel == self.probe_channel.as_bytes()
        {
            self.probed.send_if_modified(|last| {
                let newer = number > *last;
                *last = number.max(*last);
                newer
            });
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("Redis closed the connection")]
    Closed,
    #[error("Redis refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Malformed(#[from] resp::Malformed),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Lost {
    fn refused(why: &[u8]) -> Self {
        Self::Refused(String::from_utf8_lossy(why).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::Registry;
    use crate::settings::RedisSettings;

    #[test]
    fn a_batch_is_one_command_of_each_kind_and_ends_come_first() {
        let server = Server::new(&RedisSettings::default()).unwrap();
        let metrics = Metrics::new(&mut Registry::default());
        let subscriber = Subscriber::new(server, "node", Duration::from_secs(1), metrics);
        subscriber.wishes.restore();
        let gone = subscriber.wishes.wish("gone");
        subscriber.next_commands();
        let _stay = (subscriber.wishes.wish("a"), subscriber.wishes.wish("b"));
        drop(gone);
        let mut expected = Vec::new();
        resp::command(&mut expected, ["UNSUBSCRIBE", "chat:gone", "signal:{chat:gone}"]);
        let both = ["SUBSCRIBE", "chat:a", "signal:{chat:a}", "chat:b", "signal:{chat:b}"];
        resp::command(&mut expected, both);
        assert_eq!(subscriber.next_commands(), expected);
        assert_eq!(subscriber.next_commands(), b"");
    }
}
