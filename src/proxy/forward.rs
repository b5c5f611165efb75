//! One HTTP exchange: the request out, the head of the answer in.
//!
//! Attempts: a backend that could not be reached is followed by the next, whatever the method, for
//! nothing was sent. A kept connection that the backend has just closed (RFC 9112, 9.3.1) is followed
//! by a new one: when hyper gives the request back unsent, or when the method is idempotent and there
//! is no body. Anything else that may have been seen is not repeated.
//!
//! Absent on purpose: interim answers other than 100 (a 103 is dropped, as RFC 9110, 15.2 permits).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::backends::{Active, Group, NoBackend, Tried};
use super::body::{Body, Lease};
use super::conns::Conns;
use super::dial::{ConnectError, Sender};
use super::error::{Fault, ForwardError};
use super::upload::{RequestBody, Upload};
use super::{Caller, Proxy, Region, Report, headers};
use crate::settings::ProxySettings;

/// What an exchange may do, and how long it may take.
pub(super) struct Terms {
    pub(super) first_byte_timeout: Duration,
    pub(super) upload: Option<Arc<Upload>>,
    /// It may be sent a second time even if it was seen.
    pub(super) replayable: bool,
    /// No kept connection is used.
    pub(super) fresh: bool,
    /// It is a handshake: its connection must be HTTP/1.1.
    pub(super) upgrade: bool,
    /// What the request has in common with those that belong to the same backend.
    pub(super) key: Option<u64>,
}

/// An answer's head, and the connection it came on.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    pub(super) sender: Sender,
    pub(super) active: Active,
}

impl Proxy {
    /// One request that is no upgrade.
    pub(super) async fn plain(
        &self,
        region: &Arc<Region>,
        group: &Group,
        caller: &Caller,
        request: Request<Incoming>,
        report: &mut Report,
    ) -> Result<Response<Body>, ForwardError> {
        let settings = &*region.bounds;
        let limit = match caller.max_body_bytes.unwrap_or(settings.max_body_bytes) {
            0 => u64::MAX,
            limit => limit,
        };
        let key = group.key(request.headers(), caller.client);
        let (mut parts, body) = request.into_parts();
        if body.size_hint().lower() > limit {
            return Err(ForwardError::BodyTooLarge(limit));
        }
        let has_body = !body.is_end_stream();
        let wants = headers::prepare_request(
            &mut parts.headers,
            parts.version,
            caller,
            &region.header,
            has_body,
        )?;
        to_next_hop(&mut parts);
        let replayable = !has_body && is_idempotent(&parts.method);
        let (body, upload) = if has_body {
            let idle = settings.body_idle_timeout;
            let (body, upload) =
                RequestBody::new(body, limit, idle, Upload::new(wants.expects, &caller.arrival));
            (body, Some(upload))
        } else {
            (RequestBody::empty(), None)
        };
        let mut request = Request::from_parts(parts, body);
        if let Some(upload) = upload.clone().filter(|_| wants.expects) {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    upload.admit();
                }
            });
        }
        let first_byte_timeout = settings.first_byte_timeout;
        let terms =
            Terms { first_byte_timeout, upload, replayable, fresh: false, upgrade: false, key };
        let exchange = self.exchange(region, group, request, &terms, report).await?;
        if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(&exchange.active, ForwardError::UnaskedUpgrade, "101 unasked"));
        }
        self.answer(region, exchange, terms.upload, wants.trailers)
    }

    /// Hands an answer on, with its body still to come.
    pub(super) fn answer(
        &self,
        region: &Arc<Region>,
        exchange: Exchange,
        upload: Option<Arc<Upload>>,
        trailers: bool,
    ) -> Result<Response<Body>, ForwardError> {
        let Exchange { response, sender, active } = exchange;
        let (mut parts, body) = response.into_parts();
        let length = body.size_hint().exact();
        if headers::prepare_response(&mut parts.headers, length, trailers).is_err() {
            return Err(refused(&active, ForwardError::Garbage, "ambiguous length of the answer"));
        }
        // The version is each connection's own: hyper lowers it for a client of HTTP/1.0.
        parts.version = Version::HTTP_11;
        let (conns, region) = (Arc::clone(&self.conns), Arc::clone(region));
        let idle_timeout = region.bounds.body_idle_timeout;
        let lease = Lease { sender, conns, active, region, upload };
        Ok(Response::from_parts(parts, Body::new(body, lease, idle_timeout)))
    }
}

/// A request line and message as this hop writes them: origin form, HTTP/1.1 (RFC 9112, 3.2.1).
pub(super) fn to_next_hop(parts: &mut Parts) {
    if parts.uri.scheme().is_some() || parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().cloned();
        parts.uri = target.map_or_else(Uri::default, Uri::from);
    }
    parts.version = Version::HTTP_11;
    // What hyper's server has left there is of no use to hyper's client.
    parts.extensions = Extensions::new();
}

/// RFC 9110, 9.2.2; of the others only the backend knows.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

impl Proxy {
    /// Sends a request to one backend after the other until one has it.
    pub(super) async fn exchange(
        &self,
        region: &Region,
        group: &Group,
        request: Request<RequestBody>,
        terms: &Terms,
        report: &mut Report,
    ) -> Result<Exchange, ForwardError> {
        let mut unsent = Some(request);
        let mut tried = Tried::default();
        let mut verdict = ForwardError::NoBackend;
        while unsent.is_some() {
            let active = match group.acquire(&mut tried, terms.key).await {
                Ok(active) => active,
                Err(NoBackend::Overloaded) if report.attempts == 0 => {
                    return Err(ForwardError::Overloaded);
                }
                Err(NoBackend::Overloaded | NoBackend::Unavailable) => break,
            };
            report.attempts = report.attempts.saturating_add(1);
            report.backend = Some(Arc::clone(&active.upstream.label));
            match attempt(&self.conns, &region.bounds, &active, &mut unsent, terms).await {
                Ok((response, sender)) => {
                    report.first_byte = Some(active.since.elapsed());
                    active.answered(response.status());
                    return Ok(Exchange { response, sender, active });
                }
                Err(error) => verdict = error,
            }
            if unsent.is_some() {
                group.mark(&active.upstream);
            }
        }
        Err(verdict)
    }
}

/// Sends a request to one backend. After an error, `unsent` still has the request if another may.
async fn attempt(
    conns: &Arc<Conns>,
    bounds: &ProxySettings,
    active: &Active,
    unsent: &mut Option<Request<RequestBody>>,
    terms: &Terms,
) -> Result<(Response<Incoming>, Sender), ForwardError> {
    let kept = if terms.fresh { None } else { conns.take(&active.upstream, bounds) };
    if let Some(sender) = kept {
        active.upstream.series.reuses.inc();
        // Of a stream a backend may say that it has done nothing with it.
        let may_be_refused = terms.upload.is_none() && matches!(sender, Sender::Http2(_));
        let copied = terms.replayable || may_be_refused;
        let spare = unsent.as_ref().filter(|_| copied).map(copy);
        match send(sender, active, unsent, terms).await {
            Err(ForwardError::Reset | ForwardError::Refused) if unsent.is_some() => {}
            Err(ForwardError::Refused) if spare.is_some() => *unsent = spare,
            Err(ForwardError::Reset) if terms.replayable => *unsent = spare,
            Err(error) => return Err(refused(active, error, "on a kept connection")),
            answered => return answered,
        }
    }
    let sender = match conns.connect(&active.upstream, bounds, terms.upgrade).await {
        Ok(sender) => sender,
        Err(detail) => {
            let error = match detail {
                ConnectError::Timeout(_) => ForwardError::ConnectTimeout,
                ConnectError::TlsTimeout(_) => ForwardError::TlsTimeout,
                ConnectError::Tls(_) => ForwardError::Tls,
                ConnectError::Io(_) | ConnectError::Handshake(_) => ForwardError::Connect,
            };
            return Err(refused(active, error, detail));
        }
    };
    active.upstream.health.reached();
    let answered = send(sender, active, unsent, terms).await;
    answered.map_err(|error| refused(active, error, "on a new connection"))
}

/// A request without its body, which it has not.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Sends a request on one connection and waits for the head of the answer.
async fn send(
    mut sender: Sender,
    active: &Active,
    unsent: &mut Option<Request<RequestBody>>,
    terms: &Terms,
) -> Result<(Response<Incoming>, Sender), ForwardError> {
    let request = unsent.take().ok_or(ForwardError::Reset)?;
    let answer = pin!(sender.try_send_request(request));
    match head_in_time(answer, terms).await {
        Some(Ok(response)) => Ok((response, sender)),
        Some(Err(mut failed)) => {
            *unsent = failed.take_message();
            let error = failed.into_error();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let backend = &*active.upstream.label;
            tracing::debug!(target: "Proxy", backend, cause, "{error}");
            // HTTP/2 keeps to itself why a body broke off.
            let verdict = terms.upload.as_ref().and_then(|upload| upload.verdict());
            Err(verdict.unwrap_or_else(|| ForwardError::of_exchange(&error)))
        }
        None => Err(ForwardError::HeadTimeout),
    }
}

/// Waits for an answer as long as the terms allow, counted from the last of the request.
async fn head_in_time<F: Future>(mut answer: Pin<&mut F>, terms: &Terms) -> Option<F::Output> {
    let mut deadline = Instant::now() + terms.first_byte_timeout;
    loop {
        if let Ok(answer) = timeout_at(deadline, answer.as_mut()).await {
            return Some(answer);
        }
        let upload = terms.upload.as_ref()?;
        deadline = upload.deadline(terms.first_byte_timeout)?;
    }
}

/// Counts and tells of an exchange that failed.
pub(super) fn refused(
    active: &Active,
    error: ForwardError,
    detail: impl std::fmt::Display,
) -> ForwardError {
    if let Some(cause) = error.cause() {
        active.failed(cause);
    }
    let backend = &*active.upstream.label;
    if error.fault() == Fault::Client {
        tracing::debug!(target: "Proxy", backend, "{error}: {detail}");
    } else {
        tracing::warn!(target: "Proxy", backend, "{error}: {detail}");
    }
    error
}
