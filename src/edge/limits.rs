//! What rules and rate limits are asked about a request.
//!
//! The API's own listener is left out: it has keys and a rate for each, and a limit on the `/api` of the backends is not
//! meant for it. Where the proxy's listener serves the API, they hold.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, Method, Request, Uri};
use http_body::Body as _;
use hyper::body::Incoming;

use super::access::Access;
use super::answer::Refused;
use super::{Door, Edge, Policy};
use crate::limits::{Asked, Readings};
use crate::proxy::{ForwardError, RegionRef};

/// The query parameter that names the user of a chat socket.
const USER: &str = "userId";

impl Edge {
    /// Holds a request to the rules; gives the bound on its body, in bytes, where a rule sets one.
    pub(super) fn obey(
        &self,
        policy: &Policy,
        client: IpAddr,
        request: &Request<Incoming>,
    ) -> Result<Option<u64>, Refused> {
        if policy.rules.is_empty() || self.is_api() {
            return Ok(None);
        }
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let routed = policy.rules.need_region().then(|| self.routed(uri, headers)).flatten();
        let path = Readings::of(uri.path());
        let region = self.region_named(routed.as_ref());
        let asked = Asked { method, path: &path, region, client, headers, user: None };
        let usual = Some(policy.settings.max_body_bytes).filter(|most| *most != 0);
        let bound =
            policy.rules.check(&asked, usual.unwrap_or(u64::MAX)).map_err(Refused::Limits)?;
        match bound {
            // Before the backend has seen any of it.
            Some(bound) if request.body().size_hint().lower() > bound => {
                Err(Refused::Forward(ForwardError::BodyTooLarge(bound)))
            }
            bound => Ok(bound),
        }
    }

    /// Counts a request with the limits that it fits; where they stand, its answer will say.
    pub(super) async fn count(
        &self,
        policy: &Policy,
        client: IpAddr,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        access: &mut Access,
    ) -> Result<(), Refused> {
        if self.is_api() {
            return Ok(());
        }
        let limits = &policy.limits;
        let routed = limits.need_region().then(|| self.routed(uri, headers)).flatten();
        let user = if limits.need_user() { self.user(policy, uri, headers) } else { None };
        let path = Readings::of(uri.path());
        let region = self.region_named(routed.as_ref());
        let asked = Asked { method, path: &path, region, client, headers, user };
        let (tally, passed) = if limits.are_shared() {
            Box::pin(limits.take(&asked)).await
        } else {
            limits.take_here(&asked)
        };
        access.limited(tally);
        passed.map_err(Refused::Limits)
    }

    fn is_api(&self) -> bool {
        matches!(self.door, Door::Api(_))
    }

    /// The region that a request to the public door names.
    fn routed(&self, uri: &Uri, headers: &HeaderMap) -> Option<RegionRef> {
        match self.door {
            Door::Public => self.proxy.route(headers, uri).ok(),
            Door::Hub(_) | Door::Api(_) | Door::Redirect(_) => None,
        }
    }

    fn region_named<'a>(&'a self, routed: Option<&'a RegionRef>) -> Option<&'a str> {
        match &self.door {
            Door::Hub(region) => Some(region.as_str()),
            Door::Public | Door::Api(_) | Door::Redirect(_) => {
                routed.map(|region| region.name().as_str())
            }
        }
    }

    /// Who asks, where the request says so in a way that is known here.
    fn user<'a>(&self, policy: &Policy, uri: &'a Uri, headers: &HeaderMap) -> Option<Cow<'a, str>> {
        if matches!(self.door, Door::Hub(_)) || policy.own.is_ws(uri.path()) {
            return user_of(uri);
        }
        let api = self.common.api.as_ref().filter(|_| policy.own.mount(uri.path()).is_some());
        api?.caller(headers).map(|name| Cow::Owned(name.to_string()))
    }
}

/// The first `userId` of the query. Where there are others, the hub refuses the handshake.
fn user_of(uri: &Uri) -> Option<Cow<'_, str>> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, value)| *name == USER && !value.is_empty())?;
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let spaced = value.replace('+', " ");
    let decoded = crate::limits::decoded(spaced.as_bytes());
    Some(Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_the_same_however_he_is_spelled() {
        let user = |target: &str| user_of(&target.parse().unwrap()).map(Cow::into_owned);
        assert_eq!(user("/ws?region=1&userId=alice").as_deref(), Some("alice"));
        assert_eq!(user("/ws?userId=%61lic%65").as_deref(), Some("alice"));
        assert_eq!(user("/ws?userId=%zz").as_deref(), Some("%zz"));
        for none in ["/ws", "/ws?userId=", "/ws?userid=a", "/ws?userId"] {
            assert_eq!(user(none), None, "{none}");
        }
    }
}
