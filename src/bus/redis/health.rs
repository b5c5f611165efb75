//! Whether one shard works: only when both connections stand and a probe has come back through them.
//!
//! Invariant: losing a connection voids the proof, so that a shard is said to work always after a probe
//! made since.

use std::sync::Arc;

use tokio::sync::watch;

use super::verdict::{Member, Verdict};

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

    fn why(&self) -> Option<Arc<str>> {
        self.commands.as_ref().or(self.subscriber.as_ref()).or(self.probe.as_ref()).cloned()
    }
}

/// The parts of one shard, and the verdict on all.
pub(super) struct Health {
    parts: watch::Sender<Parts>,
    member: Member,
    verdict: Arc<Verdict>,
}

impl Health {
    pub(super) fn new(member: Member, verdict: Arc<Verdict>) -> Self {
        let not_yet: Arc<str> = Arc::from("not connected to Redis yet");
        verdict.add(member, &not_yet);
        let parts = Parts {
            commands: Some(Arc::clone(&not_yet)),
            subscriber: Some(Arc::clone(&not_yet)),
            probe: Some(not_yet),
        };
        Self { parts: watch::Sender::new(parts), member, verdict }
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
            self.verdict.set(self.member, parts.why());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::BusState;
    use crate::bus::metrics::Metrics;
    use crate::observability::Registry;

    #[test]
    fn up_is_said_only_after_a_probe_made_since() {
        let verdict = Verdict::new(Metrics::new(&mut Registry::default()));
        let health = Health::new(1, Arc::clone(&verdict));
        let state = verdict.state();
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
    }
}
