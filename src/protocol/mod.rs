//! The chat protocol: what frames may say, and the closed lists of error and close codes.
//!
//! Walk: [`incoming`] reads what clients send, and [`posted`] what backends post for them, both by way of `fields`;
//! [`outgoing`] writes what they get. All are pure.
//!
//! Invariants: no input makes any of it panic; what is written is one JSON object with `type` first;
//! `text` and `data` are handed on in the sender's own JSON, never read and written anew.

mod fields;
pub mod incoming;
pub mod outgoing;
pub mod posted;

/// The longest user, in bytes.
const MAX_USER: usize = 128;
/// The longest message id, in bytes.
const MAX_ID: usize = 64;

/// Whether `text` may name a user: visible ASCII without braces, which frame the slot of his keys.
pub fn is_user(text: &str) -> bool {
    (1..=MAX_USER).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{' && byte != b'}')
}

/// Whether `text` may name a message.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What an error frame says is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadJson,
    BadFrame,
    UnknownType,
    UserInvalid,
    TextEmpty,
    TextTooLong,
    IdInvalid,
    RateLimited,
    BusUnavailable,
}

impl Code {
    pub const ALL: [Self; 9] = [
        Self::BadJson,
        Self::BadFrame,
        Self::UnknownType,
        Self::UserInvalid,
        Self::TextEmpty,
        Self::TextTooLong,
        Self::IdInvalid,
        Self::RateLimited,
        Self::BusUnavailable,
    ];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadFrame => "bad_frame",
            Self::UnknownType => "unknown_type",
            Self::UserInvalid => "user_invalid",
            Self::TextEmpty => "text_empty",
            Self::TextTooLong => "text_too_long",
            Self::IdInvalid => "id_invalid",
            Self::RateLimited => "rate_limited",
            Self::BusUnavailable => "bus_unavailable",
        }
    }

    /// What the sender should do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::BadJson => "the frame is not JSON",
            Self::BadFrame => "a frame is a JSON object with a type, and fields of their own types",
            Self::UnknownType => "type is one of message, typing, presence, ping",
            Self::UserInvalid => "to is 1 to 128 visible ASCII characters, without { and }",
            Self::TextEmpty => "a message needs text or data",
            Self::TextTooLong => "text and data together are over maxTextBytes of the welcome",
            Self::IdInvalid => "id is 1 to 64 visible ASCII characters",
            Self::RateLimited => "too many messages: send this one again, with the same id, later",
            Self::BusUnavailable => "not taken: send this one again, with the same id, later",
        }
    }

    /// The same frame may succeed later; such an error is nobody's bad frame.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::BusUnavailable)
    }
}

/// The close codes that this hub sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    Away,
    Protocol,
    Binary,
    NotUtf8,
    Policy,
    Flood,
    TooBig,
    Restart,
    NoPong,
    Replaced,
    TooSlow,
}

impl Close {
    /// Its number, from RFC 6455 (7.4.1), the IANA registry, or the private range.
    pub fn code(self) -> u16 {
        match self {
            Self::Away => 1001,
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::NotUtf8 => 1007,
            Self::Policy | Self::Flood => 1008,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::NoPong => 4000,
            Self::Replaced => 4001,
            Self::TooSlow => 4008,
        }
    }

    /// The reason in the close frame; at most 123 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Away => "going away",
            Self::Protocol => "protocol violation",
            Self::Binary => "text frames only",
            Self::NotUtf8 => "not UTF-8",
            Self::Policy => "too many bad frames",
            Self::Flood => "too many messages over the rate",
            Self::TooBig => "frame over the limit",
            Self::Restart => "restart: connect again with since",
            Self::NoPong => "no pong in time",
            Self::Replaced => "another connection took the place",
            Self::TooSlow => "reader too slow: connect again with since",
        }
    }
}
