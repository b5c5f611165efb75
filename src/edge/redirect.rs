//! The door of plain HTTP that leads to the one of TLS: each request is sent to the same path and query at the authority of
//! the settings (RFC 9110, section 15.4.9), never at one that the request names.
//!
//! Answered here are health and readiness, and what a certificate authority asks for (RFC 8555, section 8.3), where a mounted
//! folder has it. There is no `Strict-Transport-Security`: over plain HTTP it means nothing (RFC 6797, section 7.2).

use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::answer::{self, Refused};
use super::body::Content;
use super::{Policy, file};

/// Where certificate authorities look for the answers to their challenges.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Answers a request that is for no own path; `to` is the scheme and authority it is sent to.
pub(super) async fn answer(
    policy: &Policy,
    to: &str,
    request: &Request<Incoming>,
) -> Result<Response<Content>, Refused> {
    let path = request.uri().path();
    if path.starts_with(CHALLENGES)
        && let Some(mount) = policy.mounts.find(path)
    {
        return file(mount, request).await;
    }
    // `OPTIONS *` has no path that could be appended.
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target } else { "/" };
    let location = HeaderValue::from_bytes([to, target].concat().as_bytes())
        .map_err(|_invalid| Refused::BadRequest("the target cannot be sent on"))?;
    let mut response = answer::empty(StatusCode::PERMANENT_REDIRECT);
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
