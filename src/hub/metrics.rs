//! The series of the hub, one set of held handles for each region.
//!
//! Invariant: labels are regions of the configuration and closed lists of codes, never a client's text.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::observability::Registry;
use crate::protocol::Code;
use crate::settings::RegionName;

/// Upper bounds of the way from the sender's hub to a reader's socket, in seconds.
const LAG_SECONDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

/// Close codes that are counted by their number; any other one is a client's own choice.
const CLOSES: [u16; 14] =
    [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 4000, 4001, 4008];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InRegion {
    region: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Coded {
    region: String,
    code: String,
}

/// The families, in which each region gets its own series.
pub(super) struct Families {
    sockets: Family<InRegion, Gauge>,
    received: Family<InRegion, Counter>,
    delivered: Family<InRegion, Counter>,
    acknowledged: Family<InRegion, Counter>,
    resets: Family<InRegion, Counter>,
    errors: Family<Coded, Counter>,
    closes: Family<Coded, Counter>,
    lag: Family<InRegion, Histogram, fn() -> Histogram>,
}

/// The handles of one region.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) sockets: Gauge,
    /// Text frames from clients.
    pub(super) received: Counter,
    /// Messages written to sockets, one for each reader.
    pub(super) delivered: Counter,
    pub(super) acknowledged: Counter,
    /// Readers that were told that something is gone.
    pub(super) resets: Counter,
    /// From the sender's hub to the socket, in seconds; of a sample.
    pub(super) lag: Histogram,
    errors: [Counter; Code::ALL.len()],
    closes: [Counter; CLOSES.len()],
    other_close: Counter,
}

impl Families {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("hub");
        let families = Self {
            sockets: Family::default(),
            received: Family::default(),
            delivered: Family::default(),
            acknowledged: Family::default(),
            resets: Family::default(),
            errors: Family::default(),
            closes: Family::default(),
            lag: Family::new_with_constructor(|| Histogram::new(LAG_SECONDS)),
        };
        registry.register("sockets", "Chat sockets open", families.sockets.clone());
        registry.register("frames_received", "Frames from clients", families.received.clone());
        registry.register("deliveries", "Messages written to sockets", families.delivered.clone());
        registry.register("acks", "Messages acknowledged", families.acknowledged.clone());
        registry.register("resets", "Readers told of a loss", families.resets.clone());
        registry.register("errors", "Error frames, by code", families.errors.clone());
        registry.register("closes", "Sockets ended, by close code", families.closes.clone());
        registry.register(
            "delivery_seconds",
            "From the sender's hub to the socket, of a sample",
            families.lag.clone(),
        );
        families
    }

    pub(super) fn region(&self, name: &RegionName) -> Metrics {
        let label = InRegion { region: name.to_string() };
        let coded =
            |code: &dyn ToString| Coded { region: name.to_string(), code: code.to_string() };
        Metrics {
            sockets: self.sockets.get_or_create_owned(&label),
            received: self.received.get_or_create_owned(&label),
            delivered: self.delivered.get_or_create_owned(&label),
            acknowledged: self.acknowledged.get_or_create_owned(&label),
            resets: self.resets.get_or_create_owned(&label),
            lag: self.lag.get_or_create_owned(&label),
            errors: Code::ALL.map(|code| self.errors.get_or_create_owned(&coded(&code.as_str()))),
            closes: CLOSES.map(|code| self.closes.get_or_create_owned(&coded(&code))),
            other_close: self.closes.get_or_create_owned(&coded(&"other")),
        }
    }
}

impl Metrics {
    pub(super) fn error(&self, code: Code) {
        if let Some((_, counter)) =
            Code::ALL.iter().zip(&self.errors).find(|(one, _)| **one == code)
        {
            counter.inc();
        }
    }

    pub(super) fn closed(&self, code: u16) {
        let known = CLOSES.iter().zip(&self.closes).find(|(one, _)| **one == code);
        known.map_or(&self.other_close, |(_, counter)| counter).inc();
    }
}
