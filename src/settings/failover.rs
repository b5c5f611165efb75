//! Who else may serve what was asked of a region.
//!
//! In a file a word, or a table with an order: `"strict"`, `{ ordered = ["2", "3"] }`; in a variable, and in what is
//! printed, one text: `ordered:2,3`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{RegionName, RegionSettings};

/// The policy of one region. A region that serves for another hands nothing on: there is no chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    /// Nobody: the region's border is never crossed.
    #[default]
    Strict,
    /// The first of these that has an eligible backend, once the region itself has none.
    Ordered(Vec<RegionName>),
    /// As the region's healthy share falls, a growing part of its traffic: these in their order, or, where none is
    /// named, all others by what they can take.
    Spill(Vec<RegionName>),
    /// Any other region that has an eligible backend, once the region itself has none; by name.
    Any,
}

/// How far a region's healthy share may fall before some of its traffic moves: from 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SpillFactor(f64);

impl SpillFactor {
    pub fn new(factor: f64) -> Self {
        Self(factor.clamp(1.0, 100.0))
    }

    pub fn get(self) -> f64 {
        self.0.clamp(1.0, 100.0)
    }
}

/// A factor is a number.
impl Eq for SpillFactor {}

impl Default for SpillFactor {
    /// Five of seven backends keep all of a region's traffic, each with two fifths more.
    fn default() -> Self {
        Self(1.4)
    }
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not {WANTED}")]
pub struct FailoverError(String);

/// The end of the sentence "… is not …".
pub(super) const WANTED: &str = "a failover policy; write strict, any, spill, { ordered = [\"2\", \"3\"] } or { spill = [\"2\"] }; \
     in a variable ordered:2,3 or spill:2";

impl Failover {
    /// The regions that the policy names.
    pub fn named(&self) -> &[RegionName] {
        match self {
            Self::Ordered(names) | Self::Spill(names) => names,
            Self::Strict | Self::Any => &[],
        }
    }

    fn with_order(word: &str, names: Vec<RegionName>) -> Option<Self> {
        match word {
            _ if names.is_empty() => None,
            "ordered" => Some(Self::Ordered(names)),
            "spill" => Some(Self::Spill(names)),
            _ => None,
        }
    }
}

/// What the regions' policies say that cannot be: the keys, and what is wrong.
pub(super) fn contradictions(
    regions: &BTreeMap<RegionName, RegionSettings>,
) -> Vec<(Vec<String>, String)> {
    let known = || regions.keys().map(RegionName::as_str).collect::<Vec<_>>().join(", ");
    let mut found = Vec::new();
    for (name, region) in regions {
        let key = format!("regions.{name}.failover");
        let named = region.failover.named();
        for (index, other) in named.iter().enumerate() {
            let wrong = if other == name {
                "a region is no help to itself".to_owned()
            } else if !regions.contains_key(other) {
                format!("it is not configured; the regions are {}", known())
            } else if named.iter().take(index).any(|earlier| earlier == other) {
                "it is named twice".to_owned()
            } else {
                continue;
            };
            found.push((vec![key.clone()], format!("region `{other}`: {wrong}")));
        }
        if region.spill_factor.is_some() && !matches!(region.failover, Failover::Spill(_)) {
            let message = format!("it is for the policy spill, and {key} is {}", region.failover);
            found.push((vec![format!("regions.{name}.spill_factor"), key], message));
        }
    }
    found
}

impl FromStr for Failover {
    type Err = FailoverError;

    fn from_str(text: &str) -> Result<Self, FailoverError> {
        let found = match text.split_once(':') {
            None => match text.trim() {
                "strict" => Some(Self::Strict),
                "spill" => Some(Self::Spill(Vec::new())),
                "any" => Some(Self::Any),
                _ => None,
            },
            Some((word, names)) => names
                .split(',')
                .map(|name| RegionName::new(name.trim()).ok())
                .collect::<Option<Vec<_>>>()
                .and_then(|names| Self::with_order(word.trim(), names)),
        };
        found.ok_or_else(|| FailoverError(text.to_owned()))
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Ordered(_) => "ordered",
            Self::Spill(_) => "spill",
            Self::Any => "any",
        })?;
        for (index, name) in self.named().iter().enumerate() {
            write!(f, "{}{name}", if index == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl Serialize for Failover {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Failover {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Listed {
            Ordered(Vec<RegionName>),
            Spill(Vec<RegionName>),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Listed(Listed),
        }
        let wrong = || serde::de::Error::custom(format!("this is not {WANTED}"));
        match Written::deserialize(deserializer)? {
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Written::Listed(Listed::Ordered(names)) => {
                Self::with_order("ordered", names).ok_or_else(wrong)
            }
            Written::Listed(Listed::Spill(names)) => {
                Self::with_order("spill", names).ok_or_else(wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Region {
        failover: Failover,
    }

    fn names(names: &[&'static str]) -> Vec<RegionName> {
        names.iter().map(|name| RegionName::literal(name)).collect()
    }

    #[test]
    fn every_way_to_write_it() {
        for (text, expected) in [
            (r#""strict""#, Failover::Strict),
            (r#""any""#, Failover::Any),
            (r#""spill""#, Failover::Spill(Vec::new())),
            (r#"{ ordered = ["2", "eu-west"] }"#, Failover::Ordered(names(&["2", "eu-west"]))),
            (r#""ordered:2,eu-west""#, Failover::Ordered(names(&["2", "eu-west"]))),
            (r#""ordered: 2 , 3""#, Failover::Ordered(names(&["2", "3"]))),
            (r#"{ spill = ["2"] }"#, Failover::Spill(names(&["2"]))),
            (r#""spill:2""#, Failover::Spill(names(&["2"]))),
        ] {
            let read: Region = toml::from_str(&format!("failover = {text}")).expect(text);
            assert_eq!(read.failover, expected, "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "what is printed is read back");
        }
        for wrong in [
            r#""""#,
            r#""ordered""#,
            r#""ordered:""#,
            r#""ordered:2,""#,
            r#""ordered:a b""#,
            r#""any:2""#,
            r#""Strict""#,
            "{ ordered = [] }",
            r#"{ any = ["2"] }"#,
            r#"{ ordered = ["2"], spill = ["3"] }"#,
            "1",
        ] {
            assert!(toml::from_str::<Region>(&format!("failover = {wrong}")).is_err(), "{wrong}");
        }
    }
}
