//! Where a gateway is: what a person writes as its URL, and the target of each handshake there. Pure.
//!
//! Invariants: what goes into a query is percent-encoded; parameters that the client sets itself are taken out of
//! the URL that it was given, so that none is sent twice.

use std::fmt;
use std::fmt::Write as _;

use http::Uri;

/// A hub answers on it, and so does the proxy.
const DEFAULT_PATH: &str = "/ws";

/// What is wrong with the URL of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("it is not a URL; write it like ws://127.0.0.1:3000/ws")]
    NotAUrl,
    #[error("it begins with none of ws://, wss://, http://, https://")]
    Scheme,
    #[error("it names a user, which it must not; a token is given apart")]
    User,
}

/// A gateway's WebSocket endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    secure: bool,
    /// As in a URL: an IPv6 address has brackets.
    host: String,
    port: u16,
    path: String,
    /// As written, without the parameters of the handshake's own.
    query: String,
    /// The region that the URL itself names, as written.
    region: Option<String>,
}

impl Address {
    /// Reads a URL; `http` stands for `ws`, and `https` for `wss`.
    ///
    /// # Errors
    /// Where it is none, or names something that a handshake has no place for.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (text, _fragment) = text.split_once('#').unwrap_or((text, ""));
        let uri: Uri = text.trim().parse().map_err(|_unread| AddressError::NotAUrl)?;
        let secure = match uri.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            Some(_) => return Err(AddressError::Scheme),
            None => return Err(AddressError::NotAUrl),
        };
        let authority = uri.authority().ok_or(AddressError::NotAUrl)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::User);
        }
        let host = authority.host();
        let bare = authority.as_str().len() == host.len();
        if host.is_empty() || !bare && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(AddressError::NotAUrl);
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = match uri.path() {
            "" | "/" => DEFAULT_PATH,
            path => path,
        };
        let (mut query, mut region) = (String::new(), None);
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "region" => region = Some(value.to_owned()),
                "userId" | "since" | "epoch" => {}
                _ => {
                    query.push_str(if query.is_empty() { "" } else { "&" });
                    query.push_str(pair);
                }
            }
        }
        Ok(Self { secure, host: host.to_owned(), port, path: path.to_owned(), query, region })
    }

    /// Whether the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether the URL names a region itself.
    pub fn names_region(&self) -> bool {
        self.region.is_some()
    }

    /// The name or address to connect to; without the brackets of IPv6.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of one handshake. `region` wins over the one of the URL; `resume` is (epoch, since).
    pub(super) fn handshake(
        &self,
        user: &str,
        region: Option<&str>,
        resume: Option<(&str, u64)>,
    ) -> String {
        let mut url = format!("{self}?userId={}", Encoded(user));
        match (region, &self.region) {
            (Some(region), _) => url.extend(["&region=", &Encoded(region).to_string()]),
            (None, Some(region)) => url.extend(["&region=", region]),
            (None, None) => {}
        }
        if let Some((epoch, since)) = resume {
            let (since, epoch) = (since.to_string(), Encoded(epoch).to_string());
            url.extend(["&since=", &since, "&epoch=", &epoch]);
        }
        if !self.query.is_empty() {
            url.push('&');
            url.push_str(&self.query);
        }
        url
    }
}

impl fmt::Display for Address {
    /// Without its query, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

/// A value in a query: all but the unreserved characters (RFC 3986, 2.3) as escapes.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' => f.write_char(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => f.write_char(char::from(byte)),
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(url: &str) -> String {
        Address::parse(url).unwrap().handshake("al", None, None)
    }

    #[test]
    fn what_people_write_becomes_an_endpoint() {
        assert_eq!(handshake("ws://h:3000/ws"), "ws://h:3000/ws?userId=al");
        assert_eq!(handshake("http://h:3000"), "ws://h:3000/ws?userId=al");
        assert_eq!(handshake("https://h/"), "wss://h:443/ws?userId=al");
        assert_eq!(handshake("WS://[::1]:1/chat#x"), "ws://[::1]:1/chat?userId=al");
        assert_eq!(Address::parse("ws://[::1]:1").unwrap().host(), "::1");
        assert_eq!(
            handshake("ws://h:1/ws?region=2&a=b&userId=eve&since=1"),
            "ws://h:1/ws?userId=al&region=2&a=b"
        );
    }

    #[test]
    fn what_is_said_apart_wins_and_is_escaped() {
        let address = Address::parse("ws://h:1/ws?region=2").unwrap();
        assert_eq!(
            address.handshake("a&b=c%", Some("eu-1"), Some(("e+1", 41))),
            "ws://h:1/ws?userId=a%26b%3Dc%25&region=eu-1&since=41&epoch=e%2B1"
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for (url, why) in [
            ("", AddressError::NotAUrl),
            ("localhost:3000", AddressError::NotAUrl),
            ("/ws", AddressError::NotAUrl),
            ("ws://", AddressError::NotAUrl),
            ("ws://h:0/ws", AddressError::NotAUrl),
            ("ws://h:99999/ws", AddressError::NotAUrl),
            ("ws://a b/ws", AddressError::NotAUrl),
            ("ftp://h/ws", AddressError::Scheme),
            ("ws://u:p@h/ws", AddressError::User),
        ] {
            assert_eq!(Address::parse(url), Err(why), "{url}");
        }
    }
}
