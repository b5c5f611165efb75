//! Whose requests are counted together.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, Method};
use sha2::{Digest as _, Sha256};

use super::path::Readings;
use crate::settings::LimitKey;

/// A longer text is known by its digest in a shared count.
const MAX_TEXT: usize = 64;

/// What rules and limits look at.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a Readings<'a>,
    /// The region the request names, where that is known and makes a difference.
    pub(crate) region: Option<&'a str>,
    pub(crate) client: IpAddr,
    pub(crate) headers: &'a HeaderMap,
    /// Who it is, where that is known and makes a difference.
    pub(crate) user: Option<Cow<'a, str>>,
}

/// Whether one of `methods` is `method`; none of them means all. A handshake over HTTP/2 counts as the GET that it is
/// over HTTP/1.1 (RFC 8441, section 4).
pub(super) fn has_method(methods: &[Method], method: &Method) -> bool {
    let method = if *method == Method::CONNECT { &Method::GET } else { method };
    methods.is_empty() || methods.contains(method)
}

/// The methods of a list of the settings; GET covers HEAD.
pub(super) fn methods(names: &[String]) -> Vec<Method> {
    let mut methods: Vec<Method> =
        names.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods
}

/// What a limit goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    Client,
    Header(HeaderName),
    User,
    Region,
}

impl By {
    pub(super) fn new(key: &LimitKey) -> Self {
        match key {
            LimitKey::Client => Self::Client,
            LimitKey::User => Self::User,
            LimitKey::Region => Self::Region,
            // A name that is none was refused where it was read.
            LimitKey::Header(name) => HeaderName::try_from(name).map_or(Self::Client, Self::Header),
        }
    }

    /// The key of one request.
    pub(super) fn of<'a>(&self, asked: &'a Asked<'_>) -> Key<'a> {
        let found = match self {
            Self::Client => None,
            Self::Header(name) => {
                asked.headers.get(name).map(|value| Key::Header(value.as_bytes()))
            }
            Self::User => asked.user.as_deref().map(Key::User),
            Self::Region => Some(Key::Region(asked.region.unwrap_or_default())),
        };
        found.unwrap_or_else(|| Key::Client(network(asked.client)))
    }
}

/// Whose request it is. A text of one kind is never taken for one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key<'a> {
    Client(IpAddr),
    Header(&'a [u8]),
    User(&'a str),
    Region(&'a str),
}

impl Key<'_> {
    /// The same wherever it is asked, short, and without braces.
    pub(super) fn shared(self) -> String {
        match self {
            Self::Client(IpAddr::V6(network)) => format!("{network}/64"),
            Self::Client(address) => address.to_string(),
            Self::Header(value) => text('h', value),
            Self::User(user) => text('u', user.as_bytes()),
            Self::Region(region) => text('r', region.as_bytes()),
        }
    }
}

/// The address that stands for a client: one of IPv6 has a /64 to choose addresses from.
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// `kind=text`; where that is long or has odd characters, `kind:` and half of its SHA-256.
fn text(kind: char, text: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
    let mut shared = String::from(kind);
    match str::from_utf8(text) {
        Ok(text) if text.len() <= MAX_TEXT && text.bytes().all(|byte| is_plain(&byte)) => {
            shared.push('=');
            shared.push_str(text);
        }
        _ => {
            shared.push(':');
            for byte in Sha256::digest(text).iter().take(16) {
                // Writing to a text does not fail.
                let _written = write!(shared, "{byte:02x}");
            }
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let client = |text: &str| Key::Client(network(text.parse().unwrap()));
        assert_eq!(client("2001:db8:1:2:3::4"), client("2001:db8:1:2:ffff::"));
        assert_ne!(client("2001:db8:1:2::"), client("2001:db8:1:3::"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8:1:2:3::4").shared(), "2001:db8:1:2::/64");
        assert_eq!(client("10.0.0.1").shared(), "10.0.0.1");
    }

    #[test]
    fn shared_keys_are_short_and_of_one_kind() {
        assert_eq!(Key::User("alice").shared(), "u=alice");
        assert_eq!(Key::Header(b"10.0.0.1").shared(), "h=10.0.0.1");
        for odd in ["a}b", "a b", "", &"x".repeat(65), "\u{e4}"] {
            let shared = Key::Header(odd.as_bytes()).shared();
            assert!(shared.len() <= 66 && !shared.contains(['{', '}', ' ']), "{shared}");
        }
        assert_ne!(Key::Header(b"{a").shared(), Key::Header(b"{b").shared());
    }
}
