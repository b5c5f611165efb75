//! The task that owns all others of the supervised processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::ActionError;
use super::process::{Command, Process, Reply};
use super::slot::Tools;
use super::spec::{Key, Spec};
use super::supervisor::{Action, CHECK, WAITING, Word};
use super::tree;
use crate::observability::Readiness;

/// Between two measurements of what all instances hold.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// The supervisor's task, before it runs.
#[derive(Debug)]
pub struct Supervision {
    pub(super) heard: mpsc::Receiver<Word>,
    pub(super) tools: Arc<Tools>,
    pub(super) first: Vec<Spec>,
    /// Processes that were begun, which tells those of one name apart.
    pub(super) begun: u64,
    pub(super) readiness: Readiness,
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
}

/// One process that runs.
#[derive(Debug)]
struct Held {
    run: u64,
    commands: mpsc::Sender<Command>,
    max_memory: u64,
}

impl Supervision {
    /// Starts the processes and keeps them until [`Supervisor::stop`](super::Supervisor::stop). To be run where the process's signals are received.
    pub async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let mut processes = BTreeMap::new();
        let mut first_starts = JoinSet::new();
        for spec in std::mem::take(&mut self.first) {
            let decided = self.begin(spec, &mut processes, &mut tasks);
            first_starts.spawn(decided);
        }
        let mut measure = interval(MEASURE_EVERY);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(word) = self.heard.recv() => self.obey(word, &mut processes, &mut tasks).await,
                Some(_) = first_starts.join_next() => if first_starts.is_empty() {
                    self.readiness.report(CHECK, Ok(()));
                },
                Some(_) = tasks.join_next() => {}
                _ = measure.tick(), if !processes.is_empty() => self.measure(&processes).await,
            }
        }
        self.heard.close();
        for held in processes.into_values() {
            // One that has ended needs no telling; one that is told by its end, too.
            drop(held.commands.send(Command::End).await);
        }
        while tasks.join_next().await.is_some() {}
        self.ended.cancel();
    }

    /// Starts a process; the future ends when its first start is decided.
    fn begin(
        &mut self,
        mut spec: Spec,
        processes: &mut BTreeMap<Key, Held>,
        tasks: &mut JoinSet<()>,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.begun += 1;
        let (commands, heard) = mpsc::channel(WAITING);
        let (tell, decided) = oneshot::channel();
        let held = Held { run: self.begun, commands, max_memory: spec.settings.max_memory };
        processes.insert(spec.key.name(), held);
        spec.key.run = self.begun;
        tasks.spawn(Process::new(spec, Arc::clone(&self.tools), tell).run(heard));
        async move {
            // A process that has ended decides nothing any more.
            drop(decided.await);
        }
    }

    async fn obey(
        &mut self,
        word: Word,
        processes: &mut BTreeMap<Key, Held>,
        tasks: &mut JoinSet<()>,
    ) {
        match word {
            Word::Apply(specs) => {
                let gone: Vec<Key> = processes
                    .keys()
                    .filter(|key| !specs.iter().any(|spec| spec.key == **key))
                    .cloned()
                    .collect();
                for held in gone.iter().filter_map(|key| processes.remove(key)) {
                    drop(held.commands.send(Command::End).await);
                }
                for mut spec in specs {
                    match processes.get_mut(&spec.key) {
                        Some(held) => {
                            (held.max_memory, spec.key.run) = (spec.settings.max_memory, held.run);
                            drop(held.commands.send(Command::Apply(Arc::new(spec))).await);
                        }
                        None => drop(self.begin(spec, processes, tasks)),
                    }
                }
            }
            Word::Act(key, action, reply) => act(processes, key, action, reply).await,
        }
    }

    /// Looks at what every instance holds, and has those replaced that hold too much.
    async fn measure(&self, processes: &BTreeMap<Key, Held>) {
        let guards = self.tools.board.guards();
        // Some hundred small files: not while requests wait.
        let measured = tokio::task::spawn_blocking(move || {
            let all = tree::scan();
            let of = |(key, instance, guard)| {
                let memory = tree::memory_below(&all, guard);
                (key, instance, guard, memory)
            };
            guards.into_iter().map(of).collect::<Vec<(Key, usize, i32, u64)>>()
        });
        for (key, instance, guard, memory) in measured.await.unwrap_or_default() {
            self.tools.board.measured(&key, instance, guard, memory);
            let held = processes.get(&key.name());
            let Some(held) = held.filter(|held| held.run == key.run && held.max_memory > 0) else {
                continue;
            };
            if memory > held.max_memory {
                // One that is busy is told again with the next look.
                drop(held.commands.try_send(Command::OverMemory(instance, memory)));
            }
        }
    }
}

/// Hands an operator's word on to its process.
async fn act(processes: &BTreeMap<Key, Held>, key: Key, action: Action, reply: Reply) {
    let Some(held) = processes.get(&key) else {
        let (region, process) = (key.region.as_str().to_owned(), key.process.to_string());
        // Who asked may have gone.
        drop(reply.send(Err(ActionError::Unknown { region, process })));
        return;
    };
    let command = match action {
        Action::Restart => Command::Restart(reply),
        Action::Stop => Command::Stop(reply),
        Action::Start => Command::Start(reply),
        Action::Scale(count) => Command::Scale(count, reply),
    };
    drop(held.commands.send(command).await);
}
