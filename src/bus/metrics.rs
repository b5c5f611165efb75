//! The series of the bus; held as handles, so that counting costs nanoseconds.
//!
//! Invariant: labels come from the closed set below, never from a name that a client chose.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::probe_age::ProbeAges;
use crate::observability::Registry;

/// Upper bounds of publish time, in seconds: a local Redis answers in the first, a far one in the middle.
const PUBLISH_SECONDS: [f64; 10] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Every series of the bus; cloning clones handles.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// 1 while messages flow both ways.
    pub(super) up: Gauge,
    pub(super) stored: Counter,
    pub(super) duplicate: Counter,
    pub(super) unavailable: Counter,
    /// Published to whoever listened, and not stored.
    pub(super) unstored: Counter,
    /// From a publish to its answer, in seconds; of those that were answered.
    pub(super) publish_seconds: Histogram,
    /// Messages and signals that came from the bus.
    pub(super) received: Counter,
    /// Payloads on a user's channel that no hub wrote.
    pub(super) foreign: Counter,
    /// Connections lost and sought again.
    pub(super) reconnects: Counter,
    /// Primaries that this process works with.
    pub(super) shards: Gauge<i64>,
    /// Users that this process listens for.
    pub(super) wanted: Gauge<i64>,
    /// Inboxes of the embedded bus that were forgotten for want of room.
    pub(super) forgotten: Counter,
    /// Probes that did not come back in time.
    pub(super) probes_lost: Counter<u64, AtomicU64>,
    /// Sockets turned away since their users had all the seats they may have.
    pub(super) seats_refused: Counter,
    /// Seats taken away for newer ones of the same user.
    pub(super) seats_evicted: Counter,
    /// Seats of dead nodes that were freed.
    pub(super) seats_freed: Counter,
    /// Watches of users' presence.
    pub(super) watches: Gauge<i64>,
    /// Nodes that share the bus, this one too.
    pub(super) nodes: Gauge<i64>,
    pub(super) probe_ages: ProbeAges,
    /// Inboxes that are being read at this moment.
    pub(super) reads: Gauge,
    /// Times that Redis went on with another history.
    pub(super) histories: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("bus");
        let publishes = Family::<Outcome, Counter>::default();
        let of = |outcome| publishes.get_or_create(&Outcome { outcome }).clone();
        let metrics = Self {
            up: Gauge::default(),
            stored: of("stored"),
            duplicate: of("duplicate"),
            unavailable: of("unavailable"),
            unstored: of("unstored"),
            publish_seconds: Histogram::new(PUBLISH_SECONDS),
            received: Counter::default(),
            foreign: Counter::default(),
            reconnects: Counter::default(),
            shards: Gauge::default(),
            wanted: Gauge::default(),
            forgotten: Counter::default(),
            probes_lost: Counter::default(),
            seats_refused: Counter::default(),
            seats_evicted: Counter::default(),
            seats_freed: Counter::default(),
            watches: Gauge::default(),
            nodes: Gauge::default(),
            probe_ages: ProbeAges::default(),
            reads: Gauge::default(),
            histories: Counter::default(),
        };
        registry.register("up", "Whether the message bus works", metrics.up.clone());
        registry.register("publishes", "Messages published, by outcome", publishes);
        registry.register(
            "publish_seconds",
            "From a publish to its answer",
            metrics.publish_seconds.clone(),
        );
        registry.register("received", "Messages that came from the bus", metrics.received.clone());
        registry.register(
            "foreign_dropped",
            "Payloads without a position, from a publisher that is no hub",
            metrics.foreign.clone(),
        );
        registry.register("reconnects", "Times Redis was lost", metrics.reconnects.clone());
        registry.register("subscriptions", "Users listened for", metrics.wanted.clone());
        registry.register(
            "inboxes_forgotten",
            "Inboxes forgotten for want of room, on the embedded bus",
            metrics.forgotten.clone(),
        );
        metrics.register_history(registry);
        metrics.register_presence(registry);
        metrics
    }

    fn register_history(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.probe_ages.clone()));
        registry.register(
            "histories_begun",
            "Times that Redis went on with another history, and clients were told",
            self.histories.clone(),
        );
        registry.register("reads_in_flight", "Inboxes being read", self.reads.clone());
        registry.register(
            "probes_lost",
            "Probes that did not come back in time",
            self.probes_lost.clone(),
        );
    }

    fn register_presence(&self, registry: &mut Registry) {
        let counters = [
            (
                "seats_refused",
                "Seats refused since the user had all he may have",
                &self.seats_refused,
            ),
            ("seats_evicted", "Seats given to newer ones of the same user", &self.seats_evicted),
            ("seats_freed", "Seats of dead nodes that were freed", &self.seats_freed),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("watches", "Users whose presence is watched", self.watches.clone());
        registry.register("shards", "Redis primaries in use", self.shards.clone());
        registry.register("nodes", "Nodes that share the bus", self.nodes.clone());
    }
}
