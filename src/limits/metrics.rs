//! Counts of what the limits decided. Labels are names of the configuration.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::observability::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    limit: String,
    outcome: &'static str,
}

/// `unknown`: the bus could not be asked.
const OUTCOMES: [&str; 3] = ["passed", "refused", "unknown"];

/// The series of all limits; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct LimitMetrics {
    requests: Family<Labels, Counter>,
}

/// Handles of one limit's series.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) passed: Counter<u64, AtomicU64>,
    pub(super) refused: Counter<u64, AtomicU64>,
    pub(super) unknown: Counter<u64, AtomicU64>,
}

impl LimitMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let requests = Family::<Labels, Counter>::default();
        registry.register(
            "limited_requests",
            "Requests that a rate limit counted, by what became of them",
            requests.clone(),
        );
        Self { requests }
    }

    pub(super) fn of(&self, limit: &str) -> Series {
        let [passed, refused, unknown] = OUTCOMES.map(|outcome| {
            self.requests.get_or_create(&Labels { limit: limit.to_owned(), outcome }).clone()
        });
        Series { passed, refused, unknown }
    }

    /// Drops the series of a limit that is no more.
    pub(super) fn forget(&self, limit: &str) {
        for outcome in OUTCOMES {
            self.requests.remove(&Labels { limit: limit.to_owned(), outcome });
        }
    }
}
