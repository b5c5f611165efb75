//! A WebSocket's way through the gateway: the handshake as an exchange, then a tunnel.
//!
//! A client asks by an upgrade of HTTP/1.1, or over HTTP/2 by an extended CONNECT (RFC 8441); a backend is always
//! asked by an upgrade, on a connection of HTTP/1.1 of its own. Of an extended CONNECT the handshake's key is made
//! here, and checked here.
//!
//! Invariants: `Upgrade` goes no further than a hop, so it is written anew; a 101 is relayed only to a
//! client that asked, and for the protocol it asked for; the drain counts the tunnel before the client
//! is promised one, and so does the bound on tunnels.

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::backends::{Stray, Upstream};
use super::body::Body;
use super::course::Side;
use super::error::ForwardError;
use super::forward::{Exchange, Terms, refused, to_next_hop};
use super::headers::{self, Marks, has_token};
use super::tunnel::{Count, Handshake, Liveness, Record, Tunnel};
use super::upload::RequestBody;
use super::{Bounds, Caller, Proxy, Region, Report};

/// Of 16 bytes in base64, without the padding.
const KEY_DIGITS: usize = 22;

/// Whether a request is a WebSocket handshake. One without `Connection: upgrade`, of HTTP/1.0, or to
/// another protocol is a plain request (RFC 9110, 7.8); one that can mean two things is an error.
pub(super) fn is_asked(request: &Request<Incoming>, side: Side) -> Result<bool, ForwardError> {
    if request.version() == Version::HTTP_2 {
        return is_extended_connect(request);
    }
    let headers = request.headers();
    let asked = headers.contains_key(UPGRADE)
        && request.version() == Version::HTTP_11
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket");
    if !asked {
        return Ok(false);
    }
    if request.method() != Method::GET {
        return Err(ForwardError::BadUpgrade("a WebSocket handshake must be a GET"));
    }
    if headers.contains_key(TRANSFER_ENCODING) || !request.body().is_end_stream() {
        return Err(ForwardError::BadUpgrade("a WebSocket handshake must not have a body"));
    }
    if let Side::Backends = side {
        // A hub has words of its own for it.
        check_handshake(headers)?;
    }
    Ok(true)
}

/// RFC 6455, 4.2.1: one key of 16 bytes in base64, and version 13.
fn check_handshake(headers: &HeaderMap) -> Result<(), ForwardError> {
    let single = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes().trim_ascii())
    };
    if single(&SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(ForwardError::UpgradeVersion);
    }
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let key = single(&SEC_WEBSOCKET_KEY).and_then(|key| key.strip_suffix(b"=="));
    if key.is_some_and(|key| key.len() == KEY_DIGITS && key.iter().all(is_digit)) {
        return Ok(());
    }
    Err(ForwardError::BadUpgrade("send one Sec-WebSocket-Key, of 16 bytes in base64"))
}

/// RFC 8441, 4: CONNECT with `:protocol`.
fn is_extended_connect(request: &Request<Incoming>) -> Result<bool, ForwardError> {
    let Some(protocol) = request.extensions().get::<Protocol>() else { return Ok(false) };
    if request.method() != Method::CONNECT {
        return Err(ForwardError::BadUpgrade(":protocol goes with CONNECT alone"));
    }
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(ForwardError::BadUpgrade("the only :protocol here is websocket"));
    }
    Ok(true)
}

/// What the answer to a handshake must fit.
enum Asked {
    /// By the client itself, which checks it.
    ByUpgrade,
    /// With a key of ours, whose answer this is.
    ByConnect { accept: String },
}

impl Asked {
    /// Makes the handshake the backend's: a GET that states its upgrade, with a key.
    fn state(parts: &mut http::request::Parts) -> Self {
        let asked = if parts.method == Method::CONNECT {
            parts.method = Method::GET;
            let key = generate_key();
            let accept = derive_accept_key(key.as_bytes());
            if let Ok(key) = HeaderValue::try_from(key) {
                parts.headers.insert(SEC_WEBSOCKET_KEY, key);
            }
            // RFC 8441, 5: it means the same there, and only one is spoken.
            let version = parts.headers.entry(SEC_WEBSOCKET_VERSION);
            version.or_insert(HeaderValue::from_static("13"));
            Self::ByConnect { accept }
        } else {
            Self::ByUpgrade
        };
        state_upgrade(&mut parts.headers);
        asked
    }

    /// Whether the backend's 101 is the one that was asked for.
    fn fits(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        if !has_token(headers, &UPGRADE, "websocket") {
            return Err("101 to another protocol");
        }
        match self {
            Self::ByConnect { accept }
                if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|got| got != accept.as_str()) =>
            {
                Err("101 to another key")
            }
            _ => Ok(()),
        }
    }

    /// Whether the backend has switched; what it has not may still be an answer.
    fn is_granted(&self, answered: &Exchange) -> Result<bool, ForwardError> {
        let status = answered.response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let fits = self.fits(answered.response.headers());
            let unasked = |why| refused(&answered.active, ForwardError::UnaskedUpgrade, why);
            return fits.map(|()| true).map_err(unasked);
        }
        if matches!(self, Self::ByConnect { .. }) && status.is_success() {
            // To the client it would be a tunnel that opened.
            let why = "a 2xx to a handshake";
            return Err(refused(&answered.active, ForwardError::NotSwitched, why));
        }
        Ok(false)
    }

    /// What the client is told when it has its tunnel.
    fn status(&self) -> StatusCode {
        match self {
            Self::ByUpgrade => StatusCode::SWITCHING_PROTOCOLS,
            Self::ByConnect { .. } => StatusCode::OK,
        }
    }

    /// The backend's 101 as the client's.
    fn switching(&self, response: Response<Incoming>, marks: Marks<'_>) -> Response<Body> {
        let (mut parts, _no_body) = response.into_parts();
        headers::prepare_switch(&mut parts.headers, marks);
        if matches!(self, Self::ByConnect { .. }) {
            parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
            parts.status = self.status();
            parts.version = Version::HTTP_2;
        } else {
            state_upgrade(&mut parts.headers);
            parts.version = Version::HTTP_11;
        }
        Response::from_parts(parts, Body::empty())
    }
}

impl Proxy {
    /// One WebSocket handshake, and the tunnel after it.
    pub(super) async fn upgrade(
        &self,
        region: &Arc<Region>,
        side: Side,
        caller: &Caller,
        mut request: Request<Incoming>,
        report: &mut Report,
    ) -> Result<Response<Body>, ForwardError> {
        let settings = &*region.bounds;
        let drain = &self.shared.drain;
        if drain.is_draining() {
            return Err(ForwardError::Draining);
        }
        let limit = settings.max_tunnels.get();
        let count = Count::take(&self.shared.tunnels, limit, &region.series)
            .ok_or(ForwardError::TooManyTunnels)?;
        let socket = drain.socket();
        let client = hyper::upgrade::on(&mut request);
        let handshake = Handshake::of(&request);
        let (mut parts, _no_body) = request.into_parts();
        let version = parts.version;
        let wants =
            headers::prepare_request(&mut parts.headers, version, caller, region.marks(), false)?;
        report.trace = wants.trace;
        parts.headers.remove(TE);
        parts.headers.remove(CONTENT_LENGTH);
        let asked = Asked::state(&mut parts);
        to_next_hop(&mut parts);
        // A connection that becomes a tunnel is used up, so a kept one would save nothing, and a new
        // one cannot turn out to be closed.
        let terms = Terms { upgrade: true, ..Terms::new(settings, caller) };
        let request = Request::from_parts(parts, RequestBody::empty());
        let mut answered = self.exchange(region, side, request, &terms, report).await?;
        if !asked.is_granted(&answered)? {
            return self.answer(answered, terms, false);
        }
        let early_close = settings.health.early_close;
        if early_close.is_zero() || side == Side::Hub {
            answered.judge();
        }
        let Exchange { mut response, active, region: serves, took, .. } = answered;
        region.served_by(&serves);
        let stray = stray(region, &serves, side, &active.upstream);
        let record = Record::new(
            self.shared.lines.get(),
            (region.name.as_str(), Arc::clone(&region.series)),
            handshake,
            asked.status(),
            (caller, report),
        );
        let tunnel = Tunnel {
            client,
            backend: hyper::upgrade::on(&mut response),
            record,
            idle_timeout: settings.tunnel_idle_timeout,
            liveness: liveness(settings),
            probation: took.map(|took| (took, early_close)),
            max_age: settings.max_tunnel_age,
            drain: drain.clone(),
            stray,
            _count: count,
            active,
            _socket: socket,
        };
        self.conns.tasks.spawn(tunnel.run());
        Ok(asked.switching(response, serves.marks()))
    }
}

/// A socket that is for `asked`, where neither that region nor the best tier of it serves it.
fn stray(asked: &Region, serves: &Region, side: Side, upstream: &Arc<Upstream>) -> Option<Stray> {
    // By name: a reload may have come in between.
    if asked.name == serves.name {
        side.of(serves)?.stray_at(upstream)
    } else {
        Some(side.of(asked)?.stray_abroad())
    }
}

/// How the ends of tunnels are asked whether they are there, if they are.
fn liveness(bounds: &Bounds) -> Option<Liveness> {
    let (interval, timeout) = (bounds.tunnel_ping_interval, bounds.tunnel_pong_timeout);
    (!interval.is_zero()).then_some(Liveness { interval, timeout })
}

fn state_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
