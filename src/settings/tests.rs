//! The example files against the types and the tables: nothing is missing, nothing is stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use toml::{Table, Value};

use super::keys::KEYS;
use super::load::{VARIABLES, is_read};
use super::*;

fn of_the_project(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Dotted keys with the values they have.
fn flatten(table: &Table, above: &str, found: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            Value::Table(inner) => flatten(inner, &path, found),
            value => drop(found.insert(path, value.clone())),
        }
    }
}

fn flat(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    flatten(&text.parse().unwrap(), "", &mut found);
    found
}

/// The file with its commented keys and sections brought to life; prose stays a comment.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        line.split_once(" = ").is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
    };
    let is_section = |line: &str| {
        line.starts_with('[') && line.ends_with(']') && line.contains('.') && !line.contains(' ')
    };
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(live) if is_key(live) || is_section(live) => live,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn default_toml_names_every_key() {
    let named: BTreeSet<String> = flat(&uncommented(&of_the_project("config/default.toml")))
        .into_keys()
        .map(|key| {
            // The example's names stand for any.
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            match super::keys::find(&path) {
                super::keys::Found::Key(known) => known.path.to_owned(),
                _ => key,
            }
        })
        .collect();
    let keys: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(named, keys);
}

#[test]
fn default_toml_says_the_defaults_of_the_types() {
    let text = of_the_project("config/default.toml");
    let said: Settings = toml::from_str(&text).unwrap();
    let json = |settings: &Settings| serde_json::to_value(settings).unwrap();
    assert_eq!(json(&said), json(&Settings::default()));
    // What has a default is not commented out.
    let live = flat(&text);
    for (key, _) in flat(&toml::to_string(&Settings::default()).unwrap()) {
        assert!(live.contains_key(&key), "{key} is commented out");
    }
}

/// `(is it commented out, name, value)` of each variable of the example.
fn example_variables() -> Vec<(bool, String, String)> {
    let text = of_the_project(".env.example");
    text.lines()
        .filter_map(|line| {
            let live = line.strip_prefix('#').unwrap_or(line);
            let (name, value) = live.split_once('=')?;
            let is_name =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            is_name.then(|| (line.starts_with('#'), name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Over the files of the project, so that its regions are there.
fn load_with_dotenv(dotenv: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), dotenv).unwrap();
    let config = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("config"));
    let folder = folder.path().to_owned();
    load(&LoadOptions { folder, config, ..LoadOptions::default() }).unwrap()
}

#[test]
fn the_example_names_every_variable_and_no_other() {
    let named: BTreeSet<String> =
        example_variables().into_iter().map(|(_, name, _)| name).collect();
    for name in &named {
        assert!(is_read(name), "{name} is in .env.example, but nothing reads it");
    }
    for variable in VARIABLES {
        assert!(named.contains(variable.name), "{} is not in .env.example", variable.name);
    }
}

#[test]
fn the_example_says_the_defaults() {
    let plain = load_with_dotenv("");
    let copied = load_with_dotenv(&of_the_project(".env.example"));
    let json = |loaded: &Loaded| serde_json::to_value(&loaded.settings).unwrap();
    assert_eq!(json(&copied), json(&plain));
    // With every line in use it is still valid.
    let lines = example_variables().into_iter().map(|(_, name, value)| format!("{name}={value}\n"));
    let all = load_with_dotenv(&lines.collect::<String>());
    assert!(all.settings.bus.wants_redis());
}

fn variable_name() -> impl Strategy<Value = String> {
    let named: Vec<String> = VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
    let keys: Vec<String> = KEYS
        .iter()
        .map(|key| {
            format!("CONF__{}", key.path.replace('*', "1").replace('.', "__").to_uppercase())
        })
        .collect();
    prop_oneof![
        proptest::sample::select(named),
        proptest::sample::select(keys),
        "CONF__[A-Za-z_]{0,20}",
        "WS_SERVER_.{0,6}_PORT",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        "-?[0-9]{1,25}[a-z]{0,3}",
        "[\\[{\"'](.|\n){0,20}[\\]}\"']",
        "(https?|rediss?)://.{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_in_any_source_panics(
        name in variable_name(), value in text(), key in "[a-z._]{0,20}", other in text(),
    ) {
        let options = LoadOptions {
            folder: "/nonexistent".into(),
            variables: [(name, value.clone())].into(),
            set: vec![format!("{key}={other}"), other, format!("page.path={value}")],
            only: vec![value],
            ..LoadOptions::default()
        };
        // Valid or not: what is valid can be printed, what is not can be said.
        match load(&options) {
            Ok(loaded) => drop(render(&loaded)),
            Err(errors) => assert!(!errors.to_string().is_empty()),
        }
    }

    #[test]
    fn no_text_in_a_file_panics(dotenv in "(.|\n){0,80}", toml in "(.|\n|\\[|=){0,80}") {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".env"), dotenv).unwrap();
        fs::write(folder.path().join("default.toml"), toml).unwrap();
        let config = Some(folder.path().to_owned());
        let options =
            LoadOptions { folder: folder.path().to_owned(), config, ..LoadOptions::default() };
        if let Err(errors) = load(&options) {
            assert!(!errors.to_string().is_empty());
        }
    }
}
