//! All sources into one value, and every mistake of all of them into one answer.
//!
//! Walk: `files` and `dotenv` read, `variables` names the keys of variables; each source becomes a
//! list of leaves (`leaf`: one key, its value, its source). `merge` tries each leaf alone on the
//! types, so that each mistake is reported with its own source, and lays the good ones over each
//! other; `check` then looks for contradictions.
//!
//! Invariants: nothing here reads the process except [`LoadOptions::from_process`]; no source stops
//! the reading of the next.

mod dotenv;
mod files;
mod leaf;
mod merge;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

#[cfg(test)]
pub(super) use self::variables::{VARIABLES, is_read};

use self::leaf::Leaf;
use self::variables::HubPort;
use super::problem::{Problem, Provenance, SettingsErrors, Source};
use super::{Content, Environment, Parts, ServiceManager, Settings};
use super::{check, idle};

/// The key of the API in development, where no other is named.
const DEVELOPMENT_KEY: &str = "meridian-development";
/// The section of the API's keys.
const API_KEYS: [&str; 2] = ["api", "keys"];

/// Where to look; all of it is data, so that a test needs no process of its own.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The working folder: of `.env`, of `config`, and of a relative `config` option.
    pub folder: PathBuf,
    /// `--config`: the folder with `default.toml`; without it `config`, which may be missing.
    pub config: Option<PathBuf>,
    /// The variables of the process.
    pub variables: BTreeMap<String, String>,
    /// Variables whose values are not UTF-8.
    pub unreadable: BTreeSet<String>,
    /// Each `--set key=value`.
    pub set: Vec<String>,
    /// Each `--only part`, or several of them with commas between.
    pub only: Vec<String>,
}

impl LoadOptions {
    /// The working folder and the variables of this process.
    pub fn from_process() -> Self {
        let mut options = Self { folder: PathBuf::from("."), ..Self::default() };
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => drop(options.variables.insert(name, value)),
                Err(_) => drop(options.unreadable.insert(name)),
            }
        }
        options
    }

    /// What the service manager said to this process.
    pub fn service_manager(&self) -> ServiceManager {
        ServiceManager::of(&self.variables)
    }
}

impl std::fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The variables of this process that a program which it starts must not inherit.
pub fn hidden_variables() -> Vec<String> {
    let names: Vec<_> =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    variables::hidden(names.iter().map(String::as_str)).into_iter().map(str::to_owned).collect()
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// Which of this process's parts run.
    pub parts: Parts,
    pub environment: Environment,
    /// Who gave each value.
    pub provenance: Provenance,
    /// What the sources said, from which a reload composes what it applies.
    pub(super) said: Said,
    /// What need not be wrong, but looks like it.
    pub warnings: Vec<Problem>,
}

/// Values as they were said, before defaults; no `Debug` of them, since they hold secrets.
#[derive(Clone, Default)]
pub(super) struct Said(pub(super) toml::Table);

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Said(***)")
    }
}

/// What was gathered from the sources so far, in the order of precedence.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    leaves: Vec<Leaf>,
    problems: Vec<Problem>,
    /// Some source said something under `regions`, so the built-in ones are gone.
    names_regions: bool,
    /// A whole file could not be read: what it would have said is unknown.
    incomplete: bool,
}

impl Gathered {
    fn problem(&mut self, source: impl std::fmt::Display, key: impl Into<String>, message: String) {
        self.problems.push(Problem::new(source, key, message));
    }
}

/// Reads every source, later over earlier: built-in defaults, `default.toml`, the environment's
/// file, `.env`, variables, `--set`.
///
/// # Errors
/// Every problem of all sources at once.
pub fn load(options: &LoadOptions) -> Result<Loaded, SettingsErrors> {
    let mut gathered = Gathered::default();
    let dotenv = dotenv::read(&options.folder, &mut gathered);
    let environment = variables::environment(&dotenv, &options.variables, &mut gathered);
    variables::refuse_unreadable(&options.unreadable, &mut gathered);

    files::read(options, environment, &mut gathered);
    let mut hub_ports = variables::gather(&dotenv, Source::DotEnv, &mut gathered);
    hub_ports.extend(variables::gather(&options.variables, Source::Variable, &mut gathered));
    leaf::from_flags(&options.set, &mut gathered);
    gathered.leaves.extend(built_in(environment, &gathered));
    gathered.leaves.extend(dev_folder(options));
    place_hub_ports(hub_ports, &mut gathered);
    // Stable: within one source, what came first stays first.
    gathered.leaves.sort_by_key(|leaf| leaf.source.rank());

    let merged = merge::merge(gathered);
    let mut problems = merged.problems;
    let (parts, part_problems) = Parts::select(&options.only, &merged.settings);
    problems.extend(part_problems);
    if !merged.incomplete {
        let dev = check::dev_tls(&merged.settings, environment);
        let found = check::contradictions(&merged.settings, &parts, &merged.provenance);
        for found in found.into_iter().chain(dev) {
            // What follows from a value already refused would only distract from it.
            if !found.keys.iter().any(|key| concerns(&merged.refused, key)) {
                problems.push(found.into_problem(&merged.provenance));
            }
        }
    }
    if !problems.is_empty() {
        return Err(SettingsErrors::new(problems));
    }
    let mut loaded = Loaded {
        settings: merged.settings,
        parts,
        environment,
        provenance: merged.provenance,
        said: Said(merged.said),
        warnings: Vec::new(),
    };
    loaded.warnings = missing_programs(&loaded, options.variables.get("PATH").map(String::as_str));
    loaded.warnings.extend(idle::idle(&loaded.settings, &loaded.provenance));
    join_demo(&mut loaded);
    Ok(loaded)
}

/// What the files hold that [`load`] would read now, those that are missing included; `None` where one of them is there and
/// cannot be read. Which files these are, only a start decides anew.
pub fn fingerprint(options: &LoadOptions, environment: Environment) -> Option<Fingerprint> {
    let mut digest = Sha256::new();
    let mut there = Vec::new();
    for path in files::paths(options, environment) {
        let text = files::read_bounded(&path).ok()?;
        there.push(text.is_some());
        let text = text.unwrap_or_default();
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    Some(Fingerprint { there, content: digest.finalize().into() })
}

/// See [`fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which of the files there are.
    there: Vec<bool>,
    content: Content,
}

impl Fingerprint {
    pub fn content(&self) -> Content {
        self.content
    }

    /// Whether a file is missing that was there then.
    pub fn lacks(&self, then: &Self) -> bool {
        then.there.iter().zip(&self.there).any(|(then, now)| *then && !*now)
    }
}

/// Processes whose program is not there now; it may be by the time it is started.
fn missing_programs(loaded: &Loaded, path: Option<&str>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (region, settings) in &loaded.settings.regions {
        for (name, process) in &settings.processes {
            if let Some(program) = process.command.first()
                && process.find_program(path).is_none()
            {
                let key = format!("regions.{region}.processes.{name}.command");
                let message = format!("the program {program:?} is not found");
                warnings.push(Problem::new(loaded.provenance.of(&key), key, message));
            }
        }
    }
    warnings
}

/// Whether a value of `key`, or of a key below it, was refused.
fn concerns(refused: &BTreeSet<String>, key: &str) -> bool {
    refused
        .iter()
        .filter_map(|refused| refused.strip_prefix(key))
        .any(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What is built in beyond the defaults of the types, so that the gateway runs without any file.
fn built_in(environment: Environment, gathered: &Gathered) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    if !gathered.names_regions {
        for (region, port) in [("1", 5001), ("2", 5002)] {
            let path = ["regions", region, "hub", "port"];
            leaves.push(Leaf::built_in(&path, toml::Value::Integer(port), Source::BuiltIn));
        }
    }
    if environment == Environment::Development {
        let source = Source::BuiltInFor(environment);
        let page = toml::Value::String("/client/".to_owned());
        leaves.push(Leaf::built_in(&["page", "path"], page, source.clone()));
        // Everybody knows the key below, so only this machine may use it.
        let loopback = toml::Value::String(Ipv4Addr::LOCALHOST.to_string());
        leaves.push(Leaf::built_in(&["api", "bind"], loopback, source.clone()));
        // Nobody who names keys of his own is left with one that everybody knows.
        let is_key = |leaf: &Leaf| matches!(leaf.path.as_slice(), [a, b, _] if [a, b] == API_KEYS);
        if !gathered.leaves.iter().any(is_key) {
            let key = toml::Value::String(DEVELOPMENT_KEY.to_owned());
            leaves.push(Leaf::built_in(&["api", "keys", "dev"], key, source.clone()));
        }
        // The demo's servers belong to the built-in regions; others need not have these names.
        if !gathered.names_regions {
            let on = toml::Value::Boolean(true);
            leaves.push(Leaf::built_in(&["demo", "enabled"], on, source));
        }
    }
    leaves
}

/// The folder of the development authority: the user's own for data, so that what a browser was told to trust is
/// found again from wherever the gateway is started.
fn dev_folder(options: &LoadOptions) -> Option<Leaf> {
    let named = |name: &str| options.variables.get(name).filter(|text| !text.is_empty());
    let data = named("XDG_DATA_HOME").map(PathBuf::from);
    let folder = data.or_else(|| Some(PathBuf::from(named("HOME")?).join(".local/share")))?;
    let folder = folder.join("meridian").to_str()?.to_owned();
    let path = ["tls", "dev_folder"];
    Some(Leaf::built_in(&path, toml::Value::String(folder), Source::BuiltIn))
}

/// Gives each `WS_SERVER_<REGION>_PORT` its region, now that all regions are known.
fn place_hub_ports(ports: Vec<HubPort>, gathered: &mut Gathered) {
    let regions: BTreeSet<String> = gathered
        .leaves
        .iter()
        .filter(|leaf| leaf.path.first().is_some_and(|section| section == "regions"))
        .filter_map(|leaf| leaf.path.get(1).cloned())
        .collect();
    for port in ports {
        match port.region_among(&regions) {
            Some(region) => gathered.leaves.push(port.into_leaf(region)),
            None if gathered.incomplete => {}
            None => {
                let known = regions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let message =
                    format!("no region `{}` is configured; the regions are {known}", port.region);
                gathered.problem(&port.source, "", message);
            }
        }
    }
}

/// The demo's servers become backends of their regions; those on port 0 do when they are bound.
pub(super) fn join_demo(loaded: &mut Loaded) {
    let demo = loaded.settings.demo.clone();
    if !demo.enabled {
        return;
    }
    for (region, port, key) in
        [(demo.region_a, demo.port_a, "demo.port_a"), (demo.region_b, demo.port_b, "demo.port_b")]
    {
        if port == 0 || !loaded.settings.add_backend(&region, &format!("http://127.0.0.1:{port}")) {
            continue;
        }
        let backends = format!("regions.{region}.backends");
        let before = loaded.provenance.of(&backends);
        let source =
            if before.is_built_in() { key.to_owned() } else { format!("{before} and {key}") };
        loaded.provenance.set(backends, Source::Derived(source));
    }
}
