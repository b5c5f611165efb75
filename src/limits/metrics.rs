//! Counts of what the limits decided. Labels are names of the configuration.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;

use super::limit::Counts;
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
    sizes: Sizes,
}

/// A limit and its counts.
type Named = (Box<str>, Weak<Counts>);

/// What is remembered of keys; looked up when it is asked for.
#[derive(Clone, Debug, Default)]
struct Sizes {
    counts: Arc<Mutex<Vec<Named>>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabel {
    limit: String,
}

impl Sizes {
    fn of_each(&self) -> Vec<(LimitLabel, (usize, u64))> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of limits that a reload has taken away.
        counts.retain(|(_, counts)| counts.strong_count() > 0);
        let live = counts.iter().filter_map(|(name, counts)| Some((name, counts.upgrade()?)));
        live.map(|(name, counts)| (LimitLabel { limit: name.to_string() }, counts.table.size()))
            .collect()
    }
}

impl Collector for Sizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sizes = self.of_each();
        let help = "Keys that a rate limit remembers";
        let mut kept = encoder.encode_descriptor("limit_keys", help, None, MetricType::Gauge)?;
        for (label, (size, _)) in &sizes {
            let size = i64::try_from(*size).unwrap_or(i64::MAX);
            ConstGauge::new(size).encode(kept.encode_family(label)?)?;
        }
        let help = "Keys with something counted that went for want of room";
        let kind = MetricType::Counter;
        let mut gone = encoder.encode_descriptor("limit_keys_forgotten", help, None, kind)?;
        for (label, (_, forgotten)) in &sizes {
            ConstCounter::new(*forgotten).encode(gone.encode_family(label)?)?;
        }
        Ok(())
    }
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
        let sizes = Sizes::default();
        registry.register_collector(Box::new(sizes.clone()));
        Self { requests, sizes }
    }

    pub(super) fn of(&self, limit: &str) -> Series {
        let [passed, refused, unknown] = OUTCOMES.map(|outcome| {
            self.requests.get_or_create(&Labels { limit: limit.to_owned(), outcome }).clone()
        });
        Series { passed, refused, unknown }
    }

    /// Tells of what these counts remember from now on, as long as there are.
    pub(super) fn watch(&self, limit: &str, counts: &Arc<Counts>) {
        let mut all = self.sizes.counts.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(name, _)| **name != *limit);
        all.push((Box::from(limit), Arc::downgrade(counts)));
    }

    /// Drops the series of a limit that is no more.
    pub(super) fn forget(&self, limit: &str) {
        for outcome in OUTCOMES {
            self.requests.remove(&Labels { limit: limit.to_owned(), outcome });
        }
    }
}
