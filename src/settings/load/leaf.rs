//! One key, what was written for it, and where: the form in which every source is handed on.

use toml::{Table, Value};

use super::Gathered;
use crate::settings::keys::{self, Found};
use crate::settings::limits::is_entry_name;
use crate::settings::problem::Source;
use crate::settings::{ApiSettings, ProcessSettings, RegionName, TlsSettings};

/// One value of one source; where it is an empty table, the section itself.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    pub(super) written: Written,
    pub(super) source: Source,
}

/// A value as its source gave it.
#[derive(Clone, Debug)]
pub(super) enum Written {
    /// With a type of its own, from a file.
    Typed(Value),
    /// From a variable whose whole text is the value.
    Exact(String),
    /// From a variable or flag for any key: a text, or a TOML value, as the key's type asks.
    Loose(String),
}

impl Leaf {
    pub(super) fn built_in(path: &[&str], value: Value, source: Source) -> Self {
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        Self { path, written: Written::Typed(value), source }
    }

    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }
}

/// The leaves of a file's table below `path`.
pub(super) fn from_table(table: Table, path: &[String], source: &Source, gathered: &mut Gathered) {
    for (name, value) in table {
        let mut path = path.to_vec();
        path.push(name);
        let Some(found) = look_up(&path, source, gathered) else {
            continue;
        };
        match (found, value) {
            (Found::Section, Value::Table(members)) if !members.is_empty() => {
                from_table(members, &path, source, gathered);
            }
            (Found::Section, value) if !value.is_table() => {
                let message =
                    format!("{value} is not a section; its keys are {}", keys::names_below(&path));
                gathered.problem(source, path.join("."), message);
            }
            (_, value) => gathered.leaves.push(Leaf {
                path,
                written: Written::Typed(value),
                source: source.clone(),
            }),
        }
    }
}

/// The leaf of a key that a variable or flag names; `None` where there is no such key.
pub(super) fn from_text(
    path: Vec<String>,
    text: String,
    source: Source,
    gathered: &mut Gathered,
) -> Option<Leaf> {
    match look_up(&path, &source, gathered)? {
        Found::Key(_) => Some(Leaf { path, written: Written::Loose(text), source }),
        Found::Section | Found::Unknown => {
            let message =
                format!("this is a section; name one of its keys: {}", keys::names_below(&path));
            gathered.problem(source, path.join("."), message);
            None
        }
    }
}

/// The leaves of `--set key=value`.
pub(super) fn from_flags(set: &[String], gathered: &mut Gathered) {
    for text in set {
        let source = Source::Flag("--set");
        let Some((key, value)) = text.split_once('=') else {
            let shown: String = text.chars().take(60).collect();
            let message =
                format!("{shown:?} is not an assignment; write --set hub.ping_interval=30s");
            gathered.problem(source, "", message);
            continue;
        };
        let path = key.trim().split('.').map(str::to_owned).collect();
        if let Some(leaf) = from_text(path, value.to_owned(), source, gathered) {
            gathered.leaves.push(leaf);
        }
    }
}

/// What stands at `path`; what may not stand there is a problem.
fn look_up(path: &[String], source: &Source, gathered: &mut Gathered) -> Option<Found> {
    let mut segments = path.iter();
    if segments.next().is_some_and(|section| section == "regions") {
        gathered.names_regions = true;
        if let Some(region) = segments.next()
            && !RegionName::is_valid(region)
        {
            let message = format!(
                "{region:?} is not a region's name; write 1 to 32 characters of A-Z a-z 0-9 _ -"
            );
            gathered.problem(source, "regions", message);
            return None;
        }
    }
    if let [section, _, processes, name, ..] = path
        && (section.as_str(), processes.as_str()) == ("regions", "processes")
        && !ProcessSettings::is_name(name)
    {
        let message = format!(
            "{name:?} is not a process's name; write 1 to 32 characters of A-Z a-z 0-9 _ -"
        );
        gathered.problem(source, path.get(..3).unwrap_or_default().join("."), message);
        return None;
    }
    if let [section, keys, name, ..] = path
        && (section.as_str(), keys.as_str()) == ("api", "keys")
        && !ApiSettings::is_key_name(name)
    {
        // The name is not shown: a secret may have been written in its place.
        let message =
            "the name of a key is 1 to 64 characters of A-Z a-z 0-9 _ -, as in dev = \"…\"";
        gathered.problem(source, "api.keys", message.to_owned());
        return None;
    }
    if let [section, certificates, name, ..] = path
        && (section.as_str(), certificates.as_str()) == ("tls", "certificates")
        && !TlsSettings::is_certificate_name(name)
    {
        let message = format!(
            "{name:?} is not a certificate's name; write 1 to 64 characters of A-Z a-z 0-9 _ -"
        );
        gathered.problem(source, "tls.certificates", message);
        return None;
    }
    if let [section @ ("limits" | "rules"), name, ..] =
        path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()
        && !is_entry_name(name)
    {
        let message = format!("{name:?} is not a name; write 1 to 64 characters of a-z 0-9 _ -");
        gathered.problem(source, *section, message);
        return None;
    }
    let found = keys::find(path);
    if matches!(found, Found::Unknown) {
        gathered.problem(source, path.join("."), unknown(path));
        return None;
    }
    Some(found)
}

/// What is said of a key that does not exist: the names that do, at the deepest section that does.
fn unknown(path: &[String]) -> String {
    let mut section = path;
    while let Some((_, above)) = section.split_last() {
        section = above;
        match keys::find(section) {
            Found::Section => break,
            Found::Key(_) => return format!("unknown key; `{}` is a value", section.join(".")),
            Found::Unknown => {}
        }
    }
    if section.is_empty() {
        format!("unknown key; at the top there are {}", keys::names_below(section))
    } else {
        format!("unknown key; `{}` has {}", section.join("."), keys::names_below(section))
    }
}
