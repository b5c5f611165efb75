//! One instance of a process: started, ready, replaced, stopped, and started again when it ends.
//!
//! Walk: [`Slot::run`] starts what its order says, [`Slot::serve`] keeps it until it ends or the order changes, and
//! [`Slot::pause`] waits before the next start. A replacement is started beside what it replaces, which leaves only when
//! the new one is ready.
//!
//! Invariants: an instance is among the backends only while it is ready and not asked to end, and leaves them at the very
//! moment in which its end is known. Every order is answered with a [`Settled`], once what it asks for is so, or cannot be.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Row, State};
use super::life::{Launch, Life};
use super::metrics::Cause;
use super::ready;
use super::restarts::{Restarts, Verdict};
use super::retire::retire;
use super::rotation::{Place, Rotation};
use super::spec::Spec;
use crate::settings::BackendSettings;

/// What an instance is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Up,
    Down,
    /// Down, and never again.
    Gone,
}

/// What a slot is told; the latest counts.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Names the order in the answer to it.
    pub(super) id: u64,
    pub(super) wish: Wish,
    pub(super) spec: Arc<Spec>,
    /// A life of another revision is replaced.
    pub(super) revision: u64,
    /// Why, where it is.
    pub(super) cause: Cause,
}

/// What became of an order.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) instance: usize,
    pub(super) id: u64,
    /// In words why not.
    pub(super) outcome: Result<(), String>,
}

/// What all slots share.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) launch: Launch,
    pub(super) rotation: Box<dyn Rotation>,
    pub(super) board: Board,
    /// The gateway has no more time: what is left is killed.
    pub(super) hurry: CancellationToken,
}

/// One instance.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) instance: usize,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) settled: mpsc::Sender<Settled>,
    pub(super) tools: Arc<Tools>,
    restarts: Restarts,
    /// Those before the present one that are still finishing.
    retiring: JoinSet<()>,
}

/// A life that is ready.
#[derive(Debug)]
struct Serving {
    life: Life,
    /// None once its end is known.
    place: Option<Place>,
    spec: Arc<Spec>,
    revision: u64,
    ready: Instant,
}

impl Serving {
    /// Takes it out of the backends, lets it finish, and ends it.
    async fn retire(self, instance: usize, patience: Duration, hurry: CancellationToken) {
        retire(self.life, self.place, (&self.spec.key, instance), patience, hurry).await;
    }
}

/// How a start went.
enum Started {
    Ready(Box<Serving>),
    Failed(String),
    /// Something else is wanted by now.
    Outdated,
}

/// Why an instance must be started again.
struct Failure {
    why: String,
    /// How long it was ready.
    held: Duration,
}

impl Slot {
    pub(super) fn new(
        instance: usize,
        orders: watch::Receiver<Order>,
        settled: mpsc::Sender<Settled>,
        tools: Arc<Tools>,
    ) -> Self {
        let (restarts, retiring) = (Restarts::default(), JoinSet::new());
        Self { instance, orders, settled, tools, restarts, retiring }
    }

    /// Ends when the instance is gone for good.
    pub(super) async fn run(mut self) -> usize {
        loop {
            let order = self.orders.borrow_and_update().clone();
            match order.wish {
                Wish::Up => {}
                Wish::Gone => break,
                Wish::Down => {
                    self.all_retired().await;
                    self.note(&order.spec, |row| (row.state, row.life) = (State::Stopped, None));
                    self.settle(order.id, Ok(())).await;
                    self.changed().await;
                    self.restarts.forget();
                    continue;
                }
            }
            let failure = match self.start(&order, true).await {
                Started::Ready(serving) => {
                    self.settle(order.id, Ok(())).await;
                    self.serve(*serving).await
                }
                Started::Failed(why) => {
                    self.settle(order.id, Err(why.clone())).await;
                    Some(Failure { why, held: Duration::ZERO })
                }
                Started::Outdated => None,
            };
            if let Some(failure) = failure {
                self.pause(&order.spec, failure).await;
            }
        }
        self.all_retired().await;
        let order = self.orders.borrow().clone();
        self.tools.board.forget(&order.spec.key, self.instance);
        self.settle(order.id, Ok(())).await;
        self.instance
    }

    fn note(&self, spec: &Spec, change: impl FnOnce(&mut Row)) {
        self.tools.board.note(&spec.key, self.instance, change);
    }

    async fn settle(&self, id: u64, outcome: Result<(), String>) {
        // Where nobody listens any more, nobody waits.
        drop(self.settled.send(Settled { instance: self.instance, id, outcome }).await);
    }

    /// Ends with the next order.
    async fn changed(&mut self) {
        if self.orders.changed().await.is_err() {
            // Whoever orders has gone, and ends this task, too.
            std::future::pending::<()>().await;
        }
    }

    async fn all_retired(&mut self) {
        while self.retiring.join_next().await.is_some() {}
    }

    /// Starts a life and waits until it is ready; `alone` where no other serves meanwhile.
    async fn start(&mut self, order: &Order, alone: bool) -> Started {
        let (spec, instance) = (Arc::clone(&order.spec), self.instance);
        let Launch { ports, hidden } = &self.tools.launch;
        if alone {
            self.note(&spec, |row| row.state = State::Starting);
        }
        let life = match Life::begin(&spec, instance, ports, hidden).await {
            Ok(life) => life,
            Err(error) => return Started::Failed(error.to_string()),
        };
        tracing::info!(
            target: "Process", region = %spec.key.region, process = %spec.key.process, instance,
            pid = life.pid, port = life.port(), "started"
        );
        if alone {
            self.note(&spec, |row| row.life = Some(facts(&life)));
        }
        let ready = ready::wait(life.port(), &spec.settings.ready_path);
        let why = tokio::select! {
            biased;
            exit = life.ended() => format!("it ended before it was ready: {exit}"),
            ready = timeout(spec.settings.ready_timeout, ready) => {
                if ready.is_ok() {
                    return self.join(life, order);
                }
                life.kill().await;
                let limit = humantime::format_duration(spec.settings.ready_timeout);
                format!("it was not ready within {limit}")
            }
            () = self.outdated(order) => {
                life.stop(spec.settings.stop_timeout, self.tools.hurry.cancelled()).await;
                return Started::Outdated;
            }
        };
        Started::Failed(why)
    }

    /// Ends when another revision or another state is wanted.
    async fn outdated(&mut self, order: &Order) {
        loop {
            self.changed().await;
            let (wish, revision) = {
                let now = self.orders.borrow();
                (now.wish, now.revision)
            };
            if (wish, revision) != (Wish::Up, order.revision) {
                break;
            }
        }
        // Seen here, it must be seen by whoever acts on it, too.
        self.orders.mark_changed();
    }

    /// A life that is ready joins the backends of its region.
    fn join(&mut self, life: Life, order: &Order) -> Started {
        let spec = Arc::clone(&order.spec);
        let url = life.url();
        let mut backend = BackendSettings::primary(url);
        backend.weight = spec.settings.weight;
        backend.tier = u8::from(spec.settings.backup);
        let joined = match self.tools.rotation.add(&spec.key.region, backend) {
            Ok(joined) => joined,
            Err(why) => return Started::Failed(why),
        };
        if self.orders.borrow().id != order.id {
            // An order that changes nothing here has still to be answered.
            self.orders.mark_changed();
        }
        self.note(&spec, |row| {
            (row.state, row.life, row.not_replaced) = (State::Ready, Some(facts(&life)), None);
        });
        let took = life.began.elapsed();
        tracing::info!(
            target: "Process", region = %spec.key.region, process = %spec.key.process,
            instance = self.instance, pid = life.pid, port = life.port(), took = ?took, "ready"
        );
        let (place, revision) = (Some(Place::new(joined)), order.revision);
        Started::Ready(Box::new(Serving { life, place, spec, revision, ready: Instant::now() }))
    }

    /// Keeps a life until it ends, which is a failure, or until none is wanted.
    async fn serve(&mut self, mut serving: Serving) -> Option<Failure> {
        loop {
            tokio::select! {
                biased;
                exit = serving.life.ended() => {
                    return Some(failure(&mut serving, &exit.to_string()));
                }
                Ok(()) = self.orders.changed() => {}
                Some(_) = self.retiring.join_next() => continue,
            }
            let order = self.orders.borrow_and_update().clone();
            if order.wish != Wish::Up {
                self.orders.mark_changed();
                self.note(&serving.spec, |row| row.state = State::Draining);
                let patience = order.spec.settings.stop_timeout;
                serving.retire(self.instance, patience, self.tools.hurry.clone()).await;
                self.note(&order.spec, |row| (row.life, row.memory) = (None, 0));
                return None;
            }
            if order.revision == serving.revision {
                serving.spec = order.spec;
                self.settle(order.id, Ok(())).await;
            } else if let Some(failure) = self.replace(&mut serving, &order).await {
                return Some(failure);
            }
        }
    }

    /// Starts a life of the new revision, and lets the one before it go when that is ready.
    async fn replace(&mut self, serving: &mut Serving, order: &Order) -> Option<Failure> {
        let mut ended = None;
        let started = {
            let mut start = pin!(self.start(order, false));
            loop {
                tokio::select! {
                    biased;
                    started = &mut start => break started,
                    exit = serving.life.ended(), if ended.is_none() => {
                        ended = Some(failure(serving, &exit.to_string()));
                    }
                }
            }
        };
        match started {
            Started::Ready(fresh) => {
                let old = std::mem::replace(serving, *fresh);
                self.tools.board.restarted(&order.spec.key, order.cause);
                self.retire_beside(old, order);
                None
            }
            Started::Failed(why) => {
                self.tools.board.not_replaced(&order.spec.key);
                self.note(&order.spec, |row| row.not_replaced = Some(why.clone()));
                tracing::error!(
                    target: "Process", region = %order.spec.key.region, process = %order.spec.key.process,
                    instance = self.instance, %why, "its replacement could not be started: it stays"
                );
                self.settle(order.id, Err(why)).await;
                ended
            }
            Started::Outdated => ended,
        }
    }

    /// Lets a life end beside the one that has taken its place.
    fn retire_beside(&mut self, old: Serving, order: &Order) {
        let (board, key, instance) =
            (self.tools.board.clone(), order.spec.key.clone(), self.instance);
        let (settled, id) = (self.settled.clone(), order.id);
        let (patience, hurry) = (order.spec.settings.stop_timeout, self.tools.hurry.clone());
        let pid = old.life.pid;
        board.note(&key, instance, |row| {
            row.draining.push(pid);
            row.memory = 0;
        });
        self.retiring.spawn(async move {
            old.retire(instance, patience, hurry).await;
            board.note(&key, instance, |row| row.draining.retain(|other| *other != pid));
            drop(settled.send(Settled { instance, id, outcome: Ok(()) }).await);
        });
    }

    /// Waits before the next start; an order ends the wait.
    async fn pause(&mut self, spec: &Spec, failure: Failure) {
        let Failure { why, held } = failure;
        let policy = spec.policy();
        let verdict = self.restarts.ended(Instant::now(), held, fastrand::f64(), &policy);
        let (state, delay) = match verdict {
            Verdict::Pause(delay) => (State::Backoff, delay),
            Verdict::CrashLoop(delay) => (State::CrashLoop, delay),
        };
        let (region, process, instance) = (&spec.key.region, &spec.key.process, self.instance);
        if state == State::CrashLoop {
            tracing::error!(
                target: "Process", %region, %process, instance, %why, again_in = ?delay,
                "crash loop: it was restarted too often, and is tried less often from now on"
            );
        } else {
            tracing::warn!(target: "Process", %region, %process, instance, %why, again_in = ?delay, "ended");
        }
        self.note(spec, |row| {
            (row.state, row.life, row.memory) = (state, None, 0);
            row.last_exit = Some(why);
        });
        tokio::select! {
            () = sleep(delay) => {}
            () = self.changed() => {
                self.restarts.forget();
                self.orders.mark_changed();
            }
        }
        if self.orders.borrow().wish == Wish::Up {
            self.note(spec, |row| row.restarts += 1);
            self.tools.board.restarted(&spec.key, Cause::Crash);
        }
    }
}

/// As the board shows a life.
fn facts(life: &Life) -> (i32, i32, u16, Instant) {
    (life.pid, life.guard, life.port(), life.began)
}

/// The life has ended unasked: it leaves the backends at once.
fn failure(serving: &mut Serving, why: &str) -> Failure {
    serving.place.take();
    Failure { why: why.to_owned(), held: serving.ready.elapsed() }
}
