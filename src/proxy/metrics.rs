//! What the proxy counts: by region, and by cause out of a closed set.
//!
//! Invariants: every series exists from the start, and its labels come from the settings; the handles
//! are held, so that counting is one atomic operation.

use std::array;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::backends::{QueueFamilies, QueueSeries};
use super::error::Cause;
use super::health::HealthFamilies;
use crate::observability::{Ending, Registry};
use crate::settings::RegionName;

type ByRegion = [(&'static str, String); 1];
type ByCause = [(&'static str, String); 2];

/// Status classes, with what is not a status of ours at the end.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "client_gone"];

/// The label of requests that named no region that exists.
const NO_REGION: &str = "none";

/// The series of all regions, for those that come and go.
#[derive(Debug)]
pub(super) struct Families {
    requests: Family<ByCause, Counter>,
    ends: Family<ByCause, Counter>,
    served_elsewhere: Family<ByRegion, Counter>,
    latency: Family<ByRegion, Histogram>,
    in_flight: Family<ByRegion, Gauge>,
    tunnels: Family<ByRegion, Gauge>,
    connects: Family<ByRegion, Counter>,
    reuses: Family<ByRegion, Counter>,
    retries: Family<ByRegion, Counter>,
    retries_refused: Family<ByRegion, Counter>,
    failovers: Family<ByRegion, Counter>,
    errors: Family<ByCause, Counter>,
    queue: QueueFamilies,
    pub(super) health: HealthFamilies,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self::empty(registry);
        families.register_requests(registry);
        families.register_backends(registry);
        families
    }

    fn empty(registry: &mut Registry) -> Self {
        // 0.5 ms to 16 s: what a proxied request takes, from a warm cache to a slow report.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        Self {
            requests: Family::default(),
            ends: Family::default(),
            served_elsewhere: Family::default(),
            latency: Family::new_with_constructor(histogram),
            in_flight: Family::default(),
            tunnels: Family::default(),
            connects: Family::default(),
            reuses: Family::default(),
            retries: Family::default(),
            retries_refused: Family::default(),
            failovers: Family::default(),
            errors: Family::default(),
            queue: QueueFamilies::register(registry),
            health: HealthFamilies::register(registry),
        }
    }

    fn register_requests(&self, registry: &mut Registry) {
        registry.register("http_requests", "Finished requests", self.requests.clone());
        registry.register(
            "http_ends",
            "Requests and tunnels for a region by how they ended",
            self.ends.clone(),
        );
        registry.register(
            "proxy_served_elsewhere",
            "Requests and tunnels for a region that another one served",
            self.served_elsewhere.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "From the request's head to the last byte of its answer",
            self.latency.clone(),
        );
    }

    fn register_backends(&self, registry: &mut Registry) {
        registry.register(
            "proxy_in_flight",
            "Exchanges with backends that are going on, tunnels among them",
            self.in_flight.clone(),
        );
        registry.register(
            "proxy_tunnels",
            "Tunnels to backends that are open",
            self.tunnels.clone(),
        );
        registry.register(
            "proxy_upstream_connects",
            "Connections opened to backends",
            self.connects.clone(),
        );
        registry.register(
            "proxy_upstream_reuses",
            "Requests sent on a kept connection",
            self.reuses.clone(),
        );
        let repeats = "Times that a request which may have been seen was sent again";
        registry.register("proxy_retries", repeats, self.retries.clone());
        let refused = "Times that the budget had nothing left for that";
        registry.register("proxy_retries_refused", refused, self.retries_refused.clone());
        let handed = "Requests of this region that were handed to another one";
        registry.register("proxy_failovers", handed, self.failovers.clone());
        registry.register(
            "proxy_upstream_errors",
            "Exchanges that failed at the backend",
            self.errors.clone(),
        );
    }

    /// For requests that named no region that exists.
    pub(super) fn of_none(&self) -> RequestSeries {
        self.requests_of(NO_REGION)
    }

    fn requests_of(&self, name: &str) -> RequestSeries {
        RequestSeries {
            classes: CLASSES
                .map(|class| self.requests.get_or_create_owned(&class_labels(name, class))),
            latency: self.latency.get_or_create_owned(&[("region", name.to_owned())]),
            ends: Ending::ALL.map(|end| self.ends.get_or_create_owned(&end_labels(name, end))),
        }
    }

    pub(super) fn of(&self, region: &RegionName) -> RegionSeries {
        let name = region.as_str().to_owned();
        let labels: ByRegion = [("region", name.clone())];
        RegionSeries {
            requests: self.requests_of(&name),
            served_elsewhere: self.served_elsewhere.get_or_create_owned(&labels),
            in_flight: self.in_flight.get_or_create_owned(&labels),
            tunnels: self.tunnels.get_or_create_owned(&labels),
            connects: self.connects.get_or_create_owned(&labels),
            reuses: self.reuses.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            retries_refused: self.retries_refused.get_or_create_owned(&labels),
            failovers: self.failovers.get_or_create_owned(&labels),
            queue: self.queue.of(&name),
            errors: array::from_fn(|index| {
                let cause = Cause::ALL.get(index).copied().unwrap_or(Cause::Stalled);
                self.errors.get_or_create_owned(&cause_labels(&name, cause))
            }),
        }
    }
}

impl Families {
    /// Takes away the series of a region that is not there any more.
    pub(super) fn forget(&self, region: &RegionName) {
        let name = region.as_str();
        let labels: ByRegion = [("region", name.to_owned())];
        for class in CLASSES {
            self.requests.remove(&class_labels(name, class));
        }
        for end in Ending::ALL {
            self.ends.remove(&end_labels(name, end));
        }
        self.served_elsewhere.remove(&labels);
        self.latency.remove(&labels);
        self.in_flight.remove(&labels);
        self.tunnels.remove(&labels);
        self.connects.remove(&labels);
        self.reuses.remove(&labels);
        self.retries.remove(&labels);
        self.retries_refused.remove(&labels);
        self.failovers.remove(&labels);
        self.queue.forget(name);
        for cause in Cause::ALL {
            self.errors.remove(&cause_labels(name, cause));
        }
    }
}

fn class_labels(region: &str, class: &str) -> ByCause {
    [("region", region.to_owned()), ("class", class.to_owned())]
}

fn end_labels(region: &str, end: Ending) -> ByCause {
    [("region", region.to_owned()), ("end", end.as_str().to_owned())]
}

fn cause_labels(region: &str, cause: Cause) -> ByCause {
    [("region", region.to_owned()), ("cause", cause.label().to_owned())]
}

/// Finished requests, by the class of their answer, and how long they took.
#[derive(Debug)]
pub(super) struct RequestSeries {
    classes: [Counter<u64, AtomicU64>; CLASSES.len()],
    latency: Histogram,
    ends: [Counter; Ending::ALL.len()],
}

impl RequestSeries {
    /// An exchange or a tunnel is over.
    pub(super) fn ended(&self, end: Ending) {
        if let Some(counter) = self.ends.get(end as usize) {
            counter.inc();
        }
    }

    pub(super) fn finished(&self, status: u16, took: Duration, end: Ending) {
        self.ended(end);
        let class = match status {
            499 => 5,
            200..300 => 1,
            100..200 => 0,
            300..400 => 2,
            400..500 => 3,
            _ => 4,
        };
        if let Some(counter) = self.classes.get(class) {
            counter.inc();
        }
        self.latency.observe(took.as_secs_f64());
    }
}

/// The series of one region.
#[derive(Debug)]
pub(super) struct RegionSeries {
    pub(super) requests: RequestSeries,
    pub(super) served_elsewhere: Counter,
    pub(super) in_flight: Gauge,
    pub(super) tunnels: Gauge,
    pub(super) connects: Counter,
    pub(super) reuses: Counter,
    pub(super) retries: Counter,
    pub(super) retries_refused: Counter,
    pub(super) failovers: Counter,
    pub(super) queue: QueueSeries,
    errors: [Counter; Cause::ALL.len()],
}

impl RegionSeries {
    pub(super) fn failed(&self, cause: Cause) {
        if let Some(counter) = self.errors.get(cause as usize) {
            counter.inc();
        }
    }
}
