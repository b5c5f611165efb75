//! How a socket ended, and the one line and count that say so.

use std::borrow::Cow;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::Place;
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
        let duration_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "Hub::access",
            method = "WS",
            path = %self.path,
            status = 101_u16,
            duration_ms,
            region = %place.region.name,
            user = %place.user,
            // A raw identifier would keep its prefix in JSON.
            "in" = self.received,
            out = self.sent,
            close = self.end.code(),
            ended_by = %self.end.by(),
            "WS {} 101 - {duration_ms}ms",
            self.path,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};
    use tracing::Subscriber;
    use tracing::subscriber::with_default;

    use super::super::tests::harness::House;
    use super::*;

    /// What the log that `log` makes of a file writes of the end of a session.
    async fn line<S: Subscriber + Send + Sync + 'static>(
        log: impl FnOnce(Arc<std::fs::File>) -> S,
    ) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = log(Arc::new(file.reopen().unwrap()));
        let place = House::new().admit("userId=a=%22b").await.unwrap().place;
        let mut record = Record::new(place, "/ws".into());
        (record.received, record.sent, record.end) = (1, 3, End::Client(NO_CODE));
        tokio::time::advance(Duration::from_millis(7)).await;
        with_default(log, || drop(record));
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_keeps_its_order_as_text() {
        let log = |file| tracing_subscriber::fmt().with_writer(file).with_ansi(false).finish();
        let text = line(log).await;
        assert!(text.contains("Hub::access: WS /ws 101 - 7ms "), "{text}");
        let fields = " region=1 user=a=\"b in=1 out=3 close=1005 ended_by=client\n";
        assert!(text.ends_with(fields), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_has_all_of_it_as_json_fields() {
        let json = line(|file| tracing_subscriber::fmt().with_writer(file).json().finish()).await;
        let line: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            line["fields"],
            json!({
                "message": "WS /ws 101 - 7ms", "method": "WS", "path": "/ws", "status": 101,
                "duration_ms": 7, "region": "1", "user": "a=\"b", "in": 1, "out": 3, "close": 1005,
                "ended_by": "client",
            })
        );
    }
}
