//! What is counted of supervised processes; labels are the names of the settings.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::spec::Key;
use crate::observability::Registry;

type ByProcess = [(&'static str, String); 2];
type ByCause = [(&'static str, String); 3];

/// Why an instance was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It had ended, or was never ready.
    Crash,
    /// An operator or a reload wanted a new one.
    Replaced,
    /// It held more memory than it may.
    Memory,
}

impl Cause {
    const ALL: [Self; 3] = [Self::Crash, Self::Replaced, Self::Memory];

    fn label(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Replaced => "replaced",
            Self::Memory => "memory",
        }
    }
}

/// The series of all processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Families {
    up: Family<ByProcess, Gauge>,
    memory: Family<ByProcess, Gauge>,
    restarts: Family<ByCause, Counter>,
    not_replaced: Family<ByProcess, Counter>,
}

fn of(key: &Key) -> ByProcess {
    [("region", key.region.as_str().to_owned()), ("process", key.process.to_string())]
}

fn caused(key: &Key, cause: Cause) -> ByCause {
    let [region, process] = of(key);
    [region, process, ("cause", cause.label().to_owned())]
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        let ready = "Instances of a supervised process that are ready";
        registry.register("process_up", ready, families.up.clone());
        let memory =
            "Resident bytes of all instances of a supervised process, their children included";
        registry.register("process_memory_bytes", memory, families.memory.clone());
        let restarts = "Instances of a supervised process that were started again";
        registry.register("process_restarts", restarts, families.restarts.clone());
        let not_replaced =
            "Replacements of instances that could not be started, so that the old ones stayed";
        let counter = families.not_replaced.clone();
        registry.register("process_replacement_failures", not_replaced, counter);
        families
    }

    pub(super) fn up(&self, key: &Key, ready: usize, memory: u64) {
        let labels = of(key);
        self.up.get_or_create(&labels).set(i64::try_from(ready).unwrap_or(i64::MAX));
        self.memory.get_or_create(&labels).set(i64::try_from(memory).unwrap_or(i64::MAX));
        // So that each is there before it counts.
        drop(self.not_replaced.get_or_create(&labels));
        for cause in Cause::ALL {
            drop(self.restarts.get_or_create(&caused(key, cause)));
        }
    }

    pub(super) fn restarted(&self, key: &Key, cause: Cause) {
        self.restarts.get_or_create(&caused(key, cause)).inc();
    }

    pub(super) fn not_replaced(&self, key: &Key) {
        self.not_replaced.get_or_create(&of(key)).inc();
    }

    pub(super) fn forget(&self, key: &Key) {
        self.up.remove(&of(key));
        self.memory.remove(&of(key));
        self.not_replaced.remove(&of(key));
        for cause in Cause::ALL {
            self.restarts.remove(&caused(key, cause));
        }
    }
}
