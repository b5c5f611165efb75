//! Where a value came from, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use super::Environment;

/// Where a value came from. The order is the order of precedence: later wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The `Default` of the types, or a built-in region.
    BuiltIn,
    /// Built in for one environment alone.
    BuiltInFor(Environment),
    /// A file, by the path as the operator would type it.
    File(String),
    /// A variable in the file `.env`.
    DotEnv(String),
    /// A variable of the process.
    Variable(String),
    /// `--set`, or another flag by its name.
    Flag(&'static str),
    /// Composed while loading, from what is named.
    Derived(String),
}

impl Source {
    /// The place in the order of precedence.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::BuiltIn => 0,
            Self::BuiltInFor(_) => 1,
            Self::File(_) => 2,
            Self::DotEnv(_) => 3,
            Self::Variable(_) => 4,
            Self::Flag(_) => 5,
            Self::Derived(_) => 6,
        }
    }

    /// Whether nobody said it.
    pub fn is_built_in(&self) -> bool {
        matches!(self, Self::BuiltIn | Self::BuiltInFor(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in default"),
            Self::BuiltInFor(environment) => write!(f, "built-in default of {environment}"),
            Self::File(name) | Self::Variable(name) | Self::Derived(name) => f.write_str(name),
            Self::DotEnv(name) => write!(f, ".env: {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Which source gave each value, by its dotted key; what is not listed is built in.
#[derive(Clone, Debug, Default)]
pub struct Provenance(BTreeMap<String, Source>);

impl Provenance {
    /// The source of `key`, as `hub.ping_interval`.
    pub fn of(&self, key: &str) -> &Source {
        self.0.get(key).unwrap_or(&Source::BuiltIn)
    }

    pub(super) fn set(&mut self, key: String, source: Source) {
        self.0.insert(key, source);
    }
}

/// One mistake: where, in which key, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A file, a variable, or a flag.
    pub source: String,
    /// The dotted key, or empty where the source as a whole is at fault.
    pub key: String,
    /// What was found, and what is allowed. Never holds a secret.
    pub message: String,
}

impl Problem {
    pub(super) fn new(
        source: impl fmt::Display,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { source: source.to_string(), key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.source, self.message)
        } else {
            write!(f, "{}: {}: {}", self.source, self.key, self.message)
        }
    }
}

/// Every problem of a configuration, one a line.
#[derive(Clone, Debug, thiserror::Error)]
pub struct SettingsErrors(Vec<Problem>);

impl SettingsErrors {
    /// The problems, without repeats, in the order in which they were found.
    pub fn new(found: Vec<Problem>) -> Self {
        let mut problems: Vec<Problem> = Vec::with_capacity(found.len());
        for problem in found {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Self(problems)
    }

    /// One problem that belongs to no key.
    pub(super) fn of_the_whole(message: &str) -> Self {
        Self(vec![Problem::new("settings", "", message)])
    }

    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
