//! What is known of a backend's health, and who finds it out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::error::Cause;

/// How an exchange with a backend went.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The head of an answer came, this long after the backend was chosen.
    Answered { status: StatusCode, took: Duration },
    /// The backend's fault.
    Failed(Cause),
}

/// The health of one backend.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Milliseconds after the clock's start until which it is passed over.
    marked_until: AtomicU64,
}

impl Health {
    /// Whether it may get a request, at `now` in milliseconds after the clock's start.
    pub(super) fn is_eligible(&self, now: u64) -> bool {
        self.marked_until.load(Ordering::Relaxed) <= now
    }

    /// It could not be reached: passed over for `pause` milliseconds.
    pub(super) fn unreachable(&self, now: u64, pause: u64) {
        self.marked_until.store(now.saturating_add(pause).max(1), Ordering::Relaxed);
    }

    /// It was reached.
    pub(super) fn reached(&self) {
        // Read first: a shared line that is only read stays in every core's cache.
        if self.marked_until.load(Ordering::Relaxed) != 0 {
            self.marked_until.store(0, Ordering::Relaxed);
        }
    }

    /// An exchange went so.
    #[expect(clippy::unused_self, reason = "nothing is drawn from it yet")]
    pub(super) fn outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered { status: _, took: _ } | Outcome::Failed(_) => {}
        }
    }
}
