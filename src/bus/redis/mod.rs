//! The bus over Redis, for many processes.
//!
//! Walk: [`RedisBus::publish`] runs one script over the commanding connection; what it publishes comes back to
//! every process that listens for the user, over that one's listening connection. All that
//! belongs to one primary is a [`Shard`]: there is one, at an address or where the Sentinels say (`finder`), or, in a
//! [`Cluster`], as many as it has primaries.
//!
//! Invariants: while Redis is away calls fail at once; nothing is done twice that may have been done once; the wanted
//! subscriptions are restored before the bus says that it works, and it works only while every shard does.

mod ask;
mod backoff;
mod barrier;
#[cfg(test)]
mod barrier_tests;
mod book;
mod breaker;
mod cluster;
mod commands;
mod draws;
mod finder;
mod health;
#[cfg(test)]
mod history_tests;
mod lineage;
mod link;
mod names;
mod nodes;
mod probe;
#[cfg(test)]
mod probe_tests;
mod reply;
mod resp;
mod script;
mod seat_script;
mod seats;
mod sentinel;
mod server;
mod settle;
mod shard;
mod subscriber;
#[cfg(test)]
mod tests;
mod tls;
#[cfg(test)]
mod topology_tests;
mod verbs;
mod verdict;
mod wanted;
mod wishes;
mod witness;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::cluster::{Cluster, Following};
use self::finder::Finder;
pub(super) use self::seats::Claim;
use self::seats::{Evicting, Seats};
use self::sentinel::Sentinels;
use self::server::Setup;
pub use self::server::SetupError;
use self::shard::{Common, Shard, Tag};
use self::verdict::{FIRST, Verdict};
use self::wishes::Wish;
use super::metrics::Metrics;
use super::{BusError, BusState, Deliver, Envelope, Receipt, Replay, Seq};
use crate::observability::Registry;
use crate::settings::{BusSettings, RedisMode};

/// The bus over Redis; clones are the same bus.
#[derive(Clone)]
pub struct RedisBus {
    topology: Topology,
    common: Arc<Common>,
    seats: Arc<Seats>,
    draws: Arc<Semaphore>,
}

#[derive(Clone)]
enum Topology {
    /// One primary; where Sentinels name it, they are asked.
    One(Arc<Shard>, Option<Arc<Sentinels>>),
    Cluster(Arc<Cluster>),
}

impl RedisBus {
    pub(super) fn new(settings: &BusSettings, registry: &mut Registry) -> Result<Self, SetupError> {
        let Setup { mode, nodes, login, master } = Setup::new(&settings.redis)?;
        let metrics = Metrics::new(registry);
        let common = Arc::new(Common {
            settings: settings.clone(),
            node: super::epoch().to_string(),
            verdict: Verdict::new(metrics.clone()),
            metrics,
            look: Arc::default(),
        });
        let one = |finder: &Finder| {
            let finders = (finder.clone(), finder.clone());
            Arc::new(Shard::new(finders, FIRST, &Tag::of_all(), &common))
        };
        let topology = match (mode, nodes.first()) {
            (RedisMode::Cluster, _) => {
                Topology::Cluster(Arc::new(Cluster::new(Arc::clone(&common), nodes, login)))
            }
            (RedisMode::Sentinel, _) => {
                let patience = settings.redis.command_timeout;
                let sentinels = Arc::new(Sentinels::new(nodes, master, login, patience));
                Topology::One(one(&Finder::Sentinels(Arc::clone(&sentinels))), Some(sentinels))
            }
            (_, Some(server)) => Topology::One(one(&Finder::Fixed(server.clone())), None),
            (_, None) => return Err(SetupError::Place("no server is named".to_owned())),
        };
        if let Topology::One(..) = topology {
            common.metrics.shards.set(1);
        }
        let (lease, patience) = (settings.lease, settings.redis.command_timeout);
        let seats = Arc::new(Seats::new(&common.node, lease, patience, &common.metrics));
        Ok(Self { topology, common, seats, draws: Arc::new(draws::turns()) })
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        drop(self.seats.deliver.set(Arc::clone(&deliver)));
        let deliver = Arc::new(Evicting { seats: Arc::clone(&self.seats), deliver });
        match &self.topology {
            Topology::One(shard, _) => shard.attach(deliver),
            Topology::Cluster(cluster) => cluster.attach(deliver),
        }
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        self.common.verdict.expect_end(&stop);
        // The connections outlive what is still to be said of seats.
        let connections = CancellationToken::new();
        let seats = async {
            let beats = async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.beat_on() => {}
                }
            };
            tokio::join!(beats, self.keep_seats(&stop));
            connections.cancel();
        };
        tokio::join!(Box::pin(self.connect(&connections)), Box::pin(seats));
    }

    async fn connect(&self, stop: &CancellationToken) {
        match &self.topology {
            // Boxed, since they are large.
            Topology::One(shard, None) => Box::pin(shard.run(stop)).await,
            Topology::One(shard, Some(sentinels)) => {
                tokio::join!(
                    Box::pin(shard.run(stop)),
                    sentinels.watch(stop, |named| shard.stay_at(named))
                );
            }
            Topology::Cluster(cluster) => Box::pin(cluster.run(stop)).await,
        }
    }

    /// Anything may have changed with those who are watched, whichever shard is theirs.
    fn unsure(&self) {
        match &self.topology {
            Topology::One(shard, _) => shard.subscriber.unsure(),
            Topology::Cluster(cluster) => cluster.unsure(),
        }
    }

    /// The way to the shard that holds the keys and the channels of `user`.
    fn way(&self, user: &str) -> Way<'_> {
        match &self.topology {
            Topology::One(shard, _) => Way::One(shard),
            Topology::Cluster(cluster) => Way::Cluster(cluster::Way::new(cluster, user)),
        }
    }

    pub(super) async fn publish(&self, envelope: Envelope<'_>) -> Result<Receipt, BusError> {
        let mut way = self.way(envelope.to);
        loop {
            let result = way.shard()?.commands.publish(envelope).await;
            if let Some(result) = way.done(result).await {
                return result;
            }
        }
    }

    pub(super) async fn cast(&self, envelope: Envelope<'_>) -> Result<(), BusError> {
        let mut way = self.way(envelope.to);
        loop {
            let result = way.shard()?.commands.cast(envelope).await;
            if let Some(result) = way.done(result).await {
                return result;
            }
        }
    }

    pub(super) async fn signal(&self, to: &str, payload: Bytes) -> Result<(), BusError> {
        let mut way = self.way(to);
        loop {
            let result = way.shard()?.commands.signal(to, payload.clone()).await;
            if let Some(result) = way.done(result).await {
                return result;
            }
        }
    }

    pub(super) async fn read(&self, user: &str, after: Seq) -> Result<Replay, BusError> {
        let mut way = self.way(user);
        loop {
            let result = way.shard()?.commands.read(user, after).await;
            if let Some(result) = way.done(result).await {
                return result;
            }
        }
    }

    /// Listens for `name`: a user, or a channel of his.
    pub(super) fn subscribe(&self, name: &str) -> Listening {
        match &self.topology {
            Topology::One(shard, _) => Listening::One(shard.subscriber.wishes.wish(name)),
            Topology::Cluster(cluster) => Listening::Cluster(cluster.wish(name)),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.common.verdict.state()
    }
}

/// The way of one command: in a Cluster it may come to the wrong server, and is done once more then.
enum Way<'a> {
    One(&'a Arc<Shard>),
    Cluster(cluster::Way<'a>),
}

impl Way<'_> {
    fn shard(&mut self) -> Result<Arc<Shard>, BusError> {
        match self {
            Self::One(shard) => Ok(Arc::clone(shard)),
            Self::Cluster(way) => way.shard(),
        }
    }

    /// Gives the result, or nothing where the command was not run and may be done once more.
    async fn done<T>(&mut self, result: Result<T, BusError>) -> Option<Result<T, BusError>> {
        match self {
            Self::One(_) => Some(result),
            Self::Cluster(way) => way.done(result).await,
        }
    }
}

/// One wish to hear somebody; dropped, it ends.
pub(super) enum Listening {
    One(Wish),
    Cluster(Following),
}

impl Listening {
    pub(super) async fn confirmed(&self) -> Result<(), BusError> {
        match self {
            Self::One(wish) => wish.confirmed().await,
            Self::Cluster(following) => following.confirmed().await,
        }
    }
}
