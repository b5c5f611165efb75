//! Who may see the status, and who may act.
//!
//! The listener is private, but a browser on the same machine is not: a page from anywhere can send requests to it. So
//! what is asked for by name must be a name of ours (a name that its owner has pointed here is not), and an action must
//! not come from another page. What bears none of a browser's marks is a program, which could send anything.
//!
//! Pure; the statuses are the router's.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::settings::AdminSettings;

/// Says that a page of ours, or a program, means it: a page elsewhere cannot send it without being let to.
pub const ACTION: HeaderName = HeaderName::from_static("x-meridian-action");
/// By which browsers say where a request is from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const JSON: &str = "application/json";

/// What the settings say of it.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    hosts: Vec<String>,
    /// The digest of the token, so that comparing takes the same time whatever was sent.
    token: Option<[u8; 32]>,
    loopback: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Host,
    Origin,
    Unmarked,
    TokenMissing,
    TokenWrong,
    TokenUnset,
}

impl Gate {
    /// Of a listener that is bound to `bound`.
    pub(super) fn new(settings: &AdminSettings, bound: SocketAddr) -> Self {
        Self {
            hosts: settings.hosts.clone(),
            token: settings.token.as_ref().map(|token| digest(token.expose().as_bytes())),
            loopback: bound.ip().to_canonical().is_loopback(),
        }
    }

    /// Whether the page may be had, which says nothing by itself.
    pub(super) fn page(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.host(headers)
    }

    /// Whether the status may be seen.
    pub(super) fn status(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.host(headers)?;
        self.token(headers)
    }

    /// Whether something may be done.
    pub(super) fn action(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.host(headers)?;
        let site = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
        if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return Err(Refusal::Origin);
        }
        let origin = headers.get(ORIGIN);
        if origin.is_some_and(|origin| !is_origin_of(origin.as_bytes(), headers)) {
            return Err(Refusal::Origin);
        }
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
        let marked = headers.contains_key(ACTION) || kind.is_some_and(is_json);
        let program = site.is_none() && origin.is_none() && kind.is_none();
        if !marked && !program {
            return Err(Refusal::Unmarked);
        }
        self.token(headers)
    }

    fn host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut given = headers.get_all(HOST).into_iter();
        let (Some(host), None) = (given.next(), given.next()) else { return Err(Refusal::Host) };
        let name = host.to_str().ok().and_then(name_of).ok_or(Refusal::Host)?;
        let ours = name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
        if ours { Ok(()) } else { Err(Refusal::Host) }
    }

    fn token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(wanted) = &self.token else {
            return if self.loopback { Ok(()) } else { Err(Refusal::TokenUnset) };
        };
        let given = headers.get(AUTHORIZATION).ok_or(Refusal::TokenMissing)?;
        let given = given.to_str().ok().and_then(bearer).ok_or(Refusal::TokenMissing)?;
        let is = digest(given.as_bytes());
        let differing = is.iter().zip(wanted).fold(0, |sum, (is, wanted)| sum | (is ^ wanted));
        if differing == 0 { Ok(()) } else { Err(Refusal::TokenWrong) }
    }
}

impl Refusal {
    /// The code, and what to do.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Host => (
                "host_forbidden",
                "ask for it by an address or as localhost, or add the name to admin.hosts",
            ),
            Self::Origin => ("origin_forbidden", "another page may not do this"),
            Self::Unmarked => (
                "action_unmarked",
                "send the header x-meridian-action: 1, or Content-Type: application/json",
            ),
            Self::TokenMissing => {
                ("unauthorized", "send admin.token as Authorization: Bearer <token>")
            }
            Self::TokenWrong => ("unauthorized", "the token is not that of admin.token"),
            Self::TokenUnset => (
                "token_required",
                "the admin listener is not on loopback: set admin.token (ADMIN_TOKEN), and send it",
            ),
        }
    }

    /// Whether a token would help.
    pub(super) fn is_unauthorized(self) -> bool {
        matches!(self, Self::TokenMissing | Self::TokenWrong)
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The host without its port.
fn name_of(host: &str) -> Option<&str> {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map(|(name, _)| name);
    }
    match host.split_once(':') {
        Some((name, port)) => port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name),
        None => Some(host),
    }
}

fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(JSON)
}

/// Whether the request is from a page of this very address.
fn is_origin_of(origin: &[u8], headers: &HeaderMap) -> bool {
    let authority = std::str::from_utf8(origin)
        .ok()
        .and_then(|origin| origin.strip_prefix("http://").or(origin.strip_prefix("https://")));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        of.iter().map(parse).collect()
    }

    fn gate(token: Option<&str>, bound: &str) -> Gate {
        let settings = AdminSettings {
            hosts: vec!["gateway.internal".to_owned()],
            token: token.map(Secret::new),
            ..AdminSettings::default()
        };
        Gate::new(&settings, bound.parse().unwrap())
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        let gate = gate(None, "127.0.0.1:1");
        for host in
            ["127.0.0.1:9600", "[::1]:9600", "localhost", "LOCALHOST:1", "gateway.internal:9600"]
        {
            assert_eq!(gate.status(&headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in ["evil.test", "evil.test:9600", "localhost.evil.test", "", "a:b", "[::1"] {
            assert_eq!(gate.status(&headers(&[("host", host)])), Err(Refusal::Host), "{host}");
        }
        assert_eq!(gate.page(&headers(&[])), Err(Refusal::Host));
        let mut both = HeaderMap::new();
        both.append(HOST, "localhost".parse().unwrap());
        both.append(HOST, "evil.test".parse().unwrap());
        assert_eq!(gate.page(&both), Err(Refusal::Host));
    }

    #[test]
    fn another_page_can_do_nothing() {
        let gate = gate(None, "127.0.0.1:1");
        let ask = |more: &[(&str, &str)]| {
            gate.action(&headers(&[&[("host", "localhost:9600")], more].concat()))
        };
        let own = ("origin", "http://localhost:9600");
        let same = ("sec-fetch-site", "same-origin");
        assert_eq!(ask(&[]), Ok(()), "a program");
        assert_eq!(ask(&[own, same, ("x-meridian-action", "1")]), Ok(()), "our page");
        assert_eq!(ask(&[own, ("content-type", "application/json; charset=utf-8")]), Ok(()));
        assert_eq!(ask(&[own, same]), Err(Refusal::Unmarked));
        for site in ["cross-site", "same-site"] {
            let marked = [("sec-fetch-site", site), ("x-meridian-action", "1")];
            assert_eq!(ask(&marked), Err(Refusal::Origin), "{site}");
        }
        for origin in ["http://evil.test", "null", "http://localhost", "http://localhost:9601"] {
            let marked = [("origin", origin), ("content-type", "application/json")];
            assert_eq!(ask(&marked), Err(Refusal::Origin), "{origin}");
        }
        for form in
            ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
        {
            assert_eq!(ask(&[("content-type", form)]), Err(Refusal::Unmarked), "{form}");
        }
    }

    #[test]
    fn a_token_is_asked_for_where_it_is_set_and_needed_off_loopback() {
        let ask = |gate: &Gate, token: &str| {
            gate.action(&headers(&[("host", "localhost"), ("authorization", token)]))
        };
        let guarded = gate(Some("geheim"), "127.0.0.1:1");
        assert_eq!(ask(&guarded, "Bearer geheim"), Ok(()));
        assert_eq!(ask(&guarded, "bearer  geheim"), Ok(()));
        assert_eq!(ask(&guarded, "Bearer anders"), Err(Refusal::TokenWrong));
        assert_eq!(ask(&guarded, "Basic geheim"), Err(Refusal::TokenMissing));
        let host = headers(&[("host", "localhost")]);
        assert_eq!(guarded.status(&host), Err(Refusal::TokenMissing));
        assert_eq!(guarded.page(&host), Ok(()), "it says nothing by itself");
        for bound in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
            assert_eq!(gate(None, bound).status(&host), Err(Refusal::TokenUnset), "{bound}");
        }
        for bound in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(gate(None, bound).status(&host), Ok(()), "{bound}");
        }
    }
}
