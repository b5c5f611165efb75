//! One primary and all that belongs to it: a commanding connection, a listening one, and the probe between them.
//!
//! A single server is one shard, and so is what Sentinels watch; a Cluster is as many as it has primaries.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::cluster::slots;
use super::commands::Commands;
use super::finder::Finder;
use super::health::Health;
use super::probe::Probe;
use super::server::Server;
use super::subscriber::Subscriber;
use super::verdict::{Member, Verdict};
use crate::bus::Deliver;
use crate::bus::metrics::Metrics;
use crate::settings::{BusSettings, RedisSettings};

/// What all shards of a bus share.
pub(super) struct Common {
    pub(super) settings: BusSettings,
    /// Names this process among all that share the bus.
    pub(super) node: String,
    pub(super) metrics: Metrics,
    pub(super) verdict: Arc<Verdict>,
    /// In a Cluster: asks for another look at who serves what.
    pub(super) look: Arc<Notify>,
}

/// What puts a name into a slot that the shard serves, as `{7}`.
pub(super) struct Tag {
    text: RwLock<Arc<str>>,
}

impl Tag {
    pub(super) fn new(text: &str) -> Arc<Self> {
        Arc::new(Self { text: RwLock::new(Arc::from(text)) })
    }

    /// Of a shard that serves every slot.
    pub(super) fn of_all() -> Arc<Self> {
        Self::new(&slots::tag(slots::first(|_| true).unwrap_or_default()))
    }

    pub(super) fn get(&self) -> Arc<str> {
        Arc::clone(&self.text.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, text: &str) {
        *self.text.write().unwrap_or_else(PoisonError::into_inner) = Arc::from(text);
    }
}

pub(super) struct Shard {
    settings: RedisSettings,
    pub(super) member: Member,
    pub(super) tag: Arc<Tag>,
    pub(super) commands: Commands,
    pub(super) subscriber: Subscriber,
    pub(super) probe: Probe,
    pub(super) health: Health,
}

impl Shard {
    /// Commands go to what the first of `finders` finds, and the other is listened at: one and the same, but for tests.
    pub(super) fn new(
        finders: (Finder, Finder),
        member: Member,
        tag: &Arc<Tag>,
        common: &Common,
    ) -> Self {
        let (to, from) = finders;
        let Common { settings, node, metrics, verdict, .. } = common;
        let redis = settings.redis.clone();
        let patience = redis.command_timeout;
        let tag = || Arc::clone(tag);
        Self {
            member,
            tag: tag(),
            commands: Commands::new((to, tag()), &redis, &settings.inbox, metrics.clone()),
            subscriber: Subscriber::new((from, tag()), common),
            probe: Probe::new((node, tag()), redis.probe_interval, patience, metrics.clone()),
            health: Health::new(member, Arc::clone(verdict)),
            settings: redis,
        }
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        self.subscriber.deliver.set(deliver).is_ok()
    }

    /// Has both connections replaced.
    pub(super) fn leave(&self, why: &str) {
        if let Ok(link) = self.commands.link() {
            link.breaker.trip(why);
        }
        self.subscriber.present().0.trip(why);
    }

    /// Has each connection replaced that leads to another server than the one that is `named` now. Each is looked at by
    /// itself: one may have come to the new primary already, for a reason of its own, while the other stands at the old.
    pub(super) fn stay_at(&self, named: &Server) {
        let is_elsewhere = |server: &Server| server.node() != named.node();
        let why = || format!("the Sentinels name {named} now");
        if let Ok(link) = self.commands.link()
            && is_elsewhere(&link.server)
        {
            link.breaker.trip(&why());
        }
        let (breaker, server) = self.subscriber.present();
        if server.is_some_and(|server| is_elsewhere(&server)) {
            breaker.trip(&why());
        }
    }

    /// The three loops; ends after `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let Self { settings, commands, subscriber, probe, health, .. } = self;
        let backoff = || Backoff::new(settings.reconnect_min, settings.reconnect_max);
        tokio::join!(
            commands.run(health, backoff(), stop, || subscriber.wishes.owe_gap()),
            subscriber.run(health, backoff(), stop),
            probe.run(commands, subscriber, health, stop),
        );
    }
}
