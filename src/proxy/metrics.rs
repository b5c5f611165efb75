//! What the proxy counts: by region, and by cause out of a closed set.
//!
//! Invariants: every series exists from the start, and its labels come from the settings; the handles
//! are held, so that counting is one atomic operation.

use std::array;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::error::Cause;
use crate::observability::Registry;
use crate::settings::RegionName;

type ByRegion = [(&'static str, String); 1];
type ByCause = [(&'static str, String); 2];

/// The series of all regions; kept only while they are handed out.
pub(super) struct Families {
    in_flight: Family<ByRegion, Gauge>,
    tunnels: Family<ByRegion, Gauge>,
    connects: Family<ByRegion, Counter>,
    reuses: Family<ByRegion, Counter>,
    errors: Family<ByCause, Counter>,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            in_flight: Family::default(),
            tunnels: Family::default(),
            connects: Family::default(),
            reuses: Family::default(),
            errors: Family::default(),
        };
        registry.register(
            "proxy_in_flight",
            "Exchanges with backends that are going on, tunnels among them",
            families.in_flight.clone(),
        );
        registry.register(
            "proxy_tunnels",
            "Tunnels to backends that are open",
            families.tunnels.clone(),
        );
        registry.register(
            "proxy_upstream_connects",
            "Connections opened to backends",
            families.connects.clone(),
        );
        registry.register(
            "proxy_upstream_reuses",
            "Requests sent on a kept connection",
            families.reuses.clone(),
        );
        registry.register(
            "proxy_upstream_errors",
            "Exchanges that failed at the backend",
            families.errors.clone(),
        );
        families
    }

    pub(super) fn of(&self, region: &RegionName) -> RegionSeries {
        let name = region.as_str().to_owned();
        let labels: ByRegion = [("region", name.clone())];
        RegionSeries {
            in_flight: self.in_flight.get_or_create_owned(&labels),
            tunnels: self.tunnels.get_or_create_owned(&labels),
            connects: self.connects.get_or_create_owned(&labels),
            reuses: self.reuses.get_or_create_owned(&labels),
            errors: array::from_fn(|index| {
                let cause = Cause::ALL.get(index).map_or("other", |cause| cause.label());
                let labels = [("region", name.clone()), ("cause", cause.to_owned())];
                self.errors.get_or_create_owned(&labels)
            }),
        }
    }
}

/// The series of one region.
#[derive(Debug)]
pub(super) struct RegionSeries {
    pub(super) in_flight: Gauge,
    pub(super) tunnels: Gauge,
    pub(super) connects: Counter,
    pub(super) reuses: Counter,
    errors: [Counter; Cause::ALL.len()],
}

impl RegionSeries {
    pub(super) fn failed(&self, cause: Cause) {
        if let Some(counter) = self.errors.get(cause as usize) {
            counter.inc();
        }
    }
}
