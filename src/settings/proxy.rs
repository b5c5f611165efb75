//! The public listener, and how requests are forwarded.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Section `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySettings {
    pub bind: IpAddr,
    /// `PROXY_PORT`; 0 lets the system choose.
    pub port: u16,
    /// Own path that says "this process is alive"; empty turns it off, so that it is forwarded.
    pub health_path: String,
    /// Own path that says "send traffic here"; empty turns it off.
    pub ready_path: String,
    /// Own path of the region's hub; empty turns it off.
    pub ws_path: String,
    /// Peers whose `Forwarded`, `X-Forwarded-*` and `X-Request-Id` are believed. None by default:
    /// then every such header is replaced by what this gateway saw itself.
    pub trusted_proxies: Vec<IpNet>,
    /// Open connections of this listener; over it, the next waits in the system's queue.
    pub max_connections: NonZeroUsize,
    /// A client that has not sent a whole request head in this time is closed.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// A kept connection on which no request begins for this long is closed.
    #[serde(with = "humantime_serde")]
    pub keep_alive_timeout: Duration,
    /// A body, in either direction, that does not move for this long ends the exchange.
    #[serde(with = "humantime_serde")]
    pub body_idle_timeout: Duration,
    /// Bytes of a request body; 0 means no limit (bodies are streamed, not held).
    pub max_body_bytes: u64,
    /// Bytes of a request target (path and query); longer ones get 414.
    pub max_target_bytes: NonZeroUsize,
    /// Bytes of the names and values of a request's header fields together; more get 431.
    pub max_header_bytes: NonZeroUsize,
    /// Header fields of a request; more get 431.
    pub max_headers: NonZeroUsize,
    /// Header fields of a backend's answer over HTTP/1.1; more are a bad answer (502). Up to 100 cost no memory of their own.
    pub max_answer_headers: usize,
    /// Open HTTP connections of one client's address (of IPv6, its /64) to this process; one more gets 429 and is closed,
    /// over TLS without an answer. 0 means no limit; trusted proxies are not held to it.
    pub max_connections_per_client: usize,
    /// Bytes a second that a request body must bring while it is waited for, and that a reader of an answer must
    /// take, over ten seconds at a time; a slower client is cut. 0 means no such limit.
    pub min_rate: u32,
    /// For a TCP connection to a backend.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// For the TLS handshake with a backend, after the connection.
    #[serde(with = "humantime_serde")]
    pub tls_timeout: Duration,
    /// From the request sent until the backend's response head; over it, 504.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// From the request's head until the last of its answer, attempts and waits and both bodies included; not for tunnels. Not
    /// set, there is none.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Option<Duration>,
    /// A kept connection to a backend is used for this long after its last request. Shorter than
    /// the five seconds after which Node closes, so that the race is rarely lost.
    #[serde(with = "humantime_serde")]
    pub pool_idle_timeout: Duration,
    /// Idle connections kept for each backend by each worker.
    pub pool_max_idle: NonZeroUsize,
    /// A tunnel (WebSocket to a backend) on which nothing moves for this long is closed.
    #[serde(with = "humantime_serde")]
    pub tunnel_idle_timeout: Duration,
    /// An end of a tunnel of which nothing has come for this long is sent a Ping; 0 for never …
    #[serde(with = "humantime_serde")]
    pub tunnel_ping_interval: Duration,
    /// … and when nothing comes for this long after it, it is gone.
    #[serde(with = "humantime_serde")]
    pub tunnel_pong_timeout: Duration,
    /// A tunnel this old, less up to a fifth, is asked to connect anew: closed with 1012. Not set: never.
    #[serde(with = "humantime_serde")]
    pub max_tunnel_age: Option<Duration>,
    /// Open tunnels of this process; one more is answered with 503.
    pub max_tunnels: NonZeroUsize,
    /// Where a region has several backends: one that could not be reached is passed over this long.
    #[serde(with = "humantime_serde")]
    pub fail_timeout: Duration,
    /// Seconds named by `Retry-After` when no backend of the region is available.
    pub retry_after_seconds: u32,
    /// The name of this process in `Via` (RFC 9110, 7.6.3), by which it knows a request that comes back; not set, one
    /// made up at the start. Empty: it names itself nowhere, and loops are found by the count of hops alone.
    pub via: Option<String>,
    /// A request that has passed so many gateways already is answered with 508.
    pub max_hops: u8,
    /// What becomes of `traceparent`.
    pub trace: TraceMode,
    /// Whether connections begin with who their client is, in the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
}

/// What becomes of a request's trace (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceMode {
    /// The fields pass as they are, and are not read.
    Off,
    /// A trace that comes is passed on, with this hop as the parent.
    Pass,
    /// … and where none comes, one is begun.
    Begin,
}

/// From whom a PROXY header is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// From nobody: it is no request.
    Off,
    /// From trusted proxies, and from them it must come.
    Trusted,
    /// From everybody; no other connection is served.
    Required,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 3000,
            health_path: "/health".to_owned(),
            ready_path: "/ready".to_owned(),
            ws_path: "/ws".to_owned(),
            trusted_proxies: Vec::new(),
            max_connections: NonZeroUsize::MIN.saturating_add(1_000_000 - 1),
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            body_idle_timeout: Duration::from_mins(1),
            max_body_bytes: 0,
            max_target_bytes: NonZeroUsize::MIN.saturating_add(16 * 1024 - 1),
            max_header_bytes: NonZeroUsize::MIN.saturating_add(32 * 1024 - 1),
            max_headers: NonZeroUsize::MIN.saturating_add(100 - 1),
            max_answer_headers: 100,
            max_connections_per_client: 0,
            // Slower than any link that people still wait on, and what another server has as its default, too.
            min_rate: 240,
            connect_timeout: Duration::from_secs(5),
            tls_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_mins(1),
            total_timeout: None,
            pool_idle_timeout: Duration::from_secs(4),
            pool_max_idle: NonZeroUsize::MIN.saturating_add(256 - 1),
            tunnel_idle_timeout: Duration::from_hours(1),
            tunnel_ping_interval: Duration::from_secs(30),
            tunnel_pong_timeout: Duration::from_secs(30),
            max_tunnel_age: None,
            max_tunnels: NonZeroUsize::MIN.saturating_add(1_000_000 - 1),
            fail_timeout: Duration::from_secs(10),
            retry_after_seconds: 5,
            via: None,
            max_hops: 8,
            trace: TraceMode::Pass,
            proxy_protocol: ProxyProtocol::Off,
        }
    }
}
