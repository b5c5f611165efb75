//! The one way down: serving, then draining, then cut.
//!
//! Walk: a signal calls [`Drain::begin`]; readiness fails, upgrades are refused, sockets take a
//! [`Drain::turn`] and close when it comes; every request, tunnel and socket holds an [`InFlight`]
//! meanwhile, and [`Drain::idle`] ends when the last one is dropped. [`Drain::cut`] ends what is left.
//!
//! Invariants: a phase never goes back; an `InFlight` is taken before the exchange is promised
//! anything (before the 101, for an upgrade).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::{TaskTracker, TaskTrackerToken};

/// Held by whatever must be finished before the process may go.
pub type InFlight = TaskTrackerToken;

/// The state of a stop, shared by all parts; clones are the same drain.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    draining: CancellationToken,
    cut: CancellationToken,
    flights: TaskTracker,
    /// Sockets that take part in the paced close.
    sockets: AtomicUsize,
    /// Turns handed out since the drain began.
    turns: AtomicU64,
    /// Nanoseconds between two turns; set when the drain begins.
    pace: AtomicU64,
}

/// Sockets a second that may be closed at once without spreading: reconnects at this rate hurt nobody.
const CLOSES_A_SECOND: u64 = 500;

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    pub fn new() -> Self {
        let flights = TaskTracker::new();
        // A tracker only reports "empty" once it is closed; that does not keep new tokens from being taken.
        flights.close();
        Self {
            shared: Arc::new(Shared {
                draining: CancellationToken::new(),
                cut: CancellationToken::new(),
                flights,
                sockets: AtomicUsize::new(0),
                turns: AtomicU64::new(0),
                pace: AtomicU64::new(0),
            }),
        }
    }

    /// Starts the drain. Sockets get their turns evenly over at most `window`, and no slower than
    /// needed: few sockets are gone at once.
    pub fn begin(&self, window: Duration) {
        let sockets = self.shared.sockets.load(Ordering::Relaxed) as u64;
        let spread = window.min(Duration::from_millis(sockets * 1_000 / CLOSES_A_SECOND));
        let pace = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX) / sockets.max(1);
        self.shared.pace.store(pace, Ordering::Relaxed);
        self.shared.draining.cancel();
    }

    /// Ends what is left, at once.
    pub fn cut(&self) {
        self.shared.draining.cancel();
        self.shared.cut.cancel();
    }

    pub fn is_cut(&self) -> bool {
        self.shared.cut.is_cancelled()
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// Ends when the drain begins.
    pub async fn draining(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Ends when what is left must go at once.
    pub async fn cutting(&self) {
        self.shared.cut.cancelled().await;
    }

    /// Counts one request, tunnel or socket until it is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.shared.flights.token()
    }

    /// How many are counted now.
    pub fn flights(&self) -> usize {
        self.shared.flights.len()
    }

    /// Ends when nothing is counted any more.
    pub async fn idle(&self) {
        self.shared.flights.wait().await;
    }

    /// Counts a long-lived socket, which is closed in its turn and not all at once with the others.
    pub fn socket(&self) -> Socket {
        self.shared.sockets.fetch_add(1, Ordering::Relaxed);
        Socket { drain: self.clone(), _flight: self.in_flight() }
    }

    /// When the next socket of those that ask may close; to be asked once by each, after the drain began.
    pub fn turn(&self) -> Instant {
        let turn = self.shared.turns.fetch_add(1, Ordering::Relaxed);
        let pace = self.shared.pace.load(Ordering::Relaxed);
        Instant::now() + Duration::from_nanos(turn.saturating_mul(pace))
    }
}

/// A long-lived socket, as the drain counts it.
#[derive(Debug)]
pub struct Socket {
    drain: Drain,
    _flight: InFlight,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.drain.shared.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_waits_for_the_last_flight() {
        let drain = Drain::new();
        let flight = drain.in_flight();
        drain.begin(Duration::from_secs(10));
        let mut idle = std::pin::pin!(drain.idle());
        assert!(futures_util::FutureExt::now_or_never(idle.as_mut()).is_none());
        drop(flight);
        idle.await;
    }

    #[tokio::test(start_paused = true)]
    async fn many_sockets_are_spread_evenly_over_the_window() {
        let drain = Drain::new();
        let sockets: Vec<_> = (0..50_000).map(|_| drain.socket()).collect();
        drain.begin(Duration::from_secs(20));
        let start = Instant::now();
        let turns: Vec<_> = sockets.iter().map(|_| drain.turn() - start).collect();
        for second in 0..20_u64 {
            let closing = turns.iter().filter(|turn| turn.as_secs() == second).count();
            assert!((2_400..=2_600).contains(&closing), "{closing} close in second {second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_sockets_go_at_once() {
        let drain = Drain::new();
        let _sockets = (drain.socket(), drain.socket());
        drain.begin(Duration::from_secs(20));
        let start = Instant::now();
        assert!(drain.turn() - start < Duration::from_millis(5));
        assert!(drain.turn() - start < Duration::from_millis(5));
    }
}
