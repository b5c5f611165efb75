//! One primary and all that belongs to it: a commanding connection, a listening one, and the probe between them.
//!
//! A single server is one shard; a Cluster is as many as it has primaries.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::commands::Commands;
use super::health::Health;
use super::probe::Probe;
use super::server::Server;
use super::subscriber::Subscriber;
use crate::bus::Deliver;
use crate::bus::metrics::Metrics;
use crate::settings::{BusSettings, RedisSettings};

pub(super) struct Shard {
    settings: RedisSettings,
    pub(super) commands: Commands,
    pub(super) subscriber: Subscriber,
    pub(super) probe: Probe,
    pub(super) health: Health,
}

impl Shard {
    /// Commands go to the first of `servers`, and the other is listened at: one and the same, but for tests.
    /// `node` names this process among all that share the bus.
    pub(super) fn new(
        servers: (Server, Server),
        settings: &BusSettings,
        node: &str,
        metrics: &Metrics,
    ) -> Self {
        let (to, from) = servers;
        let redis = settings.redis.clone();
        let patience = redis.command_timeout;
        Self {
            commands: Commands::new(to, &redis, &settings.inbox, metrics.clone()),
            subscriber: Subscriber::new(from, node, patience, metrics.clone()),
            probe: Probe::new(node, redis.probe_interval, patience, metrics.clone()),
            health: Health::new(metrics.clone()),
            settings: redis,
        }
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        self.subscriber.deliver.set(deliver).is_ok()
    }

    /// The three loops; ends after `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let Self { settings, commands, subscriber, probe, health } = self;
        health.expect_end(stop);
        let backoff = || Backoff::new(settings.reconnect_min, settings.reconnect_max);
        tokio::join!(
            commands.run(health, backoff(), stop, || subscriber.wishes.owe_gap()),
            subscriber.run(health, backoff(), stop),
            probe.run(commands, subscriber, health, stop),
        );
    }
}
