//! One worker's connections to the backends: idle ones last in, first out, and new ones.
//!
//! A connection is a pair: the sender, which is here or with an exchange, and a task that moves the
//! bytes, which the tracker owns. Dropping the sender ends the task when it has nothing left to do.
//!
//! Invariants: a list is bounded; only a connection that hyper calls ready is handed out, and none
//! that has idled longer than the backend is trusted to wait.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::backends::{Address, Upstream};
use super::upload::RequestBody;
use crate::settings::ProxySettings;

/// The half of a connection that takes requests.
pub(super) type Sender = http1::SendRequest<RequestBody>;

/// Why there is no new connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("not accepted within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] hyper::Error),
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// The idle connections to one backend.
#[derive(Debug)]
struct List {
    /// Gone when no table and no exchange names it any more; then the list goes, too.
    upstream: Weak<Upstream>,
    idle: VecDeque<Idle>,
}

impl List {
    fn of(upstream: &Arc<Upstream>) -> Self {
        Self { upstream: Arc::downgrade(upstream), idle: VecDeque::new() }
    }
}

/// After so many connections were put back, those to backends that are gone are let go.
const SWEEP_EVERY: usize = 256;

/// One worker's connections.
#[derive(Debug, Default)]
pub(super) struct Conns {
    /// By the backend's id. The lock is for `Sync` alone: one thread uses a worker's pool.
    lists: Mutex<FxHashMap<u64, List>>,
    /// Counts what was put here since the last sweep.
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

    /// The idle connection that was used last, if any can be used.
    pub(super) fn take(&self, id: u64, bounds: &ProxySettings) -> Option<Sender> {
        let mut lists = self.lists();
        let list = &mut lists.get_mut(&id)?.idle;
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
                return list.remove(index).map(|idle| idle.sender);
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
        if sender.is_closed() || self.tasks.is_closed() {
            return;
        }
        let mut lists = self.lists();
        let list = match lists.entry(upstream.id) {
            Entry::Occupied(list) => list.into_mut(),
            Entry::Vacant(place) => place.insert(List::of(upstream)),
        };
        let (list, max_idle) = (&mut list.idle, bounds.pool_max_idle.get());
        let now = Instant::now();
        while list.front().is_some_and(|oldest| now - oldest.since > bounds.pool_idle_timeout) {
            list.pop_front();
        }
        if list.len() >= max_idle {
            list.pop_front();
        }
        list.push_back(Idle { sender, since: now });
        if self.puts.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            // What leads to backends that are not there any more.
            lists.retain(|_, list| list.upstream.strong_count() > 0);
        }
    }

    /// Opens a connection.
    pub(super) async fn connect(
        &self,
        upstream: &Upstream,
        bounds: &ProxySettings,
    ) -> Result<Sender, ConnectError> {
        let limit = bounds.connect_timeout;
        let stream = timeout(limit, dial(&upstream.address))
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout(limit)))?;
        // A request is nearly always one small head, which a plain write sends for less than a list of one.
        let (sender, connection) =
            http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await?;
        upstream.series.connects.inc();
        let label = upstream.label.clone();
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                // An exchange that it concerns has the error too, and tells.
                tracing::debug!(target: "Proxy", "connection to {label} ended: {error}");
            }
        });
        Ok(sender)
    }

    /// Closes what is idle and waits for what is not.
    pub(super) async fn close(&self) {
        self.tasks.close();
        self.lists().clear();
        self.tasks.wait().await;
    }
}

async fn dial(address: &Address) -> Result<TcpStream, ConnectError> {
    let stream = match address {
        Address::Ip(address) => TcpStream::connect(address).await?,
        Address::Name(host, port) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let mut connected = None;
            for address in lookup_host((&**host, *port)).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        connected = Some(stream);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            connected.ok_or(last)?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
