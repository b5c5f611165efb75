//! A WebSocket's way through the gateway: the handshake as an exchange, then a tunnel.
//!
//! Invariants: `Upgrade` goes no further than a hop, so it is written anew; a 101 is relayed only to a
//! client that asked, and for the protocol it asked for; the drain counts the tunnel before the client
//! is promised one; the tunnel's task has an owner, ends under a deadline, and leaves one log line.
//!
//! Absent on purpose: frames. A tunnel moves bytes, so at its turn in a drain it is cut.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};

use super::backends::{Active, Group};
use super::body::Body;
use super::error::ForwardError;
use super::forward::{Exchange, Terms, refused, to_next_hop};
use super::headers::{self, has_token};
use super::metrics::RegionSeries;
use super::tunnel::{self, EndedBy, Moved};
use super::upload::RequestBody;
use super::{Caller, Proxy, Region, Report};
use crate::settings::RegionName;
use crate::shutdown::{Drain, Socket};

/// From the 101 until both connections are free of HTTP; a client that leaves in between must not
/// keep the backend's connection.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a request is a WebSocket handshake. One without `Connection: upgrade`, of HTTP/1.0, or to
/// another protocol is a plain request (RFC 9110, 7.8); one that can mean two things is an error.
pub(super) fn is_asked(request: &Request<Incoming>) -> Result<bool, ForwardError> {
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
    Ok(true)
}

impl Proxy {
    /// One WebSocket handshake, and the tunnel after it.
    pub(super) async fn upgrade(
        &self,
        region: &Arc<Region>,
        group: &Group,
        caller: &Caller,
        mut request: Request<Incoming>,
        report: &mut Report,
    ) -> Result<Response<Body>, ForwardError> {
        let settings = &*region.bounds;
        let drain = &self.shared.drain;
        if drain.is_draining() {
            return Err(ForwardError::Draining);
        }
        let socket = drain.socket();
        let client = hyper::upgrade::on(&mut request);
        let path = request.uri().path().to_owned();
        let key = group.key(request.headers(), caller.client);
        let (mut parts, _no_body) = request.into_parts();
        let version = parts.version;
        headers::prepare_request(&mut parts.headers, version, caller, &region.header, false)?;
        parts.headers.remove(TE);
        parts.headers.remove(CONTENT_LENGTH);
        state_upgrade(&mut parts.headers);
        to_next_hop(&mut parts);
        // A connection that becomes a tunnel is used up, so a kept one would save nothing, and a new
        // one cannot turn out to be closed.
        let first_byte_timeout = settings.first_byte_timeout;
        let terms = Terms { first_byte_timeout, upload: None, replayable: false, fresh: true, key };
        let request = Request::from_parts(parts, RequestBody::empty());
        let answered = self.exchange(region, group, request, &terms, report).await?;
        if answered.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.answer(region, answered, None, false);
        }
        let Exchange { mut response, active, .. } = answered;
        if !has_token(response.headers(), &UPGRADE, "websocket") {
            return Err(refused(&active, ForwardError::UnaskedUpgrade, "101 to another protocol"));
        }
        let backend = hyper::upgrade::on(&mut response);
        let tunnel = Tunnel {
            client,
            backend,
            region: region.name.clone(),
            path,
            idle_timeout: settings.tunnel_idle_timeout,
            drain: drain.clone(),
            _count: Count::new(&region.series),
            _active: active,
            _socket: socket,
        };
        self.conns.tasks.spawn(tunnel.run());
        Ok(switching(response))
    }
}

fn state_upgrade(headers: &mut http::HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The backend's 101 as the client's.
fn switching(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, _no_body) = response.into_parts();
    headers::prepare_switch(&mut parts.headers);
    state_upgrade(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Body::empty())
}

/// Counts an open tunnel of a region until it is dropped.
struct Count(Arc<RegionSeries>);

impl Count {
    fn new(series: &Arc<RegionSeries>) -> Self {
        series.tunnels.inc();
        Self(Arc::clone(series))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.tunnels.dec();
    }
}

/// A tunnel from the promise of it to its end.
struct Tunnel {
    client: OnUpgrade,
    backend: OnUpgrade,
    region: RegionName,
    path: String,
    idle_timeout: Duration,
    drain: Drain,
    _count: Count,
    _active: Active,
    _socket: Socket,
}

impl Tunnel {
    async fn run(mut self) {
        let started = Instant::now();
        let mut moved = Moved::default();
        let (drain, idle_timeout) = (self.drain.clone(), self.idle_timeout);
        let ended_by = tokio::select! {
            ended_by = self.carry(idle_timeout, &mut moved) => ended_by,
            () = turn(&drain) => EndedBy::Drain,
            () = drain.cutting() => EndedBy::Drain,
        };
        let Moved { up, down } = moved;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "Proxy::access",
            method = "GET",
            path = %self.path,
            status = 101_u16,
            duration_ms,
            region = %self.region,
            up,
            down,
            ended_by = %ended_by.as_str(),
            "GET {} 101 - {duration_ms}ms tunnel",
            self.path,
        );
    }

    /// Waits until HTTP is done with both connections, then moves their bytes.
    async fn carry(&mut self, idle_timeout: Duration, moved: &mut Moved) -> EndedBy {
        let both = async { tokio::try_join!(&mut self.client, &mut self.backend) };
        match timeout(HANDOVER_TIMEOUT, both).await {
            Ok(Ok((client, backend))) => {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                tunnel::run(&mut client, &mut backend, idle_timeout, moved).await
            }
            Ok(Err(error)) => {
                tracing::debug!(target: "Proxy", "no tunnel after the 101: {error}");
                EndedBy::Client
            }
            Err(_) => EndedBy::Client,
        }
    }
}

/// Ends when the drain wants one more tunnel closed.
async fn turn(drain: &Drain) {
    drain.draining().await;
    sleep_until(drain.turn()).await;
}
