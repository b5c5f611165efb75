//! What probes say of a backend, after all: up or down; pure.
//!
//! A backend begins unknown, and is used. The first probe decides, so that a dead one is not used for as long as
//! `fall` probes take; and until it was up once, one good probe is enough, so that a backend which starts together
//! with the gateway is not kept waiting for `rise` of them.

/// What a probe changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Up,
    Down,
}

/// The standing of one backend by its probes.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    known: Option<Turn>,
    was_up: bool,
    /// Probes in a row that contradict what is known.
    against: u32,
}

impl Verdict {
    /// A probe went well or ill. What is told is news: unknown to up is none that matters to anybody.
    pub(super) fn heard(&mut self, good: bool, rise: u32, fall: u32) -> Option<Turn> {
        let says = if good { Turn::Up } else { Turn::Down };
        if self.known == Some(says) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = match (self.known, says) {
            (None, _) => 1,
            (Some(_), Turn::Up) => {
                if self.was_up {
                    rise
                } else {
                    1
                }
            }
            (Some(_), Turn::Down) => fall,
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.was_up |= good;
        self.known.replace(says).map_or((!good).then_some(says), |_| Some(says))
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    pub(super) fn is_down(&self) -> bool {
        self.known == Some(Turn::Down)
    }

    /// Whether it was up at some time; until then probes come quicker.
    pub(super) fn was_up(&self) -> bool {
        self.was_up
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(probes: &str, rise: u32, fall: u32) -> Vec<Option<Turn>> {
        let mut verdict = Verdict::default();
        probes.chars().map(|probe| verdict.heard(probe == '+', rise, fall)).collect()
    }

    #[test]
    fn the_first_decides_and_later_ones_need_company() {
        use Turn::{Down, Up};
        let none = None;
        assert_eq!(turns("+--+---", 2, 3), [none, none, none, none, none, none, Some(Down)]);
        assert_eq!(turns("+---+-++", 2, 3)[3..], [Some(Down), none, none, none, Some(Up)]);
        assert_eq!(turns("-+", 2, 3), [Some(Down), Some(Up)], "it never was up");
        assert_eq!(turns("-+---+", 2, 3)[4..], [Some(Down), none], "now it was");
    }

    #[test]
    fn one_that_flaps_stays_what_it_was() {
        // At 1 Hz, by probes each second: never two alike in a row.
        let flapping = "+-".repeat(600);
        assert!(turns(&flapping, 2, 3).iter().all(Option::is_none));
        let down_first = format!("+---{}", "+-".repeat(600));
        assert_eq!(turns(&down_first, 2, 3).iter().flatten().count(), 1);
    }

    proptest! {
        #[test]
        fn a_turn_is_earned_and_turns_alternate(
            probes in prop::collection::vec(any::<bool>(), 0..200), rise in 1_u32..5, fall in 1_u32..5,
        ) {
            let mut verdict = Verdict::default();
            let mut last = None;
            for (index, good) in probes.iter().enumerate() {
                let Some(turn) = verdict.heard(*good, rise, fall) else { continue };
                prop_assert_ne!(Some(turn), last);
                prop_assert_eq!(turn == Turn::Up, *good);
                let needed = if *good { rise } else { fall } as usize;
                let alike = probes[..=index].iter().rev().take_while(|probe| *probe == good).count();
                prop_assert!(alike >= needed || !probes[..index].contains(&true));
                last = Some(turn);
            }
        }
    }
}
