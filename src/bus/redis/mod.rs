//! The bus over Redis, for many processes.
//!
//! Walk: [`RedisBus::publish`] runs one script over the commanding connection; what it publishes comes back to
//! every process that listens for the user, over that one's listening connection. All that
//! belongs to one primary is a [`Shard`].
//!
//! Invariants: while Redis is away calls fail at once; nothing is retried here; the wanted
//! subscriptions are restored before the bus says that it works. Absent on purpose: Cluster, Sentinel, TLS.

mod backoff;
mod barrier;
#[cfg(test)]
mod barrier_tests;
mod breaker;
mod commands;
mod health;
#[cfg(test)]
mod history_tests;
mod lineage;
mod link;
mod names;
mod probe;
#[cfg(test)]
mod probe_tests;
mod resp;
mod script;
mod seats;
mod server;
mod shard;
mod subscriber;
#[cfg(test)]
mod tests;
mod wishes;
mod witness;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) use self::seats::Claim;
use self::server::Server;
pub use self::server::SetupError;
use self::shard::Shard;
pub(super) use self::wishes::Wish;
use super::metrics::Metrics;
use super::{BusError, BusState, Deliver, Envelope, Receipt, Replay, Seq};
use crate::observability::Registry;
use crate::settings::BusSettings;

/// The bus over Redis; clones are the same bus.
#[derive(Clone)]
pub struct RedisBus {
    shard: Arc<Shard>,
}

impl RedisBus {
    pub(super) fn new(settings: &BusSettings, registry: &mut Registry) -> Result<Self, SetupError> {
        let server = Server::new(&settings.redis)?;
        let metrics = Metrics::new(registry);
        let node = super::epoch();
        Ok(Self {
            shard: Arc::new(Shard::new((server.clone(), server), settings, &node, &metrics)),
        })
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        self.shard.attach(deliver)
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        self.shard.run(&stop).await;
    }

    /// The shard that holds the keys and the channels of `user`.
    fn shard(&self, _user: &str) -> &Arc<Shard> {
        &self.shard
    }

    pub(super) async fn publish(&self, envelope: Envelope<'_>) -> Result<Receipt, BusError> {
        self.shard(envelope.to).commands.publish(envelope).await
    }

    pub(super) async fn cast(&self, envelope: Envelope<'_>) -> Result<(), BusError> {
        self.shard(envelope.to).commands.cast(envelope).await
    }

    pub(super) async fn signal(&self, to: &str, payload: Bytes) -> Result<(), BusError> {
        self.shard(to).commands.signal(to, payload).await
    }

    pub(super) fn subscribe(&self, user: &str) -> Wish {
        self.shard(user).subscriber.wishes.wish(user)
    }

    pub(super) async fn read(&self, user: &str, after: Seq) -> Result<Replay, BusError> {
        self.shard(user).commands.read(user, after).await
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.shard.health.state()
    }
}
