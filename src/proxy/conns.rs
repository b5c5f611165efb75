//! One worker's connections to the backends: idle ones last in, first out, shared ones of HTTP/2, and new ones.
//!
//! A connection is a pair: the sender, which is here or with an exchange, and a task that moves the
//! bytes, which the tracker owns. Dropping the sender ends the task when it has nothing left to do.
//!
//! Invariants: a list is bounded; only a connection that hyper calls ready is handed out, and none
//! that has idled longer than the backend is trusted to wait.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::uri::Scheme;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::backends::Upstream;
use super::dial::{self, ConnectError, Http2, Offer, Sender, Turn};
use super::hush::{Hush, Hushed};
use super::upload::RequestBody;
use crate::settings::ProxySettings;

/// Header fields that hyper's parser has room for on its stack; told of a number, it takes memory for each answer.
const PARSED: usize = 100;

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    hush: Arc<Hush>,
    since: Instant,
}

/// The idle connections to one backend.
#[derive(Debug)]
struct List {
    /// Gone when no table and no exchange names it any more; then the list goes, too.
    upstream: Weak<Upstream>,
    idle: VecDeque<Idle>,
    /// Those that are shared, where the backend is one of HTTP/2.
    http2: Option<Arc<Http2>>,
}

impl List {
    fn of(upstream: &Arc<Upstream>) -> Self {
        let http2 = upstream.identity.http2.then(Arc::default);
        Self { upstream: Arc::downgrade(upstream), idle: VecDeque::new(), http2 }
    }
}

/// After so many exchanges were over, connections to backends that are gone are let go.
const SWEEP_EVERY: usize = 256;

/// One worker's connections.
#[derive(Debug, Default)]
pub(super) struct Conns {
    /// By the backend's id. The lock is for `Sync` alone: one thread uses a worker's pool.
    lists: Mutex<FxHashMap<u64, List>>,
    /// Counts what was given back.
    puts: AtomicUsize,
    /// Owns the tasks of connections and tunnels.
    pub(super) tasks: TaskTracker,
}

impl Conns {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn lists(&self) -> MutexGuard<'_, FxHashMap<u64, List>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The idle connection that was used last, or a stream of one that is shared, if any can be used.
    pub(super) fn take(&self, upstream: &Upstream, bounds: &ProxySettings) -> Option<Sender> {
        let mut lists = self.lists();
        let list = lists.get_mut(&upstream.id)?;
        if let Some(stream) = list.http2.as_ref().and_then(|one| one.take(bounds.pool_idle_timeout))
        {
            return Some(Sender::Http2(stream));
        }
        let list = &mut list.idle;
        let now = Instant::now();
        let mut index = list.len();
        while index > 0 {
            index -= 1;
            let idle = list.get(index)?;
            if now - idle.since > bounds.pool_idle_timeout {
                // What lies below has idled even longer.
                list.drain(..=index);
                return None;
            }
            if idle.sender.is_ready() {
                return list.remove(index).map(|idle| Sender::Http1(idle.sender, idle.hush));
            }
            if idle.sender.is_closed() {
                list.remove(index);
            }
            // Neither: its task has not run since the last answer. It is left for the next request,
            // for waiting here might never end.
        }
        None
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn put(&self, upstream: &Arc<Upstream>, sender: Sender, bounds: &ProxySettings) {
        if self.puts.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            sweep(&mut self.lists());
        }
        // A stream is given back by being dropped.
        let Sender::Http1(sender, hush) = sender else { return };
        if sender.is_closed() || self.tasks.is_closed() {
            return;
        }
        let mut lists = self.lists();
        let list = list_of(&mut lists, upstream);
        let (list, max_idle) = (&mut list.idle, bounds.pool_max_idle.get());
        let now = Instant::now();
        while list.front().is_some_and(|oldest| now - oldest.since > bounds.pool_idle_timeout) {
            list.pop_front();
        }
        if list.len() >= max_idle {
            list.pop_front();
        }
        list.push_back(Idle { sender, hush, since: now });
    }

    /// Opens a connection. A handshake's (`upgrade`) is of HTTP/1.1 and nobody else's.
    pub(super) async fn connect(
        &self,
        upstream: &Arc<Upstream>,
        bounds: &ProxySettings,
        upgrade: bool,
    ) -> Result<Sender, ConnectError> {
        if upstream.identity.http2 && !upgrade {
            // Boxed, as TLS is: the future of an exchange should be no larger for what it seldom does.
            return Box::pin(self.connect_http2(upstream, bounds)).await;
        }
        let stream = dial::tcp(&upstream.address, bounds.connect_timeout).await?;
        match &upstream.tls {
            None => self.http1(upstream, stream, bounds).await,
            Some(tls) => {
                Box::pin(async {
                    let secured = tls.handshake(stream, Offer::Http1, bounds.tls_timeout).await?;
                    self.http1(upstream, secured.0, bounds).await
                })
                .await
            }
        }
    }

    /// A connection to a backend of HTTP/2, or a stream of one that somebody else has opened meanwhile.
    async fn connect_http2(
        &self,
        upstream: &Arc<Upstream>,
        bounds: &ProxySettings,
    ) -> Result<Sender, ConnectError> {
        let shared = list_of(&mut self.lists(), upstream).http2.clone().unwrap_or_default();
        let turn = match shared.turn(bounds.pool_idle_timeout).await? {
            Turn::Taken(stream) => return Ok(Sender::Http2(stream)),
            Turn::Dial(turn) => turn,
        };
        let dialed = self.dial_http2(&shared, upstream, bounds).await;
        match &dialed {
            Ok(sender) => shared.learn(matches!(sender, Sender::Http2(_))),
            Err(error) => shared.fail(error),
        }
        drop(turn);
        dialed
    }

    async fn dial_http2(
        &self,
        shared: &Http2,
        upstream: &Arc<Upstream>,
        bounds: &ProxySettings,
    ) -> Result<Sender, ConnectError> {
        let stream = dial::tcp(&upstream.address, bounds.connect_timeout).await?;
        let label = Arc::clone(&upstream.label);
        let stream = match &upstream.tls {
            None => shared.begin(TokioIo::new(stream), Scheme::HTTP, label, &self.tasks).await?,
            Some(tls) => {
                let secured = tls.handshake(stream, Offer::Http2, bounds.tls_timeout).await?;
                let (stream, http2) = secured;
                if !http2 {
                    return self.http1(upstream, stream, bounds).await;
                }
                shared.begin(TokioIo::new(stream), Scheme::HTTPS, label, &self.tasks).await?
            }
        };
        upstream.series.connects.inc();
        Ok(Sender::Http2(stream))
    }

    /// Begins HTTP/1.1 on a stream.
    async fn http1<T>(
        &self,
        upstream: &Upstream,
        stream: T,
        bounds: &ProxySettings,
    ) -> Result<Sender, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A request is nearly always one small head, which a plain write sends for less than a list of one.
        let mut http = http1::Builder::new();
        http.writev(false);
        if bounds.max_answer_headers > PARSED {
            http.max_headers(bounds.max_answer_headers);
        }
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        upstream.series.connects.inc();
        let label = upstream.label.clone();
        let hush = Arc::default();
        let driven = Hushed::new(connection.with_upgrades(), &hush);
        self.tasks.spawn(async move {
            if let Err(error) = driven.await {
                // An exchange that it concerns has the error too, and tells.
                tracing::debug!(target: "Proxy", "connection to {label} ended: {error}");
            }
        });
        Ok(Sender::Http1(sender, hush))
    }

    /// Closes what is idle and waits for what is not.
    pub(super) async fn close(&self) {
        self.tasks.close();
        self.lists().clear();
        self.tasks.wait().await;
    }
}

/// Closes what leads to backends that are not there any more.
fn sweep(lists: &mut FxHashMap<u64, List>) {
    lists.retain(|_, list| list.upstream.strong_count() > 0);
}

/// The list of a backend. For a new one room is made first, so that reload after reload leaves nothing behind.
fn list_of<'a>(lists: &'a mut FxHashMap<u64, List>, upstream: &Arc<Upstream>) -> &'a mut List {
    if !lists.contains_key(&upstream.id) {
        sweep(lists);
    }
    match lists.entry(upstream.id) {
        Entry::Occupied(list) => list.into_mut(),
        Entry::Vacant(place) => place.insert(List::of(upstream)),
    }
}
