//! Whether the bus works: only when both connections stand and a probe has come back through them.
//!
//! Invariant: losing a connection voids the proof, so that [`BusState::Up`] is always said after a probe
//! made since.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::BusState;
use crate::bus::metrics::Metrics;

/// What must work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The connection that publishes and reads.
    Commands,
    /// The connection that listens, with all that was wanted restored.
    Subscriber,
    /// The way from one to the other.
    Probe,
}

/// Why each part does not work; `None` where it does.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    commands: Option<Arc<str>>,
    subscriber: Option<Arc<str>>,
    probe: Option<Arc<str>>,
}

impl Parts {
    /// Both connections stand, so that a probe has a way to go.
    pub(super) fn connected(&self) -> bool {
        self.commands.is_none() && self.subscriber.is_none()
    }

    pub(super) fn proven(&self) -> bool {
        self.probe.is_none()
    }

    fn state(&self) -> BusState {
        match self.commands.as_ref().or(self.subscriber.as_ref()).or(self.probe.as_ref()) {
            Some(why) => BusState::Down(Arc::clone(why)),
            None => BusState::Up,
        }
    }
}

/// The parts, and the verdict for everyone else.
pub(super) struct Health {
    parts: watch::Sender<Parts>,
    state: watch::Sender<BusState>,
    metrics: Metrics,
    /// What tells the bus to end.
    stop: OnceLock<CancellationToken>,
}

impl Health {
    pub(super) fn new(metrics: Metrics) -> Self {
        let not_yet: Arc<str> = Arc::from("not connected to Redis yet");
        let parts = Parts {
            commands: Some(Arc::clone(&not_yet)),
            subscriber: Some(Arc::clone(&not_yet)),
            probe: Some(not_yet),
        };
        let state = watch::Sender::new(parts.state());
        Self { parts: watch::Sender::new(parts), state, metrics, stop: OnceLock::new() }
    }

    /// From when this is cancelled, going down is what was asked for, and no warning.
    pub(super) fn expect_end(&self, stop: &CancellationToken) {
        drop(self.stop.set(stop.clone()));
    }

    pub(super) fn up(&self, part: Part) {
        self.set(part, None);
    }

    pub(super) fn down(&self, part: Part, why: &Arc<str>) {
        self.set(part, Some(Arc::clone(why)));
    }

    pub(super) fn parts(&self) -> watch::Receiver<Parts> {
        self.parts.subscribe()
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    fn set(&self, part: Part, why: Option<Arc<str>>) {
        // The verdict is given while the parts are held: two parts that change at once leave the right one.
        self.parts.send_modify(|parts| {
            match part {
                Part::Commands | Part::Subscriber if why.is_some() => {
                    parts.probe = Some(Arc::from("no probe has come back through Redis yet"));
                }
                _ => {}
            }
            match part {
                Part::Commands => parts.commands = why,
                Part::Subscriber => parts.subscriber = why,
                // A probe that came back late proves nothing of connections made since.
                Part::Probe if why.is_none() && !parts.connected() => {}
                Part::Probe => parts.probe = why,
            }
            self.tell(parts.state());
        });
    }

    fn is_stopping(&self) -> bool {
        self.stop.get().is_some_and(CancellationToken::is_cancelled)
    }

    fn tell(&self, verdict: BusState) {
        self.state.send_if_modified(|state| {
            let turned = (verdict == BusState::Up) != (*state == BusState::Up);
            if turned {
                match &verdict {
                    BusState::Up => tracing::info!(target: "Bus", "the bus works"),
                    BusState::Down(_) if self.is_stopping() => {
                        tracing::info!(target: "Bus", "the bus has ended");
                    }
                    BusState::Down(why) => tracing::warn!(target: "Bus", "the bus is down: {why}"),
                }
                self.metrics.up.set(i64::from(verdict == BusState::Up));
            }
            let changed = *state != verdict;
            *state = verdict;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::Registry;

    #[test]
    fn up_is_said_only_after_a_probe_made_since() {
        let health = Health::new(Metrics::new(&mut Registry::default()));
        let state = health.state();
        let is_up = || *state.borrow() == BusState::Up;
        health.up(Part::Commands);
        health.up(Part::Subscriber);
        assert!(!is_up());
        health.up(Part::Probe);
        assert!(is_up());
        health.down(Part::Subscriber, &Arc::from("gone"));
        assert_eq!(*state.borrow(), BusState::Down(Arc::from("gone")));
        health.up(Part::Probe);
        health.up(Part::Subscriber);
        assert!(!is_up(), "the old proof still counts");
        health.up(Part::Probe);
        assert!(is_up());
        assert_eq!(health.metrics.up.get(), 1);
    }
}
