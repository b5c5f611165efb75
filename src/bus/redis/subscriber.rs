//! The connection that listens: follows the wishes, and hands on what comes.
//!
//! Walk: connect, log in, subscribe the own probe channel; then one loop that reads frames, writes
//! batches of subscriptions, and reports the gap once everything wanted is restored. It ends when the
//! connection does; after a pause it begins anew.
//!
//! Invariants: this task alone writes to the connection; it waits for nothing but the socket, and only routes
//! what it reads, so that Redis never has to cut it off for being slow; reading never waits for writing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::finder::Finder;
use super::health::{Health, Part};
use super::names::{self, Channel};
use super::resp::{self, Frame};
use super::server::{Server, Stream};
use super::shard::{Common, Tag};
use super::verbs::{Verbs, is_elsewhere};
use super::wishes::{Batch, Owed, Wishes};
use crate::bus::metrics::Metrics;
use crate::bus::{Deliver, Gap, Seq};

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
    finder: Finder,
    tag: Arc<Tag>,
    node: String,
    verbs: Verbs,
    /// In a Cluster: asks for another look at who serves what.
    look: Arc<Notify>,
    patience: Duration,
    /// The present connection has all that is wanted, and the gap was reported. Before, messages are passed over: they may
    /// come from another history, and only seem to follow what was delivered; the report makes all be read.
    whole: AtomicBool,
    /// Of the present connection, and where it leads, once that is known.
    present: Mutex<(Breaker, Option<Server>)>,
    metrics: Metrics,
}

/// The position in a payload; the rest is not looked at.
#[derive(Deserialize)]
struct Position {
    seq: Seq,
}

impl Subscriber {
    pub(super) fn new((finder, tag): (Finder, Arc<Tag>), common: &Common) -> Self {
        let metrics = common.metrics.clone();
        let patience = common.settings.redis.command_timeout;
        Self {
            wishes: Wishes::new(patience, metrics.clone()),
            deliver: OnceLock::new(),
            probed: watch::Sender::new(0),
            verbs: if matches!(finder, Finder::Placed(_)) { Verbs::Cluster } else { Verbs::Plain },
            finder,
            tag,
            node: common.node.clone(),
            look: Arc::clone(&common.look),
            patience,
            whole: AtomicBool::new(false),
            present: Mutex::default(),
            metrics,
        }
    }

    /// The breaker of the present connection, and where that leads, once it is known.
    pub(super) fn present(&self) -> (Breaker, Option<Server>) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_present(&self, present: (Breaker, Option<Server>)) {
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = present;
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
        self.set_present((breaker.clone(), None));
        let server = match self.finder.find().await {
            Ok(server) => server,
            Err(why) => return format!("cannot listen: {why}"),
        };
        self.set_present((breaker.clone(), Some(server.clone())));
        let connecting = tokio::time::timeout(self.patience, self.connect(&server));
        let mut connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return format!("cannot listen at {server}: {error}"),
            Err(_elapsed) => return format!("{server} did not answer in time"),
        };
        let began = Instant::now();
        tracing::info!(target: "Bus", "connected to Redis at {server}, to listen");
        let ended = tokio::select! {
            why = breaker.tripped() => why,
            Err(error) = self.serve(&mut connection, health) => error.to_string(),
        };
        backoff.lived(began.elapsed());
        self.metrics.reconnects.inc();
        tracing::warn!(target: "Bus", "lost Redis at {server}, listening: {ended}");
        format!("lost Redis at {server}: {ended}")
    }

    /// A connection that is logged in and hears its own probes.
    async fn connect(&self, server: &Server) -> Result<Connection, Lost> {
        let stream = server.dial().await?;
        let input = BytesMut::with_capacity(READ_BUFFER);
        let probes = names::probe(&self.tag.get(), &self.node);
        let mut connection =
            Connection { stream, input, output: Vec::new(), probes, pinged: VecDeque::new() };
        if let Some(credentials) = server.credentials() {
            let words: Vec<_> = ["AUTH"].into_iter().chain(credentials).collect();
            resp::command(&mut connection.output, words);
        }
        let (subscribe, _) = self.verbs.words();
        resp::command(&mut connection.output, [subscribe, connection.probes.as_str()]);
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
                    _ => connection.input.advance(length),
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
        let Connection { stream, input, output, probes, pinged } = connection;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut written = 0;
        self.whole.store(false, Ordering::Relaxed);
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
                    self.route_all(input, probes, pinged)?;
                }
                sent = writer.write(output.get(written..).unwrap_or_default()), if writing => {
                    written += sent?;
                    if written == output.len() {
                        // Bytes that TLS holds back go out, too.
                        writer.flush().await?;
                    }
                }
                () = self.wishes.changed(), if may_take => {
                    let batch = self.wishes.take();
                    (*output, written) = (self.verbs.commands(&batch), 0);
                    if self.verbs == Verbs::Cluster && !output.is_empty() {
                        pinged.push_back(batch);
                    }
                }
                _ = pace.tick() => self.report(self.wishes.take_owed()),
            }
            if self.wishes.restored() {
                let took = began.elapsed().as_millis();
                tracing::info!(target: "Bus", "restored {users} subscriptions in {took}ms");
                // One report covers whatever was owed so far.
                drop(self.wishes.take_owed());
                self.report(Owed { everyone: true, of: Vec::new() });
                self.unsure();
                self.whole.store(true, Ordering::Relaxed);
                health.up(Part::Subscriber);
            }
        }
    }

    fn report(&self, owed: Owed) {
        let Some(deliver) = self.deliver.get() else { return };
        let mut late = owed.of;
        late.retain(|name| match names::watched(name) {
            Some(user) => {
                deliver.presence_changed(user);
                false
            }
            None => true,
        });
        match (owed.everyone, self.verbs) {
            (true, Verbs::Plain) => deliver.gap(Gap::Everyone),
            (true, Verbs::Cluster) => deliver.gap(Gap::Of(&self.wishes.names())),
            (false, _) if late.is_empty() => {}
            (false, _) => deliver.gap(Gap::Of(&late)),
        }
    }

    /// Anything may have changed with those who are watched.
    pub(super) fn unsure(&self) {
        let Some(deliver) = self.deliver.get() else { return };
        for user in self.wishes.watched() {
            deliver.presence_changed(&user);
        }
    }

    fn route_all(
        &self,
        input: &mut BytesMut,
        probes: &str,
        pinged: &mut VecDeque<Batch>,
    ) -> Result<(), Lost> {
        while let Some((frame, length)) = resp::parse(input)? {
            match frame {
                Frame::Pong => {
                    if pinged.pop_front().is_some_and(|batch| self.wishes.settled(&batch)) {
                        self.look.notify_one();
                    }
                    // At once, since what comes for who was moved is passed over until then.
                    if self.whole.load(Ordering::Relaxed) {
                        self.report(self.wishes.take_owed());
                    }
                }
                frame => self.route(frame, probes)?,
            }
            input.advance(length);
        }
        if input.is_empty() && input.capacity() > KEPT_BUFFER {
            *input = BytesMut::with_capacity(READ_BUFFER);
        }
        input.reserve(READ_BUFFER / 4);
        Ok(())
    }

    fn route(&self, frame: Frame<'_>, probes: &str) -> Result<(), Lost> {
        match frame {
            Frame::Message { channel, payload } => match Channel::parse(channel) {
                Channel::Messages(user) => self.message(user, payload),
                Channel::Signals(user) => {
                    self.metrics.received.inc();
                    if let Some(deliver) = self.deliver.get() {
                        deliver.signal(user, Bytes::copy_from_slice(payload));
                    }
                }
                Channel::Presence(user) => {
                    if let Some(deliver) = self.deliver.get() {
                        deliver.presence_changed(user);
                    }
                }
                Channel::Other if channel == probes.as_bytes() => self.probe(payload),
                Channel::Other => {}
            },
            Frame::Confirmed { channel, subscribed } => match Channel::parse(channel) {
                Channel::Signals(user) => self.confirmed(user, subscribed),
                Channel::Presence(user) => self.confirmed(&names::presence(user), subscribed),
                Channel::Messages(_) | Channel::Other => {}
            },
            Frame::Refused(why) if self.verbs == Verbs::Cluster && is_elsewhere(why) => {
                // For whom, the pong will tell.
                self.look.notify_one();
            }
            Frame::Refused(why) => return Err(Lost::refused(why)),
            Frame::Pong | Frame::Other => {}
        }
        Ok(())
    }

    fn confirmed(&self, name: &str, subscribed: bool) {
        match self.verbs {
            Verbs::Plain => self.wishes.answered(name),
            Verbs::Cluster => {
                if self.wishes.heard(name, subscribed) {
                    self.look.notify_one();
                }
            }
        }
    }

    fn message(&self, user: &str, payload: &[u8]) {
        let deliver = self.deliver.get();
        let unstored = deliver.is_some_and(|deliver| deliver.takes_unstored());
        let in_doubt = !self.whole.load(Ordering::Relaxed)
            || (self.verbs == Verbs::Cluster && self.wishes.is_moved(user));
        if in_doubt && !unstored {
            return;
        }
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

    fn probe(&self, payload: &[u8]) {
        let number = str::from_utf8(payload).ok().and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            self.probed.send_if_modified(|last| {
                let newer = number > *last;
                *last = number.max(*last);
                newer
            });
        }
    }
}

struct Connection {
    stream: Stream,
    input: BytesMut,
    output: Vec<u8>,
    /// The own channel.
    probes: String,
    /// In a Cluster: batches whose pings are not answered.
    pinged: VecDeque<Batch>,
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
