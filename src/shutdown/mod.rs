//! The one way down: serving, then draining, then cut.
//!
//! Walk: a signal calls [`Drain::begin`]; readiness fails, upgrades are refused, sockets take a
//! [`Drain::turn`] and close when it comes; every request, tunnel and socket holds an [`InFlight`]
//! meanwhile, and [`Drain::idle`] ends when the last one is dropped. [`Drain::cut`] ends what is left.
//!
//! Invariants: a phase never goes back; an `InFlight` is taken before the exchange is promised
//! anything (before the 101, for an upgrade).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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
    /// Set when the drain begins.
    pace: OnceLock<Pace>,
}

/// How the sockets that are open when the drain begins are closed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    began: Instant,
    /// Nanoseconds between two turns.
    between: u64,
    /// Over which time those who were closed come back.
    comeback: Duration,
}

/// Sockets a second that are closed where there is no need to be slower: a few are gone in no time, and from a few
/// thousand on the whole window is used.
const CLOSES_A_SECOND: u64 = 100;

/// Sockets a second that come back elsewhere, on top of what the turns spread: each costs a handshake, a
/// subscription and a read, and other nodes may be draining at the same time.
const COMEBACKS_A_SECOND: u64 = 2_000;
/// … and the bounds of the time over which they do: nobody is away for long.
const COMEBACK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

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
                pace: OnceLock::new(),
            }),
        }
    }

    /// Starts the drain. Sockets get their turns evenly over at most `window`, and no slower than
    /// needed: few sockets are gone at once.
    pub fn begin(&self, window: Duration) {
        let sockets = self.shared.sockets.load(Ordering::Relaxed) as u64;
        let spread = window.min(at_rate(sockets, CLOSES_A_SECOND));
        let (least, most) = COMEBACK;
        let pace = Pace {
            began: Instant::now(),
            between: u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX) / sockets.max(1),
            comeback: at_rate(sockets, COMEBACKS_A_SECOND).clamp(least, most),
        };
        // Only the first word counts.
        self.shared.pace.get_or_init(|| pace);
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
        // Without a pace everything is cut.
        self.shared.pace.get().map_or_else(Instant::now, |pace| {
            pace.began + Duration::from_nanos(turn.saturating_mul(pace.between))
        })
    }

    /// How long one client that is closed now should wait before it comes back: at random, over the longer a time the
    /// more come back; up to a second where nothing drains.
    pub fn comeback(&self) -> Duration {
        let within = self.shared.pace.get().map_or(COMEBACK.0, |pace| pace.comeback);
        within.mul_f64(fastrand::f64())
    }
}

/// How long `count` take at `a_second`.
fn at_rate(count: u64, a_second: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(1_000) / a_second)
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
    async fn the_more_come_back_the_longer_they_take() {
        for (sockets, seconds) in [(0, 1.0), (1_000, 1.0), (20_000, 10.0), (200_000, 30.0)] {
            let drain = Drain::new();
            let _sockets: Vec<_> = (0..sockets).map(|_| drain.socket()).collect();
            drain.begin(Duration::from_secs(20));
            let mut last = 0.0_f64;
            let mut halves = [0, 0];
            for _ in 0..1_000 {
                let after = drain.comeback().as_secs_f64();
                last = last.max(after);
                halves[usize::from(after > seconds / 2.0)] += 1;
            }
            assert!(last <= seconds && last > seconds * 0.9, "{sockets}: {last}");
            assert!(halves.iter().all(|half| *half > 400), "{sockets}: {halves:?}");
        }
        assert!(Drain::new().comeback() <= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn few_sockets_go_at_once() {
        let drain = Drain::new();
        let _sockets = (drain.socket(), drain.socket());
        drain.begin(Duration::from_secs(20));
        let start = Instant::now();
        assert_eq!(drain.turn(), start);
        assert!(drain.turn() - start < Duration::from_millis(20));
    }
}
