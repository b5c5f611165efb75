//! The bus over Redis, for many processes.
//!
//! Walk: [`RedisBus::publish`] runs one script over the commanding connection; what it publishes comes back to
//! every process that listens for the user, over that one's listening connection. Three loops live
//! in [`RedisBus::run`]: each connection's own, and the probe that proves the way from one to the other.
//!
//! Invariants: while Redis is away calls fail at once; nothing is retried here; the wanted
//! subscriptions are restored before the bus says that it works. Absent on purpose: Cluster, Sentinel, TLS.

mod backoff;
mod breaker;
mod commands;
mod health;
mod names;
mod probe;
mod resp;
mod script;
mod server;
mod subscriber;
#[cfg(test)]
mod tests;
mod wishes;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::backoff::Backoff;
use self::commands::Commands;
use self::health::Health;
use self::probe::Probe;
use self::server::Server;
pub use self::server::SetupError;
use self::subscriber::Subscriber;
pub(super) use self::wishes::Wish;
use super::metrics::Metrics;
use super::{BusError, BusState, Deliver, Envelope, Receipt, Replay, Seq};
use crate::observability::Registry;
use crate::settings::{BusSettings, RedisSettings};

/// The bus over Redis; clones are the same bus.
#[derive(Clone)]
pub struct RedisBus {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RedisSettings,
    commands: Commands,
    subscriber: Subscriber,
    probe: Probe,
    health: Health,
}

impl RedisBus {
    pub(super) fn new(settings: &BusSettings, registry: &mut Registry) -> Result<Self, SetupError> {
        let server = Server::new(&settings.redis)?;
        let metrics = Metrics::new(registry);
        let redis = settings.redis.clone();
        let node = super::epoch();
        let patience = redis.command_timeout;
        Ok(Self {
            shared: Arc::new(Shared {
                commands: Commands::new(server.clone(), &redis, &settings.inbox, metrics.clone()),
                subscriber: Subscriber::new(server, &node, patience, metrics.clone()),
                probe: Probe::new(&node, patience, metrics.clone()),
                health: Health::new(metrics),
                settings: redis,
            }),
        })
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        self.shared.subscriber.deliver.set(deliver).is_ok()
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        let Shared { settings, commands, subscriber, probe, health } = &*self.shared;
        health.expect_end(&stop);
        let backoff = || Backoff::new(settings.reconnect_min, settings.reconnect_max);
        tokio::join!(
            commands.run(health, backoff(), &stop),
            subscriber.run(health, backoff(), &stop),
            probe.run(commands, subscriber, health, &stop),
        );
    }

    pub(super) async fn publish(&self, envelope: Envelope<'_>) -> Result<Receipt, BusError> {
        self.shared.commands.publish(envelope).await
    }

    pub(super) async fn signal(&self, to: &str, payload: Bytes) -> Result<(), BusError> {
        self.shared.commands.signal(to, payload).await
    }

    pub(super) fn subscribe(&self, user: &str) -> Wish {
        self.shared.subscriber.wishes.wish(user)
    }

    pub(super) async fn read(&self, user: &str, after: Seq) -> Result<Replay, BusError> {
        self.shared.commands.read(user, after).await
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.shared.health.state()
    }
}
