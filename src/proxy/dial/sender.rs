//! The half of a connection that takes requests, of either version of HTTP, and the form that a request has in each.
//!
//! A request is written in the form of HTTP/1.1 and brought into that of HTTP/2 when a connection of it takes it
//! (RFC 9113, 8.3.1); one that comes back unsent may have to be brought into the other again.

use std::sync::Arc;

use futures_util::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};

use super::http2::{Multiplexed, Origin};
use crate::proxy::hush::Hush;
use crate::proxy::upload::RequestBody;

/// What becomes of a request; with it, where nothing of it was sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// The half of a connection that takes requests.
#[derive(Debug)]
pub(in crate::proxy) enum Sender {
    /// One at a time.
    Http1(http1::SendRequest<RequestBody>, Arc<Hush>),
    /// One stream of many.
    Http2(Multiplexed),
}

impl Sender {
    /// Sends a request and waits for the head of its answer. Dropping the future of a stream resets it; that of a
    /// connection of HTTP/1.1 ends it.
    ///
    /// # Errors
    /// With the request, where nothing of it was sent.
    pub(in crate::proxy) fn try_send_request(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Sent> + use<> {
        match self {
            Self::Http1(sender, _) => {
                if request.uri().authority().is_some() {
                    to_http1(&mut request);
                }
                Either::Left(sender.try_send_request(request))
            }
            Self::Http2(sender) => {
                to_http2(&mut request, sender.origin());
                Either::Right(sender.try_send_request(request))
            }
        }
    }
}

/// `Host` becomes `:authority`, and what belongs to a connection of HTTP/1.1 alone goes (RFC 9113, 8.2.2).
fn to_http2(request: &mut Request<RequestBody>, origin: &Origin) {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    let host = headers.remove(HOST);
    // One of HTTP/1.0 may name none, and one of HTTP/1.1 an empty one.
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(origin.scheme.clone());
    // One that another connection of HTTP/2 gave back has it already.
    let host = host.or_else(|| parts.authority.take());
    parts.authority = Some(host.unwrap_or_else(|| origin.authority.clone()));
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    // All three are there, so that nothing is missing.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// The way back.
fn to_http1(request: &mut Request<RequestBody>) {
    let parts = std::mem::take(request.uri_mut()).into_parts();
    let host = parts.authority.and_then(|host| HeaderValue::try_from(host.as_str()).ok());
    *request.uri_mut() = parts.path_and_query.map_or_else(Uri::default, Uri::from);
    *request.version_mut() = Version::HTTP_11;
    let has_body = !request.body().is_end_stream();
    let headers = request.headers_mut();
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

#[cfg(test)]
mod tests {
    use http::uri::Scheme;

    use super::*;

    #[test]
    fn who_names_no_host_asks_for_the_backend() {
        let origin = Origin::new(Scheme::HTTP, "[::1]:80");
        for host in [None, Some("")] {
            let mut request = Request::get("/a").body(RequestBody::empty()).unwrap();
            host.map(|host| request.headers_mut().insert(HOST, HeaderValue::from_static(host)));
            to_http2(&mut request, &origin);
            assert_eq!(request.uri(), "http://[::1]:80/a");
            assert!(!request.headers().contains_key(HOST));
        }
    }

    #[test]
    fn the_forms_lead_to_each_other() {
        let mut request = Request::get("/a?b").body(RequestBody::empty()).unwrap();
        for (name, value) in [("host", "shop.example:8"), ("te", "trailers"), ("connection", "te")]
        {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let headers = request.headers().clone();
        let origin = Origin::new(Scheme::HTTPS, "10.0.0.1:443");
        to_http2(&mut request, &origin);
        assert_eq!(request.uri(), "https://shop.example:8/a?b");
        assert_eq!(request.version(), Version::HTTP_2);
        let left: Vec<_> = request.headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["te"]);
        // A second time, nothing changes but what the connection says.
        to_http2(&mut request, &Origin::new(Scheme::HTTP, "10.0.0.2:80"));
        assert_eq!(request.uri(), "http://shop.example:8/a?b");
        to_http1(&mut request);
        assert_eq!(
            (request.uri().to_string().as_str(), request.version()),
            ("/a?b", Version::HTTP_11)
        );
        assert_eq!(request.headers(), &headers);
    }
}
