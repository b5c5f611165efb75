//! What is to run: a process as the settings describe it, and what of a change asks for new instances.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::restarts::Policy;
use crate::settings::{ProcessSettings, RegionName, Settings, StopSignal};

/// Which process: its region and its name, and which of those that have borne it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) region: RegionName,
    pub(super) process: Arc<str>,
    /// One that was taken away may still be ending when another of its name begins; 0 where only the name is meant.
    pub(super) run: u64,
}

impl Key {
    pub(super) fn of_name(region: RegionName, process: Arc<str>) -> Self {
        Self { region, process, run: 0 }
    }

    /// The name alone.
    pub(super) fn name(&self) -> Self {
        Self { run: 0, ..self.clone() }
    }

    pub(super) fn has_name_of(&self, other: &Self) -> bool {
        (&self.region, &self.process) == (&other.region, &other.process)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.process)
    }
}

/// One process as it is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) key: Key,
    pub(super) settings: ProcessSettings,
}

impl Spec {
    /// All processes of the settings.
    pub(super) fn all(settings: &Settings) -> Vec<Self> {
        let regions = settings.regions.iter();
        regions
            .flat_map(|(region, of_region)| {
                of_region.processes.iter().map(|(name, process)| Self {
                    key: Key::of_name(region.clone(), Arc::from(name.as_str())),
                    settings: process.clone(),
                })
            })
            .collect()
    }

    /// Whether an instance of `other` is as good as one of this: they differ in nothing that only a start brings about.
    pub(super) fn runs_like(&self, other: &Self) -> bool {
        let (one, other) = (&self.settings, &other.settings);
        one.command == other.command
            && one.dir == other.dir
            && one.env == other.env
            && one.port_base == other.port_base
            && one.stop_signal == other.stop_signal
            && one.weight == other.weight
            && one.backup == other.backup
    }

    pub(super) fn policy(&self) -> Policy {
        let settings = &self.settings;
        Policy {
            min: settings.restart_min,
            max: settings.restart_max,
            most: settings.max_restarts,
            window: settings.restart_window,
            retry: settings.crash_loop_retry,
        }
    }

    /// How long an instance has to end when the gateway itself is gone: nobody waits for it.
    pub(super) fn orphan_grace(&self) -> Duration {
        self.settings.stop_timeout.min(Duration::from_secs(2))
    }

    /// The number of the stop signal.
    pub(super) fn stop_signal(&self) -> i32 {
        use rustix::process::Signal;
        match self.settings.stop_signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Int => Signal::INT,
            StopSignal::Quit => Signal::QUIT,
            StopSignal::Hup => Signal::HUP,
            StopSignal::Usr1 => Signal::USR1,
            StopSignal::Usr2 => Signal::USR2,
            StopSignal::Kill => Signal::KILL,
        }
        .as_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_start_brings_about_asks_for_one() {
        let key = Key::of_name(RegionName::literal("1"), Arc::from("web"));
        let of = |change: fn(&mut ProcessSettings)| {
            let mut settings = ProcessSettings::default();
            change(&mut settings);
            Spec { key: key.clone(), settings }
        };
        let plain = of(|_| {});
        for same in [
            of(|one| one.instances = crate::settings::Instances::Max),
            of(|one| one.max_memory = 1),
            of(|one| one.stop_timeout = Duration::from_secs(1)),
            of(|one| one.ready_path = "/x".to_owned()),
            of(|one| one.max_restarts = 1),
        ] {
            assert!(same.runs_like(&plain), "{same:?}");
        }
        for other in [
            of(|one| one.command = vec!["x".to_owned()]),
            of(|one| one.env = vec!["A=b".to_owned()]),
            of(|one| one.dir = Some("/".into())),
            of(|one| one.weight = 2),
            of(|one| one.stop_signal = StopSignal::Int),
        ] {
            assert!(!other.runs_like(&plain), "{other:?}");
        }
    }
}
