//! Every refusal becomes one HTTP answer here: the only place that invents a status code.
//!
//! Walk: [`refuse`] writes the answer that `judge` has found for a refusal.

mod judge;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Content;
use crate::api;
use crate::files;
use crate::hub;
use crate::limits;
use crate::proxy::{ForwardError, RouteError};
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
    /// Where the range is: how long the whole is.
    content_range: Option<HeaderValue>,
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
            content_range: None,
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
    let verdict = judge::judge(refused, answering.retry_after);
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
        // RFC 9110, 15.5.22 and 7.8.
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let connection = if verdict.close { "close, upgrade" } else { "upgrade" };
        headers.insert(CONNECTION, HeaderValue::from_static(connection));
    }
    if let Some(content_range) = verdict.content_range {
        headers.insert(CONTENT_RANGE, content_range);
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
