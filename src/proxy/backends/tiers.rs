//! Which tier of a group serves: the primaries, or one of the backups behind them.
//!
//! The next tier serves only when nothing of the one before is eligible, and from that moment on. The way back takes
//! longer, so that one that comes and goes does not take its clients with it: a better tier serves again when one of its
//! backends has been eligible for the hold time without a break, and takes its requests over by and by where there is a
//! slow start. Invariant: however often a tier comes and goes, it is gone back to at most once in a hold time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::balance::UNIT;
use super::ramp;
use super::set::Set;

/// Bits of the time in a word, in milliseconds: 8,900 years.
const TIME_BITS: u32 = 48;

/// What of a group is eligible.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Eligible {
    pub(super) any: Set,
    /// Those of them that have been so for the hold time.
    pub(super) held: Set,
}

/// The tier that serves, kept over a reload: by its number, since its members may change.
#[derive(Debug, Default)]
pub(super) struct Serving(AtomicU64);

/// What [`Serving`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    tier: u8,
    /// The one that still has the rest while `tier` takes over; the same where nothing is taken over.
    from: u8,
    /// Since when, in milliseconds after the clock's start.
    at: u64,
}

/// Another tier serves from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: u8,
    pub(super) to: u8,
}

impl Serving {
    fn load(&self) -> State {
        unpack(self.0.load(Ordering::Relaxed))
    }

    /// The tier that serves.
    pub(super) fn tier(&self) -> u8 {
        self.load().tier
    }

    /// That, and the one that has the rest while it takes over; the same where nothing is taken over.
    pub(super) fn both(&self) -> (u8, u8) {
        let state = self.load();
        (state.tier, state.from)
    }

    /// Finds out which tier serves; told once of each change. `tiers` are its numbers and members, the best first.
    pub(super) fn look(
        &self,
        tiers: &[(u8, Set)],
        eligible: Eligible,
        now: impl FnOnce() -> u64,
    ) -> Option<Moved> {
        let before = self.load();
        let tier = next(tiers, eligible, before.tier)?;
        if tier == before.tier {
            return None;
        }
        // Coming back, what was used until now has the rest for a while; going away, there is nothing to share.
        let back = tier < before.tier && has(tiers, before.tier, eligible.any);
        let from = if back { before.tier } else { tier };
        let after = State { tier, from, at: now() };
        let moved = self.0.compare_exchange(
            pack(before),
            pack(after),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        // Another worker has seen the same, and tells of it.
        moved.ok().map(|_| Moved { from: before.tier, to: tier })
    }

    /// The tier that one request belongs to: the one that serves, or while that is taken over the one before. `point`
    /// says where the request stands among all, in thousandths.
    pub(super) fn of_request(
        &self,
        slow_start: u64,
        now: impl FnOnce() -> u64,
        point: impl FnOnce() -> u32,
    ) -> u8 {
        let state = self.load();
        if state.from == state.tier {
            return state.tier;
        }
        let share = ramp::share(now().saturating_sub(state.at), slow_start);
        if share >= UNIT {
            let over = State { from: state.tier, ..state };
            let _other = self.0.compare_exchange(
                pack(state),
                pack(over),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            return state.tier;
        }
        if point() < share { state.tier } else { state.from }
    }
}

/// The tier to serve next, where `current` does now; `None` where nothing is eligible.
fn next(tiers: &[(u8, Set)], eligible: Eligible, current: u8) -> Option<u8> {
    let first =
        |of: Set| tiers.iter().find(|(_, all)| !all.and(of).is_empty()).map(|(tier, _)| *tier);
    let best = first(eligible.any)?;
    if best == current || !has(tiers, current, eligible.any) {
        return Some(best);
    }
    Some(first(eligible.held).filter(|held| *held < current).unwrap_or(current))
}

fn has(tiers: &[(u8, Set)], tier: u8, eligible: Set) -> bool {
    tiers.iter().any(|(number, all)| *number == tier && !all.and(eligible).is_empty())
}

fn pack(state: State) -> u64 {
    let at = state.at & ((1 << TIME_BITS) - 1);
    u64::from(state.tier) << 56 | u64::from(state.from) << TIME_BITS | at
}

fn unpack(word: u64) -> State {
    let [tier, from, ..] = word.to_be_bytes();
    State { tier, from, at: word & ((1 << TIME_BITS) - 1) }
}

#[cfg(test)]
mod tests;
