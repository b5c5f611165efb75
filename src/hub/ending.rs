//! How a socket ended, and the one line and count that say so.

use std::borrow::Cow;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::Place;
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

/// What is told of one socket when it is gone: in `drop`, so that it is told whatever happens.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    /// Text frames from the client.
    pub(super) received: u64,
    /// Text frames to the client.
    pub(super) sent: u64,
    pub(super) end: End,
    path: Cow<'static, str>,
    since: Instant,
}

impl Record {
    pub(super) fn new(place: Place, path: Cow<'static, str>) -> Self {
        let end = End::Server(Close::Away);
        Self { place, received: 0, sent: 0, end, path, since: Instant::now() }
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
        lines.write(&Entry {
            part: Part::Hub,
            method: "WS",
            path: &self.path,
            status: 101,
            took: self.since.elapsed(),
            region: Some(place.region.name.as_str()),
            end: Some(self.end.ending()),
            client: place.seat.client.get().copied(),
            socket: Some(Socket {
                user: Some(&place.user),
                frames_in: self.received,
                frames_out: self.sent,
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

    use super::super::tests::harness::House;
    use super::*;
    use crate::observability::AccessLog;
    use crate::settings::AccessFormat;

    #[tokio::test(start_paused = true)]
    async fn a_socket_leaves_a_line_with_all_of_it() {
        let place = House::new().admit("userId=a=%22b").await.unwrap().place;
        let lines = AccessLog::kept(AccessFormat::Text);
        place.hub.record_in(lines.clone());
        let mut record = Record::new(place, "/ws".into());
        (record.received, record.sent, record.end) = (1, 3, End::Client(NO_CODE));
        tokio::time::advance(Duration::from_millis(7)).await;
        drop(record);
        let line = lines.taken();
        let (_, said) = line.split_once("] [INFO] [Hub] ").unwrap();
        let expected = "WS /ws 101 - 7ms region=1 user=a=\"b in=1 out=3 close=1005 ended_by=client \
                        end=client_closed client=127.0.0.1\n";
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
