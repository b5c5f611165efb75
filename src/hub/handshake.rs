//! What a request must be to become a chat socket (RFC 6455, 4.2.1, and RFC 8441, 5 over HTTP/2), and what it says of its user.
//!
//! Walk: [`upgrade`] looks at method, version and headers and gives the answer's key; [`Query::parse`] reads
//! user and resume position from the query; [`origin_allowed`] holds the page to the configuration.
//! All are pure: who may still come in is counted in the hub.
//!
//! Absent on purpose: extensions and subprotocols, which are not negotiated.

use std::sync::Arc;

use http::header::{
    CONNECTION, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::cursor::Cursor;
use crate::protocol;

/// The longest epoch worth a look; ours are far shorter.
const MAX_EPOCH: usize = 128;

/// Why a request did not become a socket. The text says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    UserInvalid(UserFault),
    #[error("this is a WebSocket endpoint: connect with a WebSocket client")]
    UpgradeRequired,
    #[error("connect with WebSocket version 13, the only one that is spoken here")]
    VersionUnsupported,
    #[error("pages of this origin may not connect: add the origin to hub.allowed_origins")]
    OriginForbidden,
    #[error("this user has too many connections: close one, or try again later")]
    TooManyConnections,
    #[error("this hub is going down: connect again, another one will answer")]
    Draining,
    #[error("this hub is full, or too many come at once: try again after the time in Retry-After")]
    Overloaded,
}

/// What is wrong with `userId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserFault {
    #[error("name the user in the query, as in ?userId=alice")]
    Missing,
    #[error("userId is 1 to 128 visible ASCII characters, without {{ and }}")]
    Malformed,
    #[error("userId is given twice with different values: give it once")]
    Repeated,
}

/// Whether `parts` asks for a WebSocket; gives the value of `Sec-WebSocket-Accept`, which HTTP/2 has not.
pub(super) fn upgrade(parts: &Parts) -> Result<Option<HeaderValue>, Refusal> {
    let headers = &parts.headers;
    let is_13 = || single(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version == b"13");
    if is_extended_connect(parts) {
        return if is_13() { Ok(None) } else { Err(Refusal::VersionUnsupported) };
    }
    let asks = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && lists(headers, &UPGRADE, "websocket")
        && lists(headers, &CONNECTION, "upgrade");
    if !asks {
        return Err(Refusal::UpgradeRequired);
    }
    if !is_13() {
        return Err(Refusal::VersionUnsupported);
    }
    let key = single(headers, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(Refusal::UpgradeRequired)?;
    let accept_key = HeaderValue::try_from(derive_accept_key(key));
    accept_key.map(Some).map_err(|_never| Refusal::UpgradeRequired)
}

/// Whether this is the handshake of a WebSocket over HTTP/2.
fn is_extended_connect(parts: &Parts) -> bool {
    let protocol = parts.extensions.get::<Protocol>();
    parts.method == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

/// Whether a request of this origin may connect. What comes from no page names none.
pub(super) fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    allowed.is_empty()
        || headers.get_all(ORIGIN).iter().all(|origin| {
            allowed.iter().any(|one| origin.as_bytes().eq_ignore_ascii_case(one.as_bytes()))
        })
}

/// Whether the comma-separated list in `name`, over all its lines, has `token`.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The value of a header that must be there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes().trim_ascii())
}

/// Sixteen bytes in base64: 22 characters and the padding.
fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|body| {
        body.len() == 22
            && body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}

/// What the query of a chat handshake says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) user: String,
    pub(super) cursor: Cursor,
}

/// A parameter that counts once: absent, one value, or several that differ.
enum Once {
    Absent,
    One(Vec<u8>),
    Differing,
}

impl Once {
    fn add(&mut self, value: Vec<u8>) {
        match self {
            Self::Absent => *self = Self::One(value),
            Self::One(first) if *first == value => {}
            Self::One(_) | Self::Differing => *self = Self::Differing,
        }
    }
}

impl Query {
    /// Reads a query string as forms write it: `%41` is `A`, `+` is a space.
    ///
    /// A resume that is asked for and cannot be understood is not refused: the client learns from
    /// `resumed:false` that it starts anew.
    pub(super) fn parse(query: &str) -> Result<Self, UserFault> {
        let (mut user, mut since, mut epoch) = (Once::Absent, Once::Absent, Once::Absent);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match decode(name).as_slice() {
                b"userId" => user.add(decode(value)),
                b"since" => since.add(decode(value)),
                b"epoch" => epoch.add(decode(value)),
                _ => {}
            }
        }
        let user = match user {
            Once::Absent => return Err(UserFault::Missing),
            Once::Differing => return Err(UserFault::Repeated),
            Once::One(user) if user.is_empty() => return Err(UserFault::Missing),
            Once::One(user) => {
                String::from_utf8(user).map_err(|_not_ascii| UserFault::Malformed)?
            }
        };
        if !protocol::is_user(&user) {
            return Err(UserFault::Malformed);
        }
        let cursor = match since {
            Once::Absent => Cursor::fresh(),
            _ => resumed(&since, &epoch),
        };
        Ok(Self { user, cursor })
    }
}

/// The cursor of a client that asked to resume.
fn resumed(since: &Once, epoch: &Once) -> Cursor {
    let (Once::One(since), Once::One(epoch)) = (since, epoch) else {
        return Cursor::unclear();
    };
    let digits = !since.is_empty() && since.iter().all(u8::is_ascii_digit);
    let since =
        std::str::from_utf8(since).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    let epoch = std::str::from_utf8(epoch).ok().filter(|text| text.len() <= MAX_EPOCH);
    match (since, epoch) {
        (Some(since), Some(epoch)) => Cursor::after(since, Arc::from(epoch)),
        _ => Cursor::unclear(),
    }
}

/// Undoes percent-encoding; what is not an escape stands for itself, as browsers have it.
fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                decoded.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    decoded
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20).wrapping_sub(b'a') + 10,
    }
}

#[cfg(test)]
mod tests;
