//! One probe: a connection of its own to a backend, what is asked on it, and what is wrong with the answer.
//!
//! Invariants: a probe ends by its deadline, holds no more than 4 KiB of an answer, and leaves no connection behind.
//! It takes nothing from the exchanges: no connection, no count.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::proxy::backends::Upstream;
use crate::proxy::dial::{self, Offer};
use crate::settings::{HealthSettings, ProbeKind};

/// Of an answer's body, what is looked through.
const LOOKED_THROUGH: usize = 4 * 1024;

const AGENT: HeaderValue = HeaderValue::from_static("meridian-health");

/// What a connection of a probe is.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection as its backend speaks it.
struct Line {
    io: Box<dyn Io>,
    http2: bool,
}

/// Probes a backend once; `Err` says what was wrong.
pub(super) async fn probe(upstream: &Upstream, settings: &HealthSettings) -> Result<(), String> {
    let probed = timeout(settings.timeout, async {
        let line = connect(upstream, settings).await?;
        match settings.active {
            ProbeKind::Off | ProbeKind::Tcp => Ok(()),
            ProbeKind::Http => ask(line, upstream, settings).await,
            ProbeKind::Ws => shake_hands(line.io, upstream, settings).await,
        }
    });
    probed.await.unwrap_or_else(|_| Err(format!("no answer within {:?}", settings.timeout)))
}

/// Connects as the exchanges do, with TLS where the URL says so, and offers what they offer.
async fn connect(upstream: &Upstream, settings: &HealthSettings) -> Result<Line, String> {
    let http2 = upstream.identity.http2 && settings.active != ProbeKind::Ws;
    let why = |error| format!("no connection: {error}");
    let stream = dial::tcp(&upstream.address, settings.timeout).await.map_err(why)?;
    let Some(tls) = &upstream.tls else { return Ok(Line { io: Box::new(stream), http2 }) };
    let offer = if http2 { Offer::Http2 } else { Offer::Http1 };
    let (stream, http2) = tls.handshake(stream, offer, settings.timeout).await.map_err(why)?;
    Ok(Line { io: Box::new(stream), http2 })
}

/// Whom a probe asks for.
fn host<'a>(upstream: &'a Upstream, settings: &'a HealthSettings) -> &'a str {
    settings.host.as_deref().unwrap_or(&upstream.label)
}

/// A GET, and whether its answer is the one that is expected.
async fn ask(line: Line, upstream: &Upstream, settings: &HealthSettings) -> Result<(), String> {
    let broken = |error: hyper::Error| format!("no answer: {error}");
    let (io, host) = (TokioIo::new(line.io), host(upstream, settings));
    let request = Request::get(settings.path.as_str()).header(USER_AGENT, AGENT);
    if !line.http2 {
        let request = request.header(HOST, host).header(CONNECTION, "close").body(Nothing);
        let request = request.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
        let exchange =
            async { judge(sender.send_request(request).await.map_err(broken)?, settings).await };
        return driven(exchange, connection).await;
    }
    let scheme = if upstream.tls.is_some() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(settings.path.as_str());
    let uri = uri.build().map_err(|error| error.to_string())?;
    let request = request.uri(uri).version(Version::HTTP_2).body(Nothing);
    let request = request.map_err(|error| error.to_string())?;
    let tasks = Tasks::default();
    let (mut sender, connection) = http2::handshake(tasks.executor(), io).await.map_err(broken)?;
    let exchange =
        async { judge(sender.send_request(request).await.map_err(broken)?, settings).await };
    driven(exchange, connection).await
}

/// Awaits an exchange while its connection is kept going.
async fn driven(
    exchange: impl Future<Output = Result<(), String>>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> Result<(), String> {
    let driven = async {
        // How it ends, the exchange is told.
        connection.await.ok();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        verdict = exchange => verdict,
        () = driven => Err("no answer".to_owned()),
    }
}

/// The tasks that a connection of HTTP/2 begins; they end with the probe.
#[derive(Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Begins tasks for their owner.
#[derive(Clone, Debug)]
struct Beginner(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn executor(&self) -> Beginner {
        Beginner(Arc::clone(&self.0))
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl<F> Executor<F> for Beginner
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let task = async move { drop(future.await) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }
}

async fn judge(response: Response<Incoming>, settings: &HealthSettings) -> Result<(), String> {
    let status = response.status().as_u16();
    if !settings.expect.contains(status) {
        return Err(format!("status {status}, which is not {}", settings.expect));
    }
    let Some(text) = &settings.expect_body else { return Ok(()) };
    let begin = begin_of(response.into_body()).await?;
    if memchr::memmem::find(&begin, text.as_bytes()).is_some() {
        Ok(())
    } else {
        Err(format!("{text:?} is not in the first {} bytes of the answer", begin.len()))
    }
}

/// The first bytes of a body.
async fn begin_of(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut begin = Vec::new();
    loop {
        let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = next else { return Ok(begin) };
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        let Ok(data) = frame.into_data() else { continue };
        begin.extend(data.iter().take(LOOKED_THROUGH - begin.len()));
        if begin.len() == LOOKED_THROUGH {
            return Ok(begin);
        }
    }
}

/// A WebSocket handshake, and a close that says goodbye.
async fn shake_hands(
    io: impl Io,
    upstream: &Upstream,
    settings: &HealthSettings,
) -> Result<(), String> {
    let uri = Uri::builder()
        .scheme("ws")
        .authority(host(upstream, settings))
        .path_and_query(settings.path.as_str())
        .build()
        .map_err(|error| error.to_string())?;
    let request = tungstenite::ClientRequestBuilder::new(uri)
        .with_header(USER_AGENT.as_str(), "meridian-health");
    match tokio_tungstenite::client_async(request, io).await {
        Ok((mut socket, _)) => {
            // It has shown that it is well; whether it hears the goodbye is its affair.
            let close = futures_util::SinkExt::send(&mut socket, Message::Close(None));
            timeout(Duration::from_secs(1), close).await.ok();
            Ok(())
        }
        Err(tungstenite::Error::Http(response)) => {
            Err(format!("status {}, which is not 101", response.status().as_u16()))
        }
        Err(error) => Err(format!("no handshake: {error}")),
    }
}

/// The body of a probe's request.
#[derive(Debug)]
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}
