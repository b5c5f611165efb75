//! The order of tiers, the hold, and the way back.

use proptest::prelude::*;

use super::*;

/// Tier 0 has 0 and 1, tier 1 has 2, tier 4 has 3.
fn tiers() -> Vec<(u8, Set)> {
    vec![(0, Set::from_iter([0, 1])), (1, Set::from_iter([2])), (4, Set::from_iter([3]))]
}

fn eligible(any: &[usize], held: &[usize]) -> Eligible {
    Eligible { any: any.iter().copied().collect(), held: held.iter().copied().collect() }
}

fn look(serving: &Serving, any: &[usize], held: &[usize]) -> u8 {
    serving.look(&tiers(), eligible(any, held), || 0);
    serving.tier()
}

#[test]
fn the_next_tier_serves_when_nothing_of_the_one_before_can() {
    let serving = Serving::default();
    assert_eq!(look(&serving, &[0, 1, 2, 3], &[0, 1, 2, 3]), 0);
    assert_eq!(look(&serving, &[1, 2, 3], &[1, 2, 3]), 0, "one primary is enough");
    assert_eq!(look(&serving, &[2, 3], &[2, 3]), 1);
    assert_eq!(look(&serving, &[3], &[3]), 4);
    assert_eq!(look(&serving, &[], &[]), 4, "where nothing can, nothing moves");
}

#[test]
fn the_way_back_takes_the_hold_time() {
    let serving = Serving::default();
    assert_eq!(look(&serving, &[2, 3], &[2, 3]), 1);
    assert_eq!(look(&serving, &[0, 2, 3], &[2, 3]), 1, "back, but not for long enough");
    assert_eq!(look(&serving, &[0, 2, 3], &[0, 2, 3]), 0);
}

#[test]
fn who_is_only_just_back_is_better_than_nobody() {
    let serving = Serving::default();
    assert_eq!(look(&serving, &[2], &[2]), 1);
    assert_eq!(look(&serving, &[1], &[]), 0);
    assert_eq!(look(&serving, &[1, 2], &[]), 0, "and stays");
}

#[test]
fn each_change_is_told_once() {
    let serving = Serving::default();
    let down = eligible(&[2], &[2]);
    assert_eq!(serving.look(&tiers(), down, || 5), Some(Moved { from: 0, to: 1 }));
    assert_eq!(serving.look(&tiers(), down, || 6), None);
    let up = eligible(&[0, 2], &[0, 2]);
    assert_eq!(serving.look(&tiers(), up, || 7), Some(Moved { from: 1, to: 0 }));
}

#[test]
fn a_tier_that_comes_back_takes_over_by_and_by() {
    let serving = Serving::default();
    look(&serving, &[2], &[2]);
    serving.look(&tiers(), eligible(&[0, 2], &[0, 2]), || 1_000);
    let share = |now: u64| {
        (0..1_000).filter(|point| serving.of_request(10_000, || now, || *point) == 0).count()
    };
    assert_eq!(share(1_000), 100);
    assert_eq!(share(6_000), 550);
    assert_eq!(share(11_000), 1_000);
    assert_eq!(serving.of_request(10_000, || panic!("it is over"), || 999), 0);
}

#[test]
fn a_backup_takes_over_at_once() {
    let serving = Serving::default();
    serving.look(&tiers(), eligible(&[2], &[2]), || 1_000);
    assert_eq!(serving.of_request(10_000, || panic!("nothing to share"), || 999), 1);
}

#[test]
fn a_state_is_a_word() {
    let state = State { tier: 255, from: 3, at: (1 << TIME_BITS) - 1 };
    assert_eq!(unpack(pack(state)), state);
    assert_eq!(unpack(0), State { tier: 0, from: 0, at: 0 });
}

/// A primary that flaps once a second, with a hold of five, and a backup that is always there.
#[test]
fn a_flapping_primary_is_gone_back_to_at_most_once_a_hold_time() {
    for up_for in [1_u64, 3, 4, 6, 12] {
        let serving = Serving::default();
        let (mut since, mut back, mut was_up) = (None, Vec::new(), true);
        for step in 0..600_u64 {
            // One step is half a second: down for one, up for `up_for`.
            let (now, up) = (step * 500, step % (up_for + 1) != 0);
            match (up, was_up) {
                (true, false) => since = Some(now),
                (false, _) => since = None,
                _ => {}
            }
            was_up = up;
            let held = since.is_some_and(|since| now - since >= 5_000);
            let any = if up { vec![0, 2] } else { vec![2] };
            let steady = if held { vec![0, 2] } else { vec![2] };
            if let Some(moved) = serving.look(&tiers(), eligible(&any, &steady), || now)
                && moved.to == 0
            {
                back.push(now);
            }
        }
        assert!(back.windows(2).all(|pair| pair[1] - pair[0] >= 5_000), "{back:?}");
        assert_eq!(back.is_empty(), up_for < 11, "up for {up_for} half seconds: {back:?}");
    }
}

proptest! {
    /// After any history: what serves is eligible, and better than it is only what came back a moment ago.
    #[test]
    fn the_order_of_tiers_holds(
        steps in prop::collection::vec((0_u8..16, 0_u8..16), 1..60),
    ) {
        let serving = Serving::default();
        let mut before = 0;
        for (any, held) in steps {
            let set = |bits: u8| (0..4).filter(|i| bits >> i & 1 == 1).collect::<Set>();
            let eligible = Eligible { any: set(any), held: set(any & held) };
            let moved = serving.look(&tiers(), eligible, || 0);
            let now = serving.tier();
            prop_assert_eq!(moved.is_some(), now != before);
            if any != 0 {
                prop_assert!(has(&tiers(), now, eligible.any));
                for (better, members) in tiers().iter().filter(|(tier, _)| *tier < now) {
                    prop_assert!(members.and(eligible.held).is_empty());
                    let came_back = !members.and(eligible.any).is_empty();
                    let held_there = before == now || has(&tiers(), before, eligible.any);
                    prop_assert!(!came_back || held_there, "moved past {}", better);
                }
            }
            before = now;
        }
    }
}
