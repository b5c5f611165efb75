//! A supervised process: what is started, how it is known to be ready, when it is given up.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::region::RegionName;
use super::words;

/// Section `[regions.<name>.processes.<process>]`: instances of one program, each a backend of the region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    /// The program and its arguments.
    #[serde(deserialize_with = "command")]
    pub command: Vec<String>,
    /// Where it runs; not set, where the gateway does.
    pub dir: Option<PathBuf>,
    /// Variables besides the gateway's own, each as `NAME=value`; they win.
    pub env: Vec<String>,
    pub instances: Instances,
    /// The first port that is given out; not set, each start gets a free one.
    pub port_base: Option<NonZeroU16>,
    /// A GET for it must be answered with 200 to 399; empty: a connection must be taken.
    pub ready_path: String,
    /// From the start until it must be ready.
    #[serde(with = "humantime_serde")]
    pub ready_timeout: Duration,
    /// What asks it to end.
    pub stop_signal: StopSignal,
    /// How long its exchanges, and then it itself, have to end.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Duration,
    /// The pause before the first restart; it doubles …
    #[serde(with = "humantime_serde")]
    pub restart_min: Duration,
    /// … up to this.
    #[serde(with = "humantime_serde")]
    pub restart_max: Duration,
    /// Restarts of one instance within `restart_window` after which it is in a crash loop.
    pub max_restarts: u32,
    #[serde(with = "humantime_serde")]
    pub restart_window: Duration,
    /// How long an instance in a crash loop waits before it is tried again.
    #[serde(with = "humantime_serde")]
    pub crash_loop_retry: Duration,
    /// Resident bytes of an instance, children included, over which it is replaced; 0: no limit.
    pub max_memory: u64,
    /// The share of each instance among the backends of the region.
    pub weight: u16,
    /// Used only when no backend without this mark can be.
    pub backup: bool,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            dir: None,
            env: Vec::new(),
            instances: Instances::Count(NonZeroU16::MIN),
            port_base: None,
            ready_path: String::new(),
            ready_timeout: Duration::from_secs(30),
            stop_signal: StopSignal::Term,
            // Below what orchestrators grant the whole.
            stop_timeout: Duration::from_secs(10),
            restart_min: Duration::from_millis(100),
            restart_max: Duration::from_secs(30),
            max_restarts: 10,
            restart_window: Duration::from_mins(1),
            crash_loop_retry: Duration::from_mins(1),
            max_memory: 0,
            weight: 1,
            backup: false,
        }
    }
}

impl ProcessSettings {
    /// Whether `name` may name a process: the rule of region names.
    pub fn is_name(name: &str) -> bool {
        RegionName::is_valid(name)
    }

    /// The program where it is found: by its path from `dir`, or along `PATH`, the process's own before `path`.
    pub fn find_program(&self, path: Option<&str>) -> Option<PathBuf> {
        let program = self.command.first()?;
        let folder = self.dir.as_deref().unwrap_or(Path::new("."));
        if program.contains('/') {
            return Some(folder.join(program)).filter(|file| is_program(file));
        }
        let own = self.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
        let path = own.or(path).unwrap_or("/usr/local/bin:/usr/bin:/bin");
        path.split(':').map(|place| folder.join(place).join(program)).find(|file| is_program(file))
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// How many instances run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// One for each core that the process may use.
    Max,
    Count(NonZeroU16),
}

impl Instances {
    /// Below the most backends of a region, with one in reserve.
    pub const MOST: u16 = 60;

    /// The number that is meant.
    pub fn count(self) -> usize {
        match self {
            Self::Max => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(usize::from(Self::MOST)),
            Self::Count(count) => usize::from(count.get()),
        }
    }
}

impl Serialize for Instances {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Max => serializer.serialize_str("max"),
            Self::Count(count) => serializer.serialize_u16(count.get()),
        }
    }
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(NonZeroU16),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) if count.get() <= Self::MOST => Ok(Self::Count(count)),
            Written::Word(word) if word == "max" => Ok(Self::Max),
            _ => Err(serde::de::Error::custom("neither a number of instances nor max")),
        }
    }
}

/// A signal by its name without `SIG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Kill,
}

impl StopSignal {
    pub(super) const NAMES: &[&str] = &["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"];
}

/// A list of words, or one text that is split into words.
fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Words(Vec<String>),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Words(words) => Ok(words),
        // A list that was not one: it would become a strange word.
        Written::Text(text) if text.trim_start().starts_with('[') => {
            Err(serde::de::Error::custom("not a list of texts"))
        }
        Written::Text(text) => words::split(&text).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ProcessSettings, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_command_is_a_list_or_a_text() {
        let of = |text: &str| read(&format!("command = {text}")).map(|read| read.command);
        assert_eq!(of(r#"["node", "a b.js"]"#).unwrap(), ["node", "a b.js"]);
        assert_eq!(of(r#""node 'a b.js'""#).unwrap(), ["node", "a b.js"]);
        assert!(of(r#""[node]""#).is_err());
        assert!(of(r#""node | tee""#).is_err());
    }

    #[test]
    fn instances_are_a_number_or_max() {
        let of = |text: &str| read(&format!("instances = {text}")).map(|read| read.instances);
        assert_eq!(of("3").unwrap().count(), 3);
        assert_eq!(of("\"max\"").unwrap(), Instances::Max);
        for wrong in ["0", "61", "-1", "\"many\""] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_program_is_found_as_the_start_will_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let process = |program: &str| ProcessSettings {
            command: vec![program.to_owned()],
            dir: Some(folder.path().to_owned()),
            ..ProcessSettings::default()
        };
        assert!(process("sh").find_program(None).is_some());
        assert!(process("sh").find_program(Some("/nowhere")).is_none());
        assert!(process("./sh").find_program(None).is_none());
        assert!(process("/bin/sh").find_program(None).is_some());
        let own = ProcessSettings { env: vec!["PATH=/bin".to_owned()], ..process("sh") };
        assert!(own.find_program(Some("/nowhere")).is_some());
    }
}
