//! What an exchange came on: a connection of HTTP/1.1, which it has for itself meanwhile, or a stream of HTTP/2.

use std::sync::Arc;

use bytes::Bytes;

use super::client_io::{ConnectionState, Phase};
use super::h2::StreamWire;
use super::messages::Fault;
use crate::proxy::Arrival;
use crate::shutdown::InFlight;

/// Told by the exchange how it is going; the watchdogs look at it.
#[derive(Debug)]
pub(super) enum Wire {
    Http1(Arc<ConnectionState>),
    Http2(StreamWire),
}

impl Wire {
    /// A request begins to be answered; `with_body` says whether more of it is to come.
    pub(super) fn begin(&self, with_body: bool) {
        match self {
            Self::Http1(connection) => connection.begin(with_body),
            Self::Http2(stream) => stream.begin(with_body),
        }
    }

    /// What the head had that the parser took without a word; asked once a request. The codec of HTTP/2 drops a fragment
    /// behind its own decoder, where nobody sees it.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        match self {
            Self::Http1(connection) => connection.take_fault(),
            Self::Http2(_) => None,
        }
    }

    /// For the proxy, which tells of the body.
    pub(super) fn arrival(&self) -> Arc<Arrival> {
        match self {
            Self::Http1(connection) => connection.arrival(),
            Self::Http2(stream) => stream.arrival(),
        }
    }

    /// Bytes of the request's body that have come.
    pub(super) fn received(&self) -> u64 {
        match self {
            Self::Http1(connection) => connection.received(),
            Self::Http2(stream) => stream.received(),
        }
    }

    /// Whether it was ended because its answer was not taken in time.
    pub(super) fn is_slow_reader(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_slow_reader(),
            Self::Http2(stream) => stream.is_slow_reader(),
        }
    }

    /// So many bytes of the answer are ready. A connection of HTTP/1.1 is watched where it is written.
    pub(super) fn offers(&self, bytes: usize) {
        if let Self::Http2(stream) = self {
            stream.offers(bytes);
        }
    }

    /// What is handed over now of a piece of the answer: a stream of HTTP/2 takes it in parts.
    pub(super) fn cut(&self, piece: Bytes) -> Bytes {
        match self {
            Self::Http1(_) => piece,
            Self::Http2(stream) => stream.cut(piece),
        }
    }

    /// The next part of a piece that was cut.
    pub(super) fn rest(&self) -> Option<Bytes> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(stream) => stream.rest(),
        }
    }

    pub(super) fn has_rest(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(stream) => stream.has_rest(),
        }
    }

    /// The next part is wanted.
    pub(super) fn asks(&self) {
        if let Self::Http2(stream) = self {
            stream.asks();
        }
    }

    /// The exchange is over for its handler; `flight` counts on until the last byte is with the system. `abandoned`: the
    /// client went before there was an answer.
    pub(super) fn finish(&self, flight: InFlight, abandoned: bool) {
        match self {
            Self::Http1(connection) => connection.finish(flight),
            Self::Http2(stream) => stream.finish(flight, abandoned),
        }
    }

    /// It has left HTTP.
    pub(super) fn upgraded(&self) {
        if let Self::Http1(connection) = self {
            connection.enter(Phase::Upgraded);
        }
    }

    /// Whether fields of the connection have a place in the answer.
    pub(super) fn has_connection_fields(&self) -> bool {
        matches!(self, Self::Http1(_))
    }
}
