//! What the answer to each refusal is: status, code, words, and what else helps.

use http::{HeaderValue, StatusCode};

use super::{Refused, Verdict};
use crate::api;
use crate::files;
use crate::hub;
use crate::limits;
use crate::proxy::{Fault, ForwardError, RouteError};

pub(super) fn judge(refused: &Refused, retry_after: u32) -> Verdict {
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
    StatusCode::from_u16(crate::edge::access::CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST)
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
        Refusal::Changed => (
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "the file is not the version that If-Match or If-Unmodified-Since asks for; get it again",
        ),
        Refusal::NoSuchPart(_) => (
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            "the file has no such part; Content-Range says how long it is",
        ),
        Refusal::Unreadable => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "file_unreadable",
            "the file cannot be read now; try again later",
        ),
    };
    let allow = HeaderValue::from_static("GET, HEAD");
    let content_range = match refusal {
        Refusal::NoSuchPart(length) => length.clone(),
        _ => None,
    };
    Verdict { allow: Some(allow), content_range, ..Verdict::new(status, code, message) }
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
