//! Values that do nothing as the others stand: none of them is wrong, but whoever wrote one expects something of it.
//!
//! Invariant: only what somebody said, and what differs from the default, is told of: a file that spells out every default
//! is as quiet as none. Pure.

mod parts;
mod traffic;

use std::collections::BTreeSet;

use super::diff::values;
use super::problem::{Problem, Provenance};
use super::{
    HubPlace, LimitSettings, ProcessSettings, RegionSettings, RuleSettings, Settings,
    StaticSettings,
};

/// Every such value, by the part of the configuration.
pub(super) fn idle(settings: &Settings, provenance: &Provenance) -> Vec<Problem> {
    let mut idle =
        Idle { settings, provenance, said: said(settings, provenance), found: Vec::new() };
    idle.regions();
    idle.health();
    idle.breaker();
    idle.retry();
    idle.backends();
    idle.proxy();
    idle.limits();
    idle.rules();
    idle.tls();
    idle.lines();
    idle.hub();
    idle.bus();
    idle.switches();
    idle.found
}

struct Idle<'a> {
    settings: &'a Settings,
    provenance: &'a Provenance,
    /// Keys that somebody gave another value than the default.
    said: BTreeSet<String>,
    found: Vec<Problem>,
}

impl Idle<'_> {
    /// Tells of those of the keys that somebody has set.
    fn tell(&mut self, keys: &[&str], why: &str) {
        for key in keys.iter().copied().filter(|&key| self.said.contains(key)) {
            let message = format!("has no effect: {why}");
            self.found.push(Problem::new(self.provenance.of(key), key, message));
        }
    }

    /// The same for all keys of a section, save these.
    fn tell_all(&mut self, section: &str, save: &[&str], why: &str) {
        let below = |key: &&String| {
            let rest = key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| !save.contains(&rest))
        };
        let keys: Vec<String> = self.said.iter().filter(below).cloned().collect();
        self.tell(&keys.iter().map(String::as_str).collect::<Vec<_>>(), why);
    }

    /// The same for these keys of a section.
    fn tell_of(&mut self, section: &str, names: &[&str], why: &str) {
        let keys: Vec<String> = names.iter().map(|name| format!("{section}.{name}")).collect();
        self.tell(&keys.iter().map(String::as_str).collect::<Vec<_>>(), why);
    }
}

fn said(settings: &Settings, provenance: &Provenance) -> BTreeSet<String> {
    let (set, plain) = (values(settings), values(&plain(settings)));
    let differs = |(key, value): &(String, serde_json::Value)| {
        plain.get(key) != Some(value) && !provenance.of(key).is_built_in()
    };
    set.into_iter().filter(differs).map(|(key, _)| key).collect()
}

/// The defaults, with the names of these settings.
fn plain(settings: &Settings) -> Settings {
    let mut plain = Settings::default();
    for (name, region) in &settings.regions {
        let processes = region.processes.keys();
        let defaults = RegionSettings {
            hub: region.hub.as_ref().map(|_| HubPlace::default()),
            processes: processes.map(|name| (name.clone(), ProcessSettings::default())).collect(),
            ..RegionSettings::default()
        };
        plain.regions.insert(name.clone(), defaults);
    }
    let names = |name: &String| name.clone();
    plain.limits =
        settings.limits.keys().map(|name| (names(name), LimitSettings::default())).collect();
    plain.rules =
        settings.rules.keys().map(|name| (names(name), RuleSettings::default())).collect();
    plain.mounts =
        settings.mounts.keys().map(|name| (names(name), StaticSettings::default())).collect();
    plain
}

#[cfg(test)]
mod tests;
