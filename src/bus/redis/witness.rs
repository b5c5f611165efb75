//! What this process knows to have been stored: the last acknowledged messages, and the last probe.
//!
//! Walk: each acknowledged publish is recorded; when a connection is made to a server that was restarted, the
//! [`Claim`]s are held against its data (see `lineage`). One that is not there was lost.
//!
//! Invariants: the ring has a bound, and records without allocating once it is full; an answer that came over an
//! older connection than the last one settled is not recorded, and so must not be acknowledged: nobody would
//! have looked for it. Pure but for the lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::names;
use crate::bus::{Receipt, Seq};

/// Enough for what a busy server may lose of one process's messages with its last fraction of a second.
const KEPT: usize = 256;

/// A receipt that has less than this left of its life counts as expired: clocks differ a little.
const MARGIN: Duration = Duration::from_secs(10);

/// What the server's data must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The receipt at `key` is this one.
    Receipt { key: String, value: String },
    /// The counter at `key` has this birth, and has come this far; of a message whose receipt has expired.
    Counter { key: String, birth: String, seq: Seq },
    /// The probe at `key` has this number or a later one.
    Probe { key: String, number: u64 },
}

/// The last acknowledged messages.
pub(super) struct Witnesses {
    ring: Mutex<Ring>,
    /// How long a receipt is sure to be there.
    receipts_live: Duration,
    /// How long a probe is sure to be there.
    probe_lives: Duration,
}

#[derive(Default)]
struct Ring {
    /// Of the connection that was settled last.
    generation: u64,
    seen: Vec<Seen>,
    /// Where the next one goes, once the ring is full.
    next: usize,
    probe: Option<(String, u64, Instant)>,
}

struct Seen {
    to: String,
    dedupe_key: String,
    birth: String,
    seq: Seq,
    at_ms: u64,
    when: Instant,
}

impl Witnesses {
    /// With the lives of receipts and probes in Redis.
    pub(super) fn new(receipts: Duration, probes: Duration) -> Self {
        Self {
            ring: Mutex::default(),
            receipts_live: receipts.saturating_sub(MARGIN),
            probe_lives: probes.saturating_sub(MARGIN),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing that came over an older connection is taken. Gives the number of the new one.
    pub(super) fn turn(&self) -> u64 {
        let mut ring = self.lock();
        ring.generation += 1;
        ring.generation
    }

    /// Records an answered publish; false where the connection has been replaced since.
    pub(super) fn record(
        &self,
        generation: u64,
        to: &str,
        dedupe_key: &str,
        (receipt, birth): (&Receipt, &str),
    ) -> bool {
        let mut ring = self.lock();
        if ring.generation != generation {
            return false;
        }
        let next = ring.next;
        if ring.seen.len() < KEPT {
            ring.seen.push(Seen::new());
        }
        ring.next = (next + 1) % KEPT;
        if let Some(seen) = ring.seen.get_mut(next) {
            for (old, new) in
                [(&mut seen.to, to), (&mut seen.dedupe_key, dedupe_key), (&mut seen.birth, birth)]
            {
                old.clear();
                old.push_str(new);
            }
            (seen.seq, seen.at_ms, seen.when) = (receipt.seq, receipt.at_ms, Instant::now());
        }
        true
    }

    /// Records that a probe was taken: whatever was stored before it, by whomever, is as safe as it is.
    pub(super) fn probed(&self, generation: u64, key: &str, number: u64) {
        let mut ring = self.lock();
        if ring.generation == generation {
            ring.probe = Some((key.to_owned(), number, Instant::now()));
        }
    }

    /// The history that they belong to is over.
    pub(super) fn forget(&self) {
        let mut ring = self.lock();
        (ring.seen, ring.next, ring.probe) = (Vec::new(), 0, None);
    }

    /// What the data must hold now.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let ring = self.lock();
        let probe = ring.probe.iter().filter(|(.., when)| when.elapsed() < self.probe_lives);
        let probe =
            probe.map(|(key, number, _)| Claim::Probe { key: key.clone(), number: *number });
        let seen = ring.seen.iter().map(|seen| seen.claim(self.receipts_live));
        seen.chain(probe).collect()
    }
}

impl Seen {
    fn new() -> Self {
        let [to, dedupe_key, birth] = [const { String::new() }; 3];
        Self { to, dedupe_key, birth, seq: 0, at_ms: 0, when: Instant::now() }
    }

    fn claim(&self, receipts_live: Duration) -> Claim {
        let Self { to, dedupe_key, birth, seq, at_ms, when } = self;
        if when.elapsed() < receipts_live {
            let key = names::seen(to, dedupe_key);
            Claim::Receipt { key, value: format!("{seq} {at_ms} {birth}") }
        } else {
            Claim::Counter { key: names::meta(to), birth: birth.clone(), seq: *seq }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(10);

    fn record(witnesses: &Witnesses, generation: u64, seq: Seq) -> bool {
        let receipt = Receipt { seq, at_ms: 7, duplicate: false };
        witnesses.record(generation, "bob", &format!("alice {seq}"), (&receipt, "b"))
    }

    #[tokio::test(start_paused = true)]
    async fn claims_what_was_acknowledged_last() {
        let witnesses = Witnesses::new(WINDOW, WINDOW);
        let generation = witnesses.turn();
        for seq in 1..=300 {
            assert!(record(&witnesses, generation, seq));
        }
        witnesses.probed(generation, "probe", 9);
        let claims = witnesses.claims();
        assert_eq!(claims.len(), KEPT + 1);
        let receipt = |seq| Claim::Receipt {
            key: names::seen("bob", &format!("alice {seq}")),
            value: format!("{seq} 7 b"),
        };
        assert!(claims.contains(&receipt(300)) && claims.contains(&receipt(45)));
        assert!(!claims.contains(&receipt(44)));
        assert_eq!(claims.last(), Some(&Claim::Probe { key: "probe".to_owned(), number: 9 }));

        tokio::time::advance(WINDOW).await;
        let claims = witnesses.claims();
        let counter = Claim::Counter { key: names::meta("bob"), birth: "b".to_owned(), seq: 300 };
        assert_eq!(claims.len(), KEPT, "a probe that has expired proves nothing");
        assert!(claims.contains(&counter));
        witnesses.forget();
        assert_eq!(witnesses.claims(), []);
    }

    #[test]
    fn an_answer_of_an_older_connection_is_refused() {
        let witnesses = Witnesses::new(WINDOW, WINDOW);
        let old = witnesses.turn();
        assert!(record(&witnesses, old, 1));
        let new = witnesses.turn();
        assert!(!record(&witnesses, old, 2));
        witnesses.probed(old, "probe", 1);
        assert_eq!(witnesses.claims().len(), 1);
        assert!(record(&witnesses, new, 2));
    }
}
