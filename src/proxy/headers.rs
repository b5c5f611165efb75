//! What happens to headers on their way through: framing, hop-by-hop fields, names that look alike.
//!
//! Walk: [`prepare_request`] looks at each name once and takes out what may not pass (RFC 9110, 7.6.1),
//! first what `Connection` nominates, so that a client cannot nominate what is added afterwards; then
//! the gateway's own fields go in. [`prepare_response`] does the same on the way back.
//!
//! Trailers pass both ways where a `Trailer` field announces them; hyper drops the others, which
//! RFC 9110, 6.5.1 permits.
//!
//! Pure, and in place: a header map wanders from the client's connection to the backend's and back
//! without being allocated anew.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Version};

use super::Caller;
use super::error::ForwardError;
use super::forwarded;
use super::hops::{self, Hops};
use super::route::X_REGION;
use super::trace::{self, TraceId};
use crate::settings::TraceMode;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The region that was asked for, as the backend is told; `x-region` is the one that serves.
static X_REGION_REQUESTED: HeaderName = HeaderName::from_static("x-region-requested");
/// The region that served, as the client is told.
static X_REGION_SERVED: HeaderName = HeaderName::from_static("x-region-served");

/// Framing that must not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// RFC 9112, 6.1: another coding, two of them, or two lines.
    #[error("Transfer-Encoding must be exactly one `chunked`")]
    TransferEncoding,
    /// RFC 9112, 6.1: HTTP/1.0 has no transfer codings.
    #[error("Transfer-Encoding is not part of HTTP/1.0")]
    Version,
}

/// Whether `Transfer-Encoding` is absent, or exactly one `chunked` in HTTP/1.1 (RFC 9112, 6.1).
pub fn check_framing(headers: &HeaderMap, version: Version) -> Result<(), FramingError> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if version < Version::HTTP_11 {
        return Err(FramingError::Version);
    }
    if is_chunked_alone(headers) { Ok(()) } else { Err(FramingError::TransferEncoding) }
}

fn is_chunked_alone(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = |v: &HeaderValue| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(chunked) && codings.next().is_none()
}

/// Whether a list field has `token`, in any of its lines and in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(tokens)
        .any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Which names a look over a header map has found.
#[derive(Clone, Copy, Default)]
struct Found(u16);

impl Found {
    const CONNECTION: u16 = 1;
    const HOP: u16 = 1 << 1;
    const TE: u16 = 1 << 2;
    const TRAILER: u16 = 1 << 3;
    const CHUNKED: u16 = 1 << 4;
    const FORWARDED: u16 = 1 << 5;
    const ALIAS: u16 = 1 << 6;
    const COOKIE: u16 = 1 << 7;
    const EXPECT: u16 = 1 << 8;
    const HOPS: u16 = 1 << 9;
    /// What only the other direction has.
    const REGION: u16 = 1 << 10;
    const TRACE: u16 = 1 << 11;

    fn look(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |found, name| found | Self::kind(name.as_str())))
    }

    fn kind(name: &str) -> u16 {
        match name {
            "connection" => Self::CONNECTION,
            "keep-alive"
            | "proxy-connection"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "http2-settings" => Self::HOP,
            "te" => Self::TE,
            "trailer" => Self::TRAILER,
            "transfer-encoding" => Self::CHUNKED,
            "cookie" => Self::COOKIE,
            "expect" => Self::EXPECT,
            "x-region-served" | "x-region-requested" => Self::REGION,
            _ if hops::is_of_hops(name) => Self::HOPS,
            _ if trace::is_of_trace(name) => Self::TRACE,
            _ if forwarded::is_forwarding(name) => Self::FORWARDED,
            _ if name.contains('_') => Self::ALIAS,
            _ => 0,
        }
    }

    fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }
}

/// What a request's headers mean for the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// The client waits for `100 Continue` before it sends its body.
    pub(super) expects: bool,
    /// The client takes response trailers.
    pub(super) trailers: bool,
    /// The trace that it belongs to.
    pub(super) trace: Option<TraceId>,
}

/// What a message is marked with on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks<'a> {
    pub(super) region: &'a HeaderValue,
    pub(super) hops: &'a Hops,
    pub(super) trace: TraceMode,
}

/// Makes a client's headers the backend's, of the region that was asked for. `has_body`: something will follow the head.
pub(super) fn prepare_request(
    headers: &mut HeaderMap,
    version: Version,
    caller: &Caller,
    marks: Marks<'_>,
    has_body: bool,
) -> Result<Prepared, ForwardError> {
    let found = Found::look(headers);
    if found.has(Found::CHUNKED) {
        check_framing(headers, version)?;
    }
    if found.has(Found::HOPS) {
        marks.hops.check(headers)?;
    }
    // The frames of HTTP/2 need no length; the next hop does, or a coding in its place.
    let unstated = has_body && version == Version::HTTP_2 && !headers.contains_key(CONTENT_LENGTH);
    let chunked = found.has(Found::CHUNKED) || unstated;
    let trailers = found.has(Found::TE) && has_token(headers, &TE, "trailers");
    strip_hop(headers, found);
    if found.has(Found::TRAILER) && !(chunked && has_body) {
        headers.remove(TRAILER);
    }
    if found.has(Found::ALIAS) {
        remove_aliases(headers, is_guarded);
    }
    if found.has(Found::COOKIE) {
        join_cookies(headers);
    }
    if chunked {
        // The coding is the next hop's own; stated here, since hyper assumes none for a GET.
        headers.remove(CONTENT_LENGTH);
        if has_body {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    let expects = has_body && found.has(Found::EXPECT) && version >= Version::HTTP_11 && {
        has_token(headers, &EXPECT, "100-continue")
    };
    if found.has(Found::EXPECT) && version < Version::HTTP_11 {
        headers.remove(EXPECT);
    }
    forwarded::apply(headers, caller, found.has(Found::FORWARDED));
    marks.hops.pass(headers, version, found.has(Found::HOPS));
    if found.has(Found::REGION) {
        headers.remove(&X_REGION_SERVED);
    }
    let trace = trace::apply(headers, marks.trace, found.has(Found::TRACE));
    headers.insert(HOST, caller.host.clone());
    headers.insert(&X_REGION, marks.region.clone());
    headers.insert(&X_REGION_REQUESTED, marks.region.clone());
    headers.insert(&X_REQUEST_ID, caller.request_id.clone());
    Ok(Prepared { expects, trailers, trace })
}

/// Another region serves than the one that was asked for.
pub(super) fn hand_over(headers: &mut HeaderMap, region: &HeaderValue) {
    headers.insert(&X_REGION, region.clone());
}

/// A reply that states its length twice, or in a coding that is not undone on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AmbiguousReply;

/// Makes a backend's headers the client's: of the region that served, received in `version`. `length` is what hyper
/// reads from the framing; `trailers`: the client takes them.
pub(super) fn prepare_response(
    headers: &mut HeaderMap,
    version: Version,
    marks: Marks<'_>,
    length: Option<u64>,
    trailers: bool,
) -> Result<(), AmbiguousReply> {
    let found = Found::look(headers);
    if found.has(Found::CHUNKED)
        && (headers.contains_key(CONTENT_LENGTH) || !is_chunked_alone(headers))
    {
        return Err(AmbiguousReply);
    }
    strip_hop(headers, found);
    if found.has(Found::TRAILER) && !trailers {
        headers.remove(TRAILER);
    }
    one_content_length(headers, length);
    sign(headers, version, marks, found);
    Ok(())
}

/// Makes a 101's headers ready for the client's hop, which states its own upgrade.
pub(super) fn prepare_switch(headers: &mut HeaderMap, marks: Marks<'_>) {
    let found = Found::look(headers);
    strip_hop(headers, found);
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRAILER);
    sign(headers, Version::HTTP_11, marks, found);
}

pub(super) fn tell_served(headers: &mut HeaderMap, region: &HeaderValue) {
    headers.insert(&X_REGION_SERVED, region.clone());
}

/// Says who served, and by which way.
fn sign(headers: &mut HeaderMap, version: Version, marks: Marks<'_>, found: Found) {
    if found.has(Found::REGION) {
        headers.remove(&X_REGION_REQUESTED);
    }
    if found.has(Found::ALIAS) {
        remove_aliases(headers, is_of_regions);
    }
    tell_served(headers, marks.region);
    marks.hops.sign(headers, version);
}

fn strip_hop(headers: &mut HeaderMap, found: Found) {
    if found.has(Found::CONNECTION) {
        remove_nominated(headers);
        headers.remove(CONNECTION);
    }
    if found.has(Found::HOP | Found::TE | Found::CHUNKED) {
        remove_hop_by_hop(headers);
    }
}

/// RFC 9110, 8.6: equal repeats of `Content-Length` become one.
fn one_content_length(headers: &mut HeaderMap, length: Option<u64>) {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let repeated = lines.next().is_some_and(|first| first.as_bytes().contains(&b','))
        || lines.next().is_some();
    if repeated {
        match length {
            Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
            None => headers.remove(CONTENT_LENGTH),
        };
    }
}

/// RFC 9110, 7.6.1: what `Connection` names belongs to this hop alone.
fn remove_nominated(headers: &mut HeaderMap) {
    let known: [&[u8]; 4] = [b"keep-alive", b"close", b"upgrade", b"te"];
    let is_known = |token: &[u8]| known.iter().any(|known| token.eq_ignore_ascii_case(known));
    let mut lines = headers.get_all(CONNECTION).iter();
    // Nearly always one word, which need not be taken out of a list.
    if lines.next().is_some_and(|line| is_known(line.as_bytes())) && lines.next().is_none() {
        return;
    }
    if headers.get_all(CONNECTION).iter().flat_map(tokens).all(is_known) {
        return;
    }
    // Rare: a map cannot be changed while its values are read. What is no name nominates nothing.
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(TE);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(&PROXY_AUTHENTICATION_INFO);
    headers.remove(&HTTP2_SETTINGS);
}

/// Whether the gateway answers for this field, so that no copy of it may come from elsewhere.
pub(super) fn is_own(name: &str) -> bool {
    is_of_regions(name) || name == "x-request-id" || forwarded::is_forwarding(name)
}

fn is_of_regions(name: &str) -> bool {
    matches!(name, "x-region" | "x-region-requested" | "x-region-served")
}

/// Many frameworks read `x_region` and `x-region` as one; only the gateway's own may arrive.
fn remove_aliases(headers: &mut HeaderMap, is_guarded: impl Fn(&str) -> bool) {
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.contains('_') && is_guarded(&name.replace('_', "-"))
        })
        .cloned()
        .collect();
    for name in aliases {
        headers.remove(name);
    }
}

/// Names whose underscore spellings are dropped: the gateway's own, and those that frame or route.
fn is_guarded(name: &str) -> bool {
    is_own(name) || matches!(name, "content-length" | "transfer-encoding" | "proxy-authorization")
}

/// RFC 9113, 8.2.3: the crumbs of HTTP/2 are one field in HTTP/1.1.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    // Bytes of values are bytes of a value.
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
