//! Requests that wait for a backend with room: first come, first served, and never many.
//!
//! Only the first of the line tries for a backend; the others wait behind a door (a fair semaphore) for its place. So
//! nobody is overtaken, nobody is woken in vain, and one that gives up, wherever it stands, leaves nothing behind but its
//! place. Whoever ends an exchange rings; a ring that comes while nobody listens is kept, so that none is lost.
//!
//! Why no wake-up is lost: who waits counts itself before it looks for room, and who ends gives its room back before it
//! looks whether anybody counts; both in one order that all threads see (`SeqCst`). So one of the two sees the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Why a request does not wait any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overloaded {
    /// As many wait as may.
    Full,
    /// Nothing came free in time.
    TimedOut,
}

/// What may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) length: usize,
    pub(super) timeout: Duration,
}

/// The line before a group of backends.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    /// Whose place is the first.
    door: Semaphore,
    bell: Notify,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), door: Semaphore::new(1), bell: Notify::new() }
    }
}

impl Queue {
    /// How many wait. One that comes now may not go before them.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Something has ended, or has changed: the first of the line looks again.
    pub(super) fn ring(&self) {
        if self.waiting() > 0 {
            self.bell.notify_one();
        }
    }

    /// Waits in line until `look` has something. It is called by the first of the line alone, again after each ring.
    pub(super) async fn wait<T>(
        &self,
        limits: Limits,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, Overloaded> {
        let _place = self.enter(limits.length).ok_or(Overloaded::Full)?;
        let deadline = Instant::now() + limits.timeout;
        let wait = async {
            // It is never closed; were it, everybody would be the first.
            let _first = self.door.acquire().await;
            loop {
                if let Some(found) = look() {
                    return found;
                }
                self.bell.notified().await;
            }
        };
        timeout_at(deadline, wait).await.map_err(|_elapsed| Overloaded::TimedOut)
    }

    fn enter(&self, length: usize) -> Option<Place<'_>> {
        let enter = |waiting: usize| (waiting < length).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).ok()?;
        Some(Place(self))
    }
}

/// A place in the line, until it is dropped.
struct Place<'a>(&'a Queue);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
