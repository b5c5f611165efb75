//! From a request to a backend of its region, and from its answer back to the client.
//!
//! Walk: `edge` asks [`Proxy::route`] for the region (`route`), then calls [`Proxy::forward`]: `headers`,
//! `forwarded` and `hops` make the client's headers the backend's, `course` goes from backend to backend, by `failover`
//! from region to region and within the budget of `retry`; `backends` has one of them, `conns` has a connection to it or
//! `dial`s a new one, `forward` sends and waits for the head, `upload` and `body` carry the bodies. A WebSocket goes
//! through `upgrade` instead and ends up in a `tunnel`.
//!
//! Invariants: bodies are streamed and, but for small ones that may be repeated, never held; what may have been seen by a backend is repeated
//! only where that is harmless; every count and connection hangs on a guard, so that a client that
//! leaves gives all of it back.
//!
//! Absent on purpose: status codes and error answers, listeners, access lines (all `edge`'s).

mod alarm;
mod arrival;
mod backends;
mod body;
mod bounds;
mod conns;
mod course;
mod dial;
mod error;
mod failover;
mod forward;
mod forwarded;
mod headers;
mod health;
mod hops;
mod hush;
mod metrics;
mod pace;
mod region;
mod report;
mod retry;
mod route;
mod shared;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod trailers;
mod tunnel;
mod upgrade;
mod upload;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;

pub use self::arrival::Arrival;
pub use self::backends::BackendSnapshot;
pub use self::body::{Body, BodyError};
pub use self::bounds::Bounds;
use self::conns::Conns;
use self::course::Side;
pub use self::dial::TlsSetupError;
pub use self::error::{Fault, ForwardError, SetupError};
pub use self::forwarded::client_address;
pub use self::headers::{FramingError, check_framing};
pub use self::health::{HealthSnapshot, MarkSnapshot, ProbeSnapshot};
pub use self::hops::ends_here;
use self::region::Region;
pub use self::region::{RegionRef, RegionSnapshot};
pub use self::report::Report;
pub use self::route::RouteError;
pub use self::shared::{BackendHandle, Operated, Shared};
pub use self::trace::{TraceId, traceparent};
use crate::settings::RegionName;

/// Who sent a request, as `edge` has found out.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The client behind it, or the same.
    pub client: IpAddr,
    /// Whether the peer's word on earlier hops is taken.
    pub trusted: bool,
    pub scheme: Scheme,
    /// The version of TLS, where it is spoken.
    pub tls: Option<&'static str>,
    /// The effective host, checked: a host with or without a port.
    pub host: HeaderValue,
    pub request_id: HeaderValue,
    /// Shared with the connection, so that the end of what the client sends is told from a body that
    /// breaks off.
    pub arrival: Arc<Arrival>,
    /// Bytes that the body may have, instead of what the settings say; 0 means no limit.
    pub max_body_bytes: Option<u64>,
}

/// How the client reached the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn as_header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// One worker's proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    conns: Arc<Conns>,
}

impl Proxy {
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        let conns = Arc::new(Conns::new());
        Arc::new(Self { shared, conns })
    }

    /// The region of a request: header, query parameter, default.
    pub fn route(&self, headers: &HeaderMap, uri: &Uri) -> Result<RegionRef, RouteError> {
        let table = self.shared.table();
        let found = match route::named(headers, uri)? {
            Some(name) => table.region(&name).ok_or_else(|| {
                RegionName::new(&name).map_or(RouteError::Invalid, RouteError::Unknown)
            })?,
            None => table.default.as_ref().ok_or(RouteError::Missing)?,
        };
        Ok(RegionRef(Arc::clone(found)))
    }

    /// Sends a request to a backend of the region, or of another one by its policy; a WebSocket handshake becomes a tunnel. What it has been through
    /// is written into `report`.
    ///
    /// Dropping the future drops the exchange, and with it the backend's connection.
    pub fn forward<'a>(
        &'a self,
        region: &'a RegionRef,
        caller: &'a Caller,
        request: Request<Incoming>,
        report: &'a mut Report,
    ) -> impl Future<Output = Result<Response<Body>, ForwardError>> + Send + 'a {
        self.serve(&region.0, Side::Backends, caller, request, report)
    }

    /// Sends a request to a hub, as [`Self::forward`] does to a backend; the path is kept.
    pub async fn forward_to_hub(
        &self,
        region: &RegionRef,
        caller: &Caller,
        request: Request<Incoming>,
        report: &mut Report,
    ) -> Result<Response<Body>, ForwardError> {
        Box::pin(self.serve(&region.0, Side::Hub, caller, request, report)).await
    }

    async fn serve(
        &self,
        region: &Arc<Region>,
        side: Side,
        caller: &Caller,
        request: Request<Incoming>,
        report: &mut Report,
    ) -> Result<Response<Body>, ForwardError> {
        report.served = Some(RegionRef(Arc::clone(region)));
        let _waiting = caller.arrival.wait(request.version() == Version::HTTP_11);
        if upgrade::is_asked(&request, side)? {
            // Boxed: a plain request's future should not be as large as a handshake's.
            Box::pin(self.upgrade(region, side, caller, request, report)).await
        } else {
            self.plain(region, side, caller, request, report).await
        }
    }

    /// Closes idle connections and waits for the tasks of the others and of the tunnels. To be called
    /// when the clients' connections are gone and the drain has cut: until then it waits for them.
    pub async fn close(&self) {
        self.conns.close().await;
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("conns", &self.conns).finish_non_exhaustive()
    }
}
