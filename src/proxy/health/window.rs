//! How many exchanges went well and ill within the last while; pure.
//!
//! A ring of slots, each a tenth of the window: what is summed up is between nine tenths of it and all of it.

const SLOTS: usize = 10;

/// Exchanges within a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) good: u32,
    pub(super) bad: u32,
}

impl Tally {
    pub(super) fn total(self) -> u32 {
        self.good.saturating_add(self.bad)
    }

    /// Whether so many percent of at least `least` went ill; 0 percent means that none is too much.
    pub(super) fn exceeds(self, percent: u32, least: u32) -> bool {
        percent > 0
            && self.total() >= least
            && u64::from(self.bad) * 100 >= u64::from(self.total()) * u64::from(percent)
            && self.bad > 0
    }

    fn add(&mut self, more: Self) {
        self.good = self.good.saturating_add(more.good);
        self.bad = self.bad.saturating_add(more.bad);
    }
}

/// The tallies of the last while. Time is milliseconds, and never runs backwards.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: [Tally; SLOTS],
    /// Slots that have begun since time began: the last one is the present.
    turn: u64,
}

impl Window {
    /// Adds what happened by `now`, and sums up the last `length` milliseconds.
    pub(super) fn push(&mut self, now: u64, length: u64, more: Tally) -> Tally {
        let turn = now / (length / SLOTS as u64).max(1);
        // A reload that changes the length may make turns run backwards: then all begins anew.
        let passed = turn.checked_sub(self.turn).unwrap_or(u64::MAX);
        if passed >= SLOTS as u64 {
            self.forget();
        } else {
            for begun in self.turn + 1..=turn {
                if let Some(slot) = self.slot(begun) {
                    *slot = Tally::default();
                }
            }
        }
        self.turn = turn;
        if let Some(slot) = self.slot(turn) {
            slot.add(more);
        }
        let mut sum = Tally::default();
        self.slots.iter().for_each(|slot| sum.add(*slot));
        sum
    }

    pub(super) fn forget(&mut self) {
        self.slots = Default::default();
    }

    fn slot(&mut self, turn: u64) -> Option<&mut Tally> {
        usize::try_from(turn % SLOTS as u64).ok().and_then(|index| self.slots.get_mut(index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_summed_up_lies_within_the_window(
            steps in prop::collection::vec((0_u64..4_000, 0_u32..5, 0_u32..5), 1..60),
            length in 10_u64..20_000,
        ) {
            let mut window = Window::default();
            let (mut now, mut seen) = (0, Vec::new());
            for (pause, good, bad) in steps {
                now += pause;
                seen.push((now, Tally { good, bad }));
                let sum = window.push(now, length, Tally { good, bad });
                let since = |age: u64| {
                    let mut tally = Tally::default();
                    let young = seen.iter().filter(|(at, _)| now - at < age);
                    young.for_each(|(_, more)| tally.add(*more));
                    tally
                };
                let slot = (length / SLOTS as u64).max(1);
                let (least, most) = (since(slot * 9), since(slot * 10));
                prop_assert!(least.good <= sum.good && sum.good <= most.good);
                prop_assert!(least.bad <= sum.bad && sum.bad <= most.bad);
            }
        }
    }

    #[test]
    fn a_share_is_exceeded_from_the_least_number_on() {
        let of = |bad, good| Tally { good, bad };
        assert!(of(10, 10).exceeds(50, 20));
        assert!(!of(9, 10).exceeds(50, 20), "too few");
        assert!(!of(10, 11).exceeds(50, 20), "too good");
        assert!(!of(20, 0).exceeds(0, 20), "off");
        assert!(!of(0, 20).exceeds(1, 20), "none failed");
    }

    #[test]
    fn another_length_begins_anew() {
        let mut window = Window::default();
        window.push(10_000, 10, Tally { good: 0, bad: 5 });
        let sum = window.push(10_001, 10_000, Tally { good: 1, bad: 0 });
        assert_eq!(sum, Tally { good: 1, bad: 0 });
    }
}
