//! Which parts of the gateway one process starts.

use std::collections::BTreeSet;

use super::problem::Problem;
use super::{RegionName, Settings};

/// The parts to start. The admin listener belongs to every process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub proxy: bool,
    /// Regions whose hub this process hosts.
    pub hubs: BTreeSet<RegionName>,
    /// The API's own listener.
    pub api: bool,
    pub demo: bool,
}

impl Parts {
    /// Every part that the settings configure for a process of its own.
    pub fn all(settings: &Settings) -> Self {
        let hosted = settings
            .regions
            .iter()
            .filter(|(_, region)| region.hub.as_ref().is_some_and(|hub| hub.port.is_some()));
        Self {
            proxy: true,
            hubs: hosted.map(|(name, _)| name.clone()).collect(),
            api: settings.api.enabled,
            demo: settings.demo.enabled,
        }
    }

    /// The parts that `--only` names (each entry one, or several with commas); all without it.
    pub(super) fn select(only: &[String], settings: &Settings) -> (Self, Vec<Problem>) {
        let all = Self::all(settings);
        if only.is_empty() {
            return (all, Vec::new());
        }
        let mut parts = Self::default();
        let mut problems = Vec::new();
        let names = only.iter().flat_map(|entry| entry.split(',')).map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            let hub = name.strip_prefix("hub-").and_then(|region| all.hubs.get(region));
            if name == "proxy" {
                parts.proxy = true;
            } else if name == "api" && all.api {
                parts.api = true;
            } else if name == "demo" && all.demo {
                parts.demo = true;
            } else if let Some(region) = hub {
                parts.hubs.insert(region.clone());
            } else {
                let message = format!("{name:?} is not one of {}", all.names().join(", "));
                problems.push(Problem::new("--only", "", message));
            }
        }
        if parts == Self::default() && problems.is_empty() {
            let message = format!("it names no part; write some of {}", all.names().join(", "));
            problems.push(Problem::new("--only", "", message));
        }
        (parts, problems)
    }

    /// The names as `--only` takes them.
    pub fn names(&self) -> Vec<String> {
        let proxy = self.proxy.then(|| "proxy".to_owned());
        let hubs = self.hubs.iter().map(|region| format!("hub-{region}"));
        let api = self.api.then(|| "api".to_owned());
        let demo = self.demo.then(|| "demo".to_owned());
        proxy.into_iter().chain(hubs).chain(api).chain(demo).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{HubPlace, RegionSettings};

    fn settings() -> Settings {
        let mut settings = Settings::default();
        for (name, port) in [("1", Some(5001)), ("eu-west", Some(5002)), ("far", None)] {
            let hub = Some(HubPlace { port, ..HubPlace::default() });
            let region = RegionSettings { hub, ..RegionSettings::default() };
            settings.regions.insert(RegionName::literal(name), region);
        }
        settings
    }

    fn select(only: &[&str]) -> (Parts, Vec<Problem>) {
        let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
        Parts::select(&only, &settings())
    }

    #[test]
    fn without_only_everything_that_is_configured_runs() {
        let (parts, problems) = select(&[]);
        assert!(problems.is_empty());
        assert_eq!(parts.names(), ["proxy", "hub-1", "hub-eu-west", "api"]);
    }

    #[test]
    fn parts_are_named_repeatedly_or_with_commas() {
        let (parts, problems) = select(&["hub-1, hub-eu-west", "proxy", "api"]);
        assert!(problems.is_empty());
        assert_eq!(parts, Parts::all(&settings()));
        assert_eq!(select(&["hub-1"]).0.names(), ["hub-1"]);
    }

    #[test]
    fn a_part_that_does_not_exist_is_answered_with_those_that_do() {
        for name in ["hub-9", "demo", "hub-far", "Proxy", "API"] {
            let (_, problems) = select(&[name]);
            let said = problems.first().expect(name).to_string();
            assert_eq!(
                said,
                format!("--only: {name:?} is not one of proxy, hub-1, hub-eu-west, api")
            );
        }
        assert_eq!(select(&[","]).1.len(), 1);
    }
}
