//! Each leaf tried on the types alone, and the good ones laid over each other.
//!
//! A deserializer stops at its first error and no longer knows the source; a table with one value
//! in it can only be wrong in that value.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Gathered;
use super::leaf::{Leaf, Written};
use crate::settings::keys::{self, Found};
use crate::settings::kinds::Kind;
use crate::settings::problem::{Problem, Provenance};
use crate::settings::{BackendSettings, Settings};

/// The longest piece of a wrong value that is repeated in a message, in characters.
const SHOWN: usize = 80;

#[derive(Debug)]
pub(super) struct Merged {
    pub(super) settings: Settings,
    pub(super) provenance: Provenance,
    pub(super) problems: Vec<Problem>,
    /// Keys of which some source gave a value that was refused.
    pub(super) refused: BTreeSet<String>,
    pub(super) incomplete: bool,
    /// The values that were taken, secrets as they are.
    pub(super) said: Table,
}

/// The leaves, in the order of precedence, as settings.
pub(super) fn merge(gathered: Gathered) -> Merged {
    let mut problems = gathered.problems;
    let mut refused: BTreeSet<String> =
        problems.iter().map(|problem| problem.key.clone()).filter(|key| !key.is_empty()).collect();
    let mut provenance = Provenance::default();
    let mut table = Table::new();
    for leaf in gathered.leaves {
        match accept(&leaf) {
            Ok(value) => {
                put(&mut table, &leaf.path, value);
                provenance.set(leaf.key(), leaf.source);
            }
            Err(message) => {
                refused.insert(leaf.key());
                problems.push(Problem::new(&leaf.source, leaf.key(), message));
            }
        }
    }
    let settings = Settings::deserialize(Value::Table(table.clone())).unwrap_or_else(|error| {
        // Each value is good alone, so this is a rule of a type over two of its fields.
        problems.push(Problem::new("settings", "", error.message()));
        Settings::default()
    });
    let incomplete = gathered.incomplete;
    Merged { settings, provenance, problems, refused, incomplete, said: table }
}

/// The value of a leaf in its type, or what is wrong with it.
fn accept(leaf: &Leaf) -> Result<Value, String> {
    let kind = match keys::find(&leaf.path) {
        Found::Key(key) => key.kind,
        // An empty section.
        Found::Section | Found::Unknown => return Ok(Value::Table(Table::new())),
    };
    let readings = readings(&leaf.written, kind);
    match readings.iter().find(|value| fits(&leaf.path, value)) {
        Some(value) => match kind.refuse(value) {
            None => Ok(value.clone()),
            Some(message) => Err(message),
        },
        None => Err(refusal(leaf, kind, &readings)),
    }
}

/// The ways to read what was written, the most likely first.
fn readings(written: &Written, kind: Kind) -> Vec<Value> {
    let text = match written {
        Written::Typed(value) => return vec![value.clone()],
        Written::Exact(text) | Written::Loose(text) => text,
    };
    let plain = Value::String(text.clone());
    let literal = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    let list = kind.is_list() && !text.trim_start().starts_with('[');
    match (written, literal) {
        _ if list => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            vec![Value::Array(items.map(|item| kind.item(item)).collect())]
        }
        // Quotes around the whole: TOML's, so that a text can also be empty.
        (Written::Loose(_), Some(literal @ Value::String(_))) => vec![literal, plain],
        (_, Some(literal)) => vec![plain, literal],
        (_, None) => vec![plain],
    }
}

/// Whether the types take `value` at `path`.
fn fits(path: &[String], value: &Value) -> bool {
    let mut table = Table::new();
    put(&mut table, path, value.clone());
    Settings::deserialize(Value::Table(table)).is_ok()
}

/// Sets `value` at `path`; an empty section does not replace what is in it already.
fn put(table: &mut Table, path: &[String], value: Value) {
    let Some((name, above)) = path.split_last() else {
        return;
    };
    let mut section = table;
    for segment in above {
        let entry = section.entry(segment.clone()).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = entry else {
            return;
        };
        section = inner;
    }
    if value.as_table().is_some_and(Table::is_empty) {
        section.entry(name.clone()).or_insert(value);
    } else {
        section.insert(name.clone(), value);
    }
}

/// Says what was found and what is wanted; of a list, the entries that are wrong.
fn refusal(leaf: &Leaf, kind: Kind, readings: &[Value]) -> String {
    let wanted = kind.wanted();
    if kind.is_secret() {
        return format!("the value (not shown) is not {wanted}");
    }
    let items = readings.iter().rev().find_map(Value::as_array).filter(|_| kind.is_list());
    if let Some(items) = items {
        let wrong =
            items.iter().filter(|item| !fits(&leaf.path, &Value::Array(vec![(*item).clone()])));
        if matches!(kind, Kind::Backends)
            && let Some((item, key)) = wrong.clone().find_map(unknown_of_backend)
        {
            let known = BackendSettings::KEYS.join(", ");
            return format!("{} has the unknown key `{key}`; a backend has {known}", shown(item));
        }
        let wrong: Vec<String> = wrong.map(shown).collect();
        return format!("{} does not belong in {wanted}", wrong.join(", "));
    }
    let found = match &leaf.written {
        Written::Typed(value) => shown(value),
        Written::Exact(text) | Written::Loose(text) => shown(&Value::String(text.clone())),
    };
    format!("{found} is not {wanted}")
}

/// A backend and the first of its keys that no backend has.
fn unknown_of_backend(item: &Value) -> Option<(&Value, &str)> {
    let mut keys = item.as_table()?.keys().map(String::as_str);
    keys.find(|key| !BackendSettings::KEYS.contains(key)).map(|key| (item, key))
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain("…".chars()).collect()
}
