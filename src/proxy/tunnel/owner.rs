//! A tunnel from the promise of it to its end: what it holds, and when its turn to leave comes.
//!
//! Invariants: it ends under a deadline in every phase; what it holds is given back when its task ends, however it
//! ends; it leaves one line. It holds the backend and the region's series, but never the table they stand in, so that
//! a reload does not keep old tables alive.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Clock, EndedBy, Liveness, Probation, Record, Tally, run};
use crate::proxy::backends::{Active, Stray, Upstream};
use crate::proxy::metrics::RegionSeries;
use crate::shutdown::{Drain, Socket};

/// From the 101 until both connections are free of HTTP; a client that leaves in between must not
/// keep the backend's connection.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// By how much of its greatest age a tunnel may leave earlier, so that those that came together do not go together.
const AGE_JITTER: f64 = 0.2;

/// The tunnels of the process.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tunnels {
    open: AtomicUsize,
}

/// Counts a tunnel, of the process and of its region, until it is dropped.
pub(in crate::proxy) struct Count {
    tunnels: Arc<Tunnels>,
    series: Arc<RegionSeries>,
}

impl Count {
    /// A place among at most `limit`.
    pub(in crate::proxy) fn take(
        tunnels: &Arc<Tunnels>,
        limit: usize,
        series: &Arc<RegionSeries>,
    ) -> Option<Self> {
        let free = |open| (open < limit).then_some(open + 1);
        tunnels.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        series.tunnels.inc();
        Some(Self { tunnels: Arc::clone(tunnels), series: Arc::clone(series) })
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.tunnels.open.fetch_sub(1, Ordering::Relaxed);
        self.series.tunnels.dec();
    }
}

/// A tunnel that a client was promised.
pub(in crate::proxy) struct Tunnel {
    pub(in crate::proxy) client: OnUpgrade,
    pub(in crate::proxy) backend: OnUpgrade,
    pub(in crate::proxy) record: Record,
    pub(in crate::proxy) idle_timeout: Duration,
    /// How its ends are asked whether they are there, if they are.
    pub(in crate::proxy) liveness: Option<Liveness>,
    /// From the choice of the backend until the 101, and how long the tunnel must last for it to count as an answer;
    /// nothing, where that was told already.
    pub(in crate::proxy) probation: Option<(Duration, Duration)>,
    /// The greatest age, where there is one.
    pub(in crate::proxy) max_age: Option<Duration>,
    pub(in crate::proxy) drain: Drain,
    pub(in crate::proxy) active: Active,
    /// Where it is not served where it should be.
    pub(in crate::proxy) stray: Option<Stray>,
    pub(in crate::proxy) _count: Count,
    pub(in crate::proxy) _socket: Socket,
}

impl Tunnel {
    /// Carries it to its end, and tells.
    pub(in crate::proxy) async fn run(mut self) {
        let drain = self.drain.clone();
        let mut tally = Tally::default();
        let ended_by = tokio::select! {
            ended_by = self.carry(&mut tally) => ended_by,
            () = drain.cutting() => EndedBy::Drain,
        };
        (self.record.tally, self.record.ended_by) = (tally, ended_by);
    }

    /// Waits until HTTP is done with both connections, then moves their bytes.
    async fn carry(&mut self, tally: &mut Tally) -> EndedBy {
        let (upstream, age) = (&self.active.upstream, self.max_age.map(aged));
        let turn = pin!(turn(&self.drain, upstream, age, self.stray.as_ref()));
        let probation = self
            .probation
            .map(|(took, limit)| Box::new(Probation::begin(&self.active, took, limit)));
        let both = async { tokio::try_join!(&mut self.client, &mut self.backend) };
        match timeout(HANDOVER_TIMEOUT, both).await {
            Ok(Ok((client, backend))) => {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                let clock = Clock::new(self.idle_timeout, self.liveness, probation);
                run(&mut client, &mut backend, clock, turn, tally).await
            }
            Ok(Err(error)) => {
                tracing::debug!(target: "Proxy", "no tunnel after the handshake: {error}");
                EndedBy::Client
            }
            Err(_) => EndedBy::Client,
        }
    }
}

/// When a tunnel that begins now is too old.
fn aged(max_age: Duration) -> Instant {
    Instant::now() + max_age.mul_f64(1.0 - AGE_JITTER * fastrand::f64())
}

/// For each tunnel of a backend that is taken out: over how long they are told to leave …
const LEAVE_EACH: Duration = Duration::from_millis(10);
/// … and no longer than this.
const LEAVE_WINDOW: Duration = Duration::from_secs(30);

/// Ends when the tunnel is to leave: in its turn of a drain, its backend's or the process's, at its age, or to go home.
///
/// Every tunnel has this all its life, so what it seldom needs it holds elsewhere.
async fn turn(
    drain: &Drain,
    upstream: &Upstream,
    age: Option<Instant>,
    stray: Option<&Stray>,
) -> EndedBy {
    let mut leaving = upstream.leaving();
    let mut aged = age.map(|age| Box::pin(sleep_until(age)));
    let mut home = stray.map(|stray| Box::pin(stray.turn()));
    while !*leaving.borrow_and_update() {
        tokio::select! {
            () = drain.draining() => return process_turn(drain).await,
            // An error is a backend that nothing holds any more; this does.
            _ = leaving.changed() => {}
            Some(()) = at(&mut aged) => return EndedBy::Age,
            Some(()) = at(&mut home) => return EndedBy::Rebalance,
        }
    }
    Box::pin(backend_turn(drain, upstream)).await
}

/// Ends with what is waited for; at once where there is nothing.
async fn at<F: Future<Output = ()>>(waited_for: &mut Option<Pin<Box<F>>>) -> Option<()> {
    waited_for.as_mut()?.await;
    Some(())
}

async fn process_turn(drain: &Drain) -> EndedBy {
    sleep_until(drain.turn()).await;
    EndedBy::Drain
}

/// At random within a time that grows with the backend's tunnels; the process's own drain may be quicker.
async fn backend_turn(drain: &Drain, upstream: &Upstream) -> EndedBy {
    let together = u32::try_from(upstream.active()).unwrap_or(u32::MAX);
    let window = LEAVE_EACH.saturating_mul(together).min(LEAVE_WINDOW);
    tokio::select! {
        () = sleep(window.mul_f64(fastrand::f64())) => EndedBy::BackendDrain,
        why = async { drain.draining().await; process_turn(drain).await } => why,
    }
}
