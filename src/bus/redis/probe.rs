//! The proof that what is published arrives: a number sent over one connection must come back on the other.
//!
//! Open sockets and answered publishes prove nothing: a listening connection may stand at a server that
//! hears of no publish. Where a probe is late, the bus is said to be down; where it fails, the connection at fault
//! is replaced.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::commands::Commands;
use super::health::{Health, Part, Parts};
use super::names;
use super::shard::Tag;
use super::subscriber::Subscriber;
use crate::bus::BusError;
use crate::bus::metrics::Metrics;
use crate::bus::probe_age::Proven;

/// A probe that takes longer has failed, even where commands may take longer: a connection is to be replaced.
const LONGEST: Duration = Duration::from_secs(2);

/// The probes of this process.
pub(super) struct Probe {
    node: String,
    tag: Arc<Tag>,
    interval: Duration,
    patience: Duration,
    metrics: Metrics,
    proven: Proven,
}

impl Probe {
    /// `interval` lies between two probes, and is what one may take before it is said that the bus is down.
    pub(super) fn new(
        (node, tag): (&str, Arc<Tag>),
        interval: Duration,
        command_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        let proven = metrics.probe_ages.add();
        let patience = command_timeout.min(LONGEST);
        // An interval of nothing would be a busy loop.
        let interval = interval.max(Duration::from_millis(10));
        Self { node: node.to_owned(), tag, interval, patience, metrics, proven }
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
                drop(tokio::time::timeout(self.interval, turned).await);
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
        let listening = subscriber.present().0;
        let mut probed = subscriber.probed.subscribe();
        let taken = AtomicBool::new(false);
        let channel = names::probe(&self.tag.get(), &self.node);
        let mut round = pin!(async {
            commands.probe(&link, &channel, number).await?;
            taken.store(true, Ordering::Relaxed);
            // The sender lives as long as the subscriber.
            drop(probed.wait_for(|last| *last >= number).await);
            Ok(())
        });
        let mut came = tokio::time::timeout(self.interval.min(self.patience), &mut round).await;
        if came.is_err() {
            // Said early, so that nobody is sent here; the connections have a little longer.
            let what = if taken.load(Ordering::Relaxed) { "come back" } else { "get an answer" };
            self.lost(health, &format!("a probe did not {what} in time at {}", link.server));
            came = tokio::time::timeout(self.patience.saturating_sub(self.interval), round).await;
        } else if let Ok(Err(BusError::Unavailable(why))) = &came {
            self.lost(health, &format!("a probe was not taken by {}: {why}", link.server));
        }
        match came {
            Ok(Ok(())) => {
                self.proven.now();
                health.up(Part::Probe);
                return true;
            }
            Ok(Err(BusError::Unavailable(why))) => link.breaker.trip(&why),
            Err(_elapsed) if taken.load(Ordering::Relaxed) => {
                listening.trip("a probe did not come back");
            }
            Err(_elapsed) => link.breaker.trip("a probe did not get an answer"),
        }
        false
    }

    fn lost(&self, health: &Health, why: &str) {
        self.metrics.probes_lost.inc();
        health.down(Part::Probe, &Arc::from(why));
    }
}
