//! Which region serves a request: the one that was asked for, or another by its policy.
//!
//! Pure: the policy, what each region can take at this moment, and a turn go in; an order comes out. Regions are places
//! in a list, whose first is always the one that was asked for.
//!
//! Invariants: under `strict` no other region is ever named; a region that stands in for another is asked for its own
//! backends alone, so that there is no chain and a circle in the settings does no harm; over each [`CYCLE`] turns the
//! parts of a split are exact.

use crate::settings::{Failover, RegionSettings};

/// The turns after which a split has come out exactly: parts are counted in thousandths.
const CYCLE: usize = 1_000;

/// Nearest the golden section of [`CYCLE`] without a common divisor: turns that follow each other land far apart, and in
/// each cycle every place is hit once.
const STRIDE: usize = 619;

/// What a region can take now, by the weights of its backends; any unit of them, for only the ratio counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Of the tier that serves, what is eligible.
    pub(super) usable: u32,
    /// The primaries, eligible or not.
    pub(super) whole: u32,
}

impl Standing {
    fn is_usable(self) -> bool {
        self.usable > 0
    }

    /// Thousandths of a region's traffic that it can take.
    fn share(self, factor: f64) -> f64 {
        let share = f64::from(self.usable) / f64::from(self.whole.max(1)) * factor;
        share.clamp(0.0, 1.0) * 1_000.0
    }
}

/// How one region's traffic is handed on.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    failover: Failover,
    factor: f64,
}

impl Policy {
    pub(super) fn of(settings: &RegionSettings) -> Self {
        let factor = settings.spill_factor.unwrap_or_default();
        Self { failover: settings.failover.clone(), factor: factor.get() }
    }

    /// As records name it.
    pub(super) fn name(&self) -> &'static str {
        match self.failover {
            Failover::Strict => "strict",
            Failover::Ordered(_) => "ordered",
            Failover::Spill(_) => "spill",
            Failover::Any => "any",
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.failover == Failover::Strict
    }

    /// Whether it makes a difference how much a region can take, and not only whether it can take anything.
    pub(super) fn goes_by_share(&self) -> bool {
        matches!(self.failover, Failover::Spill(_))
    }

    /// Whether a region that can take so much keeps every request at first.
    pub(super) fn keeps_all(&self, own: Standing) -> bool {
        match self.failover {
            Failover::Strict => true,
            Failover::Ordered(_) | Failover::Any => own.is_usable(),
            Failover::Spill(_) => own.share(self.factor) > 999.0,
        }
    }

    /// Where the request of this turn may be served, best first; a region that cannot take it is not named.
    pub(super) fn order(&self, regions: &[Standing], turn: usize) -> Vec<usize> {
        let first = self.begin(regions, turn);
        let rest = (0..regions.len()).filter(|index| *index != first);
        let usable = |index: &usize| regions.get(*index).is_some_and(|region| region.is_usable());
        std::iter::once(first).chain(rest).filter(usable).collect()
    }

    /// Where the request of this turn begins; 0 is its own region, also when nobody can take it.
    fn begin(&self, regions: &[Standing], turn: usize) -> usize {
        match &self.failover {
            Failover::Strict => 0,
            Failover::Ordered(_) | Failover::Any => first_usable(regions),
            Failover::Spill(named) => {
                let point = turn.wrapping_mul(STRIDE) % CYCLE;
                spill(regions, !named.is_empty(), self.factor, point)
            }
        }
    }
}

fn first_usable(regions: &[Standing]) -> usize {
    regions.iter().position(|region| region.is_usable()).unwrap_or(0)
}

/// The region in whose part of the thousand `point` lies.
#[expect(clippy::cast_precision_loss, reason = "a point is below a thousand")]
fn spill(regions: &[Standing], in_order: bool, factor: f64, point: usize) -> usize {
    let Some((own, others)) = regions.split_first() else { return 0 };
    let kept = own.share(factor);
    let moved = 1_000.0 - kept;
    let wanted = |other: &Standing| {
        if in_order { other.share(factor) } else { f64::from(other.usable) * 1_000.0 }
    };
    let all: f64 = others.iter().map(wanted).sum();
    if moved < 0.5 || all <= 0.0 {
        return if own.is_usable() { 0 } else { first_usable(regions) };
    }
    // In order, each takes what it can, until all are full; then, and without an order at once, all take alike.
    let (kept, scale) = match in_order {
        true if all >= moved => (kept, 1.0),
        true => (kept * 1_000.0 / (kept + all), 1_000.0 / (kept + all)),
        false => (kept, moved / all),
    };
    let point = point as f64 + 0.5;
    let mut end = kept;
    if point < end.round() {
        return 0;
    }
    let mut last = 0;
    for (index, other) in others.iter().enumerate() {
        let part = wanted(other) * scale;
        if part > 0.0 {
            end = (end + part).min(1_000.0);
            last = index + 1;
            if point < end.round() {
                return last;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::{RegionName, SpillFactor};

    fn of(usable: u32, whole: u32) -> Standing {
        Standing { usable, whole }
    }

    fn policy(failover: Failover, factor: Option<f64>) -> Policy {
        let spill_factor = factor.map(SpillFactor::new);
        Policy::of(&RegionSettings { failover, spill_factor, ..RegionSettings::default() })
    }

    fn ordered() -> Policy {
        policy(Failover::Ordered(vec![RegionName::literal("2")]), None)
    }

    fn spilling(named: &[&'static str]) -> Policy {
        let named = named.iter().map(|name| RegionName::literal(name)).collect();
        policy(Failover::Spill(named), None)
    }

    /// How a cycle of requests is split.
    fn split(policy: &Policy, regions: &[Standing]) -> Vec<usize> {
        let mut split = vec![0; regions.len()];
        for turn in 0..CYCLE {
            split[policy.begin(regions, turn)] += 1;
        }
        split
    }

    #[test]
    fn strict_is_never_left() {
        let strict = policy(Failover::Strict, None);
        assert_eq!(split(&strict, &[of(0, 2), of(2, 2)]), [1_000, 0]);
    }

    #[test]
    fn ordered_and_any_leave_when_nobody_is_left() {
        let any = policy(Failover::Any, None);
        for policy in [ordered(), any] {
            assert_eq!(policy.begin(&[of(1, 9), of(9, 9)], 3), 0);
            assert_eq!(policy.begin(&[of(0, 9), of(0, 9), of(1, 9)], 3), 2);
            assert_eq!(policy.begin(&[of(0, 9), of(0, 9)], 3), 0, "the error is its own region's");
        }
    }

    #[test]
    fn a_growing_share_spills_as_backends_fail() {
        let order = spilling(&["2", "3"]);
        let full = of(4, 4);
        for (left, expected) in [
            (4, [1_000, 0, 0]),
            (3, [1_000, 0, 0]),
            (2, [700, 300, 0]),
            (1, [350, 650, 0]),
            (0, [0, 1_000, 0]),
        ] {
            assert_eq!(split(&order, &[of(left, 4), full, full]), expected, "{left} of 4 left");
        }
        // Who stands in takes no more than it can; the next one has the rest.
        assert_eq!(split(&order, &[of(0, 4), of(1, 4), full]), [0, 350, 650]);
        // All together cannot: everybody takes his part of what there is.
        assert_eq!(split(&order, &[of(1, 4), of(1, 4), of(0, 4)]), [500, 500, 0]);
        assert_eq!(split(&order, &[of(1, 4), of(0, 4), of(0, 4)]), [1_000, 0, 0]);
        assert_eq!(split(&order, &[of(0, 4), of(0, 4), of(0, 4)]), [1_000, 0, 0]);
    }

    #[test]
    fn without_an_order_the_others_share_by_what_they_can_take() {
        let all = spilling(&[]);
        assert_eq!(split(&all, &[of(2, 4), of(1, 1), of(2, 2)]), [700, 100, 200]);
        assert_eq!(split(&all, &[of(0, 4), of(3, 3), of(1, 2)]), [0, 750, 250]);
        assert_eq!(split(&all, &[of(2, 4), of(0, 1), of(2, 2)]), [700, 0, 300]);
        assert_eq!(split(&all, &[of(1, 4), of(0, 1), of(0, 2)]), [1_000, 0, 0]);
    }

    #[test]
    fn neighbouring_turns_are_spread() {
        let order = spilling(&["2"]);
        let regions = [of(2, 4), of(4, 4)];
        for start in [0, 17, 990] {
            let moved = (start..start + 20).filter(|turn| order.begin(&regions, *turn) == 1);
            assert!((5..=7).contains(&moved.count()), "30 of 100 of any twenty");
        }
    }

    proptest! {
        /// Whoever is chosen can take it, unless nobody can.
        #[test]
        fn nobody_is_sent_where_nothing_is_usable(
            regions in prop::collection::vec((0_u32..5, 1_u32..5), 1..5),
            in_order in any::<bool>(),
            factor in 1.0_f64..4.0,
            turn in any::<usize>(),
        ) {
            let regions: Vec<_> = regions.into_iter().map(|(usable, whole)| of(usable.min(whole), whole)).collect();
            let named = if in_order { vec![RegionName::literal("2")] } else { Vec::new() };
            for policy in [
                policy(Failover::Spill(named), Some(factor)),
                policy(Failover::Any, None),
                ordered(),
            ] {
                let chosen = policy.begin(&regions, turn);
                let anybody = regions.iter().any(|region| region.usable > 0);
                prop_assert!(regions[chosen].usable > 0 || (!anybody && chosen == 0));
                let order = policy.order(&regions, turn);
                prop_assert_eq!(order.first().copied(), anybody.then_some(chosen));
                let able = regions.iter().filter(|region| region.usable > 0).count();
                prop_assert_eq!(order.len(), able);
            }
        }
    }
}
