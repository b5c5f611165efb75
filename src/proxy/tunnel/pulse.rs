//! Whether both ends of a tunnel are still there.
//!
//! An end of which nothing has come for the interval is sent a Ping between two frames; if still nothing comes until the
//! timeout, it is gone. Anything that it says will do, and also that it takes again what it had left lying. Where a Ping
//! of the other end's waits for its answer none of ours is sent: an end may answer the last one alone (RFC 6455, 5.5.3),
//! and then the other would wait in vain.
//!
//! Invariant: only an end that could have answered is given up. One into whose way no Ping could be put, since
//! a frame is under way to it, is not judged; the other one, which owes the rest of that frame, is.

use std::time::Duration;

use tokio::time::Instant;

use super::ping::{Payload, Sieve};
use super::way::Way;
use super::{EndedBy, Ways};

/// How ends are asked whether they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Liveness {
    /// How long an end may be silent before it is asked …
    pub(in crate::proxy) interval: Duration,
    /// … and after it.
    pub(in crate::proxy) timeout: Duration,
}

/// What is known of both ends.
#[derive(Debug)]
pub(super) struct Pulse {
    liveness: Liveness,
    payload: Payload,
    client: End,
    backend: End,
}

/// One end.
#[derive(Debug)]
struct End {
    /// When it was last heard of.
    heard: Instant,
    /// The signs of life until then, as a count that changes with each.
    signs: u64,
    /// Pings of the other end's that had passed by then.
    pings: u16,
    asked: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    /// It is to be, since then.
    Due(Instant),
    /// A Ping is on its way.
    At(Instant),
}

impl End {
    fn new(now: Instant) -> Self {
        Self { heard: now, signs: 0, pings: 0, asked: Asked::No }
    }

    fn deadline(&self, liveness: Liveness) -> Instant {
        match self.asked {
            Asked::No => self.heard + liveness.interval,
            Asked::Due(at) | Asked::At(at) => at + liveness.timeout,
        }
    }

    /// `says` is the way from it, `told` the way to it.
    fn note(&mut self, says: &Way, told: &mut Way) {
        let signs = says.heard.wrapping_add(u64::from(told.relieved));
        if signs != self.signs {
            told.ping = None;
            *self =
                Self { heard: Instant::now(), signs, pings: told.frames.pings(), asked: Asked::No };
        } else if matches!(self.asked, Asked::Due(_)) && told.ping.is_none() {
            self.asked = Asked::At(Instant::now());
        }
    }

    /// Its deadline has come: whether it is gone.
    fn is_gone(&mut self, now: Instant, payload: Payload, says: &mut Way, told: &mut Way) -> bool {
        if says.blocked {
            // It is not read while the other end takes nothing: its silence is not its own.
            (self.heard, self.asked, told.ping) = (now, Asked::No, None);
            return false;
        }
        match self.asked {
            Asked::No if told.frames.pings() != self.pings => self.asked = Asked::At(now),
            Asked::No => {
                told.ping = Some(payload);
                says.sieve.get_or_insert_with(|| Box::new(Sieve::new(payload))).asked();
                self.asked = Asked::Due(now);
            }
            // It takes nothing, and has had its time to.
            Asked::Due(_) if told.blocked => return true,
            Asked::Due(_) => self.asked = Asked::Due(now),
            Asked::At(_) => return true,
        }
        false
    }
}

impl Pulse {
    pub(super) fn new(liveness: Liveness) -> Self {
        let now = Instant::now();
        let payload = fastrand::u64(..).to_be_bytes();
        Self { liveness, payload, client: End::new(now), backend: End::new(now) }
    }

    /// How long an end that is gone can pass for one that is there.
    pub(super) fn patience(&self) -> Duration {
        self.liveness.interval + self.liveness.timeout
    }

    /// Takes note of what has come.
    pub(super) fn note(&mut self, ways: &mut Ways) {
        self.client.note(&ways.up, &mut ways.down);
        self.backend.note(&ways.down, &mut ways.up);
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Instant {
        self.client.deadline(self.liveness).min(self.backend.deadline(self.liveness))
    }

    /// Asks who has been silent, and says who is gone. The ways are to be polled again after it.
    pub(super) fn look(&mut self, ways: &mut Ways) -> Option<EndedBy> {
        let now = Instant::now();
        let Ways { up, down, .. } = ways;
        let (liveness, payload) = (self.liveness, self.payload);
        let is_due = |end: &End| end.deadline(liveness) <= now;
        if is_due(&self.client) && self.client.is_gone(now, payload, up, down) {
            return Some(EndedBy::ClientLost);
        }
        if is_due(&self.backend) && self.backend.is_gone(now, payload, down, up) {
            return Some(EndedBy::BackendLost);
        }
        None
    }
}
