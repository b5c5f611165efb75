//! What is wrong with a value that its type has accepted.

use std::time::Duration;

use toml::Value;

use super::Kind;
use crate::settings::{ApiKey, BackendSettings, Statuses, redis_place, urls};

/// Far beyond any useful value, and far from where adding to a clock overflows.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// Header fields by which an answer is understood: none of them can be taken away.
const MESSAGE_FIELDS: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

impl Kind {
    /// What is wrong with a value that its type has accepted.
    pub(in crate::settings) fn refuse(self, value: &Value) -> Option<String> {
        match self {
            Self::Count(least, most) => value
                .as_integer()
                .filter(|number| !(least..=most).contains(number))
                .map(|number| format!("{number} is not {}", self.wanted())),
            Self::ApiKey => ApiKey::is_invalid(value.as_str()?)
                .then(|| format!("the value (not shown) is not {}", self.wanted())),
            Self::Authority => {
                let text = value.as_str()?;
                let right = !text.contains('@') && text.parse::<http::uri::Authority>().is_ok();
                (!right).then(|| format!("{text:?} is not {}", self.wanted()))
            }
            Self::Duration => duration(value.as_str()?),
            Self::Factor => {
                let whole = |number: i64| i32::try_from(number).map_or(f64::MAX, f64::from);
                let factor = value.as_float().or_else(|| value.as_integer().map(whole))?;
                (!(1.0..=100.0).contains(&factor))
                    .then(|| format!("{value} is not {}", self.wanted()))
            }
            Self::ErrorStatuses => value.as_array()?.iter().find_map(|status| {
                let fits = status.as_integer().is_some_and(|status| (400..=599).contains(&status));
                (!fits).then(|| format!("{status} does not belong in {}", self.wanted()))
            }),
            Self::Via => {
                let name = value.as_str()?;
                let token =
                    |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                (name.len() > 64 || !name.bytes().all(token))
                    .then(|| format!("{name:?} is not {}", self.wanted()))
            }
            Self::Pause => duration(value.as_str()?).filter(|_| !is_none(value)),
            Self::Host => host(value.as_str()?),
            Self::Hosts => value.as_array()?.iter().find_map(|name| host(name.as_str()?)),
            Self::HttpUrl => urls::refuse_http(value.as_str()?),
            Self::RedisUrl => redis_place::parse(value.as_str()?).err(),
            Self::Folder => folder(value.as_str()?),
            Self::HeaderNames => value.as_array()?.iter().find_map(|name| {
                let name = name.as_str()?;
                let Ok(parsed) = http::HeaderName::from_bytes(name.as_bytes()) else {
                    return Some(format!(
                        "{name:?} is not a header's name; write it like x-powered-by"
                    ));
                };
                MESSAGE_FIELDS.contains(&parsed.as_str()).then(|| {
                    format!("{name:?} is of the message itself, which cannot be read without it")
                })
            }),
            Self::HeaderText => {
                let text = value.as_str()?;
                http::HeaderValue::from_str(text)
                    .is_err()
                    .then(|| format!("{text:?} is not {}", self.wanted()))
            }
            Self::MediaTypes => value.as_array()?.iter().find_map(|kind| {
                let kind = kind.as_str()?;
                (!is_media_type(kind)).then(|| {
                    format!(
                        "{kind:?} is not a media type; write it like text/* or application/json"
                    )
                })
            }),
            Self::MountPath => mount_path(value.as_str()?),
            Self::OwnPath => own_path(value.as_str()?),
            Self::SomeStatuses => {
                let text = value.as_str()?;
                let none = text.parse::<Statuses>().is_ok_and(|statuses| statuses.is_empty());
                none.then(|| format!("{text:?} is not {}", self.wanted()))
            }
            Self::Target => {
                let text = value.as_str()?;
                let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
                let right = visible && text.starts_with('/');
                (!right).then(|| format!("{text:?} is not {}", self.wanted()))
            }
            Self::PagePath => page_path(value.as_str()?),
            Self::PathPattern => path_pattern(value.as_str()?),
            Self::Methods => {
                value.as_array()?.iter().find_map(|method| method_name(method.as_str()?))
            }
            Self::Backends => value.as_array()?.iter().find_map(|backend| {
                let refused = urls::refuse_http(backend.get("url").unwrap_or(backend).as_str()?);
                let of = |key| backend.get(key);
                refused.or_else(|| weight(of("weight")?.as_integer()?)).or_else(|| {
                    let primary = of("backup")?.as_bool()? && of("tier")?.as_integer()? == 0;
                    primary.then(|| {
                        "tier = 0 is that of the primaries, so backup = true does not go with it"
                            .to_owned()
                    })
                })
            }),
            Self::Nodes => value.as_array()?.iter().find_map(|node| {
                let node = node.as_str()?;
                redis_place::node(node, 1).is_none().then(|| {
                    // A password that stands there by mistake is not repeated into a log.
                    let shown = urls::mask_password(node);
                    format!("{shown:?} is not a server; write it like 10.0.0.1:7000")
                })
            }),
            Self::Command => command(value),
            Self::Pairs => value.as_array()?.iter().find_map(|pair| {
                let name = pair.as_str()?.split_once('=').map_or("", |(name, _)| name);
                // The value may be a secret, so it is not repeated.
                let good = !name.is_empty() && !pair.as_str()?.contains('\0');
                (!good).then(|| "an entry is not a variable; write it like NAME=value".to_owned())
            }),
            Self::Origins => value.as_array()?.iter().find_map(|origin| {
                let origin = origin.as_str()?;
                (!urls::is_origin(origin)).then(|| {
                    format!("{origin:?} is not an origin; write it like https://chat.example")
                })
            }),
            _ => None,
        }
    }
}

fn command(value: &Value) -> Option<String> {
    let words = match value {
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        value => vec![value.as_str()?],
    };
    let wrong = words.first().is_none_or(|program| program.trim().is_empty())
        || words.iter().any(|word| word.contains('\0'));
    wrong.then(|| format!("there is no program in it; it must be {}", Kind::Command.wanted()))
}

fn duration(text: &str) -> Option<String> {
    let duration = humantime::parse_duration(text).ok()?;
    if duration.is_zero() {
        Some(format!("{text:?} is no time at all; write it like 30s or 5m"))
    } else if duration > LONGEST {
        Some(format!("{text:?} is longer than a year; write it like 30s or 5m"))
    } else {
        None
    }
}

fn weight(weight: i64) -> Option<String> {
    let most = BackendSettings::MAX_WEIGHT;
    (!(0..=i64::from(most)).contains(&weight))
        .then(|| format!("a backend's weight of {weight} is not a whole number from 0 to {most}"))
}

/// Whether a value is a duration of no time at all.
fn is_none(value: &Value) -> bool {
    let duration = value.as_str().map(humantime::parse_duration);
    duration.is_some_and(|read| read.is_ok_and(|read| read.is_zero()))
}

fn host(text: &str) -> Option<String> {
    // More than one colon is an IPv6 address.
    let wrong = text.is_empty()
        || text.matches(':').count() == 1
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#[]".contains(c));
    wrong.then(|| format!("{text:?} is not {}", Kind::Host.wanted()))
}

fn own_path(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = !text.starts_with('/') || !visible || text.contains(['?', '#']);
    wrong.then(|| {
        format!(
            "{text:?} is not a path; begin it with /, use visible ASCII characters without ? and #, \
             or leave it empty to turn it off"
        )
    })
}

fn page_path(text: &str) -> Option<String> {
    own_path(text).or_else(|| {
        let right = text.is_empty() || (text.len() > 1 && text.ends_with('/'));
        (!right).then(|| format!("{text:?} does not begin and end with /; write it like /client/"))
    })
}

fn mount_path(text: &str) -> Option<String> {
    let right = text.starts_with('/') && text.ends_with('/') && !text.contains("//");
    own_path(text)
        .or_else(|| (!right).then(|| format!("{text:?} is not {}", Kind::MountPath.wanted())))
}

fn folder(text: &str) -> Option<String> {
    let path = std::path::Path::new(text);
    (!path.is_dir()).then(|| format!("{text:?} is not {}", Kind::Folder.wanted()))
}

fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.split_once('/').is_some_and(|(of, kind)| token(of) && (kind == "*" || token(kind)))
}

/// As paths are compared: after their normalisation.
fn path_pattern(text: &str) -> Option<String> {
    let path = text.strip_suffix('*').unwrap_or(text);
    let whole = path == text || path.ends_with('/');
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\;*".contains(&b));
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    let wrong = !path.starts_with('/') || !whole || !plain || dots || path.contains("//");
    wrong.then(|| {
        format!(
            "{text:?} is not a path as they are compared; begin it with /, use visible ASCII characters without \
             ? # % ; \\, no empty or dotted segments, and * only at the end, behind a /"
        )
    })
}

fn method_name(text: &str) -> Option<String> {
    let right = (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'));
    (!right).then(|| format!("{text:?} is not a method; write it in capitals, like POST"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: Kind, text: &str) -> bool {
        kind.refuse(&Value::String(text.to_owned())).is_some()
    }

    #[test]
    fn what_types_cannot_say_is_said_here() {
        for (kind, good, bad) in [
            (Kind::Duration, vec!["1ms", "1day"], vec!["0s", "20years"]),
            (
                Kind::Host,
                vec!["redis", "10.0.0.1", "::1"],
                vec!["", "redis:6379", "redis://a", "a b", "[::1]"],
            ),
            (
                Kind::ApiKey,
                vec!["k", "dev-1~!", "sha256!", &format!("sha256:{}", "0aF9".repeat(16))],
                vec!["", "a b", "ü", "***", "sha256:", "sha256:00", &"k".repeat(257)],
            ),
            (Kind::OwnPath, vec!["", "/", "/ws", "/a/b"], vec!["ws", "/a?b", "/a#b", "/a b", "/ü"]),
            (
                Kind::PathPattern,
                vec!["/", "/*", "/login", "/api/*", "/a.b/c", "/a/", "/..."],
                vec!["", "*", "/a*", "/a*b", "/*/a", "a", "/%61", "/a//b", "/a/../b", "/.", "/a;b"],
            ),
            (Kind::Authority, vec!["a", "a:1", "[::1]:80"], vec!["", "a b", "u@a", "a/b"]),
            (Kind::SomeStatuses, vec!["200"], vec!["", " "]),
            (Kind::Target, vec!["/", "/up?deep=1"], vec!["", "up", "/a b", "/ü", "/a#b"]),
            (Kind::PagePath, vec!["", "/client/"], vec!["/", "/client", "client/", "/a?/"]),
        ] {
            for text in good {
                assert!(!refused(kind, text), "{kind:?} {text:?}");
            }
            for text in bad {
                assert!(refused(kind, text), "{kind:?} {text:?}");
            }
        }
    }

    #[test]
    fn factors_statuses_and_names_have_bounds() {
        for (kind, good, bad) in [
            (Kind::Factor, vec!["1", "1.0", "1.4", "100"], vec!["0", "0.9", "101", "nan"]),
            (Kind::ErrorStatuses, vec!["[]", "[502, 503]"], vec!["[200]", "[600]"]),
            (Kind::Via, vec!["\"\"", "\"edge-1.eu\""], vec!["\"a b\"", "\"a,b\"", "\"ü\""]),
        ] {
            let refused = |text: &str| {
                let table: toml::Table = format!("value = {text}").parse().unwrap();
                kind.refuse(&table["value"]).is_some()
            };
            for text in good {
                assert!(!refused(text), "{kind:?} {text}");
            }
            for text in bad {
                assert!(refused(text), "{kind:?} {text}");
            }
        }
    }

    #[test]
    fn a_count_has_both_bounds() {
        let kind = Kind::Count(1, 10);
        assert_eq!(
            kind.refuse(&Value::Integer(11)).unwrap(),
            "11 is not a whole number from 1 to 10"
        );
        assert!(kind.refuse(&Value::Integer(0)).is_some());
        assert!(kind.refuse(&Value::Integer(10)).is_none());
    }
}
