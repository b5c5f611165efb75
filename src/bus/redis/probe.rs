//! The proof that what is published arrives: a number sent over one connection must come back on the other.
//!
//! Open sockets and answered publishes prove nothing: a listening connection may stand at a server that
//! hears of no publish. Where a probe fails, the connection at fault is replaced.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::commands::Commands;
use super::health::{Health, Part, Parts};
use super::names;
use super::subscriber::Subscriber;
use crate::bus::BusError;
use crate::bus::metrics::Metrics;

/// Between two probes: how long a connection may be dead without anybody knowing.
const INTERVAL: Duration = Duration::from_secs(1);

/// A probe that takes longer has failed, even where commands may take longer.
const LONGEST: Duration = Duration::from_secs(2);

/// The probes of this process.
pub(super) struct Probe {
    channel: String,
    patience: Duration,
    metrics: Metrics,
}

impl Probe {
    pub(super) fn new(node: &str, patience: Duration, metrics: Metrics) -> Self {
        Self { channel: names::probe(node), patience: patience.min(LONGEST), metrics }
    }

    /// Probes whenever both connections stand, until `stop`.
    pub(super) async fn run(
        &self,
        commands: &Commands,
        subscriber: &Subscriber,
        health: &Health,
        stop: &CancellationToken,
    ) {
        let rounds = async {
            let mut parts = health.parts();
            let mut number = 0;
            // The sender lives as long as `health`, so this does not end by itself.
            while parts.wait_for(Parts::connected).await.is_ok() {
                number += 1;
                // Where a connection is lost meanwhile, its owner has said so, and the probe says nothing more.
                let proven = tokio::select! {
                    _ = parts.wait_for(|parts| !parts.connected()) => continue,
                    proven = self.once(commands, subscriber, health, number) => proven,
                };
                // After a success, until a connection is replaced; after a failure, until its owner
                // has heard of it, since a probe before that would test the old connection again.
                let turned =
                    parts.wait_for(|parts| !parts.connected() || (proven && !parts.proven()));
                // Most often nothing happens, and the next probe is due.
                drop(tokio::time::timeout(INTERVAL, turned).await);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }

    /// One probe; false where it failed, and a connection is to be replaced.
    async fn once(
        &self,
        commands: &Commands,
        subscriber: &Subscriber,
        health: &Health,
        number: u64,
    ) -> bool {
        let Ok(link) = commands.link() else { return false };
        let listening = subscriber.breaker();
        let mut probed = subscriber.probed.subscribe();
        let sent = commands.probe(&link, &self.channel, number);
        let taken = match tokio::time::timeout(self.patience, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(BusError::Unavailable(why))) => Err(format!("a probe was not taken: {why}")),
            Err(_elapsed) => Err("a probe was not taken in time".to_owned()),
        };
        if let Err(why) = taken {
            self.lost(health, &why);
            link.breaker.trip(&why);
            return false;
        }
        let heard = probed.wait_for(|last| *last >= number);
        if tokio::time::timeout(self.patience, heard).await.is_err() {
            let why = "a probe did not come back";
            self.lost(health, why);
            listening.trip(why);
            return false;
        }
        health.up(Part::Probe);
        true
    }

    fn lost(&self, health: &Health, why: &str) {
        self.metrics.probes_lost.inc();
        health.down(Part::Probe, &Arc::from(why));
    }
}
