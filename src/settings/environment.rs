//! Where the process runs: picks a file of the configuration and a few built-in defaults.

use std::fmt;

/// `NODE_ENV` or `APP_ENV`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    #[default]
    Development,
    Production,
}

impl Environment {
    /// The environment of this name, as variables write it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "development" => Some(Self::Development),
            "production" => Some(Self::Production),
            _ => None,
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Production => "production",
        })
    }
}
