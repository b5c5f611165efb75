//! One worker's connections to the backends: idle ones last in, first out, and new ones.
//!
//! A connection is a pair: the sender, which is here or with an exchange, and a task that moves the
//! bytes, which the tracker owns. Dropping the sender ends the task when it has nothing left to do.
//!
//! Invariants: a list is bounded; only a connection that hyper calls ready is handed out, and none
//! that has idled longer than the backend is trusted to wait.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::pool::{Address, Upstream};
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

/// One worker's connections.
#[derive(Debug)]
pub(super) struct Conns {
    /// By the backend's slot. The locks are for `Sync` alone: one thread uses a worker's pool.
    idle: Box<[Mutex<VecDeque<Idle>>]>,
    max_idle: usize,
    idle_timeout: Duration,
    connect_timeout: Duration,
    /// Owns the tasks of connections and tunnels.
    pub(super) tasks: TaskTracker,
}

impl Conns {
    pub(super) fn new(slots: usize, settings: &ProxySettings) -> Self {
        Self {
            idle: (0..slots).map(|_| Mutex::default()).collect(),
            max_idle: settings.pool_max_idle.get(),
            idle_timeout: settings.pool_idle_timeout,
            connect_timeout: settings.connect_timeout,
            tasks: TaskTracker::new(),
        }
    }

    fn list(&self, slot: usize) -> Option<MutexGuard<'_, VecDeque<Idle>>> {
        self.idle.get(slot).map(|list| list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The idle connection that was used last, if any can be used.
    pub(super) fn take(&self, slot: usize) -> Option<Sender> {
        let mut list = self.list(slot)?;
        let now = Instant::now();
        let mut index = list.len();
        while index > 0 {
            index -= 1;
            let idle = list.get(index)?;
            if now - idle.since > self.idle_timeout {
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
    pub(super) fn put(&self, slot: usize, sender: Sender) {
        if sender.is_closed() || self.tasks.is_closed() {
            return;
        }
        let Some(mut list) = self.list(slot) else { return };
        let now = Instant::now();
        while list.front().is_some_and(|oldest| now - oldest.since > self.idle_timeout) {
            list.pop_front();
        }
        if list.len() >= self.max_idle {
            list.pop_front();
        }
        list.push_back(Idle { sender, since: now });
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, upstream: &Upstream) -> Result<Sender, ConnectError> {
        let stream = timeout(self.connect_timeout, dial(&upstream.address))
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout(self.connect_timeout)))?;
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
        for slot in 0..self.idle.len() {
            if let Some(mut list) = self.list(slot) {
                list.clear();
            }
        }
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
