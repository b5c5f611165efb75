//! One line and one count for each exchange, whatever its end.
//!
//! The record begins with the request and is written when it is dropped: by the body that was sent to its end, or
//! by hyper, which drops the handler of a client that went away. So every exchange leaves one line.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::Link;
use super::wire::Wire;
use crate::hub::Origin;
use crate::limits::Tally;
use crate::observability::{self, Ending, Entry, Part, protocol};
use crate::proxy::{Arrival, RegionRef, Report, Shared, TraceId, traceparent};
use crate::shutdown::{Drain, InFlight};

/// Where access lines of a listener go, and how they are labelled.
#[derive(Debug)]
pub(super) struct AccessLog {
    pub(super) drain: Drain,
    /// Where requests are counted that are for no region.
    pub(super) regions: Arc<Shared>,
    pub(super) part: Part,
    pub(super) lines: observability::AccessLog,
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The answer is not with the connection whole.
    Open,
    /// It is.
    Done,
    /// It broke off, for this reason.
    Broken(Ending),
    /// Not an exchange of ours any more: a tunnel or a chat socket, which writes its own line.
    Upgraded,
}

/// The record of one exchange.
#[derive(Debug)]
pub(super) struct Access {
    log: Arc<AccessLog>,
    wire: Wire,
    method: Method,
    uri: Uri,
    version: Version,
    tls: Option<&'static str>,
    client: IpAddr,
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
    /// `Referer` and `User-Agent`, where lines have them.
    agent: Option<Box<[Option<HeaderValue>; 2]>>,
    /// Where lines are written: whose answer is the gateway's own has its trace from here.
    traceparent: Option<HeaderValue>,
    request_id: HeaderValue,
    sent: u64,
    /// What it ends as when the whole answer is with the connection.
    verdict: Ending,
    course: Course,
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
        link: &Link,
        request: &Request<Incoming>,
        request_id: HeaderValue,
    ) -> Self {
        let agent = log.lines.wants_agent().then(|| {
            let field = |name| request.headers().get(name).cloned();
            Box::new([field(REFERER), field(USER_AGENT)])
        });
        let traceparent =
            if log.lines.is_on() { traceparent(request.headers()).cloned() } else { None };
        Self {
            log,
            wire,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            tls: link.tls(),
            client: link.peer.ip(),
            started: Instant::now(),
            status: 0,
            region: None,
            report: Report::default(),
            tally: None,
            key: None,
            agent,
            traceparent,
            request_id,
            sent: 0,
            verdict: Ending::Complete,
            course: Course::Open,
            flight: Some(flight),
        }
    }

    /// The client behind the peer.
    pub(super) fn client(&mut self, client: IpAddr) {
        self.client = client;
    }

    /// What it will have been, once the whole answer is with the connection.
    pub(super) fn verdict(&mut self, verdict: Ending) {
        self.verdict = verdict;
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
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
        self.wire.offers(0);
    }

    /// The connection has room for more of the answer.
    pub(super) fn asked(&self) {
        self.wire.asks();
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.wire.offers(bytes);
    }

    /// The whole answer is with the connection.
    pub(super) fn done(&mut self) {
        if self.course == Course::Open {
            self.course = Course::Done;
        }
    }

    /// The answer breaks off.
    pub(super) fn broken(&mut self, why: Ending) {
        self.course = Course::Broken(why);
    }

    /// What a chat socket's own line says of the request, with the trace that these fields name.
    pub(super) fn origin(&self, headers: Option<&HeaderMap>) -> Origin {
        Origin {
            path: self.uri.path().into(),
            request_id: self.request_id.clone(),
            trace_id: headers
                .and_then(traceparent)
                .and_then(TraceId::of)
                .map(|trace| trace.as_str().to_owned()),
            protocol: protocol(self.version),
            tls: self.tls,
        }
    }

    /// It has left HTTP.
    pub(super) fn upgraded(&mut self) {
        self.course = Course::Upgraded;
    }

    fn ending(&self) -> Ending {
        match self.course {
            Course::Done | Course::Upgraded => self.verdict,
            Course::Broken(why) => why,
            Course::Open if self.log.drain.is_cut() => Ending::Cut,
            Course::Open if self.wire.is_slow_reader() => Ending::SlowReader,
            Course::Open if self.status == 0 => Ending::ClientGone,
            Course::Open => Ending::ClientAborted,
        }
    }

    fn write_line(&self, status: u16, took: Duration, end: Ending) {
        let report = &self.report;
        let field = |index: usize| self.agent.as_ref()?.get(index)?.as_ref();
        let (referer, agent) = (field(0), field(1));
        let came = || {
            self.traceparent.as_ref().filter(|_| self.log.regions.traces()).and_then(TraceId::of)
        };
        let trace = report.trace.or_else(came);
        self.log.lines.write(&Entry {
            part: self.log.part,
            method: self.method.as_str(),
            path: self.uri.path(),
            query: self.uri.query(),
            status,
            took,
            region: self.region.as_ref().map(|region| region.name().as_str()),
            served: report.served.as_ref().map(|served| served.name().as_str()),
            why: report.why,
            backend: report.backend.as_deref(),
            attempts: report.attempts,
            first_byte: report.first_byte,
            received: Some(self.wire.received()),
            sent: Some(self.sent),
            end: Some(end),
            key: self.key.as_deref(),
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: trace.as_ref().map(TraceId::as_str),
            protocol: protocol(self.version),
            tls: self.tls,
            client: Some(self.client),
            referer: referer.map(HeaderValue::as_bytes),
            agent: agent.map(HeaderValue::as_bytes),
            socket: None,
        });
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            let abandoned = self.status == 0 && self.course == Course::Open;
            self.wire.finish(flight, abandoned);
        }
        if self.course == Course::Upgraded {
            self.wire.upgraded();
            return;
        }
        let end = self.ending();
        let status = match (self.status, end) {
            // Nothing was answered; it is counted as what it was for the client.
            (0, Ending::Cut) => StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            (0, _) => CLIENT_GONE,
            (status, _) => status,
        };
        let took = self.started.elapsed();
        match &self.region {
            Some(region) => {
                region.finished(status, took, end);
                if let Some(served) = &self.report.served {
                    region.served_by(served);
                }
            }
            None => self.log.regions.finished_without_region(status, took, end),
        }
        if self.log.lines.is_on() {
            self.write_line(status, took, end);
        }
    }
}
