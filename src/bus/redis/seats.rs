//! Seats and presence over all nodes that share a Redis.
//!
//! Walk: a [`Claim`] is entered in the [`Book`] and granted by one [`Step`]; where there would be too many seats, those of
//! dead [`Nodes`] are dropped by a second one. The question for a user's presence is a step that takes nothing. What
//! is to be said later (seats given back, seats that Redis may have lost) is said by `settle`.
//!
//! Invariants: while Redis is away nothing waits, and seats are said when it is back; a user's seats are touched by
//! atomic steps alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fred::types::{Key, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::book::{Book, Errand};
use super::commands::{nonsense, overloaded, positive};
use super::nodes::Nodes;
use super::script::Script;
use super::seat_script::{self, Dead, EVICT, How, SeatScripts, Standing, Step, View};
use super::{Listening, RedisBus, names};
use crate::bus::metrics::Metrics;
use crate::bus::{BusError, Deliver, Gap, Presence, SeatError, SeatLimit, SeatNumber, Seq};
use crate::settings::OverLimit;

/// Steps under way at once: enough for tens of thousands a second, and far from crowding out messages.
const TURNS: usize = 256;

/// Questions that one answer may take: each drops the dead nodes that the one before has found.
const ROUNDS: usize = 4;

/// What this process knows of seats.
pub(super) struct Seats {
    pub(super) book: Book,
    pub(super) nodes: Nodes,
    next: AtomicU64,
    turns: Semaphore,
    patience: Duration,
    pub(super) deliver: OnceLock<Arc<dyn Deliver>>,
    metrics: Metrics,
}

impl Seats {
    pub(super) fn new(node: &str, lease: Duration, patience: Duration, metrics: &Metrics) -> Self {
        Self {
            book: Book::new(),
            nodes: Nodes::new(node, lease, metrics.clone()),
            next: AtomicU64::new(1),
            turns: Semaphore::new(TURNS),
            patience,
            deliver: OnceLock::new(),
            metrics: metrics.clone(),
        }
    }

    /// The number of `seat`, where it is one of this node's.
    fn own(&self, seat: &str) -> Option<SeatNumber> {
        seat.strip_prefix(&*self.nodes.name())?.strip_prefix('.')?.parse().ok()
    }

    /// Closes those of `seats` that are this node's; the others' nodes hear of theirs.
    fn close(&self, user: &str, seats: &[String]) {
        let Some(deliver) = self.deliver.get() else { return };
        for number in seats.iter().filter_map(|seat| self.own(seat)) {
            deliver.evict(user, number);
        }
    }
}

/// A seat of the node called `node`, as all nodes call it.
fn seat_name(node: &str, number: SeatNumber) -> String {
    format!("{node}.{number}")
}

/// What is delivered, but for evictions, which come as signals.
pub(super) struct Evicting {
    pub(super) seats: Arc<Seats>,
    pub(super) deliver: Arc<dyn Deliver>,
}

impl Deliver for Evicting {
    fn message(&self, user: &str, seq: Seq, payload: Bytes) {
        self.deliver.message(user, seq, payload);
    }

    fn takes_unstored(&self) -> bool {
        self.deliver.takes_unstored()
    }

    fn signal(&self, user: &str, payload: Bytes) {
        match payload.strip_prefix(EVICT) {
            Some(seat) => {
                let seat = str::from_utf8(seat).ok();
                if let Some(number) = seat.and_then(|seat| self.seats.own(seat)) {
                    self.deliver.evict(user, number);
                }
            }
            None => self.deliver.signal(user, payload),
        }
    }

    fn gap(&self, of: Gap<'_>) {
        self.deliver.gap(of);
    }

    fn presence_changed(&self, user: &str) {
        self.deliver.presence_changed(user);
    }

    fn evict(&self, user: &str, seat: SeatNumber) {
        self.deliver.evict(user, seat);
    }
}

impl RedisBus {
    pub(in crate::bus) fn take_seat(&self, user: &str, limit: SeatLimit) -> Claim {
        let user = Arc::from(user);
        let number = self.seats.next.fetch_add(1, Ordering::Relaxed);
        self.seats.book.enter(&user, number, limit);
        Claim { bus: self.clone(), user, number, limit }
    }

    pub(in crate::bus) async fn presence(&self, user: &str) -> Result<Presence, BusError> {
        let mut dead = Vec::new();
        let mut last_seen_ms = None;
        for _ in 0..ROUNDS {
            let standing = self.step(&Step::question(user, &dead)).await?;
            if standing.seats == 0 {
                return Ok(Presence { online: false, last_seen_ms: standing.last_seen });
            }
            last_seen_ms = Some(standing.now);
            dead = self.dead_among(&standing.nodes).await;
            if dead.len() < standing.nodes.len() {
                break;
            }
        }
        Ok(Presence { online: true, last_seen_ms })
    }

    pub(in crate::bus) fn watch(&self, user: &str) -> Listening {
        self.subscribe(&names::presence(user))
    }

    /// Whether the server that keeps what is `user`'s can be asked.
    fn reach(&self, user: &str) -> Result<(), BusError> {
        self.way(user).shard()?.commands.link().map(drop)
    }

    /// Runs one script where the keys of `user` are.
    async fn run_for(
        &self,
        user: &str,
        pick: fn(&SeatScripts) -> &Script,
        (keys, values): (Vec<Key>, Vec<Value>),
    ) -> Result<Vec<Value>, BusError> {
        let mut way = self.way(user);
        loop {
            let shard = way.shard()?;
            let commands = &shard.commands;
            let script = pick(&commands.scripts.presence);
            let result = commands.link()?.run(script, keys.clone(), values.clone()).await;
            if let Some(result) = way.done(result).await {
                return result;
            }
        }
    }

    /// Has this node known before it says a seat: one of a node that nobody knows is taken for a dead one's. And
    /// has it know, after an outage, that there was one.
    async fn be_in_touch(&self) -> Result<(), BusError> {
        if self.seats.nodes.is_in_touch() { Ok(()) } else { self.beat().await }
    }

    /// Takes one step.
    async fn step(&self, step: &Step<'_>) -> Result<Standing, BusError> {
        // Known before waiting for a turn, so that being away is said at once.
        self.reach(step.user)?;
        let turn = tokio::time::timeout(self.seats.patience, self.seats.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(overloaded()) };
        let answer = self.run_for(step.user, |scripts| &scripts.seats, step.arguments()).await?;
        let standing = Standing::read(answer)?;
        self.seats.metrics.seats_freed.inc_by(standing.freed);
        self.seats.metrics.seats_evicted.inc_by(standing.evicted.len() as u64);
        Ok(standing)
    }

    /// Those of `nodes` that are dead; asks for a fresh view where one is not known.
    async fn dead_among(&self, nodes: &[String]) -> Vec<Dead> {
        let (dead, has_unknown) = self.seats.nodes.dead_among(nodes);
        if !has_unknown || self.beat().await.is_err() {
            return dead;
        }
        self.seats.nodes.dead_or_unknown(nodes)
    }

    /// Says that this node lives, and sees who else does.
    pub(super) async fn beat(&self) -> Result<(), BusError> {
        let asked = Instant::now();
        let nodes = &self.seats.nodes;
        let name = nodes.name();
        let once = async |name: &str| -> Result<View, BusError> {
            let arguments = seat_script::beat(name);
            View::read(self.run_for(names::NODES, |scripts| &scripts.beat, arguments).await?)
        };
        let mut view = once(&name).await?;
        if view.buried {
            nodes.rename(&name);
            view = View { buried: true, ..once(&nodes.name()).await? };
        }
        nodes.saw(view, asked);
        Ok(())
    }

    /// Says that `dead` is gone, unless it has beaten since.
    pub(super) async fn bury(&self, dead: Dead) -> Result<(), BusError> {
        let arguments = seat_script::bury(&dead);
        let answer = self.run_for(names::NODES, |scripts| &scripts.bury, arguments).await?;
        let is_gone = positive(answer.first().ok_or_else(nonsense)?)? == 1;
        if is_gone && *dead.node != *self.seats.nodes.name() {
            tracing::warn!(target: "Bus", "node {} is gone: its users' seats are free", dead.node);
        }
        self.seats.nodes.judged(dead, is_gone);
        Ok(())
    }

    /// Asks for the seat of `claim`.
    async fn grant(&self, claim: &Claim) -> Result<(), SeatError> {
        let Claim { user, number, limit, .. } = claim;
        // Known before it is noted as told.
        self.reach(user)?;
        self.be_in_touch().await?;
        let name = seat_name(&self.seats.nodes.name(), *number);
        let wanted = [(name.clone(), 0)];
        self.seats.book.told(user, *number);
        let mut step = Step {
            user,
            most: limit.most,
            over: limit.over,
            how: How::Ask,
            dead: &[],
            given_back: &[],
            wanted: &wanted,
        };
        let mut standing = self.step(&step).await?;
        let found;
        if standing.too_many {
            found = self.dead_among(&standing.nodes).await;
            if found.is_empty() && limit.over == OverLimit::Refuse {
                return Err(SeatError::Full);
            }
            (step.how, step.dead) = (How::Hold, &found);
            standing = self.step(&step).await?;
        }
        if standing.refused.contains(&name) || standing.evicted.contains(&name) {
            return Err(SeatError::Full);
        }
        self.seats.book.granted(user, *number, standing.now);
        self.seats.close(user, &standing.evicted);
        Ok(())
    }

    /// Says what one errand has to say.
    pub(super) async fn settle(&self, errand: &Errand) -> Result<(), BusError> {
        let Errand { user, limit, .. } = errand;
        self.be_in_touch().await?;
        let node = self.seats.nodes.name();
        let given_back = errand.given_back.iter().map(|number| seat_name(&node, *number));
        let given_back: Vec<_> = given_back.collect();
        let again = errand.again.iter();
        let wanted: Vec<_> =
            again.map(|(number, opened)| (seat_name(&node, *number), *opened)).collect();
        let holds = self.seats.nodes.holds_to_limits() && !wanted.is_empty();
        let mut step = Step {
            user,
            most: limit.most,
            over: limit.over,
            how: if holds { How::Ask } else { How::Add },
            dead: &[],
            given_back: &given_back,
            wanted: &wanted,
        };
        let mut standing = self.step(&step).await?;
        let found;
        if standing.too_many && holds {
            found = self.dead_among(&standing.nodes).await;
            (step.how, step.dead) = (How::Hold, &found);
            standing = self.step(&step).await?;
            for name in &standing.refused {
                if let Some(number) = self.seats.own(name) {
                    self.seats.book.refused(user, number);
                }
            }
            self.seats.close(user, &standing.refused);
            self.seats.close(user, &standing.evicted);
        }
        if standing.seats > 0 && !given_back.is_empty() {
            let (dead, has_unknown) = self.seats.nodes.dead_among(&standing.nodes);
            if has_unknown || dead.len() == standing.nodes.len() {
                // He has left, as it seems, and whoever watches him is to hear of it.
                self.presence(user).await?;
            }
        }
        Ok(())
    }
}

/// One seat; dropped, it is given back.
pub(in crate::bus) struct Claim {
    bus: RedisBus,
    user: Arc<str>,
    number: SeatNumber,
    limit: SeatLimit,
}

impl Claim {
    pub(in crate::bus) fn number(&self) -> SeatNumber {
        self.number
    }

    pub(in crate::bus) async fn granted(&self) -> Result<(), SeatError> {
        let mut later = Later { claim: self, is_needed: true };
        let granted = self.bus.grant(self).await;
        match granted {
            Ok(()) => later.is_needed = false,
            Err(SeatError::Full) => {
                later.is_needed = false;
                self.bus.seats.book.refused(&self.user, self.number);
                self.bus.seats.metrics.seats_refused.inc();
            }
            Err(SeatError::Unavailable(_)) => {}
        }
        granted
    }

    pub(in crate::bus) fn confirm(&self) {
        if self.limit.over == OverLimit::CloseOldest {
            self.bus.seats.book.again(&self.user);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.bus.seats.book.leave(&self.user, self.number);
    }
}

/// Has a seat said later, of which it is not known whether it was granted: nobody could be asked, or whoever asked
/// waits no more.
struct Later<'a> {
    claim: &'a Claim,
    is_needed: bool,
}

impl Drop for Later<'_> {
    fn drop(&mut self) {
        if self.is_needed {
            let Claim { bus, user, number, .. } = self.claim;
            bus.seats.book.granted(user, *number, now_ms());
            bus.seats.book.again(user);
        }
    }
}

/// Milliseconds since the Unix epoch, by the own clock.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
