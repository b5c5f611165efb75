//! What carries messages between hubs: this process alone, or Redis.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::RedisMode;

/// Section `[bus]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusSettings {
    pub kind: BusKind,
    /// A node that was killed counts as gone after this time at the latest: its users' seats are free, and they are
    /// offline. Redis only; a node that hangs for a third of it may be taken for dead, and comes right by itself.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    pub redis: RedisSettings,
    pub inbox: InboxSettings,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            kind: BusKind::default(),
            lease: Duration::from_secs(15),
            redis: RedisSettings::default(),
            inbox: InboxSettings::default(),
        }
    }
}

impl BusSettings {
    /// Whether these settings ask for Redis: by name, or by naming a server.
    pub fn wants_redis(&self) -> bool {
        match self.kind {
            BusKind::Embedded => false,
            BusKind::Redis => true,
            BusKind::Auto => self.redis.names_a_server(),
        }
    }
}

/// Which bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    /// Redis where a host or URL is named, else embedded.
    #[default]
    Auto,
    /// Within this process, gone with it.
    Embedded,
    Redis,
}

/// Section `[bus.redis]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `REDIS_URL`: `redis://user:password@host:port`, or that of Sentinels or a Cluster; says mode, servers,
    /// user, password and whether by TLS, and wins over these fields.
    pub url: Option<Secret>,
    pub mode: RedisMode,
    /// `REDIS_HOST`.
    pub host: Option<String>,
    /// `REDIS_PORT`.
    pub port: u16,
    /// The Sentinels, or some nodes of the Cluster, each as `host:port`; in place of `host` and `port`.
    pub nodes: Vec<String>,
    /// `REDIS_USERNAME`, for servers with ACLs.
    pub username: Option<String>,
    /// `REDIS_PASSWORD`.
    pub password: Option<Secret>,
    /// The name under which the Sentinels know the primary.
    pub sentinel_master: Option<String>,
    /// For Sentinels that ask for a login of their own.
    pub sentinel_username: Option<String>,
    pub sentinel_password: Option<Secret>,
    /// Whether servers (and Sentinels) are reached by TLS.
    pub tls: bool,
    /// A file (PEM) with certificates of authorities that are trusted besides the system's.
    pub tls_ca: Option<PathBuf>,
    /// Files (PEM) with a certificate and its key, for servers that ask clients for one.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// A command without an answer for this long has failed.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// The first pause before a new connection attempt; it doubles, with jitter, up to the next field.
    #[serde(with = "humantime_serde")]
    pub reconnect_min: Duration,
    #[serde(with = "humantime_serde")]
    pub reconnect_max: Duration,
    /// How it is noticed that Redis holds another history than before.
    pub fence: Fence,
    /// Replicas that must have a message before it is acknowledged; 0 waits for none.
    pub min_replicas: u32,
    /// Between two probes; a probe that takes longer than this to come back tells that the bus is down.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
}

/// Who looks whether Redis still is the server whose history was settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fence {
    /// Each script, by `INFO`: no answer is ever given for another history.
    #[default]
    Script,
    /// This process, when a connection is made; for servers that refuse `INFO` in scripts.
    Connection,
    /// Nobody: a promoted replica that lost messages passes for the same history.
    Off,
}

impl RedisSettings {
    /// Whether some server is named, in whichever way.
    pub fn names_a_server(&self) -> bool {
        self.url.is_some() || self.host.is_some() || !self.nodes.is_empty()
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            mode: RedisMode::Auto,
            host: None,
            port: 6379,
            nodes: Vec::new(),
            username: None,
            password: None,
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password: None,
            tls: false,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            command_timeout: Duration::from_secs(3),
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(2),
            fence: Fence::default(),
            min_replicas: 0,
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// Section `[bus.inbox]`: what is kept of each user's messages for a reader that comes back.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboxSettings {
    /// Messages kept a user; the oldest go first.
    pub max_messages: NonZeroUsize,
    /// An inbox that got nothing for this long is dropped.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// The same `(from, id)` within this time is one message.
    #[serde(with = "humantime_serde")]
    pub dedupe_window: Duration,
    /// Bytes of all inboxes together, on the embedded bus only; Redis has its own `maxmemory`.
    pub max_total_bytes: NonZeroUsize,
}

impl Default for InboxSettings {
    fn default() -> Self {
        Self {
            max_messages: NonZeroUsize::MIN.saturating_add(999),
            max_age: Duration::from_hours(24),
            dedupe_window: Duration::from_mins(10),
            max_total_bytes: NonZeroUsize::MIN.saturating_add(256 * 1024 * 1024 - 1),
        }
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; keep it out of logs and errors.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
