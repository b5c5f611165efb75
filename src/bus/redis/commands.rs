//! The connection that publishes and reads.
//!
//! Walk: one client of the library for each connection, without its reconnecting; a new one is used once its history
//! is settled (`lineage`); when it ends, it is thrown away with all it had in flight, and after a pause a new one
//! is made. In between every call fails at once.
//!
//! Invariants: nothing is sent twice behind a caller's back, nothing waits for a connection, and
//! every call is bounded in time and in number.

mod opening;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::{ClientLike as _, PubsubInterface as _};
use fred::types::{Key, Value};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::opening::Opened;
use super::backoff::Backoff;
use super::finder::Finder;
use super::health::{Health, Part};
use super::lineage::{History, Lineage, Unsettled};
use super::link::{Link, unavailable};
use super::names;
use super::script::{self, Bounds, PROBE_LIFE, Scripts};
use super::shard::Tag;
use super::witness::Witnesses;
use crate::bus::metrics::Metrics;
use crate::bus::{BusError, Envelope, Receipt, Replay, Seq, dedupe_key};
use crate::settings::{InboxSettings, RedisSettings};

/// Publishes that may be unanswered at once; at a healthy Redis's pace that is some tens of milliseconds.
const IN_FLIGHT: usize = 16_384;

/// Inboxes that may be read at once: after a reconnect everybody's is, and that must not crowd out the rest.
pub(super) const READS: usize = 64;

/// The commanding side.
pub(super) struct Commands {
    finder: Finder,
    tag: Arc<Tag>,
    cluster: bool,
    patience: Duration,
    min_replicas: u32,
    bounds: Bounds,
    pub(super) scripts: Scripts,
    lineage: Lineage,
    link: RwLock<Result<Arc<Link>, Arc<str>>>,
    /// The last connection: which process it led to, and what that calls it.
    last: Mutex<Option<(String, u64)>>,
    in_flight: Semaphore,
    reads: Semaphore,
    metrics: Metrics,
}

impl Commands {
    pub(super) fn new(
        (finder, tag): (Finder, Arc<Tag>),
        redis: &RedisSettings,
        inbox: &InboxSettings,
        metrics: Metrics,
    ) -> Self {
        let bounds = Bounds::new(inbox);
        let witnesses = Witnesses::new(inbox.dedupe_window, PROBE_LIFE);
        Self {
            cluster: matches!(finder, Finder::Placed(_)),
            scripts: Scripts::new(matches!(finder, Finder::Placed(_))),
            finder,
            tag,
            patience: redis.command_timeout,
            min_replicas: redis.min_replicas,
            lineage: Lineage::new(redis.fence, bounds.meta_ms, witnesses),
            bounds,
            last: Mutex::new(None),
            link: RwLock::new(Err(Arc::from("not connected to Redis yet"))),
            in_flight: Semaphore::new(IN_FLIGHT),
            reads: Semaphore::new(READS),
            metrics,
        }
    }

    /// The present connection, or why there is none.
    pub(super) fn link(&self) -> Result<Arc<Link>, BusError> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.clone().map_err(BusError::Unavailable)
    }

    fn set_link(&self, link: Result<Arc<Link>, Arc<str>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Connects, holds the connection, and begins anew, until `stop`. `look_again` is called where a connection
    /// came to another history than the one before.
    pub(super) async fn run(
        &self,
        health: &Health,
        mut backoff: Backoff,
        stop: &CancellationToken,
        look_again: impl Fn(),
    ) {
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                // On the heap: it is large, and not needed for long.
                opened = Box::pin(self.open()) => opened,
            };
            let why: Arc<str> = match opened {
                Ok(opened) => {
                    let server = opened.link.server.clone();
                    tracing::info!(target: "Bus", "connected to Redis at {server}, to publish");
                    let began = Instant::now();
                    if opened.link.history.changed {
                        self.metrics.histories.inc();
                        look_again();
                    }
                    self.set_link(Ok(Arc::clone(&opened.link)));
                    health.up(Part::Commands);
                    let Some(why) = self.hold(opened, stop).await else { break };
                    backoff.lived(began.elapsed());
                    self.metrics.reconnects.inc();
                    tracing::warn!(target: "Bus", "lost Redis at {server}, publishing: {why}");
                    format!("lost Redis at {server}: {why}").into()
                }
                Err(Unsettled::Redis(error)) => {
                    format!("cannot reach {}: {}", self.finder, error.details()).into()
                }
                Err(error) => format!("cannot use {}: {error}", self.finder).into(),
            };
            self.set_link(Err(Arc::clone(&why)));
            health.down(Part::Commands, &why);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
        let why = Arc::from("stopped");
        self.set_link(Err(Arc::clone(&why)));
        health.down(Part::Commands, &why);
    }

    /// Waits for the end of a connection, and says why; `None` when told to stop. Then the connection is dropped with
    /// everything in flight, whose callers learn of it.
    async fn hold(&self, opened: Opened, stop: &CancellationToken) -> Option<String> {
        let Opened { link, mut running, mut waiting } = opened;
        let barriers = async {
            match (&link.barrier, &mut waiting) {
                (Some(barrier), Some(waiting)) => tokio::select! {
                    () = barrier.run() => String::new(),
                    why = waiting.ended() => why,
                },
                _ => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            () = stop.cancelled() => None,
            why = link.breaker.tripped() => Some(why),
            why = running.ended() => Some(why),
            why = barriers => Some(why),
        };
        if why.is_none() {
            // What is in flight may finish, within its time.
            let quit = async {
                drop(link.client.quit().await);
                running.ended().await;
            };
            drop(tokio::time::timeout(self.patience, quit).await);
        }
        if let Some(barrier) = &link.barrier {
            barrier.end(why.as_deref().unwrap_or("stopped"));
        }
        why
    }

    pub(super) async fn publish(&self, envelope: Envelope<'_>) -> Result<Receipt, BusError> {
        let began = Instant::now();
        let result = self.try_publish(&envelope).await;
        match &result {
            Ok(receipt) => {
                self.metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
                if receipt.duplicate {
                    self.metrics.duplicate.inc();
                } else {
                    self.metrics.stored.inc();
                }
            }
            Err(_) => {
                self.metrics.unavailable.inc();
            }
        }
        result
    }

    async fn try_publish(&self, envelope: &Envelope<'_>) -> Result<Receipt, BusError> {
        let _one = self.in_flight.try_acquire().map_err(|_full| overloaded())?;
        let link = self.link()?;
        let to = envelope.to;
        let message = dedupe_key(envelope.from, envelope.id);
        let keys = [names::meta(to), names::inbox(to), names::seen(to, &message)].map(Key::from);
        let values = vec![
            Value::from(link.history.fence.as_str()),
            Value::Bytes(Bytes::copy_from_slice(envelope.head)),
            Value::Bytes(Bytes::copy_from_slice(envelope.tail)),
            Value::from(envelope.at_ms.to_string()),
            Value::from(names::messages(to)),
            Value::from(names::birth()),
            Value::Integer(self.bounds.most),
            Value::Integer(self.bounds.inbox_ms),
            Value::Integer(self.bounds.meta_ms),
            Value::Integer(self.bounds.seen_ms),
        ];
        let answer = link.run(&self.scripts.publish, keys.to_vec(), values).await?;
        let [seq, at_ms, duplicate, birth] = answer.as_slice() else { return Err(nonsense()) };
        let (seq, at_ms) = (positive(seq)?, positive(at_ms)?);
        let receipt = Receipt { seq, at_ms, duplicate: positive(duplicate)? == 1 };
        let birth = birth.as_str().ok_or_else(nonsense)?;
        if let Some(barrier) = &link.barrier {
            barrier.pass().await?;
        }
        let generation = link.history.generation;
        if !self.lineage.witnesses.record(generation, to, &message, (&receipt, &birth)) {
            // Whether the server that follows has it, nobody has asked.
            return Err(BusError::Unavailable(Arc::from("the connection to Redis was replaced")));
        }
        Ok(receipt)
    }

    pub(super) async fn cast(&self, envelope: Envelope<'_>) -> Result<(), BusError> {
        let began = Instant::now();
        let published = self.pass(names::messages(envelope.to), envelope.render(0)).await;
        if published.is_ok() {
            self.metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
            self.metrics.unstored.inc();
        } else {
            self.metrics.unavailable.inc();
        }
        published
    }

    pub(super) async fn signal(&self, to: &str, payload: Bytes) -> Result<(), BusError> {
        self.pass(names::signals(to), payload).await
    }

    /// Publishes what nobody stores; ends with the server's answer.
    async fn pass(&self, channel: String, payload: Bytes) -> Result<(), BusError> {
        let _one = self.in_flight.try_acquire().map_err(|_full| overloaded())?;
        let (link, payload) = (self.link()?, Value::Bytes(payload));
        let client = &link.client;
        let published: Result<(), _> = if self.cluster {
            client.spublish(channel, payload).await
        } else {
            client.publish(channel, payload).await
        };
        published.map_err(|error| unavailable(&error))
    }

    pub(super) async fn read(&self, user: &str, after: Seq) -> Result<Replay, BusError> {
        // Known before waiting for a turn, so that being away is said at once.
        self.link()?;
        let answer = tokio::time::timeout(self.patience, self.try_read(user, after));
        let (link, answer) = answer.await.unwrap_or_else(|_elapsed| Err(overloaded()))?;
        let Ok([birth, top, entries]) = <[Value; 3]>::try_from(answer) else {
            return Err(nonsense());
        };
        let birth = birth.as_str().ok_or_else(nonsense)?;
        let epoch = [&*birth, link.history.line.as_str()].concat();
        let top = positive(&top)?;
        let entries = entries.into_array();
        let before = top.saturating_sub(entries.len() as Seq);
        let messages = (before + 1..).zip(entries.into_iter().filter_map(Value::into_bytes));
        Ok(Replay { epoch: Arc::from(epoch), top, messages: messages.collect() })
    }

    /// One read, when it is its turn.
    async fn try_read(&self, user: &str, after: Seq) -> Result<(Arc<Link>, Vec<Value>), BusError> {
        let Ok(_turn) = self.reads.acquire().await else { return Err(overloaded()) };
        let _counted = Counted::new(&self.metrics.reads);
        let link = self.link()?;
        let keys = [names::meta(user), names::inbox(user)].map(Key::from).to_vec();
        let values = vec![
            Value::from(link.history.fence.as_str()),
            Value::from(after.to_string()),
            Value::from(names::birth()),
            Value::Integer(self.bounds.meta_ms),
        ];
        let answer = link.run(&self.scripts.read, keys, values).await?;
        Ok((link, answer))
    }

    /// Writes and publishes one probe, the way messages go.
    pub(super) async fn probe(
        &self,
        link: &Link,
        channel: &str,
        number: u64,
    ) -> Result<(), BusError> {
        let History { fence, line, generation, .. } = &*link.history;
        let keys = vec![Key::from(channel), Key::from(names::lineage(&self.tag.get()))];
        let values = vec![
            Value::from(fence.as_str()),
            Value::from(channel),
            Value::from(number.to_string()),
            Value::Integer(script::ms(PROBE_LIFE)),
            Value::from(line.as_str()),
            Value::Integer(self.bounds.meta_ms),
        ];
        link.run(&self.scripts.probe, keys, values).await?;
        self.lineage.witnesses.probed(*generation, channel, number);
        Ok(())
    }
}

/// Counts something for as long as it lasts, also where nobody waits for its end.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(super) fn positive(value: &Value) -> Result<u64, BusError> {
    value.as_u64().ok_or_else(nonsense)
}

pub(super) fn overloaded() -> BusError {
    BusError::Unavailable(Arc::from("too many commands wait for Redis"))
}

pub(super) fn nonsense() -> BusError {
    BusError::Unavailable(Arc::from("Redis answered a script with something else"))
}
