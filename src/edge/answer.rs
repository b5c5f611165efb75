//! Every refusal becomes one HTTP answer here: the only place that invents a status code.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Content;
use crate::api;
use crate::files;
use crate::hub;
use crate::limits;
use crate::proxy::{Fault, ForwardError, RouteError};
use crate::settings::RegionName;

/// The header that ties an answer to its log line.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The methods that may be worth a try.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why this gateway answers by itself, with an error.
#[derive(Debug)]
pub(super) enum Refused {
    /// The request itself breaks a rule of HTTP; the connection ends with the answer.
    BadRequest(&'static str),
    /// A method that a gateway does not pass on.
    MethodNotAllowed,
    TargetTooLong,
    /// A CONNECT for a protocol that is not spoken (RFC 8441, section 4).
    ProtocolUnknown,
    /// For a host that the connection's certificate is not for (RFC 9110, section 15.5.20).
    Misdirected,
    /// Plain HTTP where TLS is spoken.
    PlainOnTls,
    HeadersTooLarge,
    /// The head did not come in time.
    HeadTimeout,
    /// The client's address has as many connections as it may.
    TooManyConnections,
    NotFound,
    Route(RouteError),
    Forward(ForwardError),
    File(files::Refusal),
    Hub(hub::Refusal),
    Api(api::Refusal),
    Limits(limits::Refusal),
}

/// What the answer to a refusal says.
struct Verdict {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The connection cannot be trusted to be at the start of a request afterwards.
    close: bool,
    retry_after: Option<u32>,
    list_regions: bool,
    /// Where the method is the fault.
    allow: Option<HeaderValue>,
    /// What the API's errors say beyond those of the others.
    of_api: OfApi,
}

/// The id of a message, whether it may be sent again, and the results of a batch.
#[derive(Default, Serialize)]
struct OfApi {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retryable: bool,
    #[serde(skip)]
    results: Option<Box<RawValue>>,
}

impl Verdict {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
            close: false,
            retry_after: None,
            list_regions: false,
            allow: None,
            of_api: OfApi::default(),
        }
    }

    fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    fn listing(mut self) -> Self {
        self.list_regions = true;
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorDetail<'a> {
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Vec<&'a str>>,
    #[serde(flatten)]
    of_api: &'a OfApi,
}

/// What an answer needs to know of its surroundings.
pub(super) struct Answering<'a> {
    pub(super) request_id: &'a HeaderValue,
    pub(super) regions: &'a [RegionName],
    /// Seconds for `Retry-After` where waiting helps.
    pub(super) retry_after: u32,
}

/// The answer to a refusal.
pub(super) fn refuse(refused: &Refused, answering: &Answering<'_>) -> Response<Content> {
    let verdict = judge(refused, answering.retry_after);
    let request_id = answering.request_id.to_str().unwrap_or_default();
    let regions = verdict
        .list_regions
        .then(|| answering.regions.iter().map(RegionName::as_str).collect::<Vec<_>>());
    let (message, of_api) = (verdict.message.as_str(), &verdict.of_api);
    let error = ErrorDetail { code: verdict.code, message, request_id, regions, of_api };
    // Strings under string keys: `serde_json` has nothing to refuse here.
    let body = serde_json::to_vec(&ErrorBody { error, results: of_api.results.as_deref() });
    let body = body.unwrap_or_default();
    let mut response = Response::new(Content::Fixed(Bytes::from(body)));
    *response.status_mut() = verdict.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON.clone());
    if verdict.close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = verdict.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if verdict.status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    if verdict.status == StatusCode::METHOD_NOT_ALLOWED {
        let all = HeaderValue::from_static(METHODS);
        headers.insert(ALLOW, verdict.allow.unwrap_or(all));
    }
    if verdict.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"meridian\""));
    }
    response
}

/// A 200 with JSON of our own.
pub(super) fn json(status: StatusCode, body: String) -> Response<Content> {
    let mut response = Response::new(Content::Fixed(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON.clone());
    response
}

/// A 200 with bytes of our own; the caller says what they are.
pub(super) fn ok(body: Bytes) -> Response<Content> {
    Response::new(Content::Fixed(body))
}

/// The caller has it.
pub(super) fn not_modified() -> Response<Content> {
    empty(StatusCode::NOT_MODIFIED)
}

/// What this gateway passes on (RFC 9110, 9.3.7).
pub(super) fn options() -> Response<Content> {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Content> {
    let mut response = Response::new(Content::Fixed(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn judge(refused: &Refused, retry_after: u32) -> Verdict {
    match refused {
        Refused::BadRequest(why) => {
            Verdict::new(StatusCode::BAD_REQUEST, "bad_request", *why).closing()
        }
        Refused::MethodNotAllowed => Verdict::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this gateway does not pass TRACE and CONNECT on; use another method",
        )
        .closing(),
        Refused::TargetTooLong => Verdict::new(
            StatusCode::URI_TOO_LONG,
            "uri_too_long",
            "the path and query are too long; send the data in a body",
        )
        .closing(),
        Refused::HeadersTooLarge => Verdict::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "the header fields are too large together; send fewer or shorter ones (cookies?)",
        )
        .closing(),
        Refused::HeadTimeout => Verdict::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the head of the request did not come in time; send it again at once",
        )
        .closing(),
        Refused::TooManyConnections => Verdict::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_connections",
            "this address has too many connections open here; use those, or close some",
        )
        .closing()
        .retry_after(spread(retry_after)),
        Refused::ProtocolUnknown | Refused::Misdirected | Refused::PlainOnTls => {
            judge_connection(refused)
        }
        Refused::NotFound => Verdict::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "nothing is here; a hub answers on /, /ws, /health and /ready",
        ),
        Refused::Route(error) => judge_route(error),
        Refused::Forward(error) => judge_forward(*error, retry_after),
        Refused::File(refusal) => judge_file(refusal),
        Refused::Hub(refusal) => judge_hub(refusal, retry_after),
        Refused::Api(refusal) => judge_api(refusal, retry_after),
        Refused::Limits(refusal) => judge_limits(refusal, retry_after),
    }
}

fn judge_route(error: &RouteError) -> Verdict {
    match error {
        RouteError::Missing => Verdict::new(
            StatusCode::BAD_REQUEST,
            "region_required",
            "name a region in the x-region header or the region query parameter",
        )
        .listing(),
        RouteError::Invalid => Verdict::new(
            StatusCode::BAD_REQUEST,
            "region_invalid",
            "name one region, by 1 to 32 characters of A-Z a-z 0-9 _ -, once",
        ),
        RouteError::Unknown(_) => Verdict::new(
            StatusCode::NOT_FOUND,
            "region_unknown",
            "no such region is configured; use one of those listed",
        )
        .listing(),
    }
}

/// What does not fit the connection that it came on.
fn judge_connection(refused: &Refused) -> Verdict {
    match refused {
        Refused::ProtocolUnknown => Verdict::new(
            StatusCode::NOT_IMPLEMENTED,
            "protocol_unknown",
            "of extended CONNECTs only :protocol = websocket is known here",
        ),
        Refused::Misdirected => Verdict::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "this connection was opened for another host; open one for this host, whose name goes into the TLS handshake",
        ),
        _ => Verdict::new(
            StatusCode::BAD_REQUEST,
            "tls_required",
            "this port speaks TLS; write https:// instead of http://",
        )
        .closing(),
    }
}

fn judge_forward(error: ForwardError, retry_after: u32) -> Verdict {
    let (status, code) = match error {
        ForwardError::NoBackend => (StatusCode::SERVICE_UNAVAILABLE, "region_unavailable"),
        ForwardError::Overloaded | ForwardError::TooManyTunnels => {
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
        }
        ForwardError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        ForwardError::Connect
        | ForwardError::Tls
        | ForwardError::Reset
        | ForwardError::Refused
        | ForwardError::Garbage
        | ForwardError::UnaskedUpgrade
        | ForwardError::NotSwitched => (StatusCode::BAD_GATEWAY, "bad_gateway"),
        ForwardError::ConnectTimeout
        | ForwardError::TlsTimeout
        | ForwardError::HeadTimeout
        | ForwardError::TotalTimeout => (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout"),
        ForwardError::Loop => (StatusCode::LOOP_DETECTED, "loop_detected"),
        ForwardError::Framing(_) | ForwardError::BadBody => {
            (StatusCode::BAD_REQUEST, "bad_request")
        }
        ForwardError::BadUpgrade(_) => (StatusCode::BAD_REQUEST, "upgrade_invalid"),
        ForwardError::UpgradeVersion => (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
        ForwardError::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        ForwardError::BodyStalled => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        // Nobody reads it; the record of the exchange shows it.
        ForwardError::ClientGone => (client_gone(), "client_gone"),
    };
    let verdict = Verdict::new(status, code, error.to_string());
    match error.fault() {
        Fault::Client => verdict.closing(),
        Fault::Gateway
            if matches!(error, ForwardError::Draining | ForwardError::TooManyTunnels) =>
        {
            verdict.retry_after(spread(retry_after))
        }
        // Waiting does not straighten a circle.
        Fault::Gateway if matches!(error, ForwardError::Loop) => verdict,
        Fault::Gateway => verdict.retry_after(retry_after),
        Fault::Backend => verdict,
    }
}

/// 499, as nginx has it: the client left before its answer.
fn client_gone() -> StatusCode {
    StatusCode::from_u16(super::access::CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST)
}

fn judge_file(refusal: &files::Refusal) -> Verdict {
    use files::Refusal;
    let (status, code, message) = match refusal {
        Refusal::NotFound => {
            (StatusCode::NOT_FOUND, "not_found", "there is no such file; check the path")
        }
        Refusal::MethodNotAllowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "files are read with GET or HEAD",
        ),
        Refusal::Unreadable => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "file_unreadable",
            "the file cannot be read now; try again later",
        ),
    };
    let allow = HeaderValue::from_static("GET, HEAD");
    Verdict { allow: Some(allow), ..Verdict::new(status, code, message) }
}

fn judge_hub(refusal: &hub::Refusal, retry_after: u32) -> Verdict {
    use hub::Refusal;
    let (status, code) = match refusal {
        Refusal::UserInvalid(_) => (StatusCode::BAD_REQUEST, "user_invalid"),
        Refusal::UpgradeRequired => (StatusCode::BAD_REQUEST, "upgrade_required"),
        Refusal::VersionUnsupported => (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
        Refusal::OriginForbidden => (StatusCode::FORBIDDEN, "origin_forbidden"),
        Refusal::TooManyConnections => (StatusCode::TOO_MANY_REQUESTS, "too_many_connections"),
        Refusal::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Refusal::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
    };
    let verdict = Verdict::new(status, code, refusal.to_string());
    match refusal {
        Refusal::TooManyConnections | Refusal::Draining | Refusal::Overloaded => {
            verdict.retry_after(spread(retry_after))
        }
        _ => verdict,
    }
}

fn judge_api(refusal: &api::Refusal, retry_after: u32) -> Verdict {
    use api::Refusal;
    let (status, code) = match refusal {
        Refusal::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        Refusal::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type_unsupported"),
        Refusal::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        Refusal::BatchTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"),
        Refusal::BodyStalled => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        Refusal::BodyBroken => (StatusCode::BAD_REQUEST, "bad_request"),
        Refusal::BatchEmpty => (StatusCode::BAD_REQUEST, "batch_empty"),
        Refusal::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Refusal::Message(fault) if fault.is_retryable => {
            (StatusCode::SERVICE_UNAVAILABLE, fault.code)
        }
        Refusal::Message(fault) => (StatusCode::BAD_REQUEST, fault.code),
        Refusal::BatchUnavailable(_) | Refusal::BusUnavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "bus_unavailable")
        }
        Refusal::QueryInvalid(_) => (StatusCode::BAD_REQUEST, "user_invalid"),
        Refusal::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        Refusal::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    };
    let mut verdict = Verdict::new(status, code, refusal.to_string());
    match refusal {
        Refusal::BodyStalled | Refusal::BodyBroken => verdict.close = true,
        Refusal::RateLimited { retry_after } => verdict.retry_after = Some(*retry_after),
        Refusal::MethodNotAllowed(allow) => verdict.allow.clone_from(allow),
        Refusal::Message(fault) => verdict.of_api.id.clone_from(&fault.id),
        Refusal::BatchUnavailable(results) => verdict.of_api.results = Some(results.clone()),
        _ => {}
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        verdict.retry_after = Some(spread(retry_after));
    }
    verdict.of_api.retryable = verdict.retry_after.is_some();
    verdict
}

fn judge_limits(refusal: &limits::Refusal, retry_after: u32) -> Verdict {
    use limits::Refusal;
    let (status, code) = match refusal {
        Refusal::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "bus_unavailable"),
        Refusal::Forbidden => (StatusCode::FORBIDDEN, "forbidden_by_rule"),
        Refusal::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        Refusal::AmbiguousPath => (StatusCode::BAD_REQUEST, "path_ambiguous"),
    };
    let mut verdict = Verdict::new(status, code, refusal.to_string());
    match refusal {
        Refusal::RateLimited { retry_after } => verdict.retry_after = Some(*retry_after),
        Refusal::Unavailable => verdict.retry_after = Some(spread(retry_after)),
        Refusal::MethodNotAllowed(allow) => verdict.allow = Some(allow.clone()),
        Refusal::Forbidden | Refusal::AmbiguousPath => {}
    }
    verdict
}

/// As many seconds, and up to as many again, at random: who was refused together does not come back together.
fn spread(seconds: u32) -> u32 {
    seconds.saturating_add(fastrand::u32(0..=seconds))
}
