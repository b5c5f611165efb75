//! Statuses of HTTP as an operator writes them: `200-399`, or several with commas, `200, 204, 300-399`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most ranges of one value: more than anybody needs, and few enough to be looked through for each answer.
const MAX_RANGES: usize = 16;

/// Ranges of statuses, each from the first to the last; without any it holds none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

/// Why a text names no statuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("statuses are numbers from 100 to 599 and ranges of them, like 200-399 or 200, 204")]
pub struct StatusesError;

impl Statuses {
    /// From the first to the last.
    pub(crate) fn range(first: u16, last: u16) -> Self {
        Self(vec![(first, last)])
    }

    /// Whether it names no status at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = StatusesError;

    fn from_str(text: &str) -> Result<Self, StatusesError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let number = |text: &str| {
            let number = text.trim().parse().ok().filter(|number| (100..600).contains(number));
            number.ok_or(StatusesError)
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last): (u16, u16) = (number(first)?, number(last)?);
            if first <= last { Ok((first, last)) } else { Err(StatusesError) }
        };
        let ranges = text.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
        if ranges.len() > MAX_RANGES { Err(StatusesError) } else { Ok(Self(ranges)) }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{error}; got {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for (text, written) in
            [("200-399", "200-399"), (" 200,204 , 300 - 399", "200, 204, 300-399"), ("", "")]
        {
            assert_eq!(text.parse::<Statuses>().unwrap().to_string(), written);
        }
        let some: Statuses = "200, 300-302".parse().unwrap();
        let held: Vec<u16> = (100..600).filter(|status| some.contains(*status)).collect();
        assert_eq!(held, [200, 300, 301, 302]);
        assert!(!Statuses::default().contains(200));
    }

    #[test]
    fn nonsense_is_refused() {
        let many = "200,".repeat(17) + "200";
        for text in ["ok", "99", "600", "200-", "-200", "300-200", "200,,201", "2xx", &many] {
            assert_eq!(text.parse::<Statuses>(), Err(StatusesError), "{text:?}");
        }
    }
}
