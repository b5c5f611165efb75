//! Whether the bus as a whole works: only while every shard does.
//!
//! Invariant: the verdict changes while the shards are held, so that two that change at once leave the right one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::BusState;
use crate::bus::metrics::Metrics;

/// The name of one thing that must work: a shard, or [`LAYOUT`].
pub(super) type Member = u64;

/// What a Cluster must know before it has shards; numbers of shards are larger.
pub(super) const LAYOUT: Member = 0;

/// The only shard, where there is one.
pub(super) const FIRST: Member = 1;

/// The verdict for everyone else.
pub(super) struct Verdict {
    members: Mutex<BTreeMap<Member, Option<Arc<str>>>>,
    state: watch::Sender<BusState>,
    metrics: Metrics,
    /// What tells the bus to end.
    stop: OnceLock<CancellationToken>,
}

impl Verdict {
    pub(super) fn new(metrics: Metrics) -> Arc<Self> {
        let state = BusState::Down(Arc::from("not connected to Redis yet"));
        Arc::new(Self {
            members: Mutex::default(),
            state: watch::Sender::new(state),
            metrics,
            stop: OnceLock::new(),
        })
    }

    /// From when this is cancelled, going down is what was asked for, and no warning.
    pub(super) fn expect_end(&self, stop: &CancellationToken) {
        drop(self.stop.set(stop.clone()));
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    /// From now on `member` must work, too; not yet, for this reason.
    pub(super) fn add(&self, member: Member, why: &str) {
        self.change(|members| drop(members.insert(member, Some(Arc::from(why)))));
    }

    /// Says why `member` does not work, or that it does. One that was removed has no say.
    pub(super) fn set(&self, member: Member, why: Option<Arc<str>>) {
        self.change(|members| {
            if let Some(said) = members.get_mut(&member) {
                *said = why;
            }
        });
    }

    /// `member` is no part of the bus any more.
    pub(super) fn remove(&self, member: Member) {
        self.change(|members| drop(members.remove(&member)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Member, Option<Arc<str>>>)) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut members);
        let why = members.values().find_map(Option::as_ref);
        self.tell(why.map_or(BusState::Up, |why| BusState::Down(Arc::clone(why))));
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
    fn the_bus_works_while_every_member_does() {
        let verdict = Verdict::new(Metrics::new(&mut Registry::default()));
        let state = verdict.state();
        let down = |why: &str| BusState::Down(Arc::from(why));
        verdict.add(1, "one");
        verdict.add(2, "two");
        assert_eq!(*state.borrow(), down("one"));
        verdict.set(1, None);
        assert_eq!(*state.borrow(), down("two"));
        verdict.remove(2);
        verdict.set(2, Some(Arc::from("late")));
        assert_eq!(*state.borrow(), BusState::Up);
        assert_eq!(verdict.metrics.up.get(), 1);
        verdict.set(1, Some(Arc::from("again")));
        assert_eq!(*state.borrow(), down("again"));
        assert_eq!(verdict.metrics.up.get(), 0);
    }
}
