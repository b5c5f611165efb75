//! Which backend gets the next request.
//!
//! Best first: a primary that can be reached, a backup that can be reached, and when every backend is
//! marked as failing, any of them all the same, for a mark may be out of date and an error is certain
//! otherwise. Among equals the one with the fewest exchanges, ties in turn.

/// The most backends of a region: each has a bit in [`Tried`].
pub(in crate::proxy) const MAX_BACKENDS: usize = 64;

/// What is known of a backend when the choice is made.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Candidate {
    /// Exchanges going on.
    pub(in crate::proxy) active: usize,
    /// Used only when no primary is eligible.
    pub(in crate::proxy) backup: bool,
    /// Could not be reached a moment ago.
    pub(in crate::proxy) marked: bool,
}

/// The backends that one request was already refused by.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Tried(u64);

impl Tried {
    pub(in crate::proxy) fn insert(&mut self, index: usize) {
        self.0 |= 1 << (index % MAX_BACKENDS);
    }

    pub(in crate::proxy) fn contains(self, index: usize) -> bool {
        self.0 & (1 << (index % MAX_BACKENDS)) != 0
    }
}

/// The index of the best of `count` backends that was not tried yet; `turn` counts requests.
pub(in crate::proxy) fn choose(
    count: usize,
    turn: usize,
    tried: Tried,
    look: impl Fn(usize) -> Candidate,
) -> Option<usize> {
    let rank = |index: usize| {
        let candidate = look(index);
        (candidate.marked, candidate.backup, candidate.active)
    };
    let open = || (0..count.min(MAX_BACKENDS)).filter(|index| !tried.contains(*index));
    let best = open().map(rank).min()?;
    let ties = open().filter(|index| rank(*index) == best).count();
    // Counts move between the two looks; then the turn may point past the ties, and any will do.
    open()
        .filter(|index| rank(*index) == best)
        .nth(turn % ties.max(1))
        .or_else(|| open().min_by_key(|index| rank(*index)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(active: usize) -> Candidate {
        Candidate { active, backup: false, marked: false }
    }

    fn choose_of(all: &[Candidate], turn: usize, tried: Tried) -> Option<usize> {
        choose(all.len(), turn, tried, |index| all[index])
    }

    #[test]
    fn the_fewest_exchanges_win_and_ties_take_turns() {
        let all = [plain(2), plain(1), plain(1), plain(3), plain(1)];
        let picks: Vec<_> = (0..6).map(|turn| choose_of(&all, turn, Tried::default())).collect();
        assert_eq!(picks, [Some(1), Some(2), Some(4), Some(1), Some(2), Some(4)]);
    }

    #[test]
    fn a_backup_waits_for_the_last_primary() {
        let backup = Candidate { active: 0, backup: true, marked: false };
        let marked = Candidate { active: 0, backup: false, marked: true };
        assert_eq!(choose_of(&[backup, plain(9)], 0, Tried::default()), Some(1));
        assert_eq!(choose_of(&[backup, marked], 0, Tried::default()), Some(0));
        let both = [Candidate { marked: true, ..backup }, marked];
        assert_eq!(choose_of(&both, 0, Tried::default()), Some(1), "all marked: any is tried");
    }

    #[test]
    fn each_is_tried_once() {
        let all = [plain(0), plain(0), plain(0)];
        let mut tried = Tried::default();
        let mut seen = Vec::new();
        while let Some(index) = choose_of(&all, 7, tried) {
            tried.insert(index);
            seen.push(index);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn no_better_one_is_passed_over(
            all in prop::collection::vec((0_usize..4, any::<bool>(), any::<bool>()), 0..70),
            turn in any::<usize>(),
            skip in any::<u64>(),
        ) {
            let all: Vec<_> = all.into_iter()
                .map(|(active, backup, marked)| Candidate { active, backup, marked }).collect();
            let tried = Tried(skip);
            let rank = |c: &Candidate| (c.marked, c.backup, c.active);
            let open: Vec<_> =
                (0..all.len().min(MAX_BACKENDS)).filter(|i| !tried.contains(*i)).collect();
            match choose_of(&all, turn, tried) {
                None => prop_assert!(open.is_empty()),
                Some(pick) => {
                    prop_assert!(open.contains(&pick));
                    prop_assert!(open.iter().all(|i| rank(&all[pick]) <= rank(&all[*i])));
                }
            }
        }
    }
}
