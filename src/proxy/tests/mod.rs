//! The proxy between a raw client and raw backends, each scripted byte by byte in the test itself.
//!
//! Only the gateway runs in tasks: a test writes what the client sends, accepts as the backend, reads,
//! answers, and reads as the client, in one line of thought. Every wait has a deadline.

mod blame;
mod bodies;
mod clinic;
mod course;
mod early_close;
mod editions;
mod exchanges;
mod failures;
mod health;
mod homing;
mod http2;
mod http2_clients;
mod probes;
mod secure;
mod tunnels;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::observability::{Registry, encode};
use crate::settings::{BackendSettings, HubPlace, ProxySettings, RegionSettings};
use crate::shutdown::Drain;

/// Nothing that a loaded machine does takes longer.
const DEADLINE: Duration = Duration::from_mins(1);

/// Waits, but not for ever.
async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// One end of a raw connection.
struct Peer<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    async fn say(&mut self, text: impl AsRef<[u8]>) {
        within("a write", self.stream.write_all(text.as_ref())).await.unwrap();
    }

    /// Reads up to and with `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.read.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            let count = within(end, self.stream.read_buf(&mut self.read)).await.unwrap();
            assert_ne!(count, 0, "closed before {end:?}, after {so_far:?}");
        }
    }

    /// A message's head, in lower case.
    async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_ascii_lowercase()
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            let more = within("more bytes", self.stream.read_buf(&mut self.read)).await.unwrap();
            assert_ne!(more, 0, "closed after {} of {count} bytes", self.read.len());
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    async fn hears(&mut self, text: &str) {
        let heard = self.exactly(text.len()).await;
        assert_eq!(String::from_utf8_lossy(&heard), text);
    }

    /// All that comes until the other side closes or resets.
    async fn rest(&mut self) -> Vec<u8> {
        while let Ok(1..) = within("the end", self.stream.read_buf(&mut self.read)).await {}
        std::mem::take(&mut self.read)
    }

    /// Reads a request's head and answers it with a short body.
    async fn answers(&mut self, body: &str) -> String {
        let head = self.head().await;
        self.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        head
    }

    /// Reads an answer that has a length.
    async fn gets(&mut self, status: u16, body: &str) -> String {
        let head = self.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        self.hears(body).await;
        head
    }
}

/// A listener that a test accepts on by hand.
struct Backend(TcpListener);

impl Backend {
    async fn start() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Of one that is asked when the others were.
    fn backup(&self) -> String {
        format!("backup:{}", self.url())
    }

    async fn accept(&self) -> Peer {
        Peer::new(within("a connection", self.0.accept()).await.unwrap().0)
    }
}

/// An address that refuses, and that nobody else is given: bound, and not listened on, to the end of the tests.
fn dead_url() -> String {
    static HELD: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    HELD.lock().unwrap().push(socket);
    url
}

/// A proxy behind the smallest server that edge could be.
struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    proxy: Arc<Proxy>,
    registry: Registry,
    drain: Drain,
    _tasks: JoinSet<()>,
}

/// A region with these backends, as [`Gateway::start`] has them.
fn region(backends: &[&str], failover: &str) -> RegionSettings {
    let backends = backends.iter().map(|url| match url.strip_prefix("backup:") {
        Some(url) => BackendSettings::backup(url),
        None => BackendSettings::primary(*url),
    });
    RegionSettings {
        backends: backends.collect(),
        failover: failover.parse().unwrap(),
        ..RegionSettings::default()
    }
}

impl Gateway {
    /// With region `1` and these backends; a URL that begins with `backup:` is a backup.
    async fn start(backends: &[&str], change: impl FnOnce(&mut ProxySettings)) -> Self {
        Self::with(region(backends, "strict"), change).await
    }

    async fn with(region: RegionSettings, change: impl FnOnce(&mut ProxySettings)) -> Self {
        Self::among(&[("1", region)], |bounds| change(&mut bounds.proxy)).await
    }

    async fn of(region: RegionSettings, settings: Bounds) -> Self {
        Self::among(&[("1", region)], |bounds| *bounds = settings).await
    }

    /// With these regions, `1` among them; named `edge` on the way.
    async fn among(
        regions: &[(&'static str, RegionSettings)],
        change: impl FnOnce(&mut Bounds),
    ) -> Self {
        let mut bounds = Bounds::default();
        change(&mut bounds);
        bounds.proxy.via = Some("edge".to_owned());
        let regions: BTreeMap<_, _> = regions
            .iter()
            .map(|(name, region)| (RegionName::literal(name), region.clone()))
            .collect();
        let (mut registry, drain) = (Registry::default(), Drain::new());
        let default = RegionName::literal("1");
        let drain_too = drain.clone();
        let shared =
            Shared::new(bounds, &regions, Some(&default), drain_too, &mut registry).unwrap();
        let proxy = Proxy::new(Arc::clone(&shared));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&proxy)));
        Self { address, shared, proxy, registry, drain, _tasks: tasks }
    }

    async fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// The value of a series of region `1`.
    fn count(&self, name: &str) -> i64 {
        let text = encode(&self.registry).unwrap();
        let line =
            text.lines().find(|line| line.starts_with(name) && line.contains("region=\"1\""));
        let line = line.unwrap_or_else(|| panic!("no series {name} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until nothing is going on.
    async fn idle(&self) {
        let idle = async {
            loop {
                let region = &self.shared.snapshot()[0];
                let busy = region.backends.iter().chain(&region.hub).any(|one| one.active != 0);
                if !busy && region.in_flight == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        within("every guard to be dropped", idle).await;
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let proxy = Arc::clone(&proxy);
        let service = service_fn(move |request| answer(Arc::clone(&proxy), peer, request));
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        connections.spawn(async { drop(connection.await) });
    }
}

type Answer = Response<Either<Body, Full<Bytes>>>;

async fn answer(
    proxy: Arc<Proxy>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let caller = Caller {
        peer: peer.ip(),
        client: peer.ip(),
        trusted: false,
        scheme: Scheme::Http,
        tls: None,
        host: HeaderValue::from_static("shop.example"),
        max_body_bytes: None,
        arrival: std::sync::Arc::default(),
        request_id: HeaderValue::from_static("r1"),
    };
    let own = |status, text: String| {
        let mut response = Response::new(Either::Right(Full::from(text)));
        *response.status_mut() = status;
        response
    };
    let region = match proxy.route(request.headers(), request.uri()) {
        Ok(region) => region,
        Err(error) => return Ok(own(StatusCode::NOT_FOUND, format!("{error:?}"))),
    };
    let mut report = Report::default();
    let forwarded = if request.uri().path() == "/hub" {
        proxy.forward_to_hub(&region, &caller, request, &mut report).await
    } else {
        proxy.forward(&region, &caller, request, &mut report).await
    };
    Ok(match forwarded {
        Ok(response) => response.map(Either::Left),
        Err(error) => {
            let status = match error.fault() {
                Fault::Client => StatusCode::BAD_REQUEST,
                Fault::Backend => StatusCode::BAD_GATEWAY,
                Fault::Gateway => StatusCode::SERVICE_UNAVAILABLE,
            };
            own(status, format!("{error:?}"))
        }
    })
}
