//! Counts of the public listeners: requests by region and class, and how long they took.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::observability::Registry;
use crate::proxy::RegionId;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    region: String,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RegionLabels {
    region: String,
}

/// Status classes, with what is not a status of ours at the end.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "client_gone"];

/// The label of requests that named no region that exists.
const NO_REGION: &str = "none";

#[derive(Debug)]
struct OfRegion {
    classes: [Counter<u64, AtomicU64>; CLASSES.len()],
    latency: Histogram,
}

/// Handles of the series, by region; held, because a look-up by name costs ten times an increment.
#[derive(Debug)]
pub(super) struct EdgeMetrics {
    regions: Vec<OfRegion>,
    none: OfRegion,
    pub(super) connections: Gauge,
    pub(super) accept_errors: Counter,
}

impl EdgeMetrics {
    pub(super) fn new<'a>(regions: impl Iterator<Item = &'a str>, registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        // 0.5 ms to 16 s: what a proxied request takes, from a warm cache to a slow report.
        let latency = Family::<RegionLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
        });
        let of_region = |name: &str| OfRegion {
            classes: CLASSES.map(|class| {
                requests.get_or_create(&RequestLabels { region: name.to_owned(), class }).clone()
            }),
            latency: latency.get_or_create(&RegionLabels { region: name.to_owned() }).clone(),
        };
        let metrics = Self {
            regions: regions.map(of_region).collect(),
            none: of_region(NO_REGION),
            connections: Gauge::default(),
            accept_errors: Counter::default(),
        };
        registry.register("http_requests", "Finished requests", requests);
        registry.register(
            "http_request_duration_seconds",
            "From the request's head to the last byte of its answer",
            latency,
        );
        registry.register(
            "http_connections",
            "Open HTTP connections of clients",
            metrics.connections.clone(),
        );
        registry.register(
            "http_accept_errors",
            "Connections the system refused to hand over",
            metrics.accept_errors.clone(),
        );
        metrics
    }

    pub(super) fn request(&self, region: Option<RegionId>, status: u16, took: Duration) {
        let of = region.and_then(|region| self.regions.get(region.index())).unwrap_or(&self.none);
        let class = match status {
            499 => 5,
            200..300 => 1,
            100..200 => 0,
            300..400 => 2,
            400..500 => 3,
            _ => 4,
        };
        if let Some(counter) = of.classes.get(class) {
            counter.inc();
        }
        of.latency.observe(took.as_secs_f64());
    }
}
