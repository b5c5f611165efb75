//! The answer to a request that hyper could not parse: the same JSON as every other refusal, with an id, a line and
//! a count. hyper answers these by itself, below the service, with a bare status; what it writes is replaced here.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::access::AccessLog;
use super::answer::{self, Answering, Refused, X_REQUEST_ID};
use super::body::Content;
use super::ending;
use crate::observability::Entry;

/// Where the status code stands in `HTTP/1.1 400 Bad Request`.
const STATUS: std::ops::Range<usize> = 9..12;

/// Our own answer, on its way in place of hyper's.
#[derive(Debug)]
pub(super) struct Substitute {
    rest: Bytes,
}

impl Substitute {
    /// For a client that speaks plain HTTP to the TLS listener.
    pub(super) fn plain_on_tls(log: &AccessLog, from: IpAddr) -> Self {
        Self::told(&Refused::PlainOnTls, log, from)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.rest
    }

    /// For the answer that begins with `head`; writes its line and count, too.
    pub(super) fn of(head: &[u8], log: &AccessLog, from: IpAddr) -> Self {
        let refused = match head.get(STATUS) {
            Some(b"414") => Refused::TargetTooLong,
            Some(b"431") => Refused::HeadersTooLarge,
            _ => Refused::BadRequest(
                "this is not a valid HTTP/1.1 request; check its first line and its header lines",
            ),
        };
        Self::told(&refused, log, from)
    }

    /// For a request whose head did not come in time (RFC 9110, section 15.5.9); writes its line and count, too.
    pub(super) fn request_timeout(log: &AccessLog, from: IpAddr) -> Self {
        Self::told(&Refused::HeadTimeout, log, from)
    }

    fn told(refused: &Refused, log: &AccessLog, from: IpAddr) -> Self {
        let (response, request_id) = refusal(refused, 0);
        log.unparsed(refused, (response.status().as_u16(), &request_id), from);
        Self { rest: encoded(&response) }
    }

    /// The bytes that a connection too many of one client gets.
    pub(super) fn too_many_connections(retry_after: u32) -> Bytes {
        encoded(&refusal(&Refused::TooManyConnections, retry_after).0)
    }

    /// Ends when the system has all of it.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let sent = ready!(Pin::new(&mut *stream).poll_write(context, &self.rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// A refusal and its id.
fn refusal(refused: &Refused, retry_after: u32) -> (http::Response<Content>, http::HeaderValue) {
    let request_id = super::request_id(&HeaderMap::new(), false);
    let answering = Answering { request_id: &request_id, regions: &[], retry_after };
    let mut response = answer::refuse(refused, &answering);
    response.headers_mut().insert(X_REQUEST_ID.clone(), request_id.clone());
    (response, request_id)
}

/// A response of ours as its bytes (RFC 9112); it closes the connection.
fn encoded(response: &http::Response<Content>) -> Bytes {
    let Content::Fixed(body) = response.body() else { return Bytes::new() };
    let mut bytes = BytesMut::with_capacity(512);
    let reason = response.status().canonical_reason().unwrap_or_default();
    let line = format!("HTTP/1.1 {} {reason}\r\n", response.status().as_u16());
    bytes.extend_from_slice(line.as_bytes());
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes.freeze()
}

impl AccessLog {
    /// The line and the count of a request without a method or a path.
    fn unparsed(
        &self,
        refused: &Refused,
        (status, request_id): (u16, &http::HeaderValue),
        from: IpAddr,
    ) {
        let end = ending::of_refusal(refused);
        self.regions.finished_without_region(status, Duration::ZERO, end);
        self.lines.write(&Entry {
            part: self.part,
            status,
            end: Some(end),
            request_id: request_id.to_str().unwrap_or_default(),
            client: Some(from),
            ..Entry::default()
        });
    }
}
