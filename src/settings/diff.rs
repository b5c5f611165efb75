//! From the configuration that runs to the one that is wanted: which keys change at once, and which wait for a restart.
//!
//! Walk: [`step`] compares two loaded configurations key by key, puts the running values of what only a restart can change
//! into the wanted ones, and checks that the mixture holds together.
//!
//! Invariants: pure; a key that nobody has listed as live waits for a restart, so that a reload never claims to have done
//! what it has not; no value is shown, since some are secrets.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize as _;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::check;
use super::keys::{self, Found};
use super::load::{Loaded, Said, join_demo};
use super::{Settings, SettingsErrors};

/// What is put in place while the process runs. `*` stands for any name.
const LIVE: &[&str] = &[
    "access",
    "backends",
    "breaker",
    "compression",
    "default_region",
    "health",
    "limits",
    "log.access",
    "log.level",
    "page",
    "proxy",
    "regions.*",
    "reload",
    "retry",
    "rules",
    "security",
    "shutdown",
    "static",
    "tls.backends",
    "tls.certificates",
    "tls.default",
];

/// What of it is not: listeners and the room behind them, and what is built once for all of them.
const FIXED: &[&str] = &[
    "proxy.bind",
    "proxy.max_connections",
    "proxy.port",
    "proxy.reuse_port",
    "regions.*.hub.bind",
    "regions.*.hub.port",
];

/// What a reload does.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is in effect after it: the wanted configuration, with the running values of `restart`.
    pub effective: Loaded,
    /// Keys that change now.
    pub live: Vec<String>,
    /// Keys that were changed in the sources, and wait for a restart.
    pub restart: Vec<String>,
}

/// What it takes to go from `running` to `wanted`, both of this process.
///
/// # Errors
/// Where the wanted values contradict those that only a restart could change.
pub fn step(running: &Loaded, wanted: &Loaded) -> Result<Step, SettingsErrors> {
    let restart: Vec<String> =
        difference(running, wanted).into_iter().filter(|key| !is_live(key)).collect();
    let effective = if restart.is_empty() {
        Loaded { parts: running.parts.clone(), ..wanted.clone() }
    } else {
        mix(running, wanted, &restart)?
    };
    let live = difference(running, &effective);
    Ok(Step { effective, live, restart })
}

/// Whether a change of `key` needs no restart.
fn is_live(key: &str) -> bool {
    let under = |pattern: &&str| {
        let mut path = key.split('.');
        pattern.split('.').all(|wanted| path.next().is_some_and(|is| wanted == "*" || wanted == is))
    };
    LIVE.iter().any(under) && !FIXED.iter().any(under)
}

/// The wanted configuration with the running values of `fixed`.
fn mix(running: &Loaded, wanted: &Loaded, fixed: &[String]) -> Result<Loaded, SettingsErrors> {
    let mut said = wanted.said.0.clone();
    let mut provenance = wanted.provenance.clone();
    for key in fixed {
        let path: Vec<&str> = key.split('.').collect();
        match find(&running.said.0, &path) {
            Some(value) => put(&mut said, &path, value.clone()),
            None => remove(&mut said, &path),
        }
        provenance.set(key.clone(), running.provenance.of(key).clone());
    }
    let settings = Settings::deserialize(Value::Table(said.clone()))
        .map_err(|error| SettingsErrors::of_the_whole(error.message()))?;
    let problems: Vec<_> = check::contradictions(&settings, &running.parts, &provenance)
        .into_iter()
        .map(|found| found.into_problem(&provenance))
        .collect();
    if !problems.is_empty() {
        return Err(SettingsErrors::new(problems));
    }
    let mut mixed = Loaded {
        warnings: wanted.warnings.clone(),
        settings,
        parts: running.parts.clone(),
        environment: wanted.environment,
        provenance,
        said: Said(said),
    };
    join_demo(&mut mixed);
    Ok(mixed)
}

/// The keys whose values differ, in the order of their names.
fn difference(one: &Loaded, other: &Loaded) -> Vec<String> {
    let (ones, others) = (values(&one.settings), values(&other.settings));
    let keys: BTreeSet<&String> = ones.keys().chain(others.keys()).collect();
    let differs = |key: &&String| {
        let path: Vec<&str> = key.split('.').collect();
        let (said, other_said) = (find(&one.said.0, &path), find(&other.said.0, &path));
        match (ones.get(*key), others.get(*key)) {
            // Printed, all secrets are alike.
            (Some(value), Some(other)) => value != other || (is_secret(key) && said != other_said),
            // With a region come the defaults of all its keys, which nobody wants to read.
            _ => said.is_some() || other_said.is_some(),
        }
    };
    keys.into_iter().filter(differs).cloned().collect()
}

fn is_secret(key: &str) -> bool {
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    matches!(keys::find(&path), Found::Key(key) if key.kind.is_secret())
}

/// Every key that has a value, with it; what is not set is left out.
pub(super) fn values(settings: &Settings) -> BTreeMap<String, Json> {
    let mut found = BTreeMap::new();
    if let Ok(all) = serde_json::to_value(settings) {
        collect(all, &mut Vec::new(), &mut found);
    }
    for (name, region) in &settings.regions {
        if region.hub.as_ref().is_some_and(|hub| hub.port.is_none()) {
            // Of a hub elsewhere; nothing listens on it.
            found.remove(&format!("regions.{name}.hub.bind"));
        }
    }
    found
}

fn collect(value: Json, path: &mut Vec<String>, found: &mut BTreeMap<String, Json>) {
    match value {
        Json::Object(members) if !matches!(keys::find(path), Found::Key(_)) => {
            for (name, member) in members {
                path.push(name);
                collect(member, path, found);
                path.pop();
            }
        }
        Json::Null => {}
        value => drop(found.insert(path.join("."), value)),
    }
}

fn find<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, name| value.get(name))
}

fn put(table: &mut Table, path: &[&str], value: Value) {
    match path {
        [] => {}
        [name] => drop(table.insert((*name).to_owned(), value)),
        [name, rest @ ..] => {
            let below = table.entry(*name).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                put(below, rest, value);
            }
        }
    }
}

/// Removes a value, and the sections that are empty without it.
fn remove(table: &mut Table, path: &[&str]) {
    match path {
        [] => {}
        [name] => drop(table.remove(*name)),
        [name, rest @ ..] => {
            if let Some(Value::Table(below)) = table.get_mut(*name) {
                remove(below, rest);
                if below.is_empty() {
                    table.remove(*name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::keys::KEYS;
    use crate::settings::{LoadOptions, RegionName, load};

    fn loaded(set: &[&str]) -> Loaded {
        let variables = [("NODE_ENV".to_owned(), "production".to_owned())].into();
        let set = set.iter().map(|&text| text.to_owned()).collect();
        let folder = "/nonexistent".into();
        load(&LoadOptions { folder, variables, set, ..LoadOptions::default() }).unwrap()
    }

    #[test]
    fn nothing_changes_where_nothing_was_changed() {
        let running = loaded(&[]);
        let step = step(&running, &running).unwrap();
        assert!(step.live.is_empty() && step.restart.is_empty());
    }

    #[test]
    fn what_can_be_applied_is_told_from_what_cannot() {
        let running = loaded(&[]);
        let wanted = loaded(&[
            "proxy.first_byte_timeout=3s",
            "proxy.port=4000",
            "log.level=debug",
            "workers=3",
            "hub.ping_interval=20s",
            "regions.1.backends=http://127.0.0.1:1",
            "regions.1.hub.port=5001",
            "regions.2.hub.port=5009",
        ]);
        let step = step(&running, &wanted).unwrap();
        assert_eq!(
            step.live,
            ["log.level", "proxy.first_byte_timeout", "regions.1.backends"],
            "{step:?}"
        );
        assert_eq!(
            step.restart,
            ["hub.ping_interval", "proxy.port", "regions.2.hub.port", "workers"]
        );
        let effective = &step.effective.settings;
        assert_eq!((effective.proxy.port, effective.workers), (3000, 0));
        assert_eq!(effective.proxy.first_byte_timeout.as_secs(), 3);
        let hub = effective.regions[&RegionName::literal("2")].hub.clone().unwrap();
        assert_eq!(hub.port, Some(5002));
    }

    #[test]
    fn what_waits_for_a_restart_is_told_again() {
        let (running, wanted) = (loaded(&[]), loaded(&["workers=3"]));
        let first = step(&running, &wanted).unwrap();
        let second = step(&first.effective, &wanted).unwrap();
        assert_eq!((second.live.len(), second.restart), (0, vec!["workers".to_owned()]));
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let key = |text: &str| loaded(&[&format!("api.keys.dev={text}")]);
        let step = step(&key("geheim"), &key("anders")).unwrap();
        assert_eq!(step.restart, ["api.keys.dev"]);
        assert!(!format!("{step:?}").contains("geheim"));
        let mixed =
            super::step(&key("geheim"), &loaded(&["api.keys.dev=anders", "proxy.fail_timeout=1s"]));
        let kept = mixed.unwrap().effective.settings.api.keys["dev"].clone();
        assert!(kept == key("geheim").settings.api.keys["dev"]);
    }

    #[test]
    fn a_region_with_a_hub_that_is_not_opened_yet_has_its_backends_already() {
        let both = ["regions.1.hub.port=5001", "regions.1.backends=http://127.0.0.1:1"];
        let running = loaded(&both);
        let more = ["regions.n.backends=http://127.0.0.1:2", "regions.n.hub.port=5010"];
        let step = step(&running, &loaded(&[&both[..], &more[..]].concat())).unwrap();
        assert_eq!(step.live, ["regions.n.backends"]);
        assert_eq!(step.restart, ["regions.n.hub.port"]);
        assert!(step.effective.settings.regions[&RegionName::literal("n")].hub.is_none());
        // … and one of a hub alone is not there at all.
        let hub = loaded(&[&both[..], &["regions.n.hub.port=5010"][..]].concat());
        let step = super::step(&running, &hub).unwrap();
        assert!(step.live.is_empty(), "{step:?}");
        assert_eq!(step.effective.settings.regions.len(), 1);
    }

    #[test]
    fn a_contradiction_with_what_stays_is_refused() {
        let running = loaded(&["regions.1.backends=http://127.0.0.1:1"]);
        let wanted = loaded(&[
            "regions.1.backends=http://127.0.0.1:1",
            "regions.n.hub.port=5010",
            "default_region=n",
        ]);
        let refused = step(&running, &wanted).unwrap_err().to_string();
        assert!(refused.contains("region `n` is not configured"), "{refused}");
    }

    #[test]
    fn every_pattern_names_keys() {
        // Sections of parts that a build need not have.
        const MAYBE: [&str; 4] = ["breaker", "health", "regions.*.processes", "retry"];
        for pattern in LIVE.iter().chain(FIXED).filter(|pattern| !MAYBE.contains(pattern)) {
            let known = KEYS
                .iter()
                .any(|key| key.path == *pattern || key.path.starts_with(&format!("{pattern}.")));
            assert!(known || *pattern == "proxy.reuse_port", "{pattern}");
        }
    }

    fn assignment() -> impl Strategy<Value = String> {
        proptest::sample::select(vec![
            "workers=2",
            "proxy.port=4000",
            "proxy.connect_timeout=1s",
            "log.level=warn",
            "log.format=json",
            "regions.a.backends=http://127.0.0.1:1",
            "regions.b.backends=http://127.0.0.1:2",
            "regions.b.hub.url=http://127.0.0.1:3",
            "api.keys.x=one",
            "api.keys.x=two",
            "admin.port=1",
            "demo.port_a=9",
            "page.path=/p/",
            "default_region=a",
            "bus.redis.password=p",
        ])
        .prop_map(str::to_owned)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn after_a_step_only_what_waits_is_left(
            one in proptest::collection::vec(assignment(), 0..6),
            other in proptest::collection::vec(assignment(), 0..6),
        ) {
            let both = "regions.a.backends=http://127.0.0.1:9".to_owned();
            let all = |more: &Vec<String>| {
                let all: Vec<&str> = std::iter::once(&both).chain(more).map(String::as_str).collect();
                loaded(&all)
            };
            let (running, wanted) = (all(&one), all(&other));
            let step = step(&running, &wanted).unwrap();
            prop_assert_eq!(difference(&step.effective, &wanted), step.restart.clone());
            prop_assert!(step.live.iter().all(|key| is_live(key)));
            prop_assert!(step.restart.iter().all(|key| !is_live(key)));
        }
    }
}
