//! What is counted of a region's line, and of each backend.
//!
//! A backend's figures are in its `Upstream`, and read when somebody asks for the page: so they cost a request nothing
//! beyond what balancing needs, and those of a backend that is gone are gone with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

use crate::observability::Registry;
use crate::proxy::dial::Lookups;
use crate::proxy::shared::Shared;

type ByRegion = [(&'static str, String); 1];

/// The series of all lines, for those that come and go.
#[derive(Debug, Default)]
pub(in crate::proxy) struct QueueFamilies {
    length: Family<ByRegion, Gauge>,
    waits: Family<ByRegion, Counter>,
    timeouts: Family<ByRegion, Counter>,
    rejections: Family<ByRegion, Counter>,
    tier_changes: Family<ByRegion, Counter>,
}

impl QueueFamilies {
    pub(in crate::proxy) fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register(
            "proxy_queue_length",
            "Requests that wait for a backend with room",
            families.length.clone(),
        );
        registry.register(
            "proxy_queue_waits",
            "Requests that found every backend at its bound",
            families.waits.clone(),
        );
        registry.register(
            "proxy_queue_timeouts",
            "Requests that waited too long for a backend with room",
            families.timeouts.clone(),
        );
        registry.register(
            "proxy_queue_rejections",
            "Requests that found no place to wait",
            families.rejections.clone(),
        );
        registry.register(
            "proxy_tier_changes",
            "Times that another tier of backends began to serve",
            families.tier_changes.clone(),
        );
        families
    }

    pub(in crate::proxy) fn of(&self, region: &str) -> QueueSeries {
        let labels: ByRegion = [("region", region.to_owned())];
        QueueSeries {
            length: self.length.get_or_create_owned(&labels),
            waits: self.waits.get_or_create_owned(&labels),
            timeouts: self.timeouts.get_or_create_owned(&labels),
            rejections: self.rejections.get_or_create_owned(&labels),
            tier_changes: self.tier_changes.get_or_create_owned(&labels),
        }
    }

    pub(in crate::proxy) fn forget(&self, region: &str) {
        let labels: ByRegion = [("region", region.to_owned())];
        self.length.remove(&labels);
        self.waits.remove(&labels);
        self.timeouts.remove(&labels);
        self.rejections.remove(&labels);
        self.tier_changes.remove(&labels);
    }
}

/// The series of one region's line and tiers.
#[derive(Debug)]
pub(in crate::proxy) struct QueueSeries {
    length: Gauge,
    waits: Counter,
    pub(super) timeouts: Counter,
    pub(super) rejections: Counter,
    pub(super) tier_changes: Counter,
}

/// Counts a request that waits until it is dropped.
pub(super) struct Waiting<'a>(&'a QueueSeries);

impl<'a> Waiting<'a> {
    pub(super) fn begin(series: &'a QueueSeries) -> Self {
        series.waits.inc();
        series.length.inc();
        Self(series)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.length.dec();
    }
}

/// Reads the figures of all backends when they are asked for.
pub(in crate::proxy) struct BackendCollector(pub(in crate::proxy) Weak<Shared>);

impl fmt::Debug for BackendCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendCollector")
    }
}

/// What is read of one backend.
#[derive(Clone, Copy, Default)]
struct Figures {
    requests: u64,
    active: i64,
    /// How many of the name could not be reached a moment ago, …
    unreachable: i64,
    /// … and how many an operator has taken out.
    drained: i64,
    /// Of its name, where it has one.
    lookups: Option<Lookups>,
}

/// Its name, its help, and what it shows.
type Shown = (&'static str, &'static str, fn(&Figures) -> i64);

impl BackendCollector {
    /// By region and backend; of two that have one name, the sum.
    fn figures(&self) -> BTreeMap<[(&'static str, String); 2], Figures> {
        let mut all = BTreeMap::<_, Figures>::new();
        let Some(shared) = self.0.upgrade() else { return all };
        for region in &shared.table().regions {
            for upstream in region.upstreams() {
                let region = region.name.as_str().to_owned();
                let labels = [("region", region), ("backend", upstream.label.to_string())];
                let figures = all.entry(labels).or_default();
                figures.requests += upstream.requests();
                figures.active += i64::try_from(upstream.active()).unwrap_or(i64::MAX);
                figures.unreachable += i64::from(upstream.health.standing().unreachable);
                figures.drained += i64::from(upstream.is_draining());
                if let Some(name) = upstream.address.name() {
                    let (all, one) = (figures.lookups.get_or_insert_default(), name.lookups());
                    all.found += one.found;
                    all.failed += one.failed;
                }
            }
        }
        all
    }
}

impl Collector for BackendCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let all = self.figures();
        let counter = ConstCounter::new(0_u64).metric_type();
        let mut requests = encoder.encode_descriptor(
            "proxy_backend_requests",
            "Exchanges begun with a backend, tunnels among them",
            None,
            counter,
        )?;
        for (labels, figures) in &all {
            ConstCounter::new(figures.requests).encode(requests.encode_family(labels)?)?;
        }
        let gauges: [Shown; 3] = [
            (
                "proxy_backend_active",
                "Exchanges with a backend that are going on, tunnels among them",
                |figures| figures.active,
            ),
            (
                "proxy_backend_unreachable",
                "1 while a backend is passed over because it could not be reached (proxy.fail_timeout)",
                |figures| figures.unreachable,
            ),
            ("proxy_backend_drained", "1 while an operator has taken a backend out", |figures| {
                figures.drained
            }),
        ];
        for (name, help, figure) in gauges {
            let gauge = ConstGauge::new(0_i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, gauge)?;
            for (labels, figures) in &all {
                ConstGauge::new(figure(figures)).encode(family.encode_family(labels)?)?;
            }
        }
        let counter = ConstCounter::new(0_u64).metric_type();
        let mut lookups = encoder.encode_descriptor(
            "proxy_name_lookups",
            "Lookups of a backend's name, by result",
            None,
            counter,
        )?;
        for ([region, backend], figures) in &all {
            let Some(Lookups { found, failed }) = figures.lookups else { continue };
            for (result, count) in [("found", found), ("failed", failed)] {
                let labels = [region.clone(), backend.clone(), ("result", result.to_owned())];
                ConstCounter::new(count).encode(lookups.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
