//! Answers made smaller on their way to a client that can read them so (RFC 9110, 8.4 and 12.5.3).
//!
//! Walk: [`Compression::apply`] looks at the head of an answer and, where it is worth it, states the coding there and
//! wraps the body (`body`), which an `encoder` writes; `accept` picks the coding.
//!
//! Invariants: what a backend has coded, forbids to be changed, or sends in parts is left as it is; a body that is
//! streamed stays so: what has come is handed on before more is waited for.

mod accept;
mod body;
mod encoder;

use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::Semaphore;

pub(super) use self::body::CompressedBody;
use self::encoder::Encoder;
use super::body::Content;
use crate::settings::{Coding, CompressionSettings};

/// Fields that say what the bytes are that were made, and would be wrong of others (RFC 9530; RFC 2616, 14.15).
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// What is compressed, and how.
#[derive(Debug)]
pub(super) struct Compression {
    settings: CompressionSettings,
    /// An encoder takes up to some hundred KiB: room for as many as the settings allow.
    room: Arc<Semaphore>,
}

impl Compression {
    /// Nothing where it is turned off.
    pub(super) fn new(settings: &CompressionSettings) -> Option<Self> {
        let room = settings.max_active.get().min(Semaphore::MAX_PERMITS);
        settings
            .enabled
            .then(|| Self { settings: settings.clone(), room: Arc::new(Semaphore::new(room)) })
    }

    /// The coding of the answer to a request with these headers, if it is to be compressed.
    pub(super) fn wanted(&self, request: &HeaderMap) -> Option<Coding> {
        accept::best(request.get_all(ACCEPT_ENCODING), &self.settings.codings)
    }

    /// Compresses an answer with what [`Self::wanted`] said, where it is worth it.
    pub(super) fn apply(
        &self,
        response: Response<Content>,
        wanted: Option<Coding>,
        is_head: bool,
    ) -> Response<Content> {
        if !self.is_compressible(&response) {
            return response;
        }
        let (mut head, body) = response.into_parts();
        vary(&mut head.headers);
        let Some(coding) = wanted else { return Response::from_parts(head, body) };
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return Response::from_parts(head, body);
        };
        let Some(encoder) = Encoder::new(coding) else {
            return Response::from_parts(head, body);
        };
        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        head.headers.remove(CONTENT_LENGTH);
        // Of what is made as it is sent, no part can be asked for.
        head.headers.remove(ACCEPT_RANGES);
        weaken(&mut head.headers);
        let body = if is_head {
            Content::Fixed(bytes::Bytes::new())
        } else {
            Content::Compressed(Box::new(CompressedBody::new(body, encoder, permit)))
        };
        Response::from_parts(head, body)
    }

    fn is_compressible(&self, response: &Response<Content>) -> bool {
        let headers = response.headers();
        let status = response.status();
        let has_body = !status.is_informational()
            && !matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
            );
        // The answer to a HEAD has a length and no body.
        let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = stated.and_then(|stated| stated.parse().ok());
        let length = length.or_else(|| response.body().size_hint().exact());
        has_body
            && length.is_none_or(|length| length >= self.settings.min_bytes)
            && !headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(CONTENT_RANGE)
            && !DIGESTS.iter().any(|digest| headers.contains_key(*digest))
            && !says(headers, "no-transform")
            && headers.get(CONTENT_TYPE).is_some_and(|kind| self.is_listed(kind))
    }

    fn is_listed(&self, kind: &HeaderValue) -> bool {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii();
        self.settings.types.iter().any(|listed| match listed.strip_suffix('*') {
            Some(start) => {
                kind.get(..start.len()).is_some_and(|of| of.eq_ignore_ascii_case(start.as_bytes()))
            }
            None => kind.eq_ignore_ascii_case(listed.as_bytes()),
        })
    }
}

/// Whether `Cache-Control` has this directive.
fn says(headers: &HeaderMap, directive: &str) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let mut said = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    said.any(|one| one.trim_ascii().eq_ignore_ascii_case(directive.as_bytes()))
}

/// Caches must know that the same request with another `Accept-Encoding` has another answer.
fn vary(headers: &mut HeaderMap) {
    let named = |line: &HeaderValue| {
        let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    };
    if !headers.get_all(VARY).iter().any(named) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// RFC 9110, 8.8.1: the bytes are others than those that a strong tag is for.
fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
}

#[cfg(test)]
mod tests;
