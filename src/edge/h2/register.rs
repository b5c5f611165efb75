//! What the codec turns away or ends, as a line and a count: no request of the service has one for it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Version};

use super::streams::{REFUSED_STREAM, Refusal};
use crate::edge::{Edge, Link, request_id};
use crate::observability::{Ending, Entry, protocol};

const ENHANCE_YOUR_CALM: u32 = 11;

/// The names of the codes (RFC 9113, 7), each at its place.
const CODES: [&str; 14] = [
    "no_error",
    "protocol_error",
    "internal_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "refused_stream",
    "cancel",
    "compression_error",
    "connect_error",
    "enhance_your_calm",
    "inadequate_security",
    "http_1_1_required",
];

/// Where one connection's are written down.
#[derive(Debug)]
pub(super) struct Register {
    edge: Arc<Edge>,
    link: Link,
}

impl Register {
    pub(super) fn new(edge: &Arc<Edge>, link: &Link) -> Self {
        Self { edge: Arc::clone(edge), link: link.clone() }
    }

    pub(super) fn tell(&self, refusal: Refusal) {
        let metrics = &self.edge.common.metrics;
        match refusal {
            Refusal::Connection(code) => metrics.ended_by_goaway(name(code)),
            Refusal::Request(code) | Refusal::Stream(code) => metrics.reset(name(code)),
            Refusal::TooLarge => {}
        }
        match refusal {
            Refusal::Stream(_) => {}
            Refusal::TooLarge => {
                self.write(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Ending::TooLarge);
            }
            Refusal::Request(REFUSED_STREAM) => {
                self.write(StatusCode::SERVICE_UNAVAILABLE, Ending::Overloaded);
            }
            Refusal::Request(_) => self.write(StatusCode::BAD_REQUEST, Ending::BadRequest),
            Refusal::Connection(ENHANCE_YOUR_CALM) => self.flooded(),
            Refusal::Connection(_) => self.write(StatusCode::BAD_REQUEST, Ending::ProtocolError),
        }
    }

    /// The connection is closed on a client that wants the work and not the answers.
    pub(super) fn flooded(&self) {
        self.write(StatusCode::TOO_MANY_REQUESTS, Ending::Flooded);
    }

    /// hyper has ended the connection without a word, as it does on a CONNECT that states the length of a body.
    pub(super) fn given_up(&self) {
        self.write(StatusCode::BAD_REQUEST, Ending::ProtocolError);
    }

    /// The connection is closed on a client whose request has begun to come, and does not come whole.
    pub(super) fn head_is_late(&self) {
        self.write(StatusCode::REQUEST_TIMEOUT, Ending::HeadTimeout);
    }

    /// `status` is what it was for the client, who saw a code of HTTP/2 or the end.
    fn write(&self, status: StatusCode, end: Ending) {
        let (access, status) = (&self.edge.access, status.as_u16());
        access.regions.finished_without_region(status, Duration::ZERO, end);
        let request_id = request_id(&HeaderMap::new(), false);
        access.lines.write(&Entry {
            part: access.part,
            status,
            end: Some(end),
            request_id: request_id.to_str().unwrap_or_default(),
            protocol: protocol(Version::HTTP_2),
            tls: self.link.tls(),
            client: Some(self.link.peer.ip()),
            ..Entry::default()
        });
    }
}

/// A code as the label has it; a client can choose none.
fn name(code: u32) -> &'static str {
    usize::try_from(code).ok().and_then(|code| CODES.get(code).copied()).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::h2::streams::PROTOCOL_ERROR;

    #[test]
    fn codes_stand_at_their_places() {
        let named = [PROTOCOL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM].map(name);
        assert_eq!(named, ["protocol_error", "refused_stream", "enhance_your_calm"]);
        assert_eq!((name(8), name(13), name(14)), ("cancel", "http_1_1_required", "unknown"));
    }
}
