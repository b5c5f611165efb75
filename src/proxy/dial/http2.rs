//! The connections of HTTP/2 that one worker shares among its exchanges with one backend.
//!
//! One connection as a rule, a few where its streams are all taken. One dials at a time, and those who wait meanwhile
//! take what it has got, so that a burst does not open a connection each. A backend that has only HTTP/1.1 (it says so
//! in the TLS handshake) is remembered as such until it says otherwise.
//!
//! Invariants: a connection that was closed, or that its backend asked to leave, gets nothing new; one without streams
//! is let go after the idle time; no more than [`MAX_CONNECTIONS`] are open for new streams.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Request;
use http::uri::{Authority, Scheme};
use hyper::client::conn::http2;
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::ConnectError;
use super::sender::Sent;
use crate::proxy::upload::RequestBody;

/// Connections to one backend by one worker.
const MAX_CONNECTIONS: usize = 4;

/// Streams of one connection, where the backend allows as many.
const MAX_STREAMS: usize = 128;

/// Bytes of an answer that a backend may send ahead of a slow client …
const STREAM_WINDOW: u32 = 256 * 1024;
/// … and of all answers of a connection: so many that slow clients never stop those of others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 128;

/// Bytes of a request body that wait for a backend that reads slowly.
const SEND_BUFFER: usize = 64 * 1024;

/// Bytes of an answer's header fields.
const HEADER_LIST: u32 = 64 * 1024;

/// A backend on whose connection nothing comes for so long is asked whether it lives …
const PING_AFTER: Duration = Duration::from_secs(20);
/// … and the connection is given up when it does not say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The shared connections to one backend.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Http2 {
    open: Mutex<Vec<Arc<Connection>>>,
    /// Held by whoever dials.
    dialing: tokio::sync::Mutex<()>,
    /// Counts dials that failed, and why the last one did: those who waited for it share its fate.
    failed: Mutex<(u64, Option<ConnectError>)>,
    /// The backend has agreed to HTTP/1.1 alone.
    http1_only: AtomicBool,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    sender: http2::SendRequest<RequestBody>,
    load: Arc<Load>,
}

/// Where a connection leads.
#[derive(Debug)]
pub(in crate::proxy) struct Origin {
    pub(in crate::proxy) scheme: Scheme,
    /// The backend's own, for requests that name no host.
    pub(in crate::proxy) authority: Authority,
}

impl Origin {
    /// `label`: `host:port`.
    pub(in crate::proxy) fn new(scheme: Scheme, label: &str) -> Self {
        let authority = Authority::try_from(label);
        Self { scheme, authority: authority.unwrap_or(Authority::from_static("localhost")) }
    }
}

/// What goes on on a connection.
#[derive(Debug)]
struct Load {
    origin: Origin,
    streams: AtomicUsize,
    /// Streams that the backend allows.
    allowed: AtomicUsize,
    opened: Instant,
    /// Milliseconds after the opening when the last stream ended.
    idle_since: AtomicU64,
    /// The backend takes no new streams. hyper finds out no sooner than with the next request.
    leaving: AtomicBool,
}

impl Load {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn has_room(&self) -> bool {
        let allowed = self.allowed.load(Ordering::Relaxed).clamp(1, MAX_STREAMS);
        self.streams.load(Ordering::Relaxed) < allowed
    }

    fn is_idle(&self, limit: Duration) -> bool {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.streams.load(Ordering::Relaxed) == 0
            && self.elapsed().saturating_sub(self.idle_since.load(Ordering::Relaxed)) > limit
    }
}

/// The right to one stream of a connection, until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Multiplexed {
    connection: http2::SendRequest<RequestBody>,
    load: Arc<Load>,
}

impl Multiplexed {
    /// Sends a request on the stream. What fails by the connection's fault is the last on it.
    pub(super) fn try_send_request(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Sent> + use<> {
        let sent = self.connection.try_send_request(request);
        let load = Arc::clone(&self.load);
        async move {
            let answered = sent.await;
            if let Err(failed) = &answered
                && (failed.message().is_some() || is_of_connection(failed.error()))
            {
                load.leaving.store(true, Ordering::Relaxed);
            }
            answered
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.load.origin
    }
}

/// Whether a stream ended because its connection does, and not by a reset or for what this gateway did with it.
fn is_of_connection(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let Some(cause) = source.and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return true;
    };
    let is_users = cause.reason().is_none() && !cause.is_io();
    !cause.is_reset() && !is_users
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        self.load.idle_since.store(self.load.elapsed(), Ordering::Relaxed);
        self.load.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn stream(&self) -> Multiplexed {
        self.load.streams.fetch_add(1, Ordering::Relaxed);
        Multiplexed { connection: self.sender.clone(), load: Arc::clone(&self.load) }
    }
}

/// What one has who wants to dial.
pub(in crate::proxy) enum Turn<'a> {
    /// Somebody else has dialed meanwhile.
    Taken(Multiplexed),
    /// It is one's own turn, for as long as this is held; `None` for a backend of HTTP/1.1, where nobody waits for
    /// anybody.
    Dial(Option<tokio::sync::MutexGuard<'a, ()>>),
}

impl Http2 {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::proxy) fn is_http1_only(&self) -> bool {
        self.http1_only.load(Ordering::Relaxed)
    }

    /// A stream of the first connection that has one to spare; the first is filled first, so that the others can end.
    /// Where there are as many as there may be, of the one with the fewest.
    pub(in crate::proxy) fn take(&self, idle_timeout: Duration) -> Option<Multiplexed> {
        let mut open = self.open();
        open.retain(|one| {
            let leaves = one.sender.is_closed() || one.load.leaving.load(Ordering::Relaxed);
            !leaves && !one.load.is_idle(idle_timeout)
        });
        let free = open.iter().find(|one| one.load.has_room());
        let least = || open.iter().min_by_key(|one| one.load.streams.load(Ordering::Relaxed));
        let full = open.len() >= MAX_CONNECTIONS;
        free.or_else(|| least().filter(|_| full)).map(|one| one.stream())
    }

    /// Waits for whoever is dialing.
    ///
    /// # Errors
    /// Those of a dial that failed meanwhile.
    pub(in crate::proxy) async fn turn(
        &self,
        idle_timeout: Duration,
    ) -> Result<Turn<'_>, ConnectError> {
        if self.is_http1_only() {
            return Ok(Turn::Dial(None));
        }
        let failures = self.failed().0;
        let turn = self.dialing.lock().await;
        if let Some(stream) = self.take(idle_timeout) {
            return Ok(Turn::Taken(stream));
        }
        if self.is_http1_only() {
            return Ok(Turn::Dial(None));
        }
        match &*self.failed() {
            (count, Some(why)) if *count != failures => return Err(why.clone()),
            _ => {}
        }
        Ok(Turn::Dial(Some(turn)))
    }

    fn failed(&self) -> MutexGuard<'_, (u64, Option<ConnectError>)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A dial failed.
    pub(in crate::proxy) fn fail(&self, why: &ConnectError) {
        let mut failed = self.failed();
        *failed = (failed.0.wrapping_add(1), Some(why.clone()));
    }

    /// A dial has shown what the backend speaks.
    pub(in crate::proxy) fn learn(&self, http2: bool) {
        self.http1_only.store(!http2, Ordering::Relaxed);
    }

    /// Begins HTTP/2 on a stream, keeps the connection for others, and takes the first stream of it. `tasks` owns
    /// what moves its bytes.
    pub(in crate::proxy) async fn begin<T>(
        &self,
        io: T,
        scheme: Scheme,
        label: Arc<str>,
        tasks: &TaskTracker,
    ) -> Result<Multiplexed, ConnectError>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(Tracked(tasks.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io)
            .await?;
        let load = Arc::new(Load {
            origin: Origin::new(scheme, &label),
            streams: AtomicUsize::new(0),
            allowed: AtomicUsize::new(MAX_STREAMS),
            opened: Instant::now(),
            idle_since: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
        });
        let seen = Arc::clone(&load);
        tasks.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = std::future::poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                if polled.is_pending() {
                    // Looked at with each request that it takes.
                    seen.allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
                }
                polled
            });
            if let Err(error) = ended.await {
                // An exchange that it concerns has the error too, and tells.
                tracing::debug!(target: "Proxy", "connection to {label} ended: {error}");
            }
        });
        let connection = Connection { sender, load };
        let first = connection.stream();
        self.open().push(Arc::new(connection));
        Ok(first)
    }
}

/// Runs what hyper needs done beside a connection where the connection itself runs.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}
