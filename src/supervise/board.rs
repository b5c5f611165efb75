//! What is known of each instance now: written by those who run them, read for the status page and the metrics.
//!
//! One lock, held for as long as it takes to copy a few words; never over an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::metrics::{Cause, Families};
use super::spec::Key;

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Started, and not yet ready.
    Starting,
    /// Among the backends of its region.
    Ready,
    /// Gets nothing new, and is about to end.
    Draining,
    /// Ended; it will be started again after a pause.
    Backoff,
    /// Ended again and again; it is tried at long intervals.
    CrashLoop,
    /// Not wanted, by an operator's word.
    Stopped,
}

/// One instance, for a status page.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSnapshot {
    pub instance: usize,
    pub state: State,
    /// Since when it is in this state, in RFC 3339.
    pub since: String,
    pub pid: Option<i32>,
    pub port: Option<u16>,
    /// Starts after it had ended unasked.
    pub restarts: u64,
    /// Seconds since its present start.
    pub uptime: Option<u64>,
    /// Resident bytes, its children included; a few seconds old.
    pub memory: u64,
    /// How it ended last, or why it did not start.
    pub last_exit: Option<String>,
    /// Why its replacement could not be started, so that what runs is older than what is wanted.
    pub not_replaced: Option<String>,
    /// Ids of those before it that are still finishing what they had begun.
    pub draining: Vec<i32>,
}

/// One process, for a status page.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProcessSnapshot {
    pub region: String,
    pub process: String,
    pub instances: Vec<InstanceSnapshot>,
}

/// What is known of one instance.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) state: State,
    /// When it came into this state.
    since: SystemTime,
    /// The present life: process, its guard, its port, when it began.
    pub(super) life: Option<(i32, i32, u16, Instant)>,
    pub(super) restarts: u64,
    pub(super) memory: u64,
    pub(super) last_exit: Option<String>,
    pub(super) not_replaced: Option<String>,
    pub(super) draining: Vec<i32>,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            state: State::Starting,
            since: SystemTime::now(),
            life: None,
            restarts: 0,
            memory: 0,
            last_exit: None,
            not_replaced: None,
            draining: Vec::new(),
        }
    }
}

/// All instances; clones are the same board.
#[derive(Clone, Debug)]
pub(super) struct Board {
    rows: Arc<Mutex<BTreeMap<Key, BTreeMap<usize, Row>>>>,
    families: Families,
}

impl Board {
    pub(super) fn new(families: Families) -> Self {
        Self { rows: Arc::default(), families }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeMap<usize, Row>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of one instance.
    pub(super) fn note(&self, key: &Key, instance: usize, change: impl FnOnce(&mut Row)) {
        let mut rows = self.rows();
        let row = rows.entry(key.clone()).or_default().entry(instance).or_default();
        let before = row.state;
        change(row);
        if row.state != before {
            row.since = SystemTime::now();
        }
        self.count(key, &rows);
    }

    /// The instance is no more.
    pub(super) fn forget(&self, key: &Key, instance: usize) {
        let mut rows = self.rows();
        if let Some(of_process) = rows.get_mut(key) {
            of_process.remove(&instance);
            self.count(key, &rows);
        }
    }

    /// Nor is the process, nor any series of it, unless another of its name has begun meanwhile.
    pub(super) fn forget_all(&self, key: &Key) {
        let mut rows = self.rows();
        rows.remove(key);
        if rows.keys().any(|other| other.has_name_of(key)) {
            self.count(key, &rows);
        } else {
            self.families.forget(key);
        }
    }

    /// An instance was started again.
    pub(super) fn restarted(&self, key: &Key, cause: Cause) {
        self.families.restarted(key, cause);
    }

    /// A replacement could not be started.
    pub(super) fn not_replaced(&self, key: &Key) {
        self.families.not_replaced(key);
    }

    /// The series follow the rows, of all that bear the name.
    fn count(&self, key: &Key, rows: &BTreeMap<Key, BTreeMap<usize, Row>>) {
        let of_name = || {
            let of_name = rows.iter().filter(|(other, _)| other.has_name_of(key));
            of_name.flat_map(|(_, of_process)| of_process.values())
        };
        let ready = of_name().filter(|row| row.state == State::Ready).count();
        self.families.up(key, ready, of_name().map(|row| row.memory).sum());
    }

    pub(super) fn state(&self, key: &Key, instance: usize) -> Option<State> {
        self.rows().get(key)?.get(&instance).map(|row| row.state)
    }

    /// Guards of the lives that go on now.
    pub(super) fn guards(&self) -> Vec<(Key, usize, i32)> {
        let mut guards = Vec::new();
        for (key, of_process) in &*self.rows() {
            for (instance, row) in of_process {
                guards.extend(row.life.map(|(_, guard, ..)| (key.clone(), *instance, guard)));
            }
        }
        guards
    }

    /// Notes what an instance holds, unless another life has begun meanwhile.
    pub(super) fn measured(&self, key: &Key, instance: usize, guard: i32, memory: u64) {
        let mut rows = self.rows();
        let Some(of_process) = rows.get_mut(key) else { return };
        if let Some(row) = of_process.get_mut(&instance)
            && row.life.is_some_and(|(_, now, ..)| now == guard)
        {
            row.memory = memory;
        }
        self.count(key, &rows);
    }

    pub(super) fn snapshot(&self) -> Vec<ProcessSnapshot> {
        let instance = |(instance, row): (&usize, &Row)| InstanceSnapshot {
            instance: *instance,
            state: row.state,
            since: humantime::format_rfc3339_millis(row.since).to_string(),
            pid: row.life.map(|(pid, ..)| pid),
            port: row.life.map(|(_, _, port, _)| port),
            restarts: row.restarts,
            uptime: row.life.map(|(.., began)| began.elapsed().as_secs()),
            memory: row.memory,
            last_exit: row.last_exit.clone(),
            not_replaced: row.not_replaced.clone(),
            draining: row.draining.clone(),
        };
        let mut all: Vec<ProcessSnapshot> = Vec::new();
        for (key, of_process) in &*self.rows() {
            let (region, process) = (key.region.as_str(), &*key.process);
            let instances = of_process.iter().map(instance);
            match all.last_mut().filter(|last| last.region == region && last.process == process) {
                Some(before) => before.instances.extend(instances),
                None => all.push(ProcessSnapshot {
                    region: region.to_owned(),
                    process: process.to_owned(),
                    instances: instances.collect(),
                }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::{Registry, encode};
    use crate::settings::RegionName;

    #[test]
    fn one_that_ends_takes_nothing_from_another_of_its_name() {
        let mut registry = Registry::default();
        let board = Board::new(Families::register(&mut registry));
        let name = Key::of_name(RegionName::literal("1"), Arc::from("web"));
        let [old, new] = [1, 2].map(|run| Key { run, ..name.clone() });
        board.note(&old, 0, |row| row.state = State::Draining);
        board.note(&new, 0, |row| row.state = State::Ready);
        assert_eq!(board.snapshot().len(), 1, "it is one process to whoever looks");
        assert_eq!(board.snapshot()[0].instances.len(), 2);
        board.forget(&old, 0);
        board.forget_all(&old);
        assert_eq!(board.state(&new, 0), Some(State::Ready));
        let ready = || encode(&registry).unwrap().contains("process_up{");
        assert!(encode(&registry).unwrap().contains(r#"process_up{region="1",process="web"} 1"#));
        board.forget_all(&new);
        assert!(!ready() && board.snapshot().is_empty());
    }
}
