//! The life of the process: everything is started, serves until it is to stop, drains, and ends.
//!
//! Invariants: the first request to stop drains, the second cuts; the bus goes last, because the queues of sockets are flushed
//! through it; a part that ends by itself ends the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::error::AppError;
use super::signals::StopRequests;
use super::tasks::Tasks;
use crate::admin;
use crate::bus::{Bus, BusState};
use crate::demo;
use crate::observability::Readiness;

/// Of the grace, what the paced close of sockets may take; the rest is for the last close handshakes.
const CLOSING_SHARE: f64 = 0.8;
/// For connections that come in the moment in which nothing is open: to be accepted, and to say what they want.
const AFTER_IDLE: Duration = Duration::from_millis(500);
/// For supervised processes to end, where the grace is over.
const FOR_PROCESSES: Duration = Duration::from_secs(1);
/// After the cut, for tasks to notice it.
const AFTER_CUT: Duration = Duration::from_secs(2);

impl App {
    /// Serves until the first request to stop, drains, and ends; a second request cuts.
    ///
    /// # Errors
    /// Where a part failed.
    pub async fn run(mut self, mut stops: StopRequests) -> Result<(), AppError> {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let bus_stop = CancellationToken::new();
        let (drain, readiness, common) =
            (self.drain.clone(), self.readiness.clone(), Arc::clone(&self.common));
        let (grace, notifier) = (self.grace.subscribe(), self.notifier.clone());
        let supervisor = self.reloading.supervisor.clone();
        let access = self.access.take();
        self.start(&mut tasks, &stop, &bus_stop)?;
        notifier.ready();
        let failed = tokio::select! {
            () = stops.next() => None,
            error = tasks.first_end() => Some(error),
        };
        notifier.stopping();
        let grace = *grace.borrow();
        readiness.report("draining", Err("the process is stopping".to_owned()));
        let began = Instant::now();
        drain.begin(grace.mul_f64(CLOSING_SHARE));
        tracing::info!(target: "App", in_flight = drain.flights(), grace = ?grace, "draining");
        let emptied = async {
            drain.idle().await;
            stop.cancel();
            // A request that came in this very moment gets its answer, too.
            drop(tokio::time::timeout(AFTER_IDLE, common.doors_closed()).await);
            drain.idle().await;
        };
        let cut = tokio::select! {
            () = emptied => None,
            () = stops.next() => Some("a second signal"),
            () = tokio::time::sleep(grace) => Some("shutdown.grace is over"),
        };
        if let Some(why) = cut {
            let open = drain.flights();
            tracing::warn!(target: "App", open, "{why}: cutting what is open");
        }
        stop.cancel();
        drain.cut();
        let closed = tokio::time::timeout(AFTER_CUT, common.sockets_closed()).await;
        // Nobody asks the processes for anything any more; where the grace was used up, they are given the least.
        let left =
            if cut.is_none() { grace.saturating_sub(began.elapsed()) } else { Duration::ZERO };
        supervisor.stop(left.max(FOR_PROCESSES)).await;
        // The bus goes last: the queues of the sockets were flushed through it.
        bus_stop.cancel();
        let finished = tasks.finish(AFTER_CUT).await;
        // With the last exchange its line.
        drop(access);
        tracing::info!(target: "App", clean = cut.is_none() && closed.is_ok() && finished.is_ok(), "stopped");
        failed.map_or(finished, Err)
    }

    fn start(
        self,
        tasks: &mut Tasks,
        stop: &CancellationToken,
        bus_stop: &CancellationToken,
    ) -> Result<(), AppError> {
        tasks.run("the readiness of the bus", tell_of_bus(&self.bus, self.readiness, stop.clone()));
        let (bus, stopped) = (self.bus, bus_stop.clone());
        tasks.run("the bus", async move { Box::pin(bus.run(stopped)).await });
        let (hub, stopped) = (Arc::clone(&self.hub), bus_stop.clone());
        tasks.run("the hub", async move { hub.run(stopped).await });
        tasks.run("the supervisor", self.supervision.run());
        if let Some(shared) = self.watched {
            let stopped = stop.clone();
            tasks.run("the health of backends", async move { shared.watch_health(stopped).await });
        }
        self.reloading.start(tasks, stop, (&self.common, self.grace, &self.notifier))?;
        tasks.run("the watchdog", self.notifier.keep_alive(stop.clone()));
        if let Some(tls) = self.tls {
            tasks.run("the certificates", tls.watch(stop.clone()));
        }
        tasks.spawn("the admin listener", admin::serve(self.admin.0, self.admin.1, stop.clone()));
        for (sample, region, listener) in self.demos {
            let served = demo::serve(listener, sample, region.to_string(), stop.clone());
            tasks.spawn(sample.service(), served);
        }
        for (index, worker) in self.workers.into_iter().enumerate() {
            let name = format!("worker {index}");
            if index == 0 {
                tasks.spawn(name, worker.run(stop.clone()));
            } else {
                let ended = worker.run_on_thread(index, stop.clone()).map_err(AppError::Runtime)?;
                tasks.spawn(name, ended);
            }
        }
        Ok(())
    }
}

/// Readiness follows the bus, until `stop`.
fn tell_of_bus(
    bus: &Bus,
    readiness: Readiness,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let mut state = bus.state();
    async move {
        loop {
            let word = match &*state.borrow_and_update() {
                BusState::Up => Ok(()),
                BusState::Down(why) => Err(why.to_string()),
            };
            readiness.report("bus", word);
            tokio::select! {
                changed = state.changed() => if changed.is_err() { stop.cancelled().await },
                () = stop.cancelled() => return,
            }
        }
    }
}
