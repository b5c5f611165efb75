//! All instances of one process: how many there are, and that one is replaced after the other.
//!
//! Invariants: of the instances that serve, at most one is being replaced at a time; a replacement that fails ends the
//! round, and the others keep what they run. Instances that do not serve get the new revision at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ActionError;
use super::board::State;
use super::metrics::Cause;
use super::slot::{Order, Settled, Slot, Tools, Wish};
use super::spec::Spec;

/// Answers between slots and their process: each slot has few open.
const ANSWERS: usize = 64;

/// What a process is told.
#[derive(Debug)]
pub(super) enum Command {
    /// New settings.
    Apply(Arc<Spec>),
    Restart(Reply),
    Stop(Reply),
    Start(Reply),
    Scale(usize, Reply),
    /// An instance holds so many bytes, more than it may.
    OverMemory(usize, u64),
    /// It is no longer configured, or the gateway ends: stop, and end.
    End,
}

/// Answered when what was asked for is so.
pub(super) type Reply = oneshot::Sender<Result<(), ActionError>>;

/// What is known of a slot.
#[derive(Debug)]
struct Held {
    orders: watch::Sender<Order>,
    /// The revision it is to have; behind it, it waits for its turn.
    wanted: u64,
    cause: Cause,
    /// The last order is not answered yet.
    busy: bool,
    /// Not replaced again for its memory before this.
    spared_until: Option<Instant>,
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    spec: Arc<Spec>,
    tools: Arc<Tools>,
    wish: Wish,
    count: usize,
    revision: u64,
    last_order: u64,
    slots: BTreeMap<usize, Held>,
    /// Told to go, and not gone yet.
    leaving: BTreeMap<usize, Held>,
    tasks: JoinSet<usize>,
    answers: (mpsc::Sender<Settled>, mpsc::Receiver<Settled>),
    waiting: Vec<Reply>,
    /// Why the present round failed.
    failed: Option<String>,
    /// Told once the first start of each instance is decided.
    decided: Option<oneshot::Sender<()>>,
}

impl Process {
    pub(super) fn new(spec: Spec, tools: Arc<Tools>, decided: oneshot::Sender<()>) -> Self {
        Self {
            count: spec.settings.instances.count(),
            spec: Arc::new(spec),
            tools,
            wish: Wish::Up,
            revision: 0,
            last_order: 0,
            slots: BTreeMap::new(),
            leaving: BTreeMap::new(),
            tasks: JoinSet::new(),
            answers: mpsc::channel(ANSWERS),
            waiting: Vec::new(),
            failed: None,
            decided: Some(decided),
        }
    }

    /// Ends after [`Command::End`], when every instance has.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.reconcile();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::End) | None => break,
                    Some(command) => self.obey(command),
                },
                Some(settled) = self.answers.1.recv() => self.settled(&settled),
                Some(gone) = self.tasks.join_next() => {
                    if let Ok(instance) = gone {
                        self.leaving.remove(&instance);
                    }
                }
            }
            self.reconcile();
        }
        self.decided.take();
        for reply in self.waiting.drain(..) {
            drop(reply.send(Err(ActionError::Gone)));
        }
        self.count = 0;
        self.wish = Wish::Down;
        self.reconcile();
        loop {
            tokio::select! {
                gone = self.tasks.join_next() => if gone.is_none() { break },
                Some(_) = self.answers.1.recv() => {}
            }
        }
        self.tools.board.forget_all(&self.spec.key);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(spec) => self.apply(spec),
            Command::Restart(reply) => {
                self.renew(Cause::Replaced);
                self.wish_up();
                self.ask(reply);
            }
            Command::Stop(reply) => {
                self.wish = Wish::Down;
                self.ask(reply);
                self.tell_all();
            }
            Command::Start(reply) => {
                self.wish_up();
                self.ask(reply);
                self.tell_all();
            }
            Command::Scale(count, reply) => {
                self.count = count;
                self.ask(reply);
            }
            Command::OverMemory(instance, memory) => {
                if let Some(slot) = self.slots.get_mut(&instance)
                    && self.wish == Wish::Up
                    && !slot.busy
                    && slot.spared_until.is_none_or(|until| until <= Instant::now())
                {
                    let (key, max_memory) = (&self.spec.key, self.spec.settings.max_memory);
                    tracing::warn!(
                        target: "Process", region = %key.region, process = %key.process, instance, memory,
                        max_memory, "it holds more memory than it may, and is replaced"
                    );
                    self.revision += 1;
                    // One that grows at once would do nothing but start.
                    slot.spared_until = Some(Instant::now() + self.spec.settings.restart_max);
                    (slot.wanted, slot.cause) = (self.revision, Cause::Memory);
                }
            }
            Command::End => {}
        }
    }

    /// Wanted again; where the last word was to have none, as many as the settings say.
    fn wish_up(&mut self) {
        self.wish = Wish::Up;
        if self.count == 0 {
            self.count = self.spec.settings.instances.count();
        }
    }

    fn apply(&mut self, spec: Arc<Spec>) {
        if spec == self.spec {
            return;
        }
        if spec.settings.instances != self.spec.settings.instances {
            self.count = spec.settings.instances.count();
        }
        let same = spec.runs_like(&self.spec);
        self.spec = spec;
        if same {
            self.tell_all();
        } else {
            self.renew(Cause::Replaced);
        }
    }

    fn ask(&mut self, reply: Reply) {
        self.failed = None;
        self.waiting.push(reply);
    }

    /// Every instance is to be replaced.
    fn renew(&mut self, cause: Cause) {
        self.failed = None;
        self.revision += 1;
        for slot in self.slots.values_mut() {
            (slot.wanted, slot.cause) = (self.revision, cause);
        }
    }

    /// Every slot gets the present wish and settings, and keeps its revision.
    fn tell_all(&mut self) {
        let instances: Vec<usize> = self.slots.keys().copied().collect();
        for instance in instances {
            self.tell(instance, false);
        }
    }

    /// Sends a slot an order, with the revision that it is to have or the one that it has.
    fn tell(&mut self, instance: usize, renewed: bool) {
        let Some(slot) = self.slots.get_mut(&instance) else { return };
        self.last_order += 1;
        let revision = if renewed { slot.wanted } else { slot.orders.borrow().revision };
        slot.busy = true;
        slot.orders.send_replace(Order {
            id: self.last_order,
            wish: self.wish,
            spec: Arc::clone(&self.spec),
            revision,
            cause: slot.cause,
        });
    }

    /// Brings what is towards what is wanted.
    fn reconcile(&mut self) {
        while self.slots.len() > self.count {
            self.dismiss();
        }
        while self.slots.len() < self.count {
            self.hire();
        }
        self.roll();
        if !self.slots.values().any(|slot| slot.busy || is_behind(slot)) {
            if let Some(decided) = self.decided.take() {
                // Nobody waits once the gateway stops.
                decided.send(()).ok();
            }
            for reply in self.waiting.drain(..) {
                let outcome =
                    self.failed.clone().map_or(Ok(()), |why| Err(ActionError::Failed(why)));
                // Who asked may have gone.
                drop(reply.send(outcome));
            }
        }
    }

    /// One slot more, in the first free place.
    fn hire(&mut self) {
        let taken =
            |place: &usize| self.slots.contains_key(place) || self.leaving.contains_key(place);
        let Some(instance) = (0..=usize::from(u16::MAX)).find(|place| !taken(place)) else {
            return;
        };
        self.last_order += 1;
        let order = Order {
            id: self.last_order,
            wish: self.wish,
            spec: Arc::clone(&self.spec),
            revision: self.revision,
            cause: Cause::Replaced,
        };
        let (orders, heard) = watch::channel(order);
        let slot = Slot::new(instance, heard, self.answers.0.clone(), Arc::clone(&self.tools));
        self.tasks.spawn(slot.run());
        let held = Held {
            orders,
            wanted: self.revision,
            cause: Cause::Replaced,
            busy: true,
            spared_until: None,
        };
        self.slots.insert(instance, held);
    }

    /// The last slot goes.
    fn dismiss(&mut self) {
        if let Some((instance, slot)) = self.slots.pop_last() {
            slot.orders.send_modify(|order| order.wish = Wish::Gone);
            self.leaving.insert(instance, slot);
        }
    }

    /// The next instance's turn to be replaced, where none is under way.
    fn roll(&mut self) {
        let serves = |instance: usize| {
            self.tools.board.state(&self.spec.key, instance) == Some(State::Ready)
        };
        let mut next = Vec::new();
        let mut turn = !self.slots.values().any(|slot| slot.busy);
        for (instance, _) in self.slots.iter().filter(|(_, slot)| is_behind(slot)) {
            let is_up = serves(*instance);
            if !is_up || turn {
                turn = turn && !is_up;
                next.push(*instance);
            }
        }
        for instance in next {
            self.tell(instance, true);
        }
    }

    fn settled(&mut self, settled: &Settled) {
        let Some(slot) = self.slots.get_mut(&settled.instance) else { return };
        // A slot that tries again by itself says so again.
        if !slot.busy || slot.orders.borrow().id != settled.id {
            return;
        }
        slot.busy = false;
        if let Err(why) = &settled.outcome {
            self.failed = Some(why.clone());
            // What has not begun does not begin: it would go the same way.
            for slot in self.slots.values_mut() {
                slot.wanted = slot.orders.borrow().revision;
            }
        }
    }
}

/// Whether the slot's turn is still to come.
fn is_behind(slot: &Held) -> bool {
    slot.wanted != slot.orders.borrow().revision
}
