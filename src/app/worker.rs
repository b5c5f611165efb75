//! One core's share of the traffic: its own runtime, listeners and backend connections.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::edge::{Edge, listen};
use crate::proxy::Proxy;

/// What a worker serves.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) doors: Vec<(TcpListener, Arc<Edge>)>,
    /// Those whose sockets another process has as well, who takes whoever comes once this one drains.
    pub(super) shared_doors: Vec<(TcpListener, Arc<Edge>)>,
    pub(super) proxy: Arc<Proxy>,
}

impl Worker {
    pub(super) fn new(proxy: Arc<Proxy>) -> Self {
        Self { doors: Vec::new(), shared_doors: Vec::new(), proxy }
    }

    /// Gives it one more door.
    pub(super) fn open(&mut self, listener: TcpListener, edge: Arc<Edge>, is_shared: bool) {
        let doors = if is_shared { &mut self.shared_doors } else { &mut self.doors };
        doors.push((listener, edge));
    }

    /// Serves until `stop`, and ends when every connection has, or when a listener fails.
    pub(super) async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let mut loops = JoinSet::new();
        for (listener, edge) in self.doors {
            loops.spawn(listen::serve(listener, edge, stop.clone()));
        }
        for (listener, edge) in self.shared_doors {
            loops.spawn(listen::serve_shared(listener, edge));
        }
        let mut first = Ok(());
        while let Some(ended) = loops.join_next().await {
            first = first.and(ended.unwrap_or_else(|error| Err(io::Error::other(error))));
            if first.is_err() && !stop.is_cancelled() {
                // Told at once: a door that nobody opens must not go unnoticed until the stop.
                return first;
            }
        }
        // One without a listener (where only other parts run here) waits all the same.
        stop.cancelled().await;
        self.proxy.close().await;
        first
    }

    /// The same on a thread of its own; the future ends with the thread.
    pub(super) fn run_on_thread(
        self,
        index: usize,
        stop: CancellationToken,
    ) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (done, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let result = runtime.block_on(self.run(stop));
            // Nobody waits for it only where the process is already being torn down.
            drop(done.send(result));
        })?;
        Ok(async move {
            ended.await.unwrap_or_else(|_| Err(io::Error::other("the worker's thread panicked")))
        })
    }
}
