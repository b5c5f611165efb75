//! The task that has time pass for the health of all backends, and sends the probes.
//!
//! Each tick looks at the table that there is now: a backend that joined is probed at once, one that left no more. A
//! backend has no more than one probe on its way, and all together have a bound, so that many that hang take neither
//! memory nor the turn of the others for long.
//!
//! Invariants: the task owns its probes, and they end with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::probe::probe;
use super::rules::Rules;
use super::state::Health;
use crate::proxy::Shared;
use crate::proxy::backends::Upstream;
use crate::settings::HealthSettings;

/// How often windows and what is due are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Probes on their way at once.
const AT_ONCE: usize = 64;
/// Until a backend was up once, it is probed this often at least.
const QUICK: Duration = Duration::from_secs(1);

/// When each backend is probed next, by its id.
#[derive(Debug, Default)]
struct Schedule(FxHashMap<u64, Plan>);

#[derive(Debug)]
struct Plan {
    due: Instant,
    /// The probe that is on its way.
    running: Option<task::Id>,
    /// The tick in which the table had it last.
    seen: u64,
}

impl Schedule {
    /// Since when the backend is to be probed, if it is.
    fn due(&mut self, id: u64, now: Instant, tick: u64) -> Option<Instant> {
        let new = || Plan { due: now, running: None, seen: tick };
        let plan = self.0.entry(id).or_insert_with(new);
        plan.seen = tick;
        (plan.running.is_none() && plan.due <= now).then_some(plan.due)
    }

    fn begin(&mut self, id: u64, probe: task::Id) {
        if let Some(plan) = self.0.get_mut(&id) {
            plan.running = Some(probe);
        }
    }

    /// A probe has ended, and the next one comes after `pause`.
    fn end(&mut self, probe: task::Id, now: Instant, pause: Duration) {
        if let Some(plan) = self.0.values_mut().find(|plan| plan.running == Some(probe)) {
            plan.running = None;
            plan.due = now + pause;
        }
    }

    /// Forgets those that the table had no more in this tick, and whose probes are over.
    fn sweep(&mut self, tick: u64) {
        self.0.retain(|_, plan| plan.running.is_some() || plan.seen == tick);
    }
}

/// An interval, give or take a tenth. `chance` is from 0 to 1.
fn jittered(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0))
}

/// The pause after a probe.
fn pause(settings: &HealthSettings, health: &Health) -> Duration {
    let interval = settings.interval;
    let interval = if health.awaits_probe() { interval.min(QUICK) } else { interval };
    jittered(interval, fastrand::f64())
}

/// Watches over the health of all backends until `stop`.
pub(in crate::proxy) async fn watch(shared: &Shared, stop: CancellationToken) {
    let mut schedule = Schedule::default();
    let mut probes: JoinSet<Duration> = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                tick += 1;
                look(shared, &mut schedule, &mut probes, tick);
                schedule.sweep(tick);
            }
            Some(ended) = probes.join_next_with_id() => {
                let (probe, pause) = ended.unwrap_or_else(|error| {
                    tracing::error!(target: "Proxy", "a probe ended by a fault of ours: {error}");
                    (error.id(), QUICK)
                });
                schedule.end(probe, Instant::now(), pause);
            }
            () = stop.cancelled() => break,
        }
    }
    probes.shutdown().await;
}

fn look(shared: &Shared, schedule: &mut Schedule, probes: &mut JoinSet<Duration>, tick: u64) {
    let now = Instant::now();
    let table = shared.table();
    let mut due: Vec<(Instant, &Arc<Upstream>, Arc<Rules>)> = Vec::new();
    for region in &table.regions {
        for upstream in region.upstreams() {
            pass_time(upstream);
            let rules = upstream.health.rules();
            if rules.probe.is_some()
                && let Some(since) = schedule.due(upstream.id, now, tick)
            {
                due.push((since, upstream, rules));
            }
        }
        region.backends.watch_share();
        region.call_home();
    }
    // Who has waited longest comes first: else those that hang, and are due again, would keep the last ones waiting.
    due.sort_by_key(|(since, ..)| *since);
    for (_, upstream, rules) in due.into_iter().take(AT_ONCE.saturating_sub(probes.len())) {
        let probe = probes.spawn(probe_once(Arc::clone(upstream), rules));
        schedule.begin(upstream.id, probe.id());
    }
}

/// Has time pass for a backend; who waits for one like it hears that it is there again.
fn pass_time(upstream: &Upstream) {
    let before = upstream.health.marks();
    upstream.health.tick();
    if upstream.health.marks() != before {
        upstream.ring();
    }
}

/// Probes a backend, and says how long to wait until the next time.
async fn probe_once(upstream: Arc<Upstream>, rules: Arc<Rules>) -> Duration {
    let Some(settings) = &rules.probe else { return TICK };
    let began = Instant::now();
    let result = probe(&upstream, settings).await;
    let before = upstream.health.marks();
    upstream.health.probed(result, began.elapsed());
    if upstream.health.marks() != before {
        upstream.ring();
    }
    pause(settings, &upstream.health)
}

/// Tells once when more of a region should be ejected than may be, and once when that is over.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ShareWatch(AtomicBool);

impl ShareWatch {
    pub(in crate::proxy) fn look(&self, region: &str, exceeded: bool) {
        if self.0.swap(exceeded, Ordering::Relaxed) == exceeded {
            return;
        }
        if exceeded {
            tracing::warn!(target: "Proxy", region, "more backends fail than may be ejected");
        } else {
            tracing::info!(target: "Proxy", region, "no more backends fail than may be ejected");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn jitter_stays_within_a_tenth(millis in 1_u64..100_000, chance in 0.0_f64..=1.0) {
            let interval = Duration::from_millis(millis);
            let jittered = jittered(interval, chance);
            prop_assert!(jittered >= interval.mul_f64(0.899) && jittered <= interval.mul_f64(1.101));
        }
    }

    /// The id of some task.
    async fn some_probe() -> task::Id {
        let mut set = JoinSet::new();
        let id = set.spawn(async {}).id();
        set.join_next().await;
        id
    }

    #[tokio::test]
    async fn nobody_is_probed_twice_at_once() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let (later, pause) = (now + Duration::from_secs(9), Duration::from_secs(5));
        let probe = some_probe().await;
        assert_eq!(schedule.due(1, now, 1), Some(now), "a new one at once");
        schedule.begin(1, probe);
        assert_eq!(schedule.due(1, later, 2), None, "it hangs");
        schedule.end(probe, later, pause);
        assert_eq!(schedule.due(1, later, 3), None, "not yet");
        let long_after = later + pause + pause;
        assert_eq!(schedule.due(1, long_after, 4), Some(later + pause), "it has waited");
    }

    #[tokio::test]
    async fn who_left_is_forgotten_when_its_probe_is_over() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let probe = some_probe().await;
        schedule.due(1, now, 1);
        schedule.begin(1, probe);
        schedule.sweep(2);
        assert_eq!(schedule.0.len(), 1, "its probe still runs");
        schedule.end(probe, now, Duration::ZERO);
        schedule.sweep(3);
        assert!(schedule.0.is_empty());
    }
}
