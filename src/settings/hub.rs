//! The bounds of a chat connection, the same on every hub of the process.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[hub]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    /// A WebSocket ping goes out this often.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// A connection from which nothing has come for this long after a ping is closed with 4000.
    #[serde(with = "humantime_serde")]
    pub pong_timeout: Duration,
    /// Bytes of `text` and `data` of one message together.
    pub max_text_bytes: NonZeroUsize,
    /// Frames that are errors (not JSON, unknown type, …) before the connection is closed with 1008;
    /// one is forgiven every ten seconds.
    pub max_bad_frames: NonZeroU32,
    /// Messages and typing notices a second that one connection may send in the long run.
    pub messages_per_second: NonZeroU32,
    /// … and how many at once before the rate counts. Who keeps sending beyond it, at five times this (at least 1,000)
    /// refused in a second, is closed with 1008.
    pub message_burst: NonZeroU32,
    /// Messages and typing notices a second that one user may send in the long run, over all his connections to this
    /// process; 0 means five times what one connection may.
    pub user_messages_per_second: u32,
    /// … and how many at once before the rate counts; 0 means five times what one connection may.
    pub user_message_burst: u32,
    /// Frames that may wait for one slow reader before it is closed with 4008.
    pub outbox_messages: NonZeroUsize,
    /// … and their bytes.
    pub outbox_bytes: NonZeroUsize,
    /// Sockets of this process; one more is answered with 503 `overloaded`.
    pub max_connections: NonZeroUsize,
    /// Sockets of one user over all nodes; what becomes of one more, `over_limit` says.
    pub max_connections_per_user: NonZeroUsize,
    /// What becomes of a socket over `max_connections_per_user`.
    pub over_limit: OverLimit,
    /// Users whose presence one connection may be told of.
    pub max_presence_users: NonZeroUsize,
    /// Sockets a second that one region of this process takes in the long run; over it, 503 `overloaded`.
    pub connects_per_second: NonZeroU32,
    /// … and how many at once before the rate counts.
    pub connect_burst: NonZeroU32,
    /// A connection this old, less up to a fifth, is closed with 1012, to be opened anew; never where it is
    /// not set. So a long-lived fleet of sockets spreads over the hubs that were added since.
    #[serde(with = "humantime_serde")]
    pub max_connection_age: Option<Duration>,
    /// What is promised of a message.
    pub delivery: DeliveryMode,
    /// Values of `Origin` that may connect, as `https://chat.example`; empty admits every page.
    /// A request without `Origin` does not come from a page and is not held to this.
    pub allowed_origins: Vec<String>,
}

/// What becomes of one connection of a user more than he may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverLimit {
    /// It is answered with 429.
    #[default]
    Refuse,
    /// It is let in, and the user's oldest one is closed with 4001.
    CloseOldest,
}

/// What `hub.delivery` promises of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryMode {
    /// Stored in the recipient's inbox, counted, resumed; a repeat is told from a new one.
    #[default]
    ExactlyOnce,
    /// Published to whoever listens at this moment, and forgotten.
    AtMostOnce,
}

/// `NonZero` for a constant that is plainly not zero.
const fn nz32(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

/// `NonZero` for a constant that is plainly not zero.
const fn nz(value: usize) -> NonZeroUsize {
    match NonZeroUsize::new(value) {
        Some(value) => value,
        None => NonZeroUsize::MIN,
    }
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(10),
            max_text_bytes: nz(16 * 1024),
            max_bad_frames: nz32(20),
            messages_per_second: nz32(100),
            message_burst: nz32(200),
            user_messages_per_second: 0,
            user_message_burst: 0,
            outbox_messages: nz(2_048),
            outbox_bytes: nz(4 * 1024 * 1024),
            max_connections: nz(1_000_000),
            max_connections_per_user: nz(64),
            over_limit: OverLimit::default(),
            max_presence_users: nz(256),
            connects_per_second: nz32(5_000),
            connect_burst: nz32(20_000),
            max_connection_age: None,
            delivery: DeliveryMode::ExactlyOnce,
            allowed_origins: Vec::new(),
        }
    }
}
