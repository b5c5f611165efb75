//! Shares by weight, of every way of balancing, and the order of turns.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

fn turns_of(weights: &[u32]) -> Turns {
    Turns::new(weights.iter().map(|weight| weight * UNIT))
}

fn all(count: usize) -> Set {
    (0..count).collect()
}

/// How often each of `count` came.
fn tally(count: usize, picks: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut tally = vec![0; count];
    picks.for_each(|index| tally[index] += 1);
    tally
}

#[test]
fn the_fewest_exchanges_win_and_ties_take_turns() {
    let active = [2, 1, 1, 3, 1];
    let turns = turns_of(&[1; 5]);
    let load = |index: usize| Load { active: active[index], weight: UNIT };
    let picks: Vec<_> = (0..6).filter_map(|_| least_conn(all(5), &turns, load)).collect();
    assert_eq!(picks, [1, 2, 4, 1, 2, 4]);
}

#[test]
fn exchanges_weigh_less_on_the_heavy() {
    let turns = turns_of(&[3, 1]);
    let pick = |active: [usize; 2]| {
        let load = |i: usize| Load { active: active[i], weight: [3, 1][i] * UNIT };
        least_conn(all(2), &turns, load)
    };
    assert_eq!(pick([2, 1]), Some(0), "2/3 is less than 1");
    assert_eq!(pick([4, 1]), Some(1), "4/3 is more than 1");
}

#[test]
fn turns_are_spread() {
    let turns = turns_of(&[5, 1, 1]);
    let picks: Vec<_> =
        (0..14).filter_map(|_| round_robin(all(3), &turns, |i| [5, 1, 1][i] * UNIT)).collect();
    assert_eq!(picks[..7], picks[7..], "each round is like the one before");
    assert_eq!(tally(3, picks[..7].iter().copied()), [5, 1, 1]);
    let light: Vec<usize> = (0..7).filter(|at| picks[*at] != 0).collect();
    assert!(light[1] - light[0] > 1, "the light stand together: {picks:?}");
}

#[test]
fn who_was_away_makes_up_for_nothing() {
    let turns = turns_of(&[1, 1]);
    let weight = |_| UNIT;
    for _ in 0..1_000 {
        assert_eq!(round_robin(Set::from_iter([0]), &turns, weight), Some(0));
    }
    let picks = (0..10).filter_map(|_| round_robin(all(2), &turns, weight));
    assert_eq!(tally(2, picks), [5, 5]);
}

#[test]
fn nobody_is_chosen_of_none() {
    let turns = turns_of(&[1]);
    assert_eq!(round_robin(Set::EMPTY, &turns, |_| UNIT), None);
    let load = |_| Load { active: 0, weight: UNIT };
    assert_eq!(least_conn(Set::EMPTY, &turns, load), None);
    assert_eq!(two_choices(Set::EMPTY, |_| 0, |_| UNIT, |_| 0.0), None);
}

#[test]
fn the_cheaper_of_two_wins() {
    let mut rng = fastrand::Rng::with_seed(7);
    let cost = [9.0, 1.0, 5.0];
    let picks = (0..3_000).filter_map(|_| {
        two_choices(all(3), |below| rng.u64(..below), |_| UNIT, |index| cost[index])
    });
    let tally = tally(3, picks);
    assert_eq!(tally[0], 0, "the dearest loses to each of the others");
    assert!((1_900..2_100).contains(&tally[1]), "in two of three pairs: {tally:?}");
}

/// With all exchanges equally long, the cost is the number of them: what is going on spreads by weight.
#[test]
fn two_choices_share_by_weight() {
    let mut rng = fastrand::Rng::with_seed(11);
    let weights = [4_u32, 2, 1, 1];
    let active: [Cell<u32>; 4] = Default::default();
    for _ in 0..800 {
        let cost = |index: usize| f64::from(active[index].get() + 1);
        let weight = |index: usize| weights[index] * UNIT;
        let pick = two_choices(all(4), |below| rng.u64(..below), weight, cost).unwrap();
        active[pick].set(active[pick].get() + 1);
    }
    for (index, weight) in weights.iter().enumerate() {
        let (got, fair) = (active[index].get(), weight * 100);
        assert!(got.abs_diff(fair) <= 30, "{index} has {got} of {fair}");
    }
}

proptest! {
    /// Never more than one turn away from the exact share, after any number of turns.
    #[test]
    fn turns_are_shared_exactly(
        weights in prop::collection::vec(1_u32..20, 1..9),
        count in 1_u32..400,
    ) {
        let turns = turns_of(&weights);
        let picks = (0..count)
            .filter_map(|_| round_robin(all(weights.len()), &turns, |i| weights[i] * UNIT));
        let tally = tally(weights.len(), picks);
        let total: u32 = weights.iter().sum();
        for (got, weight) in tally.iter().zip(&weights) {
            let fair = f64::from(count) * f64::from(*weight) / f64::from(total);
            prop_assert!((f64::from(*got) - fair).abs() <= 2.0, "{tally:?} by {weights:?}");
        }
    }

    #[test]
    fn no_less_busy_one_is_passed_over(
        loads in prop::collection::vec((0_u32..6, 1_u32..2_000), 1..40),
        open in prop::collection::btree_set(0_usize..40, 0..40),
    ) {
        let turns = Turns::new(loads.iter().map(|(_, weight)| *weight));
        let open: Set = open.into_iter().filter(|index| *index < loads.len()).collect();
        let load = |index: usize| Load { active: loads[index].0 as usize, weight: loads[index].1 };
        let busy = |index: usize| f64::from(loads[index].0) / f64::from(loads[index].1);
        match least_conn(open, &turns, load) {
            None => prop_assert!(open.is_empty()),
            Some(pick) => {
                prop_assert!(open.contains(pick));
                prop_assert!(open.iter().all(|other| busy(pick) <= busy(other) + 1e-12));
            }
        }
    }

    /// Exchanges that last: what is going on spreads by weight, to within one.
    #[test]
    fn least_conn_shares_by_weight(weights in prop::collection::vec(1_u32..8, 1..6)) {
        let turns = turns_of(&weights);
        let active: Vec<Cell<usize>> = weights.iter().map(|_| Cell::new(0)).collect();
        let total: u32 = weights.iter().sum();
        for _ in 0..total * 10 {
            let load = |i: usize| Load { active: active[i].get(), weight: weights[i] * UNIT };
            let pick = least_conn(all(weights.len()), &turns, load).unwrap();
            active[pick].set(active[pick].get() + 1);
        }
        for (active, weight) in active.iter().zip(&weights) {
            prop_assert!(active.get().abs_diff(*weight as usize * 10) <= 1, "{active:?} {weights:?}");
        }
    }
}
