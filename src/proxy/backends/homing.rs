//! The way home of sockets that are served elsewhere: by another region, or by a tier that stands in for a better one.
//!
//! A socket stays where it is while its client stays, so a region that is well again would have its requests and not its sockets.
//! Where the settings name a rate, they are asked to connect anew, one after the other, once home has been well for as
//! long as a better tier has to be. The first goes alone, a second before the rest: a home that nobody probes may only look
//! well, and its return finds that out.
//!
//! Invariants: nobody goes while the rate is 0, or while home is not well or has no room; what is at home holds nothing of this. With each tick
//! of the health [`Homing::look`] is told how it stands, and a [`Stray`] waits for what it makes of that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long the first one goes ahead of the others.
const AHEAD: Duration = Duration::from_secs(1);

/// Beyond every tier.
const ABROAD: u16 = 256;

/// How it stands with the backends of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// The best tier that has somebody who is well.
    pub(super) tier: Option<u8>,
    /// Whether the region keeps all that is asked of it.
    pub(super) keeps_all: bool,
}

impl Home {
    fn takes(self, rank: u16) -> bool {
        let is_better = self.tier.is_some_and(|tier| u16::from(tier) < rank);
        is_better && (rank < ABROAD || self.keeps_all)
    }
}

/// Where strays may go now, and how many a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Leave {
    home: Home,
    rate: u32,
}

impl Leave {
    fn lets(self, rank: u16) -> bool {
        self.rate > 0 && self.home.takes(rank)
    }
}

/// What the strays of one group have in common; taken over by the group's next edition.
#[derive(Debug)]
pub(super) struct Homing {
    strays: AtomicUsize,
    leave: watch::Sender<Leave>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    home: Home,
    since: Instant,
    /// When the next one may go.
    next: Instant,
    /// Whether one has gone ahead.
    ahead: bool,
}

impl Default for Homing {
    fn default() -> Self {
        let now = Instant::now();
        let seen = Seen { home: Home::default(), since: now, next: now, ahead: false };
        Self {
            strays: AtomicUsize::new(0),
            leave: watch::Sender::default(),
            seen: Mutex::new(seen),
        }
    }
}

impl Homing {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_strays(&self) -> bool {
        self.strays.load(Ordering::Relaxed) > 0
    }

    /// Takes note of how it stands; a home counts once it has been the same for `hold`.
    pub(super) fn look(&self, home: Home, rate: u32, hold: Duration) {
        let mut seen = self.seen();
        if seen.home != home {
            (seen.home, seen.since) = (home, Instant::now());
        }
        let settled = if seen.since.elapsed() >= hold { home } else { Home::default() };
        let leave = Leave { home: settled, rate };
        let changed =
            self.leave.send_if_modified(|before| std::mem::replace(before, leave) != leave);
        if changed {
            (seen.next, seen.ahead) = (Instant::now(), false);
        }
    }

    /// When the next one of those that ask may go.
    fn slot(&self, rate: u32) -> Instant {
        let mut seen = self.seen();
        let slot = seen.next.max(Instant::now());
        let between = Duration::from_secs(1) / rate.max(1);
        let pause = if seen.ahead { between } else { between.max(AHEAD) };
        (seen.next, seen.ahead) = (slot + pause, true);
        slot
    }
}

/// A socket that is served elsewhere, until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Stray {
    homing: Arc<Homing>,
    rank: u16,
}

impl Stray {
    /// One that another region serves, or else this tier.
    pub(super) fn new(homing: &Arc<Homing>, tier: Option<u8>) -> Self {
        if homing.strays.fetch_add(1, Ordering::Relaxed) == 0 {
            // Nobody has looked meanwhile.
            let mut seen = homing.seen();
            seen.home = Home::default();
            homing.leave.send_replace(Leave::default());
        }
        Self { homing: Arc::clone(homing), rank: tier.map_or(ABROAD, u16::from) }
    }

    /// Ends when it is its turn to go home.
    pub(in crate::proxy) async fn turn(&self) {
        let mut leave = self.homing.leave.subscribe();
        loop {
            let Ok(now) = leave.wait_for(|leave| leave.lets(self.rank)).await.map(|now| *now)
            else {
                // Nobody holds the other end; this does.
                return std::future::pending().await;
            };
            tokio::select! {
                biased;
                // Home is not well any more, or the rate is another.
                _ = leave.wait_for(|leave| *leave != now) => {}
                () = sleep_until(self.homing.slot(now.rate)) => return,
            }
        }
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        self.homing.strays.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::JoinSet;

    use super::*;

    const HOLD: Duration = Duration::from_secs(10);
    const WELL: Home = Home { tier: Some(0), keeps_all: true };

    /// Strays that note when they have gone.
    fn strays(homing: &Arc<Homing>, count: usize) -> JoinSet<Instant> {
        let mut gone = JoinSet::new();
        for _ in 0..count {
            let stray = Stray::new(homing, None);
            gone.spawn(async move {
                stray.turn().await;
                Instant::now()
            });
        }
        gone
    }

    async fn ticks(homing: &Homing, home: Home, rate: u32, count: u32) {
        for _ in 0..count {
            homing.look(home, rate, HOLD);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn they_go_one_by_one_when_home_has_been_well_for_a_while() {
        let homing = Arc::new(Homing::default());
        let mut gone = strays(&homing, 21);
        let start = Instant::now();
        ticks(&homing, WELL, 10, 40).await;
        assert_eq!(gone.len(), 21);
        assert!(gone.try_join_next().is_none(), "home has to prove itself");
        ticks(&homing, WELL, 10, 20).await;
        let mut times = Vec::new();
        while let Some(at) = gone.join_next().await {
            times.push((at.unwrap() - start).as_millis());
        }
        times.sort_unstable();
        let expected: Vec<_> =
            std::iter::once(10_000).chain((0..20).map(|n| 11_000 + n * 100)).collect();
        assert_eq!(times, expected);
        assert!(!homing.has_strays());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_goes_at_rate_zero_nor_to_a_home_that_flaps_or_does_not_keep_all() {
        let homing = Arc::new(Homing::default());
        let stray = Stray::new(&homing, None);
        let mut turn = std::pin::pin!(stray.turn());
        ticks(&homing, WELL, 0, 100).await;
        assert!(turn.as_mut().now_or_never().is_none());
        ticks(&homing, Home { keeps_all: false, ..WELL }, 10, 100).await;
        assert!(turn.as_mut().now_or_never().is_none());
        for _ in 0..20 {
            ticks(&homing, WELL, 10, 39).await;
            assert!(turn.as_mut().now_or_never().is_none());
            ticks(&homing, Home::default(), 10, 1).await;
        }
        ticks(&homing, WELL, 10, 41).await;
        turn.await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_stays_where_home_only_looked_well() {
        let homing = Arc::new(Homing::default());
        let mut gone = strays(&homing, 5);
        ticks(&homing, WELL, 10, 42).await;
        // The first has found out.
        ticks(&homing, Home::default(), 10, 100).await;
        let mut count = 0;
        while gone.try_join_next().is_some() {
            count += 1;
        }
        assert_eq!(count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_is_left_for_a_better_one_alone() {
        let homing = Arc::new(Homing::default());
        let stray = Stray::new(&homing, Some(1));
        let mut turn = std::pin::pin!(stray.turn());
        ticks(&homing, Home { tier: Some(1), keeps_all: true }, 10, 100).await;
        assert!(turn.as_mut().now_or_never().is_none());
        ticks(&homing, Home { tier: Some(0), keeps_all: false }, 10, 41).await;
        turn.await;
    }
}
