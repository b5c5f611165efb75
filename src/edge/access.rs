//! One line and one count for each exchange, whatever its end.
//!
//! The record begins with the request and is written when it is dropped: by the body that was sent to its end, or
//! by hyper, which drops the handler of a client that went away. So every exchange leaves one line.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::wire::Wire;
use crate::limits::Tally;
use crate::proxy::{Arrival, RegionRef, Report, Shared};
use crate::shutdown::{Drain, InFlight};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The whole answer was handed to the connection.
    Complete,
    /// The client left before that.
    ClientGone,
    /// This gateway cut it, at the end of its drain.
    Cut,
    /// The backend broke off, or stopped moving, in the middle of its answer.
    BackendAborted,
    /// A file of ours could not be read on.
    Unreadable,
    /// Not an exchange of ours any more: a tunnel or a chat socket, which writes its own line.
    Upgraded,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
            Self::BackendAborted => "backend_aborted",
            Self::Unreadable => "unreadable",
            Self::Upgraded => "upgraded",
        }
    }
}

/// Where access lines of a listener come from, and how they are labelled.
#[derive(Debug)]
pub(super) struct AccessLog {
    pub(super) drain: Drain,
    /// Where requests are counted that are for no region.
    pub(super) regions: Arc<Shared>,
    pub(super) kind: Kind,
}

/// Whose listener it is, and so whose lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Proxy,
    Hub,
    Api,
}

/// The record of one exchange.
#[derive(Debug)]
pub(super) struct Access {
    log: Arc<AccessLog>,
    wire: Wire,
    method: Method,
    uri: Uri,
    started: Instant,
    /// 0 until there is an answer.
    status: u16,
    /// The region that was asked for.
    region: Option<RegionRef>,
    report: Report,
    /// Where the rate limits stand that it was counted by.
    tally: Option<Box<Tally>>,
    /// The name of the API key that was shown.
    key: Option<Arc<str>>,
    request_id: HeaderValue,
    sent: u64,
    end: End,
    /// Given back when the answer is with the system, and not only with hyper.
    flight: Option<InFlight>,
}

/// What a client's going away is counted as, as nginx does: there is no answer, and so no status.
pub(super) const CLIENT_GONE: u16 = 499;

impl Access {
    /// Starts the record; the wire has been told before.
    pub(super) fn begin(
        log: Arc<AccessLog>,
        wire: Wire,
        flight: InFlight,
        method: Method,
        uri: Uri,
        request_id: HeaderValue,
    ) -> Self {
        Self {
            log,
            wire,
            method,
            uri,
            started: Instant::now(),
            status: 0,
            region: None,
            report: Report::default(),
            tally: None,
            key: None,
            request_id,
            sent: 0,
            end: End::ClientGone,
            flight: Some(flight),
        }
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub(super) fn arrival(&self) -> Arc<Arrival> {
        self.wire.arrival()
    }

    pub(super) fn region(&mut self, region: RegionRef) {
        self.region = Some(region);
    }

    /// Where the proxy writes down what the exchange has been through.
    pub(super) fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    pub(super) fn key(&mut self, key: Option<Arc<str>>) {
        self.key = key;
    }

    pub(super) fn limited(&mut self, tally: Option<Tally>) {
        self.tally = tally.map(Box::new);
    }

    /// Says on the answer where the rate limits stand.
    pub(super) fn write_limits(&self, headers: &mut HeaderMap) {
        if let Some(tally) = &self.tally {
            tally.write(headers);
        }
    }

    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
        self.wire.offers();
    }

    /// The connection has room for more of the answer.
    pub(super) fn asked(&self) {
        self.wire.asks();
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.wire.offers();
    }

    /// Says how it ended; what has left HTTP stays so.
    pub(super) fn ended(&mut self, end: End) {
        if self.end != End::Upgraded {
            self.end = end;
        }
    }

    fn line(&self, status: u16, took_ms: u128) {
        let region = self.region.as_ref().map_or("-", |region| region.name().as_str());
        let (method, path) = (self.method.as_str(), self.uri.path());
        let duration_ms = u64::try_from(took_ms).unwrap_or(u64::MAX);
        let backend = self.report.backend.as_deref().unwrap_or("-");
        let request_id = self.request_id.to_str().unwrap_or("-");
        let (bytes, end) = (self.sent, self.end.as_str());
        let key = self.key.as_deref();
        // `target` must be a constant for each call site.
        match self.log.kind {
            Kind::Hub => tracing::info!(
                target: "Hub::access",
                method, path, status, duration_ms, bytes, end, request_id,
                "{method} {path} {status} - {duration_ms}ms"
            ),
            Kind::Proxy => tracing::info!(
                target: "Proxy::access",
                method, path, status, duration_ms, region, backend, key, bytes, end, request_id,
                "{method} {path} {status} - {duration_ms}ms"
            ),
            Kind::Api => tracing::info!(
                target: "Api::access",
                method, path, status, duration_ms, key = key.unwrap_or("-"), bytes, end, request_id,
                "{method} {path} {status} - {duration_ms}ms"
            ),
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            let abandoned = self.status == 0 && self.end == End::ClientGone;
            self.wire.finish(flight, abandoned);
        }
        if self.end == End::Upgraded {
            self.wire.upgraded();
            return;
        }
        if self.end == End::ClientGone && self.log.drain.is_cut() {
            self.end = End::Cut;
        }
        let status = match (self.status, self.end) {
            // Nothing was answered; it is counted as what it was for the client.
            (0, End::Cut) => StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            (0, _) => CLIENT_GONE,
            (status, _) => status,
        };
        let took = self.started.elapsed();
        match &self.region {
            Some(region) => region.finished(status, took),
            None => self.log.regions.finished_without_region(status, took),
        }
        if tracing::enabled!(target: "Proxy::access", tracing::Level::INFO) {
            self.line(status, took.as_millis());
        }
    }
}
