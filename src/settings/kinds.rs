//! What the value of a key must be: the words for it, and the rules that its type cannot say.

mod refuse;

use toml::Value;

use super::failover;

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
}
