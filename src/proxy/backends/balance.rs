//! Which backend of those that may have it gets the next request; pure but for the turns.
//!
//! Four ways, all by weight: the fewest exchanges, the lower cost of two drawn at random, in turn, and by what the
//! requests have in common (`hash`). What is asked for each candidate is read in place: a choice allocates nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::set::Set;

/// The weight 1, so that a slow start has room below it. Weights are counted in thousandths.
pub(super) const UNIT: u32 = 1_000;

/// What a turn of a backend of weight 1/1000 takes of the schedule: large, so that shares are exact to a millionth.
const LAP: u64 = 1 << 32;

/// The backends that one request was already refused by.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Tried(Set);

impl Tried {
    pub(in crate::proxy) fn insert(&mut self, index: usize) {
        self.0.insert(index);
    }

    pub(in crate::proxy) fn contains(self, index: usize) -> bool {
        self.0.contains(index)
    }

    pub(super) fn set(self) -> Set {
        self.0
    }
}

/// How busy a backend is, for its weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Exchanges going on.
    pub(super) active: usize,
    /// In thousandths; not 0.
    pub(super) weight: u32,
}

impl Load {
    /// Whether `self` is less busy, equally, or more: the quotients, without dividing.
    fn cmp(self, other: Self) -> std::cmp::Ordering {
        let product = |active: usize, weight: u32| active as u128 * u128::from(weight);
        product(self.active, other.weight).cmp(&product(other.active, self.weight))
    }
}

/// The fewest exchanges for the weight; among equals whose turn it is.
pub(super) fn least_conn(open: Set, turns: &Turns, load: impl Fn(usize) -> Load) -> Option<usize> {
    let mut best: Option<(usize, Load)> = None;
    for index in open.iter() {
        let candidate = load(index);
        let better = best.is_none_or(|(other, least)| match candidate.cmp(least) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => turns.lag(index) < turns.lag(other),
            std::cmp::Ordering::Greater => false,
        });
        if better {
            best = Some((index, candidate));
        }
    }
    best.map(|(index, load)| {
        turns.take(index, load.weight);
        index
    })
}

/// In turn, each as often as its weight says and as evenly spread as that allows.
pub(super) fn round_robin(
    open: Set,
    turns: &Turns,
    weight: impl Fn(usize) -> u32,
) -> Option<usize> {
    let index = open.iter().min_by_key(|index| turns.lag(*index))?;
    turns.take(index, weight(index));
    Some(index)
}

/// The lower cost for the weight of two drawn by weight; `random` gives a number below the one it is given.
pub(super) fn two_choices(
    open: Set,
    mut random: impl FnMut(u64) -> u64,
    weight: impl Fn(usize) -> u32,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    if let Some(only) = open.only() {
        return Some(only);
    }
    let first = draw(open, &mut random, &weight)?;
    let second = draw(open.without(Set::from_iter([first])), &mut random, &weight)?;
    let dear = |index: usize| cost(index) / f64::from(weight(index).max(1));
    Some(if dear(second) < dear(first) { second } else { first })
}

/// One of them, each as probable as its weight says.
fn draw(
    open: Set,
    random: &mut impl FnMut(u64) -> u64,
    weight: &impl Fn(usize) -> u32,
) -> Option<usize> {
    let total: u64 = open.iter().map(|index| u64::from(weight(index))).sum();
    let mut left = random(total.max(1));
    let mut last = None;
    for index in open.iter() {
        last = Some(index);
        let weight = u64::from(weight(index));
        if left < weight {
            break;
        }
        left -= weight;
    }
    // Where a weight has changed between the two looks, the draw may point past the last one.
    last
}

/// Whose turn it is: a virtual clock on which each turn of a backend takes as long as its weight is small. The one
/// whose next turn comes first is next, which spreads the turns of the heavy evenly among those of the light.
///
/// Two workers that look at once may choose the same one; it has then used two turns, and waits the longer.
#[derive(Debug)]
pub(super) struct Turns {
    /// Where the schedule stands.
    now: AtomicU64,
    /// When each backend's next turn begins.
    next: Box<[AtomicU64]>,
}

impl Turns {
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u32>) -> Self {
        let parts = weights.len() as u64 + 1;
        // Not all at the beginning of the lap: the turns of the light would stand together.
        let offset = |(index, weight)| AtomicU64::new(lap(weight) / parts * (index as u64 + 1));
        Self { now: AtomicU64::new(0), next: weights.enumerate().map(offset).collect() }
    }

    /// How far away the backend's next turn is. One that had none for a while has no more than one due: it does not
    /// make up for the time in which it was not there.
    fn lag(&self, index: usize) -> u64 {
        let Some(next) = self.next.get(index) else { return u64::MAX };
        let ahead = next.load(Ordering::Relaxed).wrapping_sub(self.now.load(Ordering::Relaxed));
        // A half of the numbers lies behind.
        if ahead > u64::MAX / 2 { 0 } else { ahead }
    }

    fn take(&self, index: usize, weight: u32) {
        let Some(next) = self.next.get(index) else { return };
        let now = self.now.load(Ordering::Relaxed).wrapping_add(self.lag(index));
        self.now.store(now, Ordering::Relaxed);
        if next.load(Ordering::Relaxed) == now {
            next.fetch_add(lap(weight), Ordering::Relaxed);
        } else {
            next.store(now.wrapping_add(lap(weight)), Ordering::Relaxed);
        }
    }
}

fn lap(weight: u32) -> u64 {
    LAP / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests;
