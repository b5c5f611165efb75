//! What the value of a key must be: the words for it, and the rules that its type cannot say.

use std::time::Duration;

use toml::Value;

use super::{ApiKey, BackendSettings, Statuses, failover, redis_place, urls};

/// Far beyond any useful value, and far from where adding to a clock overflows.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// What the value of one key must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Address,
    /// The secret of an API key, or its digest.
    ApiKey,
    /// A host with or without a port, as a `Host` field has it.
    Authority,
    Backends,
    Choice(&'static [&'static str]),
    /// A program and its arguments: a list of words, or one text.
    Command,
    /// Codings of answers.
    Codings,
    /// A whole number from the first to the second.
    Count(i64, i64),
    Duration,
    /// A number from 1 to 100.
    Factor,
    Failover,
    Flag,
    /// A folder that is there.
    Folder,
    HeaderNames,
    /// A header's value; empty for none.
    HeaderText,
    HashBy,
    Host,
    /// Names or addresses, without ports.
    Hosts,
    HttpUrl,
    /// How many instances of a process.
    Instances,
    MediaTypes,
    /// A path with a slash at both ends, or `/` alone.
    MountPath,
    /// Whose requests a limit counts together.
    LimitKey,
    /// Methods of HTTP.
    Methods,
    Networks,
    /// Servers, each as `host:port`.
    Nodes,
    Origins,
    /// A path that the gateway answers itself; empty turns it off.
    OwnPath,
    /// A path with a slash at both ends; empty turns it off.
    PagePath,
    /// Variables, each as `NAME=value`.
    Pairs,
    /// A duration that may be none at all.
    Pause,
    /// A path, or one with `/*` at its end for all below it.
    PathPattern,
    Port,
    /// So many in a time.
    Rate,
    RedisUrl,
    Region,
    /// Names of regions.
    Regions,
    Secret,
    /// Statuses of HTTP, at least one.
    SomeStatuses,
    Statuses,
    /// What a request asks for: a path, with or without a query.
    Target,
    /// Statuses of answers that are errors.
    ErrorStatuses,
    Text,
    /// A pseudonym in `Via`; empty for none.
    Via,
}

impl Kind {
    /// The end of the sentence "… is not …", and what to write instead.
    pub(super) fn wanted(self) -> String {
        let fixed = match self {
            Self::Address => "an IP address; write it like 127.0.0.1 or ::1",
            Self::ApiKey => {
                "an API key; write 1 to 256 visible ASCII characters, or sha256: and the 64 hexadecimal \
                 digits of their digest"
            }
            Self::Authority => "a host; write it like shop.example or shop.example:8080",
            Self::Backends => {
                "a list of backends; write it like [\"http://127.0.0.1:4001\"], \
                 or with a backup [{ url = \"http://127.0.0.1:4001\", backup = true }]"
            }
            Self::Choice(values) => return format!("one of {}", values.join(", ")),
            Self::Command => {
                "a command; write it like [\"node\", \"server.js\"], or \"node server.js\" where quotes group words; \
                 there is no shell, so what only a shell understands must be quoted"
            }
            Self::Codings => "a list of codings; write it like [\"br\", \"zstd\", \"gzip\"]",
            Self::Folder => "a folder; write the path of one that is there",
            Self::HeaderNames => {
                "a list of header names; write it like [\"server\", \"x-powered-by\"]"
            }
            Self::HeaderText => {
                "a header's value; write visible ASCII characters, or leave it empty for none"
            }
            Self::MediaTypes => {
                "a list of media types; write it like [\"text/*\", \"application/json\"]"
            }
            Self::MountPath => "a path; write it like /assets/, with a slash at both ends",
            Self::Count(least, most) => return format!("a whole number from {least} to {most}"),
            Self::Duration => "a duration; write it like 30s or 5m",
            Self::Factor => "a number from 1 to 100; write it like 1.4",
            Self::Failover => failover::WANTED,
            Self::Flag => "a switch; write true or false",
            Self::HashBy => "a key; write client, header:NAME or cookie:NAME",
            Self::Host => "a host; write a name or an address alone, like redis.internal",
            Self::Hosts => "a list of hosts; write it like [\"gateway.internal\"]",
            Self::HttpUrl => "a URL; write it like http://127.0.0.1:5001",
            Self::Instances => "a number of instances; write 1 to 60, or max for one a core",
            Self::LimitKey => {
                "a key; write client, user, region, or header: and a name, like header:x-tenant"
            }
            Self::Methods => "a list of methods; write it like [\"GET\", \"POST\"]",
            Self::Networks => "a list of networks; write it like [\"10.0.0.0/8\", \"::1/128\"]",
            Self::Nodes => {
                "a list of servers; write it like [\"10.0.0.1:7000\", \"10.0.0.2:7000\"]"
            }
            Self::Origins => "a list of origins; write it like [\"https://chat.example\"]",
            Self::OwnPath => "a path; write it like /health, or leave it empty to turn it off",
            Self::PagePath => "a path; write it like /client/, or leave it empty to turn it off",
            Self::Pairs => "a list of variables; write it like [\"NAME=value\", \"OTHER=value\"]",
            Self::Pause => "a duration; write it like 30s or 5m, or 0s for none",
            Self::PathPattern => "a path; write it like /login, or like /api/* for all below",
            Self::Rate => "a rate; write it like 10/s, 5/min or 1000/h, at most 1000000/s",
            Self::Port => "a port; write a number from 0 to 65535, where 0 lets the system choose",
            Self::RedisUrl => "a Redis URL; write it like redis://user:password@host:6379",
            Self::Region => "a region's name; write 1 to 32 characters of A-Z a-z 0-9 _ -",
            Self::ErrorStatuses => {
                "a list of statuses from 400 to 599; write it like [502, 503, 504]"
            }
            Self::Via => {
                "a name; write letters, digits and any of !#$%&'*+-.^_`|~, at most 64, or nothing"
            }
            Self::Regions => "a list of regions; write it like [\"1\", \"2\"]",
            Self::SomeStatuses | Self::Statuses => {
                "statuses of HTTP; write them like \"200-399\" or \"200, 204\""
            }
            Self::Target => "a path; write it like /health",
            Self::Secret | Self::Text => "a text; write it in quotes",
        };
        fixed.to_owned()
    }

    /// Whether values of this kind are lists, which a variable may also give separated by commas.
    pub(super) fn is_list(self) -> bool {
        matches!(
            self,
            Self::Codings
                | Self::HeaderNames
                | Self::MediaTypes
                | Self::Backends
                | Self::Hosts
                | Self::Networks
                | Self::Nodes
                | Self::Origins
                | Self::ErrorStatuses
                | Self::Pairs
                | Self::Methods
                | Self::Regions
        )
    }

    /// One item of a list, as a variable writes it.
    pub(super) fn item(self, text: &str) -> Value {
        match text.parse() {
            Ok(number) if matches!(self, Self::ErrorStatuses) => Value::Integer(number),
            _ => Value::String(text.to_owned()),
        }
    }

    /// Whether the value must not be shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::ApiKey | Self::Secret | Self::RedisUrl)
    }

    /// What is wrong with a value that its type has accepted.
    pub(super) fn refuse(self, value: &Value) -> Option<String> {
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
                http::HeaderName::from_bytes(name.as_bytes())
                    .is_err()
                    .then(|| format!("{name:?} is not a header's name; write it like x-powered-by"))
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
                refused.or_else(|| weight(backend.get("weight")?.as_integer()?))
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
