//! The connection that publishes and reads.
//!
//! Walk: one client of the library for each connection, without its reconnecting; when it ends, it is
//! thrown away with all it had in flight, and after a pause a new one is made. In between every call fails at
//! once.
//!
//! Invariants: nothing is sent twice behind a caller's back, nothing waits for a connection, and
//! every call is bounded in time and in number.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike as _, LuaInterface as _, PubsubInterface as _};
use fred::types::config::{ConnectionConfig, PerformanceConfig};
use fred::types::{ConnectHandle, Key, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::health::{Health, Part};
use super::names;
use super::script::{Bounds, Script, Scripts};
use super::server::Server;
use crate::bus::metrics::Metrics;
use crate::bus::{BusError, Envelope, Receipt, Replay, Seq, dedupe_key, epoch};
use crate::settings::{InboxSettings, RedisSettings};

/// Publishes that may be unanswered at once; at a healthy Redis's pace that is some tens of milliseconds.
const IN_FLIGHT: usize = 16_384;

/// Inboxes that may be read at once: after a reconnect everybody's is, and that must not crowd out the rest.
const READS: usize = 64;

/// The commanding side.
pub(super) struct Commands {
    server: Server,
    patience: Duration,
    bounds: Bounds,
    scripts: Scripts,
    link: RwLock<Result<Link, Arc<str>>>,
    in_flight: Semaphore,
    reads: Semaphore,
    metrics: Metrics,
}

/// The present connection.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    pub(super) breaker: Breaker,
}

impl Commands {
    pub(super) fn new(
        server: Server,
        redis: &RedisSettings,
        inbox: &InboxSettings,
        metrics: Metrics,
    ) -> Self {
        Self {
            server,
            patience: redis.command_timeout,
            bounds: Bounds::new(inbox),
            scripts: Scripts::new(),
            link: RwLock::new(Err(Arc::from("not connected to Redis yet"))),
            in_flight: Semaphore::new(IN_FLIGHT),
            reads: Semaphore::new(READS),
            metrics,
        }
    }

    /// The present connection, or why there is none.
    pub(super) fn link(&self) -> Result<Link, BusError> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.clone().map_err(BusError::Unavailable)
    }

    fn set_link(&self, link: Result<Link, Arc<str>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Connects, holds the connection, and begins anew, until `stop`.
    pub(super) async fn run(
        &self,
        health: &Health,
        mut backoff: Backoff,
        stop: &CancellationToken,
    ) {
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = self.open() => opened,
            };
            let why: Arc<str> = match opened {
                Ok((link, task)) => {
                    tracing::info!(target: "Bus", "connected to Redis at {}, to publish", self.server);
                    let began = Instant::now();
                    self.set_link(Ok(link.clone()));
                    health.up(Part::Commands);
                    let Some(why) = self.hold(link, task, stop).await else { break };
                    backoff.lived(began.elapsed());
                    self.metrics.reconnects.inc();
                    tracing::warn!(target: "Bus", "lost Redis at {}, publishing: {why}", self.server);
                    format!("lost Redis at {}: {why}", self.server).into()
                }
                Err(error) => format!("cannot reach {}: {}", self.server, error.details()).into(),
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

    /// Waits for the end of a connection, and says why; `None` when told to stop.
    async fn hold(
        &self,
        link: Link,
        mut task: ConnectHandle,
        stop: &CancellationToken,
    ) -> Option<String> {
        let why = tokio::select! {
            () = stop.cancelled() => {
                // What is in flight may finish, within its time.
                let quit = async {
                    drop(link.client.quit().await);
                    drop((&mut task).await);
                };
                drop(tokio::time::timeout(self.patience, quit).await);
                None
            }
            why = link.breaker.tripped() => Some(why),
            ended = &mut task => Some(match ended {
                Ok(Err(error)) => error.details().to_owned(),
                Ok(Ok(())) => "the connection ended".to_owned(),
                Err(error) => error.to_string(),
            }),
        };
        // Drops the connection with everything in flight, whose callers learn of it.
        task.abort();
        why
    }

    /// A connection that knows the scripts.
    async fn open(&self) -> Result<(Link, ConnectHandle), Error> {
        let performance = PerformanceConfig {
            default_command_timeout: self.patience,
            ..PerformanceConfig::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: self.patience,
            internal_command_timeout: self.patience,
            max_command_attempts: 1,
            max_command_buffer_len: IN_FLIGHT * 2,
            ..ConnectionConfig::default()
        };
        // Without a policy the library ends the client when its connection ends, and retries nothing.
        let client = Client::new(self.server.config(), Some(performance), Some(connection), None);
        let mut task = AbortOnDrop(Some(client.connect()));
        let Some(running) = &mut task.0 else { return Err(ended()) };
        tokio::select! {
            connected = client.wait_for_connect() => connected?,
            // Its own error says more than any wait for it.
            result = running => return Err(result.ok().and_then(Result::err).unwrap_or_else(ended)),
            // Several steps, each with its own time.
            () = tokio::time::sleep(self.patience * 3) => return Err(ended()),
        }
        for script in self.scripts.all() {
            client.script_load::<(), _>(script.text.as_str()).await?;
        }
        let link = Link { client, breaker: Breaker::default() };
        task.0.take().map(|task| (link, task)).ok_or_else(ended)
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
        let arguments = || {
            let to = envelope.to;
            let seen = names::seen(to, &dedupe_key(envelope.from, envelope.id));
            let keys = [names::meta(to), names::inbox(to), seen].map(Key::from).to_vec();
            let values = vec![
                Value::Bytes(Bytes::copy_from_slice(envelope.head)),
                Value::Bytes(Bytes::copy_from_slice(envelope.tail)),
                Value::from(envelope.at_ms.to_string()),
                Value::from(names::messages(to)),
                Value::from(&*epoch()),
                Value::Integer(self.bounds.most),
                Value::Integer(self.bounds.inbox_ms),
                Value::Integer(self.bounds.meta_ms),
                Value::Integer(self.bounds.seen_ms),
            ];
            (keys, values)
        };
        match link.run(&self.scripts.publish, arguments).await?.as_slice() {
            [seq, at_ms, duplicate] => Ok(Receipt {
                seq: positive(seq)?,
                at_ms: positive(at_ms)?,
                duplicate: positive(duplicate)? == 1,
            }),
            _ => Err(nonsense()),
        }
    }

    pub(super) async fn signal(&self, to: &str, payload: Bytes) -> Result<(), BusError> {
        let _one = self.in_flight.try_acquire().map_err(|_full| overloaded())?;
        let published: Result<(), _> =
            self.link()?.client.publish(names::signals(to), Value::Bytes(payload)).await;
        published.map_err(|error| unavailable(&error))
    }

    pub(super) async fn read(&self, user: &str, after: Seq) -> Result<Replay, BusError> {
        // Known before waiting for a turn, so that being away is said at once.
        self.link()?;
        let turn = tokio::time::timeout(self.patience, self.reads.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(overloaded()) };
        let arguments = || {
            let keys = [names::meta(user), names::inbox(user)].map(Key::from).to_vec();
            let values = vec![
                Value::from(after.to_string()),
                Value::from(&*epoch()),
                Value::Integer(self.bounds.meta_ms),
            ];
            (keys, values)
        };
        let answer = self.link()?.run(&self.scripts.read, arguments).await?;
        let Ok([epoch, top, entries]) = <[Value; 3]>::try_from(answer) else {
            return Err(nonsense());
        };
        let epoch = epoch.as_string().ok_or_else(nonsense)?;
        let top = positive(&top)?;
        let entries = entries.into_array();
        let before = top.saturating_sub(entries.len() as Seq);
        let messages = (before + 1..).zip(entries.into_iter().filter_map(Value::into_bytes));
        Ok(Replay { epoch: Arc::from(epoch), top, messages: messages.collect() })
    }

    /// Writes and publishes one probe, the way messages go.
    pub(super) async fn probe(
        &self,
        link: &Link,
        channel: &str,
        number: u64,
    ) -> Result<(), BusError> {
        let arguments = || {
            let values = vec![
                Value::from(channel),
                Value::from(number.to_string()),
                // It proves something to whoever sees it come, and is of no use later.
                Value::Integer(60_000),
            ];
            (vec![Key::from(channel)], values)
        };
        link.run(&self.scripts.probe, arguments).await.map(drop)
    }
}

impl Link {
    /// Runs a script by its hash, and once more in full where the server has forgotten it.
    async fn run(
        &self,
        script: &Script,
        arguments: impl Fn() -> (Vec<Key>, Vec<Value>),
    ) -> Result<Vec<Value>, BusError> {
        let (keys, values) = arguments();
        let answer: Result<Value, _> =
            self.client.evalsha(script.hash.as_str(), keys, values).await;
        let answer = match answer {
            // It did not run, so this is no repeat.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let (keys, values) = arguments();
                Box::pin(self.client.eval(script.text.as_str(), keys, values)).await
            }
            answer => answer,
        };
        answer.map(Value::into_array).map_err(|error| unavailable(&error))
    }
}

/// Ends a connection that nobody took over.
struct AbortOnDrop(Option<ConnectHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Canceled, "the connection ended before it was ready")
}

fn positive(value: &Value) -> Result<u64, BusError> {
    value.as_u64().ok_or_else(nonsense)
}

fn unavailable(error: &Error) -> BusError {
    BusError::Unavailable(match error.kind() {
        ErrorKind::Timeout => Arc::from("Redis did not answer in time"),
        _ => Arc::from(error.details()),
    })
}

fn overloaded() -> BusError {
    BusError::Unavailable(Arc::from("too many commands wait for Redis"))
}

fn nonsense() -> BusError {
    BusError::Unavailable(Arc::from("Redis answered a script with something else"))
}
