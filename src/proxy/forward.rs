//! One HTTP exchange: the request out, the head of the answer in. Who is asked, and how often, is `course`'s.
//!
//! A small body of an idempotent request is read before anything is sent, so that it can be sent again.
//!
//! Absent on purpose: interim answers other than 100. A 103 is dropped, as RFC 9110, 15.2 permits: the server has no way to
//! send one.

use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::alarm::Alarm;
use super::backends::Active;
use super::body::{Body, Lease};
use super::course::Side;
use super::dial::Sender;
use super::error::{Fault, ForwardError};
use super::pace;
use super::upload::{RequestBody, Upload};
use super::{Bounds, Caller, Proxy, Region, Report, headers, hops};

/// What an exchange may do, and how long it may take.
pub(super) struct Terms<'a> {
    pub(super) first_byte_timeout: Duration,
    /// The same, while another attempt could follow.
    pub(super) try_timeout: Option<Duration>,
    /// When all of it must be over.
    pub(super) deadline: Option<Instant>,
    pub(super) upload: Option<Arc<Upload>>,
    /// It may be sent a second time even if it was seen.
    pub(super) replayable: bool,
    /// It is a handshake: its connection must be a new one, of HTTP/1.1.
    pub(super) upgrade: bool,
    /// Who asks, for groups that keep his requests together.
    pub(super) client: IpAddr,
    pub(super) alarm: &'a Alarm,
}

impl<'a> Terms<'a> {
    /// Of an exchange without a body that may be sent again, for a region with these bounds.
    pub(super) fn new(bounds: &Bounds, caller: &'a Caller) -> Self {
        Self {
            first_byte_timeout: bounds.first_byte_timeout,
            try_timeout: bounds.retry.try_timeout,
            deadline: bounds.total_timeout.map(|limit| Instant::now() + limit),
            upload: None,
            replayable: bounds.retry.enabled,
            upgrade: false,
            client: caller.client,
            alarm: &caller.arrival.alarm,
        }
    }
}

/// An answer's head, and the connection it came on.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    pub(super) sender: Sender,
    pub(super) active: Active,
    /// The region that answered.
    pub(super) region: Arc<Region>,
    /// From the choice of the backend until the head came; gone once the backend's health was told of it.
    pub(super) took: Option<Duration>,
}

impl Exchange {
    /// Tells the backend's health that this is an answer: not before it is known to be one, since a good word ends a
    /// row of failures.
    pub(super) fn judge(&mut self) {
        if let Some(took) = self.took.take() {
            self.active.answered(self.response.status(), took);
        }
    }
}

impl Proxy {
    /// One request that is no upgrade.
    pub(super) async fn plain(
        &self,
        region: &Arc<Region>,
        side: Side,
        caller: &Caller,
        request: Request<Incoming>,
        report: &mut Report,
    ) -> Result<Response<Body>, ForwardError> {
        let settings = &*region.bounds;
        let limit = match caller.max_body_bytes.unwrap_or(settings.max_body_bytes) {
            0 => u64::MAX,
            limit => limit,
        };
        let (mut parts, body) = request.into_parts();
        if body.size_hint().lower() > limit {
            return Err(ForwardError::BodyTooLarge(limit));
        }
        let has_body = !body.is_end_stream();
        let wants = headers::prepare_request(
            &mut parts.headers,
            parts.version,
            caller,
            region.marks(),
            has_body,
        )?;
        report.trace = wants.trace;
        hops::count_down(&parts.method, &mut parts.headers);
        to_next_hop(&mut parts);
        let mut terms = Terms::new(settings, caller);
        terms.replayable &= is_idempotent(&parts.method);
        let (body, upload) = if has_body {
            let idle = settings.body_idle_timeout;
            let min_rate = pace::min_rate(&parts.headers, settings.min_rate);
            let upload = Upload::new(wants.expects, &caller.arrival).at_least(min_rate);
            let (body, upload) = RequestBody::new(body, limit, idle, upload);
            let may_hold =
                terms.replayable && !wants.expects && body.fits(settings.retry.hold_bytes);
            let body = if may_hold { hold(body, terms.deadline).await? } else { body };
            (body, Some(upload))
        } else {
            (RequestBody::empty(), None)
        };
        terms.replayable &= body.again().is_some();
        let mut request = Request::from_parts(parts, body);
        if let Some(upload) = upload.clone().filter(|_| wants.expects) {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    upload.admit();
                }
            });
        }
        terms.upload = upload;
        let exchange = self.exchange(region, side, request, &terms, report).await?;
        if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(&exchange.active, ForwardError::UnaskedUpgrade, "101 unasked"));
        }
        self.answer(exchange, terms, wants.trailers)
    }

    /// Hands an answer on, with its body still to come.
    pub(super) fn answer(
        &self,
        mut exchange: Exchange,
        terms: Terms<'_>,
        trailers: bool,
    ) -> Result<Response<Body>, ForwardError> {
        let (response, marks) = (&mut exchange.response, exchange.region.marks());
        let (length, version) = (response.body().size_hint().exact(), response.version());
        let fields = response.headers_mut();
        if headers::prepare_response(fields, version, marks, length, trailers).is_err() {
            let why = "ambiguous length of the answer";
            return Err(refused(&exchange.active, ForwardError::Garbage, why));
        }
        exchange.judge();
        let Exchange { response, sender, active, region, .. } = exchange;
        let (mut parts, body) = response.into_parts();
        // The version is each connection's own: hyper lowers it for a client of HTTP/1.0.
        parts.version = Version::HTTP_11;
        let Terms { upload, deadline, .. } = terms;
        let idle_timeout = region.bounds.body_idle_timeout;
        let lease = Lease { sender, conns: Arc::clone(&self.conns), active, region, upload };
        Ok(Response::from_parts(parts, Body::new(body, lease, idle_timeout, deadline)))
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

/// Reads a small body from the client, who has no longer for it than the whole exchange may take.
async fn hold(body: RequestBody, deadline: Option<Instant>) -> Result<RequestBody, ForwardError> {
    // Boxed: a request without a body should not be as large as one with.
    let held = Box::pin(body.hold());
    let Some(deadline) = deadline else { return held.await };
    timeout_at(deadline, held).await.unwrap_or(Err(ForwardError::BodyStalled))
}

/// Sends a request on one connection and waits for the head of the answer; `in_haste` not as long, where the terms say
/// so.
pub(super) async fn send(
    mut sender: Sender,
    active: &Active,
    unsent: &mut Option<Request<RequestBody>>,
    terms: &Terms<'_>,
    in_haste: bool,
) -> Result<(Response<Incoming>, Sender), ForwardError> {
    let mut request = unsent.take().ok_or(ForwardError::Reset)?;
    name_host(request.headers_mut(), active);
    let answer = pin!(sender.try_send_request(request));
    let limit = terms.try_timeout.filter(|_| in_haste);
    let limit = limit.map_or(terms.first_byte_timeout, |limit| limit.min(terms.first_byte_timeout));
    match head_in_time(answer, limit, terms).await {
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

/// A client of HTTP/1.0 need not say which host it means; a backend is told that it is meant itself, since many refuse
/// an empty one.
fn name_host(headers: &mut HeaderMap, active: &Active) {
    if headers.get(HOST).is_some_and(HeaderValue::is_empty)
        && let Ok(itself) = HeaderValue::from_str(&active.upstream.label)
    {
        headers.insert(HOST, itself);
    }
}

/// Waits for an answer as long as the limit allows, counted from the last of the request.
async fn head_in_time<F: Future>(
    mut answer: Pin<&mut F>,
    limit: Duration,
    terms: &Terms<'_>,
) -> Option<F::Output> {
    let mut deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = terms.alarm.bound(deadline, answer.as_mut()).await {
            return Some(answer);
        }
        deadline = terms.upload.as_ref()?.deadline(limit)?;
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
