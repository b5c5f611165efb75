//! Redis Cluster: a shard for each primary, and who is served by which.
//!
//! Walk: [`Cluster::run`] looks at the layout again and again: every few seconds, and at once where a server says that it
//! is not the one to ask. What differs is applied: shards are begun, led to another server (a failover), or
//! ended, and every wish follows its user's slot. Commands go by the present table; a server's "not me"
//! (`MOVED`, `ASK`, `TRYAGAIN`) means that nothing was done, so the command is tried again after another look,
//! as long as a command may take ([`Way`]).
//!
//! Invariants: [`Cluster::run`] alone changes the table and owns the shards' tasks, which it awaits. What moves to another
//! shard gets another epoch there, since the line of a history belongs to a primary: clients are told. Of messages of one
//! sender that were under way together when their slot moved, one that is tried again may come behind the others.
//! Absent on purpose: following `ASK` (a script's keys are on both sides while a slot moves, so that neither can
//! run it; it moves in a moment), reading from replicas.

mod layout;
mod roll;
pub(super) mod slots;
mod table;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::layout::{Primary, View};
pub(super) use self::roll::Following;
use self::roll::Roll;
use self::table::Table;
use super::ask::ask;
use super::finder::{Finder, Placed};
use super::names;
use super::server::{Login, Server};
use super::shard::{Common, Shard, Tag};
use super::verdict::LAYOUT;
use crate::bus::{BusError, BusState, Deliver};
use crate::settings::RedisNode;

/// Between two looks while all is well, and while something is not.
const CALM: Duration = Duration::from_secs(5);
const TROUBLED: Duration = Duration::from_millis(400);

/// The least between two looks, whoever asks for them.
const PACE: Duration = Duration::from_millis(50);

/// A node that takes longer to say what it knows is not waited for.
const LONGEST: Duration = Duration::from_secs(1);

/// Nodes that are asked at once.
const ASKED: usize = 3;

/// The Cluster; one owner runs it.
pub(super) struct Cluster {
    common: Arc<Common>,
    seeds: Vec<Server>,
    login: Arc<Login>,
    table: RwLock<Arc<Table>>,
    roll: Arc<Roll>,
    deliver: OnceLock<Arc<dyn Deliver>>,
    /// Counts looks that were applied.
    looked: watch::Sender<u64>,
    members: AtomicU64,
}

/// A shard at work.
struct Running {
    shard: Arc<Shard>,
    placed: Arc<Placed>,
    /// That of its tag.
    slot: u16,
    stop: CancellationToken,
}

impl Cluster {
    pub(super) fn new(common: Arc<Common>, seeds: Vec<Server>, login: Arc<Login>) -> Self {
        common.verdict.add(LAYOUT, "the Cluster's layout is not known yet");
        Self {
            seeds,
            login,
            table: RwLock::new(Arc::new(Table::empty())),
            roll: Arc::new(Roll::new(common.settings.redis.command_timeout)),
            deliver: OnceLock::new(),
            looked: watch::Sender::new(0),
            members: AtomicU64::new(LAYOUT),
            common,
        }
    }

    pub(super) fn attach(&self, deliver: Arc<dyn Deliver>) -> bool {
        self.deliver.set(deliver).is_ok()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn wish(&self, name: &str) -> Following {
        self.roll.wish(name, || self.table())
    }

    /// Anything may have changed with those who are watched.
    pub(super) fn unsure(&self) {
        for shard in self.table().shards() {
            shard.subscriber.unsure();
        }
    }

    /// Looks, applies, and runs the shards, until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut running: Vec<Running> = Vec::new();
        let mut known: Vec<RedisNode> = Vec::new();
        let mut tasks = JoinSet::new();
        let rounds = async {
            loop {
                match self.look(&known).await {
                    Ok(view) => {
                        let primaries = view.primaries.iter().map(|primary| &primary.node);
                        known = primaries.chain(&view.replicas).cloned().collect();
                        self.apply(view, &mut running, &mut tasks);
                    }
                    Err(why) if running.is_empty() => {
                        self.common.verdict.set(LAYOUT, Some(why.into()));
                    }
                    Err(why) => tracing::debug!(target: "Bus", "the layout is as it was: {why}"),
                }
                self.looked.send_modify(|looks| *looks += 1);
                tokio::time::sleep(PACE).await;
                let works = *self.common.verdict.state().borrow() == BusState::Up;
                tokio::select! {
                    () = self.common.look.notified() => {}
                    () = tokio::time::sleep(if works { CALM } else { TROUBLED }) => {}
                    Some(ended) = tasks.join_next() => ended_well(ended),
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
        for member in &running {
            member.stop.cancel();
        }
        while let Some(ended) = tasks.join_next().await {
            ended_well(ended);
        }
        self.common.verdict.set(LAYOUT, Some(Arc::from("stopped")));
    }

    /// The latest view among those of a few nodes; of more, where these give none.
    async fn look(&self, known: &[RedisNode]) -> Result<View, String> {
        let mut nodes: Vec<Server> =
            known.iter().map(|node| Server::new(node.clone(), Arc::clone(&self.login))).collect();
        fastrand::shuffle(&mut nodes);
        let mut seeds = self.seeds.clone();
        fastrand::shuffle(&mut seeds);
        nodes.extend(seeds);
        let mut why = "no node is named".to_owned();
        for nodes in nodes.chunks(ASKED) {
            let mut best: Option<View> = None;
            for view in join_all(nodes.iter().map(|node| self.ask(node))).await {
                match view {
                    Ok(view) if best.as_ref().is_none_or(|best| best.rank < view.rank) => {
                        best = Some(view);
                    }
                    Ok(_) => {}
                    Err(error) => why = error,
                }
            }
            if let Some(best) = best {
                return Ok(best);
            }
        }
        Err(format!("the Cluster's layout is not known: {why}"))
    }

    async fn ask(&self, server: &Server) -> Result<View, String> {
        let questions = [&["CLUSTER", "INFO"][..], &["CLUSTER", "SLOTS"]];
        let patience = self.common.settings.redis.command_timeout.min(LONGEST);
        match tokio::time::timeout(patience, ask(server, questions)).await {
            Ok(Ok([info, slots])) => layout::view(&info, &slots, server.node())
                .ok_or_else(|| format!("{server} answers with something else")),
            Ok(Err(error)) => Err(format!("{server}: {error}")),
            Err(_elapsed) => Err(format!("{server} did not answer in time")),
        }
    }

    /// Makes `view` the present one.
    fn apply(&self, view: View, running: &mut Vec<Running>, tasks: &mut JoinSet<()>) {
        let serving: BTreeSet<_> =
            view.primaries.iter().map(|primary| primary.node.clone()).collect();
        let mut served = Vec::with_capacity(view.primaries.len());
        let mut left = std::mem::take(running);
        for primary in view.primaries {
            let Some(slot) = slots::first(|slot| primary.serves(slot)) else { continue };
            let here = |one: &Running| *one.placed.get().node() == primary.node;
            let succeeds = |one: &Running| {
                primary.serves(one.slot) && !serving.contains(one.placed.get().node())
            };
            let place = left.iter().position(here).or_else(|| left.iter().position(succeeds));
            let member = match place {
                Some(place) => self.lead(left.swap_remove(place), &primary, slot),
                None => self.begin(&primary, slot, tasks),
            };
            served.push((primary, Arc::clone(&member.shard)));
            running.push(member);
        }
        self.common.metrics.shards.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
        // In one order, whichever node was asked: so that a table which says the same is the same.
        served.sort_by_key(|(_, shard)| shard.member);
        let old = self.table();
        let table = Table::new(&served);
        let uncovered = table.uncovered();
        if !table.is_like(&old) {
            let table = Arc::new(table);
            self.roll.follow(&table, || {
                *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
            });
        }
        for member in running {
            member.shard.subscriber.wishes.retry();
        }
        for gone in left {
            tracing::info!(target: "Bus", "{} is no primary of the Cluster any more", gone.placed.get());
            self.common.verdict.remove(gone.shard.member);
            gone.stop.cancel();
        }
        let why =
            (uncovered > 0).then(|| format!("no primary serves {uncovered} of the slots").into());
        self.common.verdict.set(LAYOUT, why);
    }

    /// A shard goes on, perhaps at another server, or with other slots.
    fn lead(&self, mut member: Running, primary: &Primary, slot: u16) -> Running {
        let was = member.placed.get();
        if *was.node() != primary.node {
            let now = Server::new(primary.node.clone(), Arc::clone(&self.login));
            let why = format!("the Cluster names {now} in the place of {was}");
            tracing::info!(target: "Bus", "{why}");
            member.placed.set(now);
            member.shard.leave(&why);
        }
        if member.slot != slot {
            // What is the shard's own lies in another slot now, and is looked for there.
            member.slot = slot;
            member.shard.tag.set(&slots::tag(slot));
            member.shard.leave("its slots have changed");
        }
        member
    }

    fn begin(&self, primary: &Primary, slot: u16, tasks: &mut JoinSet<()>) -> Running {
        let server = Server::new(primary.node.clone(), Arc::clone(&self.login));
        let placed = Arc::new(Placed::new(server));
        let finder = || Finder::Placed(Arc::clone(&placed));
        let member = self.members.fetch_add(1, Ordering::Relaxed) + 1;
        let tag = Tag::new(&slots::tag(slot));
        let shard = Arc::new(Shard::new((finder(), finder()), member, &tag, &self.common));
        if let Some(deliver) = self.deliver.get() {
            shard.attach(Arc::clone(deliver));
        }
        let stop = CancellationToken::new();
        let (work, stopped) = (Arc::clone(&shard), stop.clone());
        // Boxed, since it is large, and a task is moved.
        tasks.spawn(async move { Box::pin(work.run(&stopped)).await });
        Running { shard, placed, slot, stop }
    }
}

/// A shard's task ends when it is told to; a panic in it is one of the bus.
fn ended_well(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// The way of one command to the shard of its user, and there once more where it came to the wrong one.
pub(super) struct Way<'a> {
    cluster: &'a Cluster,
    slot: u16,
    until: Instant,
    looks: watch::Receiver<u64>,
    /// By which the last attempt went.
    table: Option<Arc<Table>>,
}

impl<'a> Way<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: &str) -> Self {
        Self::to(cluster, slots::of_user(names::owner(name)))
    }

    /// The way to whoever serves `slot`.
    pub(super) fn to(cluster: &'a Cluster, slot: u16) -> Self {
        Self {
            cluster,
            slot,
            until: Instant::now() + cluster.common.settings.redis.command_timeout,
            looks: cluster.looked.subscribe(),
            table: None,
        }
    }

    /// The shard to go to now.
    pub(super) fn shard(&mut self) -> Result<Arc<Shard>, BusError> {
        self.looks.mark_unchanged();
        let table = self.cluster.table();
        let shard = table.shard(self.slot).cloned();
        self.table = Some(table);
        shard.ok_or_else(|| {
            BusError::Unavailable(format!("no primary serves slot {}", self.slot).into())
        })
    }

    /// Gives the result where it stands; else waits until it may be another one, and gives nothing.
    pub(super) async fn done<T>(
        &mut self,
        result: Result<T, BusError>,
    ) -> Option<Result<T, BusError>> {
        let Err(BusError::Unavailable(why)) = &result else { return Some(result) };
        let moved = why.starts_with("MOVED ");
        let between = why.starts_with("ASK ") || why.starts_with("TRYAGAIN ");
        if !(moved || between) || Instant::now() >= self.until {
            return Some(result);
        }
        let now = self.cluster.table();
        if self.table.as_ref().is_some_and(|table| !Arc::ptr_eq(table, &now)) {
            return None;
        }
        self.cluster.common.look.notify_one();
        let looked = self.looks.changed();
        // While a slot moves, there is nothing to learn from a look until it has.
        drop(tokio::time::timeout(if moved { 4 * PACE } else { PACE }, looked).await);
        None
    }
}
