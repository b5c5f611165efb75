//! Environment variables: the named ones, `WS_SERVER_<REGION>_PORT`, and `CONF__SECTION__KEY` for the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::Gathered;
use super::leaf::{self, Leaf, Written};
use crate::settings::Environment;
use crate::settings::keys;
use crate::settings::problem::Source;

/// A variable with a name of its own.
#[derive(Debug)]
pub(in crate::settings) struct Variable {
    pub(in crate::settings) name: &'static str,
    /// The dotted key it sets; empty for what picks the environment.
    pub(in crate::settings) key: &'static str,
}

const fn variable(name: &'static str, key: &'static str) -> Variable {
    Variable { name, key }
}

/// The named variables; `.env.example` lists the same. Of `WS_SERVER_<REGION>_PORT` there are those
/// of the built-in regions.
pub(in crate::settings) const VARIABLES: &[Variable] = &[
    variable("NODE_ENV", ""),
    variable("APP_ENV", ""),
    variable("PROXY_PORT", "proxy.port"),
    variable("PROXY_TLS_PORT", "tls.port"),
    variable("PROXY_REDIRECT_PORT", "tls.redirect_port"),
    variable("PROXY_REDIRECT_HOST", "tls.redirect_host"),
    variable("PROXY_TLS_CERT", "tls.certificates.default.cert"),
    variable("PROXY_TLS_KEY", "tls.certificates.default.key"),
    variable("WS_SERVER_1_PORT", "regions.1.hub.port"),
    variable("WS_SERVER_2_PORT", "regions.2.hub.port"),
    variable("HTTP_SERVER_A_PORT", "demo.port_a"),
    variable("HTTP_SERVER_B_PORT", "demo.port_b"),
    variable("ADMIN_PORT", "admin.port"),
    variable("ADMIN_TOKEN", "admin.token"),
    variable("API_PORT", "api.port"),
    variable("API_KEY", "api.keys.default"),
    variable("REDIS_HOST", "bus.redis.host"),
    variable("REDIS_PORT", "bus.redis.port"),
    variable("REDIS_URL", "bus.redis.url"),
    variable("REDIS_USERNAME", "bus.redis.username"),
    variable("REDIS_PASSWORD", "bus.redis.password"),
    variable("LOG_LEVEL", "log.level"),
    variable("LOG_FORMAT", "log.format"),
];

/// Begins a variable for any key: `CONF__HUB__PING_INTERVAL`. Not the product's name, because platforms
/// inject variables that begin with the names of services.
const PREFIX: &str = "CONF__";

/// A port for a hub whose region is not looked up yet.
#[derive(Debug)]
pub(super) struct HubPort {
    /// As the variable writes it.
    pub(super) region: String,
    pub(super) source: Source,
    text: String,
}

impl HubPort {
    /// The region that is meant: by its exact name, else by the only one that differs from it in
    /// nothing but capitals and `-` for `_`, which shells do not allow in names of variables.
    pub(super) fn region_among(&self, regions: &BTreeSet<String>) -> Option<String> {
        if regions.contains(&self.region) {
            return Some(self.region.clone());
        }
        let plain = |name: &str| name.to_ascii_uppercase().replace('-', "_");
        let mut like = regions.iter().filter(|name| plain(name) == plain(&self.region));
        let first = like.next();
        first.filter(|_| like.next().is_none()).cloned()
    }

    pub(super) fn into_leaf(self, region: String) -> Leaf {
        let path = vec!["regions".to_owned(), region, "hub".to_owned(), "port".to_owned()];
        Leaf { path, written: Written::Exact(self.text), source: self.source }
    }
}

/// Gathers the leaves of one set of variables; `source` names one of them. Ports of hubs are given back.
pub(super) fn gather(
    variables: &BTreeMap<String, String>,
    source: fn(String) -> Source,
    gathered: &mut Gathered,
) -> Vec<HubPort> {
    let mut hub_ports = Vec::new();
    let mut leaves: Vec<Leaf> = Vec::new();
    // A variable that is set but empty counts as not set.
    let said = variables.iter().filter(|(name, text)| !text.is_empty() && !is_service(name, text));
    for (name, text) in said {
        let source = source(name.clone());
        let leaf = if let Some(region) = hub_region(name) {
            hub_ports.push(HubPort { region: region.to_owned(), source, text: text.clone() });
            continue;
        } else if let Some(known) = VARIABLES.iter().find(|known| known.name == name) {
            if known.key.is_empty() {
                continue;
            }
            let path = known.key.split('.').map(str::to_owned).collect();
            Leaf { path, written: Written::Exact(text.clone()), source }
        } else if let Some(rest) = name.strip_prefix(PREFIX) {
            match leaf::from_text(path_of(rest), text.clone(), source, gathered) {
                Some(leaf) => leaf,
                None => continue,
            }
        } else {
            continue;
        };
        if let Some(other) = leaves.iter().find(|other| other.path == leaf.path) {
            refuse_pair(other, &leaf, gathered);
        }
        leaves.push(leaf);
    }
    gathered.leaves.extend(leaves);
    hub_ports
}

/// Whether a platform put this variable there: Kubernetes announces a service called `redis` to every
/// pod as `REDIS_PORT=tcp://10.0.0.11:6379`, which nobody meant as a setting.
fn is_service(name: &str, text: &str) -> bool {
    name.ends_with("_PORT")
        && !name.starts_with(PREFIX)
        && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Two variables of one source for one key must say the same: neither is the later one.
fn refuse_pair(first: &Leaf, second: &Leaf, gathered: &mut Gathered) {
    let text = |leaf: &Leaf| match &leaf.written {
        Written::Exact(text) | Written::Loose(text) => text.clone(),
        Written::Typed(value) => value.to_string(),
    };
    if text(first) != text(second) {
        let message = format!("{} says another value for it; set one of them", first.source);
        gathered.problem(&second.source, second.key(), message);
    }
}

/// The region in `WS_SERVER_<REGION>_PORT`.
fn hub_region(name: &str) -> Option<&str> {
    name.strip_prefix("WS_SERVER_")?.strip_suffix("_PORT").filter(|region| !region.is_empty())
}

/// `HUB__PING_INTERVAL` as a path. Keys are lower case; the names of regions and processes keep theirs.
fn path_of(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for segment in rest.split("__") {
        let is_named = path.first().is_some_and(|first| first == "regions")
            && (path.len() == 1
                || path.len() == 3 && path.last().is_some_and(|last| last == "processes"));
        path.push(if is_named { segment.to_owned() } else { segment.to_ascii_lowercase() });
    }
    path
}

/// The environment that `NODE_ENV` and its synonym `APP_ENV` name: in the process, else in `.env`.
pub(super) fn environment(
    dotenv: &BTreeMap<String, String>,
    process: &BTreeMap<String, String>,
    gathered: &mut Gathered,
) -> Environment {
    const NAMES: [&str; 2] = ["NODE_ENV", "APP_ENV"];
    for (variables, source) in
        [(process, Source::Variable as fn(String) -> Source), (dotenv, Source::DotEnv)]
    {
        let mut said: Option<(Environment, &str)> = None;
        let mut any = false;
        for name in NAMES {
            let Some(text) = variables.get(name).filter(|text| !text.is_empty()) else {
                continue;
            };
            any = true;
            let problem = match (Environment::named(text), said) {
                (None, _) => format!("{text:?} is not one of development, production"),
                (Some(this), Some((other, name))) if this != other => {
                    format!("it says {this}, but its synonym {name} says {other}; set one of them")
                }
                (Some(this), _) => {
                    said = Some((this, name));
                    continue;
                }
            };
            gathered.problem(source(name.to_owned()), "", problem);
        }
        if any {
            return said.map_or_else(Environment::default, |(environment, _)| environment);
        }
    }
    Environment::default()
}

/// What a service manager tells this process alone.
const OF_THE_MANAGER: [&str; 6] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Of `names`, the variables that a program which the gateway starts does not inherit: they may hold secrets of the
/// gateway's own, and what it needs of them is written into its `env`.
pub(super) fn hidden<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_secret = |key: &str| {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        matches!(keys::find(&path), keys::Found::Key(key) if key.kind.is_secret())
    };
    let hidden = |name: &&str| {
        name.starts_with(PREFIX)
            || OF_THE_MANAGER.contains(name)
            || VARIABLES.iter().any(|known| known.name == *name && is_secret(known.key))
    };
    names.filter(hidden).collect()
}

/// Variables of ours whose values are not UTF-8.
pub(super) fn refuse_unreadable(names: &BTreeSet<String>, gathered: &mut Gathered) {
    for name in names {
        let ours = VARIABLES.iter().any(|known| known.name == name)
            || name.starts_with(PREFIX)
            || hub_region(name).is_some();
        if ours {
            gathered.problem(name, "", "its value is not UTF-8".to_owned());
        }
    }
}

/// Whether a variable of this name would be read.
#[cfg(test)]
pub(in crate::settings) fn is_read(name: &str) -> bool {
    VARIABLES.iter().any(|known| known.name == name)
        || hub_region(name).is_some()
        || name
            .strip_prefix(PREFIX)
            .is_some_and(|rest| matches!(keys::find(&path_of(rest)), keys::Found::Key(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_and_regions_keep_their_case() {
        assert_eq!(path_of("HUB__PING_INTERVAL"), ["hub", "ping_interval"]);
        assert_eq!(path_of("REGIONS__euWest__HUB__PORT"), ["regions", "euWest", "hub", "port"]);
        let process = path_of("REGIONS__EU__PROCESSES__Web__PORT_BASE");
        assert_eq!(process, ["regions", "EU", "processes", "Web", "port_base"]);
        assert_eq!(path_of("DEFAULT_REGION"), ["default_region"]);
    }

    #[test]
    fn started_programs_get_no_secret_of_the_gateway() {
        let names =
            ["PATH", "API_KEY", "NODE_ENV", "REDIS_PASSWORD", "REDIS_URL", "CONF__X", "REDIS_HOST"];
        assert_eq!(
            hidden(names.into_iter()),
            ["API_KEY", "REDIS_PASSWORD", "REDIS_URL", "CONF__X"]
        );
    }

    #[test]
    fn every_named_variable_sets_a_key_that_exists() {
        for variable in VARIABLES.iter().filter(|variable| !variable.key.is_empty()) {
            let path: Vec<String> = variable.key.split('.').map(str::to_owned).collect();
            assert!(matches!(keys::find(&path), keys::Found::Key(_)), "{variable:?}");
        }
    }

    #[test]
    fn a_hub_port_finds_its_region_in_capitals_too() {
        let regions: BTreeSet<String> =
            ["eu-west", "us", "US", "Asia"].map(str::to_owned).into_iter().collect();
        let found = |region: &str| {
            HubPort { region: region.to_owned(), source: Source::BuiltIn, text: String::new() }
                .region_among(&regions)
        };
        assert_eq!(found("EU_WEST").as_deref(), Some("eu-west"));
        assert_eq!(found("ASIA").as_deref(), Some("Asia"));
        assert_eq!(found("US").as_deref(), Some("US"));
        assert_eq!(found("Us"), None, "two regions could be meant");
        assert_eq!(found("mars"), None);
    }
}
