//! What is counted of a backend's health. Series live as long as some backend of their labels does.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rustc_hash::FxHashMap;

use crate::observability::Registry;

/// Region and backend.
type Labels = [(&'static str, String); 2];
/// And one thing more.
type MoreLabels = [(&'static str, String); 3];

/// Who may call a backend unfit.
const JUDGES: [&str; 3] = ["probes", "passive", "breaker"];
const REASONS: [&str; 2] = ["consecutive", "rate"];
const RESULTS: [&str; 2] = ["pass", "fail"];

/// The series of all backends.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct HealthFamilies {
    up: Family<MoreLabels, Gauge>,
    probes: Family<MoreLabels, Counter>,
    ejections: Family<MoreLabels, Counter>,
    breaker: Family<Labels, Gauge>,
    opened: Family<Labels, Counter>,
    /// How many backends share a set of labels: over a reload an old and a new one may for a while.
    shared: Arc<Mutex<FxHashMap<Labels, usize>>>,
}

impl HealthFamilies {
    pub(in crate::proxy) fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register(
            "proxy_backend_up",
            "Whether a backend is fit, by who judges it (probes, passive, breaker)",
            families.up.clone(),
        );
        registry.register(
            "proxy_health_probes",
            "Probes of backends, by their result",
            families.probes.clone(),
        );
        registry.register(
            "proxy_backend_ejections",
            "Ejections of backends, by what their exchanges did",
            families.ejections.clone(),
        );
        registry.register(
            "proxy_breaker_state",
            "Breakers of backends: 0 closed, 1 half-open, 2 open",
            families.breaker.clone(),
        );
        registry.register(
            "proxy_breaker_opened",
            "How often breakers of backends opened",
            families.opened.clone(),
        );
        families
    }

    pub(super) fn of(&self, region: &str, backend: &str) -> HealthSeries {
        let labels = [("region", region.to_owned()), ("backend", backend.to_owned())];
        *self.shared().entry(labels.clone()).or_default() += 1;
        let more = |name, value| more(&labels, name, value);
        let series = HealthSeries {
            up: JUDGES.map(|judge| self.up.get_or_create_owned(&more("by", judge))),
            probes: RESULTS.map(|result| self.probes.get_or_create_owned(&more("result", result))),
            ejections: REASONS
                .map(|reason| self.ejections.get_or_create_owned(&more("reason", reason))),
            breaker: self.breaker.get_or_create_owned(&labels),
            opened: self.opened.get_or_create_owned(&labels),
            families: self.clone(),
            labels,
        };
        for up in &series.up {
            up.set(1);
        }
        series
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, FxHashMap<Labels, usize>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn more(labels: &Labels, name: &'static str, value: &str) -> MoreLabels {
    let [region, backend] = labels.clone();
    [region, backend, (name, value.to_owned())]
}

/// The series of one backend.
#[derive(Debug)]
pub(super) struct HealthSeries {
    up: [Gauge; JUDGES.len()],
    probes: [Counter; RESULTS.len()],
    ejections: [Counter; REASONS.len()],
    pub(super) breaker: Gauge,
    pub(super) opened: Counter,
    families: HealthFamilies,
    labels: Labels,
}

/// Who calls a backend fit or not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judge {
    Probes,
    Passive,
    Breaker,
}

impl HealthSeries {
    pub(super) fn region(&self) -> &str {
        let [(_, region), _] = &self.labels;
        region
    }

    pub(super) fn backend(&self) -> &str {
        let [_, (_, backend)] = &self.labels;
        backend
    }

    pub(super) fn judged(&self, judge: Judge, fit: bool) {
        if let Some(up) = self.up.get(judge as usize) {
            up.set(i64::from(fit));
        }
    }

    pub(super) fn probed(&self, well: bool) {
        let [pass, fail] = &self.probes;
        if well { pass } else { fail }.inc();
    }

    pub(super) fn ejected(&self, by_rate: bool) {
        let [consecutive, rate] = &self.ejections;
        if by_rate { rate } else { consecutive }.inc();
    }
}

impl Drop for HealthSeries {
    fn drop(&mut self) {
        let (families, labels) = (&self.families, &self.labels);
        let mut shared = families.shared();
        if let Some(count) = shared.get_mut(labels) {
            *count -= 1;
            if *count > 0 {
                return;
            }
        }
        shared.remove(labels);
        for judge in JUDGES {
            families.up.remove(&more(labels, "by", judge));
        }
        for result in RESULTS {
            families.probes.remove(&more(labels, "result", result));
        }
        for reason in REASONS {
            families.ejections.remove(&more(labels, "reason", reason));
        }
        families.breaker.remove(labels);
        families.opened.remove(labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::encode;

    #[test]
    fn series_go_with_the_last_backend_that_has_them() {
        let mut registry = Registry::default();
        let families = HealthFamilies::register(&mut registry);
        let lines = |registry: &Registry| {
            let text = encode(registry).unwrap();
            text.lines().filter(|line| line.contains("a:1")).count()
        };
        let (one, other) = (families.of("1", "a:1"), families.of("1", "a:1"));
        let all = lines(&registry);
        assert_eq!(all, JUDGES.len() + RESULTS.len() + REASONS.len() + 2);
        drop(one);
        assert_eq!(lines(&registry), all);
        drop(other);
        assert_eq!(lines(&registry), 0);
    }
}
