//! Rate limits: how often a route may be asked for, by whom.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::RegionName;

/// The longest name of a limit or a rule, in bytes.
const MAX_NAME: usize = 64;

/// Whether `name` may name a limit or a rule: 1 to 64 characters of `a-z 0-9 _ -`. Small letters only, since a
/// variable cannot tell them from capitals.
pub(super) fn is_entry_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// Section `[limits.<name>]`: a limit applies to the requests that fit path, methods and regions.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// `/login`, or `/api/*` for it and all below.
    pub path: String,
    /// Methods it counts; empty: all. GET covers HEAD.
    pub methods: Vec<String>,
    /// Regions whose requests it counts; empty: all.
    pub regions: Vec<RegionName>,
    /// Whose requests are counted together.
    pub key: LimitKey,
    /// How many in which time, as `5/min`; a limit without it is an error.
    pub rate: Option<Frequency>,
    /// How many at once before the rate counts; not set, the number of the rate.
    pub burst: Option<NonZeroU32>,
    /// Counted over all gateways, through the bus, instead of by each alone.
    pub shared: bool,
    /// What becomes of a request while the bus cannot be asked.
    pub on_error: OnError,
    /// How long the bus may take to answer before that is so.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Keys that are remembered; over it, those that were not seen for longest are forgotten.
    pub max_keys: NonZeroUsize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            path: "/*".to_owned(),
            methods: Vec::new(),
            regions: Vec::new(),
            key: LimitKey::Client,
            rate: None,
            burst: None,
            shared: false,
            on_error: OnError::Allow,
            timeout: Duration::from_millis(100),
            max_keys: NonZeroUsize::MIN.saturating_add(1_000_000 - 1),
        }
    }
}

/// Whose requests a limit counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The client's address, as trusted proxies tell it; of IPv6, its /64.
    Client,
    /// The value of this header, by its name in small letters; where it is missing, the client.
    Header(String),
    /// `userId` on the chat's path, the name of the API key on the API; where there is none, the client.
    User,
    /// The region: one count for all its requests.
    Region,
}

impl LimitKey {
    /// What begins the name of a header.
    const HEADER: &str = "header:";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "client" => Some(Self::Client),
            "user" => Some(Self::User),
            "region" => Some(Self::Region),
            text => {
                let name = text.strip_prefix(Self::HEADER)?;
                let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
                Some(Self::Header(name.as_str().to_owned()))
            }
        }
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::User => f.write_str("user"),
            Self::Region => f.write_str("region"),
            Self::Header(name) => write!(f, "{}{name}", Self::HEADER),
        }
    }
}

impl Serialize for LimitKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LimitKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("this names no key"))
    }
}

/// What becomes of a request that a shared limit cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// Each gateway goes on counting alone.
    Allow,
    /// It is answered with 503.
    Refuse,
}

/// So many in a time: `5/min`, `100/s`, `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    pub count: NonZeroU32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Frequency {
    /// More in a second than that is no limit, and the bus counts in microseconds.
    const MOST_PER_SECOND: u32 = 1_000_000;

    /// Between two, in the long run.
    pub fn interval(self) -> Duration {
        let unit = match self.unit {
            Unit::Second => Duration::from_secs(1),
            Unit::Minute => Duration::from_mins(1),
            Unit::Hour => Duration::from_hours(1),
        };
        unit / self.count.get()
    }

    fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let unit = match unit.trim() {
            "s" => Unit::Second,
            "min" => Unit::Minute,
            "h" => Unit::Hour,
            _ => return None,
        };
        let frequency = Self { count: count.trim().parse().ok()?, unit };
        let least = Duration::from_secs(1) / Self::MOST_PER_SECOND;
        (frequency.interval() >= least).then_some(frequency)
    }
}

impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => "s",
            Unit::Minute => "min",
            Unit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Serialize for Frequency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Frequency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("this is no rate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, interval_ms) in
            [("5/min", 12_000), ("100/s", 10), ("3600/h", 1_000), ("1000000/s", 0)]
        {
            let frequency = Frequency::parse(text).unwrap();
            assert_eq!(frequency.interval().as_millis(), interval_ms, "{text}");
            assert_eq!(frequency.to_string(), text);
        }
        for text in ["", "5", "0/s", "-1/s", "5/day", "1.5/s", "5/m", "/s", "1000001/s"] {
            assert_eq!(Frequency::parse(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_read_and_written() {
        for text in ["client", "user", "region", "header:x-tenant"] {
            assert_eq!(LimitKey::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(LimitKey::parse("header:X-A"), Some(LimitKey::Header("x-a".to_owned())));
        for text in ["", "ip", "header:", "header:a b", "Client"] {
            assert_eq!(LimitKey::parse(text), None, "{text}");
        }
    }
}
