//! The effective settings as TOML, each value with its source; what is printed can be read back.

use toml::{Table, Value};

use super::keys::{KEYS, Key};
use super::kinds::Kind;
use super::load::Loaded;
use super::problem::Source;
use super::{BackendSettings, urls};

/// How the keys of supervised processes begin.
const PROCESSES: &str = "regions.*.processes.*.";

/// The settings as a commented TOML file. Passwords are `***`, also the one inside a Redis URL, and the
/// values of the variables that programs are given.
pub fn render(loaded: &Loaded) -> String {
    let mut text = format!(
        "# The effective settings. Environment: {}. Parts: {}.\n",
        loaded.environment,
        loaded.parts.names().join(", ")
    );
    // Every type of the settings is a table to TOML, so this does not fail.
    let Ok(table) = Table::try_from(&loaded.settings) else {
        return text;
    };
    let mut section = "";
    let mut lines = Lines { loaded, table: &table, text: &mut text };
    for key in KEYS {
        let (above, _) = key.path.rsplit_once('.').unwrap_or_default();
        if key.path.starts_with("regions.") {
            // All regions at their first key, each with all its keys.
            if !section.starts_with("regions.") {
                lines.regions();
            }
        } else if above.ends_with(".*") {
            // Likewise with what else the operator names.
            if above != section {
                lines.named(above);
            }
        } else {
            if above != section {
                lines.heading(above);
            }
            match key.path.strip_suffix(".*") {
                Some(names) => lines.values(key, names),
                None => lines.value(key, key.path),
            }
        }
        section = above;
    }
    text
}

struct Lines<'a> {
    loaded: &'a Loaded,
    table: &'a Table,
    text: &'a mut String,
}

impl Lines<'_> {
    fn heading(&mut self, section: &str) {
        self.line(&format!("\n[{section}]"));
    }

    fn regions(&mut self) {
        for (name, region) in &self.loaded.settings.regions {
            let mut section = String::new();
            for key in KEYS
                .iter()
                .filter(|key| key.path.starts_with("regions.") && !key.path.starts_with(PROCESSES))
            {
                let path = key.path.replacen('*', name.as_str(), 1);
                let above = path.rsplit_once('.').map_or("", |(above, _)| above);
                if key.path.starts_with("regions.*.hub.") && region.hub.is_none() {
                    continue;
                }
                if above != section {
                    self.heading(above);
                    above.clone_into(&mut section);
                }
                self.value(key, &path);
            }
            for process in region.processes.keys() {
                self.heading(&format!("regions.{name}.processes.{process}"));
                for key in KEYS {
                    if let Some(last) = key.path.strip_prefix(PROCESSES) {
                        self.value(key, &format!("regions.{name}.processes.{process}.{last}"));
                    }
                }
            }
        }
    }

    /// The sections of one kind, as `limits.*`, each with all its keys.
    fn named(&mut self, section: &str) {
        let kind = section.trim_end_matches(".*");
        let names: Vec<String> = self
            .look_up(kind)
            .and_then(Value::as_table)
            .into_iter()
            .flat_map(Table::keys)
            .cloned()
            .collect();
        for name in names {
            let path = format!("{kind}.{name}");
            self.heading(&path);
            for key in KEYS {
                if let Some((above, last)) = key.path.rsplit_once('.')
                    && above == section
                {
                    self.value(key, &format!("{path}.{last}"));
                }
            }
        }
    }

    /// Each value of a section whose keys the operator names.
    fn values(&mut self, key: &Key, section: &str) {
        let names = self.look_up(section).and_then(Value::as_table);
        let paths: Vec<String> = names
            .into_iter()
            .flat_map(Table::keys)
            .map(|name| format!("{section}.{name}"))
            .collect();
        for path in paths {
            self.value(key, &path);
        }
    }

    fn value(&mut self, key: &Key, path: &str) {
        let (_, name) = path.rsplit_once('.').unwrap_or(("", path));
        let source = match self.loaded.provenance.of(path) {
            source @ (Source::BuiltIn | Source::BuiltInFor(_)) => source.to_string(),
            source => format!("from {source}"),
        };
        match self.look_up(path).map(|value| self.printable(key.kind, value)) {
            // Read back, the mask would be a value.
            Some(value) if is_masked(key.kind, &value) => {
                self.line(&format!("# {name} = {value}  # {source}"));
            }
            Some(value) => self.line(&format!("{name} = {value}  # {source}")),
            None => self.line(&format!("# {name} is not set")),
        }
    }

    fn look_up(&self, path: &str) -> Option<&Value> {
        let mut segments = path.split('.');
        let first = self.table.get(segments.next()?)?;
        segments.try_fold(first, |value, segment| value.get(segment))
    }

    fn printable(&self, kind: Kind, value: &Value) -> Value {
        match (kind, value) {
            (Kind::RedisUrl, _) => {
                let url = self.loaded.settings.bus.redis.url.as_ref();
                Value::String(url.map_or_else(String::new, |url| urls::mask_password(url.expose())))
            }
            // Programs get their secrets by variables.
            (Kind::Pairs, Value::Array(pairs)) => {
                pairs.iter().filter_map(Value::as_str).map(masked).collect::<Vec<_>>().into()
            }
            // The short form, where it says the same.
            (Kind::Backends, Value::Array(backends)) => {
                backends.iter().map(short).collect::<Vec<_>>().into()
            }
            _ => value.clone(),
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

fn is_masked(kind: Kind, shown: &Value) -> bool {
    match kind {
        Kind::ApiKey => true,
        Kind::Pairs => shown.as_array().is_some_and(|pairs| !pairs.is_empty()),
        _ => false,
    }
}

/// The name alone of `NAME=value`.
fn masked(pair: &str) -> Value {
    let name = pair.split_once('=').map_or("", |(name, _)| name);
    Value::String(format!("{name}=***"))
}

fn short(backend: &Value) -> Value {
    let plain = |url: &str| Value::try_from(BackendSettings::primary(url)).ok();
    match backend.get("url") {
        Some(url) if url.as_str().and_then(plain).as_ref() == Some(backend) => url.clone(),
        _ => backend.clone(),
    }
}
