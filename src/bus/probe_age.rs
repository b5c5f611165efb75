//! How long ago it was last proven that messages come through; computed when it is asked for.
//!
//! Invariant: of several servers the one that was proven longest ago counts. One that is no more counts no more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

/// When each server was proven last.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeAges {
    servers: Arc<Mutex<Vec<Weak<Mutex<Instant>>>>>,
}

/// When one server was proven last; before its first proof, since when it is waited for.
#[derive(Debug)]
pub(super) struct Proven(Arc<Mutex<Instant>>);

impl ProbeAges {
    /// Another server that is to be proven.
    pub(super) fn add(&self) -> Proven {
        let when = Arc::new(Mutex::new(Instant::now()));
        let mut servers = lock(&self.servers);
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(&when));
        Proven(when)
    }

    /// In seconds; nothing where there is nothing to prove.
    fn oldest(&self) -> Option<f64> {
        let servers = lock(&self.servers);
        let times = servers.iter().filter_map(Weak::upgrade).map(|when| *lock(&when));
        times.min().map(|oldest| oldest.elapsed().as_secs_f64())
    }
}

impl Proven {
    pub(super) fn now(&self) {
        *lock(&self.0) = Instant::now();
    }
}

impl Collector for ProbeAges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(age) = self.oldest() else { return Ok(()) };
        let help = "Seconds since a probe last came back through every server";
        let metric =
            encoder.encode_descriptor("probe_age_seconds", help, None, MetricType::Gauge)?;
        ConstGauge::new(age).encode(metric)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observability::Registry;

    #[tokio::test(start_paused = true)]
    async fn the_longest_unproven_server_counts() {
        let ages = ProbeAges::default();
        let mut registry = Registry::default();
        let collector = Box::new(ages.clone());
        registry.sub_registry_with_prefix("bus").register_collector(collector);
        let page = || {
            let mut page = String::new();
            prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
            page
        };
        assert!(!page().contains("probe_age"), "{}", page());
        let (one, two) = (ages.add(), ages.add());
        tokio::time::advance(Duration::from_secs(3)).await;
        one.now();
        assert!(page().contains("bus_probe_age_seconds 3.0\n"), "{}", page());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(two);
        assert!(page().contains("bus_probe_age_seconds 1.0\n"), "{}", page());
    }
}
