//! Accept loops: bind, accept, drive each connection, and end them in order.
//!
//! Each worker has its own listener on the same address (`SO_REUSEPORT`), so that accepting needs no lock and a
//! connection stays on the thread that accepted it. The first bind of an address is made without that
//! option: it fails where any other process has the port, which the option would let us share unawares.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_io::{ClientIo, ConnectionState, Phase, Sample};
use super::metrics::EdgeMetrics;
use super::slow::Place;
use super::wire::Wire;
use super::{Common, Edge, Link, proxy_protocol, secured, slow};
use crate::settings::ProxySettings;

/// Connections that may wait in the system's queue while the workers are busy.
const BACKLOG: i32 = 4_096;
/// After an accept error (out of descriptors, as a rule): trying again at once would only burn the core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// How long a kept connection is still listened to when the drain has begun, or after its last answer then: a client
/// whose request crosses the end of its connection on the way cannot know whether it was heard.
const LAST_REQUEST: Duration = Duration::from_millis(250);

/// The connections that may be open on one address at once, over all its workers.
pub type Slots = Arc<Semaphore>;

/// As many as the settings allow.
pub fn slots(max_connections: NonZeroUsize) -> Slots {
    Arc::new(Semaphore::new(max_connections.get().min(Semaphore::MAX_PERMITS)))
}

/// Binds `address` once for each of `workers`.
///
/// # Errors
/// Of the system; `AddrInUse` where the port is taken, by whomever.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    first.listen(BACKLOG)?;
    let first = StdListener::from(first);
    // With port 0 the system has chosen: the others follow it.
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&address.into())?;
        next.listen(BACKLOG)?;
        listeners.push(StdListener::from(next));
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves one listener until `stop`, then what the system had already accepted for us, and ends when every
/// connection has.
///
/// # Errors
/// Where the listener cannot be registered with the runtime.
pub async fn serve(
    listener: StdListener,
    edge: Arc<Edge>,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let _door = edge.common.doors.token();
    let connections = TaskTracker::new();
    let slots = Arc::clone(&edge.slots);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = accept(&listener, &slots) => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok(accepted) => spawn(&connections, &edge, accepted),
            Err(error) => {
                edge.common.metrics.accept_errors.inc();
                tracing::warn!(target: "Proxy", %error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
    sweep(listener.into_std()?, &slots, |accepted| spawn(&connections, &edge, accepted));
    connections.close();
    connections.wait().await;
    Ok(())
}

/// Serves a listener whose socket others have as well, until the drain begins: who comes then is theirs, or waits in the
/// socket's queue for the process that comes next. Ends when every connection has.
///
/// # Errors
/// Where the listener cannot be registered with the runtime.
pub async fn serve_shared(listener: StdListener, edge: Arc<Edge>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let _door = edge.common.doors.token();
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = edge.common.drain.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Waited for in any case: what was accepted is owed an answer. The semaphore is never closed.
                let slot = Arc::clone(&edge.slots).acquire_owned().await;
                spawn(&connections, &edge, (stream, peer, slot.map_err(io::Error::other)?));
            }
            Err(error) => {
                edge.common.metrics.accept_errors.inc();
                tracing::warn!(target: "Proxy", %error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

/// Takes what the system has accepted for us, which closing the listener would reset. It is asked itself, for the
/// runtime knows only of those that it was told of when it last slept.
fn sweep(listener: StdListener, slots: &Slots, mut take: impl FnMut(Accepted)) {
    while let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        let Ok((stream, peer)) = listener.accept() else { break };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take((stream, peer, slot));
        }
    }
    drop(listener);
}

fn spawn(connections: &TaskTracker, edge: &Arc<Edge>, accepted: Accepted) {
    if edge.awaits_header(accepted.1) {
        connections.spawn(announced(connections.clone(), Arc::clone(edge), accepted));
    } else {
        begin(connections, edge, accepted);
    }
}

/// Waits for the word on who the client of a connection is, and begins it as his.
async fn announced(connections: TaskTracker, edge: Arc<Edge>, (stream, peer, slot): Accepted) {
    let limit = edge.common.policy.load().settings.header_timeout;
    let source = tokio::select! {
        source = proxy_protocol::receive(&stream, limit) => source,
        () = edge.common.drain.cutting() => return,
    };
    match source {
        Ok(source) => begin(&connections, &edge, (stream, source.unwrap_or(peer), slot)),
        Err(why) => {
            edge.common.metrics.unannounced.inc();
            tracing::debug!(target: "Proxy", %peer, "a connection is not served: {why}");
        }
    }
}

fn begin(connections: &TaskTracker, edge: &Arc<Edge>, (stream, peer, slot): Accepted) {
    // A plain answer to one too many would be no answer where TLS is spoken.
    let Some(place) = edge.place(&stream, peer, edge.tls.is_none()) else { return };
    // Small answers must not wait for the client's acknowledgement; an error means it has already left.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // Two kinds of task, so that a plain connection's is not as large as one with a handshake.
    if let Some(tls) = &edge.tls {
        let driven = secured::drive(Arc::clone(edge), Arc::clone(tls), stream, peer, place);
        connections.spawn(async move {
            driven.await;
            drop(slot);
        });
    } else {
        let open = OpenConnection::new(&edge.common);
        let driven = drive_http1(Arc::clone(edge), stream, Link { peer, shown: None }, place);
        connections.spawn(async move {
            driven.await;
            drop((open, slot));
        });
    }
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, slots: &Slots) -> io::Result<Accepted> {
    let (stream, peer) = listener.accept().await?;
    // Only now: a worker that nobody comes to must not keep a slot from the others. So, over the bound, each
    // worker has one in hand. The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    Ok((stream, peer, slot))
}

/// One connection of HTTP/1.1 from its first byte to its last, or to its upgrade, which takes its place along.
pub(super) async fn drive_http1<S>(edge: Arc<Edge>, stream: S, link: Link, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = Arc::new(ConnectionState::default());
    let record = (Arc::clone(&edge.access), link.peer.ip());
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&state), record, place));
    let service = {
        let (edge, state) = (Arc::clone(&edge), Arc::clone(&state));
        service_fn(move |request| {
            let wire = Wire::Http1(Arc::clone(&state));
            Arc::clone(&edge).answer(link.clone(), wire, request)
        })
    };
    let mut http = http1::Builder::new();
    http
        // The watchdog below bounds it, without a timer a request.
        .header_read_timeout(None);
    slow::bound_headers(&mut http, &edge.common.policy.load().settings);
    let connection = http.serve_connection(io, service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let drain = &edge.common.drain;
    let watched = watch(&edge, &state);
    let mut watched = std::pin::pin!(watched);
    let silent = silent(&state);
    let mut silent = std::pin::pin!(silent);
    // It is asked at each turn of the connection, and has something to say once in its life.
    let begins = once_due(drain.draining(), || drain.is_draining());
    let mut begins = std::pin::pin!(begins);
    let mut draining = drain.is_draining();
    // One that comes during the drain is owed an answer, however late it asks.
    let mut asked_to_end = draining;
    loop {
        tokio::select! {
            biased;
            // An error is the client's: it broke the protocol or left. The access record has said so.
            _ = connection.as_mut() => return,
            () = &mut watched => return,
            // Not closed at once: the next request may be on its way already. Each answer from now on says
            // `Connection: close`, and the connection ends with it.
            () = &mut begins, if !draining => draining = true,
            () = &mut silent, if draining && !asked_to_end => {
                asked_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
            () = drain.cutting(), if draining => return,
        }
    }
}

/// Asks `rare` at first, so that it wakes whoever asks, and not again before it is `due`.
async fn once_due<F: Future>(rare: F, due: impl Fn() -> bool) -> F::Output {
    let mut rare = std::pin::pin!(rare);
    let mut asker: Option<Waker> = None;
    poll_fn(|context| {
        if asker.as_ref().is_some_and(|asker| asker.will_wake(context.waker())) && !due() {
            return Poll::Pending;
        }
        asker = Some(context.waker().clone());
        rare.as_mut().poll(context)
    })
    .await
}

/// Counts an open connection.
pub(super) struct OpenConnection(Arc<EdgeMetrics>);

impl OpenConnection {
    pub(super) fn new(common: &Common) -> Self {
        common.metrics.connections.inc();
        Self(Arc::clone(&common.metrics))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Ends when nobody has asked for anything on a connection for one to two times [`LAST_REQUEST`].
async fn silent(state: &ConnectionState) {
    let mut seen = state.sample();
    loop {
        tokio::time::sleep(LAST_REQUEST).await;
        let sample = state.sample();
        if sample.phase == Phase::Idle && sample == seen {
            return;
        }
        seen = sample;
    }
}

/// Ends when the client is too slow: with a request head, with the next request, or with reading an answer.
///
/// It samples instead of arming a timer a request, so a limit is kept to within a quarter of itself.
async fn watch(edge: &Edge, state: &ConnectionState) {
    let tick = {
        let settings = &edge.common.policy.load().settings;
        (settings.header_timeout.min(settings.body_idle_timeout) / 4).min(slow::LOOK)
    };
    let mut seen = state.sample();
    let mut since = Instant::now();
    let mut pace = slow::Pace::of_connection();
    loop {
        tokio::time::sleep(tick).await;
        let sample = state.sample();
        if pace.is_too_slow(&sample, edge.common.policy.load().settings.min_rate) {
            state.give_up();
            return;
        }
        if sample != seen {
            (seen, since) = (sample, Instant::now());
            continue;
        }
        if limit(&edge.common.policy.load().settings, seen)
            .is_some_and(|limit| since.elapsed() >= limit)
        {
            match seen.phase {
                Phase::Head => slow::tell_of_late_head(state).await,
                Phase::Active => state.give_up(),
                Phase::Idle | Phase::Upgraded => {}
            }
            return;
        }
    }
}

fn limit(settings: &ProxySettings, sample: Sample) -> Option<Duration> {
    match sample.phase {
        Phase::Head => Some(settings.header_timeout),
        Phase::Idle if sample.never_active() => Some(settings.header_timeout),
        Phase::Idle => Some(settings.keep_alive_timeout),
        Phase::Active if sample.write_blocked => Some(settings.body_idle_timeout),
        Phase::Active | Phase::Upgraded => None,
    }
}
