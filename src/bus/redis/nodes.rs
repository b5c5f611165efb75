//! Which nodes share the bus, and which of them are dead.
//!
//! Walk: every node beats, four times a lease, and sees with each beat the last one of every other (the loops are in `settle`).
//! One that has not beaten for most of a lease is buried, unless it has beaten since; all others see its grave with their
//! next beat. Dead is who has a grave, or is not known at all.
//!
//! Invariants: a beat is judged by how long it has not changed for this node, never by comparing clocks; a node that was
//! itself out of touch judges nobody until a lease has passed; death is final, so one that was buried while it lived learns
//! of it by its next beat, and goes on under another name. What a node costs while nothing happens does not depend on users or sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::seat_script::{Dead, View};
use crate::bus::metrics::Metrics;

/// A beat that failed is tried again after this time, or sooner where the lease is short.
const RETRY: Duration = Duration::from_millis(250);

/// The nodes as this one sees them.
pub(super) struct Nodes {
    /// Begins the names of this one.
    base: String,
    lease: Duration,
    seen: Mutex<Seen>,
    changed: Notify,
    metrics: Metrics,
}

struct Seen {
    /// This node's present name, and its number in the order of them.
    own: (Arc<str>, u64),
    peers: HashMap<String, Peer>,
    gone: HashMap<String, u64>,
    /// When the last view was asked for, and what the server's clock said.
    last: Option<(Instant, u64)>,
    /// From when on no beat of this node's was missed, and none of the registry's data.
    steady: Instant,
    /// After an outage: until then seats are said again without asking for the users' limits.
    lenient_until: Option<Instant>,
    changes: Changes,
}

/// Another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    beat: u64,
    /// Since when, by this node's own clock, it has not beaten.
    since: Instant,
}

/// What happened, for those whom it concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// A node died or left: its users may be offline.
    pub(super) deaths: bool,
    /// This node was taken for dead: its seats may be others' now.
    pub(super) buried: bool,
    /// This node was forgotten, or was out of touch: what it said may be lost.
    pub(super) lapsed: bool,
}

impl Nodes {
    pub(super) fn new(id: &str, lease: Duration, metrics: Metrics) -> Self {
        let seen = Seen {
            own: (name(id, 1), 1),
            peers: HashMap::new(),
            gone: HashMap::new(),
            last: None,
            steady: Instant::now(),
            lenient_until: None,
            changes: Changes::default(),
        };
        let (seen, changed) = (Mutex::new(seen), Notify::new());
        Self { base: id.to_owned(), lease, seen, changed, metrics }
    }

    /// What this node is called at present.
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.lock().own.0)
    }

    /// Takes another name, unless it is not called `buried` any more.
    pub(super) fn rename(&self, buried: &str) {
        let mut seen = self.lock();
        if *seen.own.0 == *buried {
            let number = seen.own.1 + 1;
            seen.own = (name(&self.base, number), number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From one beat to the next.
    fn every(&self) -> Duration {
        self.lease / 4
    }

    /// A node that has not beaten for so long is dead. With what it takes to see that, and to act, it is less than a
    /// lease from a kill to its consequences.
    fn silence(&self) -> Duration {
        self.lease / 8 * 5
    }

    /// How long to wait before another try where a beat failed.
    pub(super) fn retry(&self) -> Duration {
        RETRY.min(self.lease / 16)
    }

    /// When the next view is due: for the own beat, or to see whether another node has beaten.
    pub(super) fn next(&self) -> Instant {
        let seen = self.lock();
        let Some((last, _)) = seen.last else { return Instant::now() };
        let suspicion = seen.peers.values().map(|peer| peer.since + self.silence());
        suspicion.fold(last + self.every(), Instant::min)
    }

    /// Takes a view that was asked for at `asked`.
    pub(super) fn saw(&self, view: View, asked: Instant) {
        let mut seen = self.lock();
        // Not by the server's clock: that of a promoted replica may be behind its primary's.
        if seen.last.is_some_and(|(last, _)| last > asked) && !view.new {
            // One that was asked for later has come already.
            return;
        }
        self.metrics.nodes.set(i64::try_from(view.alive.len()).unwrap_or(i64::MAX));
        let first = seen.last.is_none();
        let before = seen.last.map_or(asked, |(before, _)| before);
        let out_of_touch = asked.saturating_duration_since(before) > 2 * self.every();
        if out_of_touch {
            // They may have beaten meanwhile, or the registry may have been away for all.
            seen.peers.values_mut().for_each(|peer| peer.since = asked);
        }
        if !first {
            seen.changes.buried |= view.buried;
            seen.changes.lapsed |= out_of_touch || (view.new && !view.buried);
            if view.buried {
                // It alone was away: what others have taken meanwhile is theirs.
                seen.lenient_until = None;
            } else if view.new || out_of_touch {
                seen.lenient_until = Some(asked + self.lease);
            }
        }
        if first || out_of_touch || view.new {
            seen.steady = asked;
        }
        seen.take_peers(&view, asked, before);
        seen.changes.deaths |=
            !first && view.gone.iter().any(|(id, _)| !seen.gone.contains_key(id));
        seen.gone = view.gone.into_iter().collect();
        seen.last = Some((asked, view.now));
        let changed = seen.changes != Changes::default();
        drop(seen);
        if changed {
            self.changed.notify_one();
        }
    }

    /// Those who have been silent for too long, as the last view showed them.
    pub(super) fn silent(&self) -> Vec<Dead> {
        let seen = self.lock();
        let Some((last, _)) = seen.last else { return Vec::new() };
        let is_silent = |peer: &Peer| last.saturating_duration_since(peer.since) >= self.silence();
        let silent = seen.peers.iter().filter(|(_, peer)| is_silent(peer));
        silent.map(|(node, peer)| Dead { node: node.clone(), beat: peer.beat }).collect()
    }

    /// Whether the others know of this node, and it of them.
    pub(super) fn is_in_touch(&self) -> bool {
        self.lock().last.is_some_and(|(last, _)| last.elapsed() <= 2 * self.every())
    }

    /// This node, and its last beat.
    pub(super) fn own(&self) -> Dead {
        let seen = self.lock();
        Dead { node: seen.own.0.to_string(), beat: seen.last.map_or(0, |(_, now)| now) }
    }

    /// `dead` was buried, or has beaten after all.
    pub(super) fn judged(&self, dead: Dead, is_gone: bool) {
        let mut seen = self.lock();
        seen.peers.remove(&dead.node);
        if is_gone {
            seen.gone.insert(dead.node, dead.beat);
            seen.changes.deaths = true;
            drop(seen);
            self.changed.notify_one();
        }
    }

    /// Ends when there are [`Changes`] to take.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn changes(&self) -> Changes {
        std::mem::take(&mut self.lock().changes)
    }

    /// Whether this node may say of one that it does not know that it is dead, and has been in touch for a lease.
    pub(super) fn is_steady(&self) -> bool {
        self.is_in_touch() && self.lock().steady.elapsed() >= self.lease
    }

    /// Whether seats that are said again are held to the users' limits. Not so soon after an outage: seats of dead
    /// nodes, of which nobody can tell yet that they are dead, would cost the living theirs.
    pub(super) fn holds_to_limits(&self) -> bool {
        self.lock().lenient_until.is_none_or(|until| until <= Instant::now())
    }

    /// When limits are held to again.
    pub(super) fn lenient_until(&self) -> Option<Instant> {
        self.lock().lenient_until
    }

    /// Those of `nodes` that are dead, and whether there is one that a fresh view is needed for.
    pub(super) fn dead_among(&self, nodes: &[String]) -> (Vec<Dead>, bool) {
        let seen = self.lock();
        let (mut dead, mut unknown) = (Vec::new(), false);
        for node in nodes.iter().filter(|node| **node != *seen.own.0) {
            if let Some(beat) = seen.gone.get(node) {
                dead.push(Dead { node: node.clone(), beat: *beat });
            } else {
                unknown |= !seen.peers.contains_key(node);
            }
        }
        (dead, unknown)
    }

    /// As [`Nodes::dead_among`], after a fresh view: whom nobody knows is dead, too, if this node is steady.
    pub(super) fn dead_or_unknown(&self, nodes: &[String]) -> Vec<Dead> {
        let (mut dead, _) = self.dead_among(nodes);
        if self.is_steady() {
            let seen = self.lock();
            let known = |node: &String| {
                **node == *seen.own.0
                    || seen.peers.contains_key(node)
                    || seen.gone.contains_key(node)
            };
            let unknown = nodes.iter().filter(|node| !known(node));
            dead.extend(unknown.map(|node| Dead { node: node.clone(), beat: 0 }));
        }
        dead
    }
}

impl Seen {
    /// Who is alive. One that is missing and has no grave is kept: the registry may have lost its data, and the node has not
    /// beaten since.
    fn take_peers(&mut self, view: &View, asked: Instant, before: Instant) {
        let own = Arc::clone(&self.own.0);
        for (id, _) in &view.gone {
            self.peers.remove(id);
        }
        for (id, beat) in view.alive.iter().filter(|(id, _)| **id != *own) {
            if self.peers.get(id).is_some_and(|peer| peer.beat == *beat) {
                continue;
            }
            // It beat after the view before this one, which showed another beat.
            let age = Duration::from_millis(view.now.saturating_sub(*beat));
            let age = age.min(asked.saturating_duration_since(before));
            let since = asked.checked_sub(age).unwrap_or(asked);
            self.peers.insert(id.clone(), Peer { beat: *beat, since });
        }
    }
}

/// The name of a node in its `number`th life; without a full stop, which parts it from the number of a seat.
fn name(base: &str, number: u64) -> Arc<str> {
    Arc::from(format!("{base}-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::Registry;

    const LEASE: Duration = Duration::from_secs(8);

    fn nodes() -> Nodes {
        Nodes::new("me", LEASE, Metrics::new(&mut Registry::default()))
    }

    fn view(now: u64, alive: &[(&str, u64)], gone: &[(&str, u64)]) -> View {
        let owned = |pairs: &[(&str, u64)]| {
            pairs.iter().map(|(id, beat)| ((*id).to_owned(), *beat)).collect()
        };
        View { now, alive: owned(alive), gone: owned(gone), ..View::default() }
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn names(dead: &[Dead]) -> Vec<&str> {
        dead.iter().map(|dead| dead.node.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_beat_does_not_change_is_silent_whatever_the_clocks_say() {
        let nodes = nodes();
        // The server's clock stands an hour ahead of every beat: that alone says nothing.
        for second in (0..=4).step_by(2) {
            nodes.saw(
                view(4_000_000 + second, &[("me-1", 1), ("a", 1), ("b", second)], &[]),
                Instant::now(),
            );
            assert_eq!(names(&nodes.silent()), Vec::<&str>::new());
            pass(2).await;
        }
        assert!(nodes.next() <= Instant::now());
        nodes.saw(view(4_000_006, &[("me-1", 1), ("a", 1), ("b", 6)], &[]), Instant::now());
        assert_eq!(nodes.silent(), [Dead { node: "a".to_owned(), beat: 1 }]);
        nodes.judged(nodes.silent().remove(0), true);
        assert_eq!(nodes.changes(), Changes { deaths: true, ..Changes::default() });
        assert_eq!(names(&nodes.dead_among(&["a".to_owned(), "b".to_owned()]).0), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_back_with_a_promotion_leaves_this_node_in_touch() {
        let nodes = nodes();
        nodes.saw(view(3_600_000, &[("a", 3_600_000)], &[]), Instant::now());
        for second in 1..6 {
            pass(2).await;
            nodes.saw(view(second, &[("a", 1)], &[]), Instant::now());
            assert!(nodes.is_in_touch());
            assert!(second > 2 || nodes.next() > Instant::now(), "it beats all the time");
        }
        assert_eq!(names(&nodes.silent()), ["a"], "nobody is ever found dead");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_out_of_touch_judges_nobody_for_a_lease() {
        let nodes = nodes();
        nodes.saw(view(1, &[("a", 1)], &[]), Instant::now());
        pass(2).await;
        nodes.saw(view(2, &[("a", 1)], &[]), Instant::now());
        assert!(!nodes.is_steady());
        pass(20).await;
        nodes.saw(view(3, &[("a", 1)], &[]), Instant::now());
        assert_eq!(names(&nodes.silent()), Vec::<&str>::new());
        assert!(nodes.changes().lapsed);
        let nobody = ["nobody".to_owned()];
        assert_eq!(nodes.dead_among(&nobody), (vec![], true));
        assert_eq!(nodes.dead_or_unknown(&nobody), []);
        for _ in 0..4 {
            pass(2).await;
            nodes.saw(view(4, &[("a", 2)], &[]), Instant::now());
        }
        assert!(nodes.is_steady());
        assert_eq!(names(&nodes.dead_or_unknown(&nobody)), ["nobody"]);
        assert_eq!(nodes.dead_or_unknown(&["a".to_owned(), "me-1".to_owned()]), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grave_is_believed_at_once_and_told_once() {
        let nodes = nodes();
        nodes.saw(view(1, &[("a", 1)], &[("old", 1)]), Instant::now());
        assert_eq!(nodes.changes(), Changes::default(), "it was gone before this node came");
        nodes.saw(view(2, &[], &[("old", 1), ("a", 1)]), Instant::now());
        assert!(nodes.changes().deaths);
        nodes.saw(view(3, &[], &[("old", 1), ("a", 1)]), Instant::now());
        assert_eq!(nodes.changes(), Changes::default());
        assert_eq!(names(&nodes.dead_among(&["a".to_owned()]).0), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_lost_its_data_kills_nobody_at_once() {
        let nodes = nodes();
        nodes.saw(view(1, &[("a", 1)], &[]), Instant::now());
        pass(2).await;
        nodes.saw(View { new: true, ..view(2, &[("me-1", 2)], &[]) }, Instant::now());
        assert_eq!(nodes.changes(), Changes { lapsed: true, ..Changes::default() });
        assert_eq!(nodes.dead_or_unknown(&["a".to_owned()]), []);
        pass(2).await;
        nodes.saw(View { new: true, buried: true, ..view(3, &[("me-1", 3)], &[]) }, Instant::now());
        assert_eq!(nodes.changes(), Changes { buried: true, ..Changes::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_is_seen_within_a_lease_by_whoever_looks_when_it_is_due() {
        let nodes = nodes();
        let began = Instant::now();
        // The last beat of `a` comes right after a view of this node.
        nodes.saw(view(0, &[("a", 0)], &[]), Instant::now());
        while nodes.silent().is_empty() {
            tokio::time::advance(nodes.next().saturating_duration_since(Instant::now())).await;
            let now = u64::try_from(began.elapsed().as_millis()).unwrap();
            nodes.saw(view(now, &[("a", 1)], &[]), Instant::now());
            assert!(began.elapsed() < LEASE, "not seen in time");
        }
        assert!(began.elapsed() <= LEASE / 8 * 6, "{:?}", began.elapsed());
    }
}
