//! What is told of a tunnel when it is over: in `drop`, so that it is told whatever happens.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Version};
use tokio::time::Instant;

use super::{EndedBy, Tally};
use crate::observability::{AccessLog, Ending, Entry, Part, Socket, protocol};
use crate::proxy::metrics::RegionSeries;
use crate::proxy::{Caller, Report, TraceId};

/// The record of one tunnel.
#[derive(Debug)]
pub(in crate::proxy) struct Record {
    pub(super) tally: Tally,
    pub(super) ended_by: EndedBy,
    started: Instant,
    /// Of the region that was asked for.
    series: Arc<RegionSeries>,
    /// What the line says; nothing where there are no lines, so that a tunnel is no larger for them.
    said: Option<Box<Said>>,
}

/// What the line says besides, of the handshake.
#[derive(Debug)]
struct Said {
    lines: AccessLog,
    method: Method,
    target: Box<str>,
    version: Version,
    status: StatusCode,
    region: String,
    served: Option<String>,
    why: Option<&'static str>,
    backend: Option<Arc<str>>,
    attempts: u8,
    first_byte: Option<Duration>,
    trace: Option<TraceId>,
    request_id: HeaderValue,
    client: IpAddr,
    tls: Option<&'static str>,
}

/// A handshake as the client asked for it.
#[derive(Debug)]
pub(in crate::proxy) struct Handshake {
    /// GET, or the CONNECT of HTTP/2.
    method: Method,
    target: Box<str>,
    version: Version,
}

impl Handshake {
    pub(in crate::proxy) fn of<B>(request: &Request<B>) -> Self {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        Self { method: request.method().clone(), target: target.into(), version: request.version() }
    }
}

impl Record {
    /// Begins it, when the client has been promised the tunnel with `status`; `region` was asked for.
    pub(in crate::proxy) fn new(
        lines: Option<&AccessLog>,
        (region, series): (&str, Arc<RegionSeries>),
        handshake: Handshake,
        status: StatusCode,
        (caller, report): (&Caller, &Report),
    ) -> Self {
        let said = lines.filter(|lines| lines.is_on()).map(|lines| {
            Box::new(Said {
                lines: lines.clone(),
                method: handshake.method,
                target: handshake.target,
                version: handshake.version,
                status,
                region: region.to_owned(),
                served: report.served.as_ref().map(|served| served.name().to_string()),
                why: report.why,
                backend: report.backend.clone(),
                attempts: report.attempts,
                first_byte: report.first_byte,
                trace: report.trace,
                request_id: caller.request_id.clone(),
                client: caller.client,
                tls: caller.tls,
            })
        });
        let (tally, ended_by) = (Tally::default(), EndedBy::Drain);
        Self { tally, ended_by, started: Instant::now(), series, said }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let end = self.ended_by.ending();
        self.series.requests.ended(end);
        let Some(said) = &self.said else { return };
        let (path, query) = match said.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*said.target, None),
        };
        said.lines.write(&Entry {
            part: Part::Proxy,
            method: said.method.as_str(),
            path,
            query,
            status: said.status.as_u16(),
            took: self.started.elapsed(),
            region: Some(&said.region),
            served: said.served.as_deref(),
            why: said.why,
            backend: said.backend.as_deref(),
            attempts: said.attempts,
            first_byte: said.first_byte,
            received: Some(self.tally.up),
            sent: Some(self.tally.down),
            end: Some(end),
            request_id: said.request_id.to_str().unwrap_or_default(),
            trace_id: said.trace.as_ref().map(TraceId::as_str),
            protocol: protocol(said.version),
            tls: said.tls,
            client: Some(said.client),
            socket: Some(Socket {
                user: None,
                frames_in: self.tally.frames_up,
                frames_out: self.tally.frames_down,
                close: self.tally.close,
                ended_by: self.ended_by.as_str(),
            }),
            ..Entry::default()
        });
    }
}

impl EndedBy {
    fn ending(self) -> Ending {
        match self {
            Self::Client => Ending::ClientClosed,
            Self::Backend => Ending::BackendClosed,
            Self::Idle => Ending::Idle,
            Self::ClientLost => Ending::Lost,
            Self::BackendLost => Ending::BackendLost,
            Self::Drain | Self::BackendDrain => Ending::Drained,
            Self::Age => Ending::Aged,
            Self::Rebalance => Ending::Rebalanced,
        }
    }
}
