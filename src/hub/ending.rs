//! How a socket ended, and the one line and count that say so.

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{Origin, Place};
use crate::observability::{Ending, Entry, Part, Socket};
use crate::protocol::Close;

/// No code was in the close frame (RFC 6455, 7.1.5).
const NO_CODE: u16 = 1005;
/// There was no close frame (RFC 6455, 7.1.5).
const NO_FRAME: u16 = 1006;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed, with this code.
    Client(u16),
    /// This hub closes.
    Server(Close),
    /// The connection is gone.
    Network,
}

impl End {
    pub(super) fn by_client(frame: Option<&CloseFrame>) -> Self {
        Self::Client(frame.map_or(NO_CODE, |frame| frame.code.into()))
    }

    /// What a failed read or write means.
    pub(super) fn from_error(error: &Error) -> Self {
        match error {
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Network,
            Error::Protocol(_) => Self::Server(Close::Protocol),
            // The top bit of a length of 64 bits must be 0 (RFC 6455, 5.2).
            Error::Capacity(CapacityError::MessageTooLong { size, .. })
                if isize::try_from(*size).is_err() =>
            {
                Self::Server(Close::Protocol)
            }
            Error::Utf8(_) => Self::Server(Close::NotUtf8),
            Error::Capacity(_) => Self::Server(Close::TooBig),
            _ => Self::Network,
        }
    }

    fn code(self) -> u16 {
        match self {
            Self::Client(code) => code,
            Self::Server(close) => close.code(),
            Self::Network => NO_FRAME,
        }
    }

    /// As records of all kinds of exchanges say it.
    fn ending(self) -> Ending {
        match self {
            Self::Client(_) => Ending::ClientClosed,
            Self::Network | Self::Server(Close::NoPong) => Ending::Lost,
            Self::Server(Close::Away | Close::Restart) => Ending::Drained,
            Self::Server(Close::TooSlow) => Ending::SlowReader,
            Self::Server(_) => Ending::HubClosed,
        }
    }

    fn by(self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Server(_) => "server",
            Self::Network => "network",
        }
    }
}

/// Text frames one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    frames: u64,
    /// Of their payloads.
    bytes: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// What is told of one socket when it is gone: in `drop`, so that it is told whatever happens.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    /// From the client.
    pub(super) received: Traffic,
    /// To the client.
    pub(super) sent: Traffic,
    pub(super) end: End,
    origin: Option<Box<Origin>>,
    since: Instant,
}

impl Record {
    pub(super) fn new(place: Place, origin: Option<Box<Origin>>) -> Self {
        let end = End::Server(Close::Away);
        let none = Traffic::default();
        Self { place, received: none, sent: none, end, origin, since: Instant::now() }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let place = &self.place;
        place.region.metrics.closed(self.end.code());
        let Some(lines) = place.hub.lines.get().filter(|lines| lines.is_on()) else { return };
        let (origin, region) = (self.origin.as_deref(), place.region.name.as_str());
        lines.write(&Entry {
            part: Part::Hub,
            method: "WS",
            path: origin.map(|from| &*from.path).unwrap_or_default(),
            status: 101,
            took: self.since.elapsed(),
            region: Some(region),
            served: Some(region),
            received: Some(self.received.bytes),
            sent: Some(self.sent.bytes),
            request_id: origin.and_then(|from| from.request_id.to_str().ok()).unwrap_or_default(),
            trace_id: origin.and_then(|from| from.trace_id.as_deref()),
            protocol: origin.map(|from| from.protocol).unwrap_or_default(),
            tls: origin.and_then(|from| from.tls),
            end: Some(self.end.ending()),
            client: place.seat.client.get().copied(),
            socket: Some(Socket {
                user: Some(&place.user),
                frames_in: self.received.frames,
                frames_out: self.sent.frames,
                close: Some(self.end.code()),
                ended_by: self.end.by(),
            }),
            ..Entry::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::super::tests::harness::House;
    use super::*;
    use crate::observability::AccessLog;
    use crate::settings::AccessFormat;

    #[tokio::test(start_paused = true)]
    async fn a_socket_leaves_a_line_with_all_of_it() {
        let place = House::new().admit("userId=a=%22b").await.unwrap().place;
        let lines = AccessLog::kept(AccessFormat::Text);
        place.hub.record_in(lines.clone());
        let origin = Origin {
            path: "/ws".into(),
            request_id: HeaderValue::from_static("r1"),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            protocol: "HTTP/2.0",
            tls: Some("TLSv1.3"),
        };
        let mut record = Record::new(place, Some(Box::new(origin)));
        record.received.count(20);
        record.sent.count(100);
        record.sent.count(30);
        record.end = End::Client(NO_CODE);
        tokio::time::advance(Duration::from_millis(7)).await;
        drop(record);
        let line = lines.taken();
        let (_, said) = line.split_once("] [INFO] [Hub] ").unwrap();
        let expected = "WS /ws 101 - 7ms region=1 served=1 user=a=\"b bytes_in=20 bytes=130 in=1 out=2 \
                        close=1005 ended_by=client end=client_closed client=127.0.0.1 protocol=HTTP/2.0 tls=TLSv1.3 \
                        request_id=r1 trace_id=4bf92f3577b34da6a3ce929d0e0e4736\n";
        assert_eq!(said, expected);
    }

    #[test]
    fn each_end_has_its_word() {
        for (end, word) in [
            (End::Client(1000), Ending::ClientClosed),
            (End::Network, Ending::Lost),
            (End::Server(Close::Restart), Ending::Drained),
            (End::Server(Close::NoPong), Ending::Lost),
            (End::Server(Close::TooSlow), Ending::SlowReader),
            (End::Server(Close::Protocol), Ending::HubClosed),
        ] {
            assert_eq!(end.ending(), word, "{end:?}");
        }
    }
}
