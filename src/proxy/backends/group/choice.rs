//! Who of a group gets a request: one look at all members, the tier that serves, and the way of balancing among those of
//! it that have room.
//!
//! A choice takes no lock, allocates nothing, and reads the clock only where something is not as ever.

use std::sync::atomic::Ordering;

use super::Group;
use crate::proxy::backends::balance::{self, Load, Tried, UNIT};
use crate::proxy::backends::hash;
use crate::proxy::backends::member::{Member, Now};
use crate::proxy::backends::ramp;
use crate::proxy::backends::set::Set;
use crate::proxy::backends::tiers::Eligible;
use crate::proxy::backends::upstream::Active;
use crate::proxy::health::Fit;
use crate::settings::Balance;

/// Where a request stands while a tier takes over: nearest the golden section of 1,000 without a common divisor, so that
/// requests that follow each other stand far apart, and 1,000 of them everywhere once.
const STRIDE: u32 = 619;

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    Unavailable,
    Busy,
}

impl Group {
    pub(super) fn pick(&self, tried: &mut Tried, key: Option<u64>) -> Result<Active, Miss> {
        if let [only] = &*self.members {
            // Nothing to weigh, and a doubt would only turn an error of its own into ours.
            if tried.contains(0) || !(only.is_clear() || self.usable().is_any()) {
                return Err(Miss::Unavailable);
            }
            let active = Active::begin(&only.upstream, only.max_connections).ok_or(Miss::Busy)?;
            tried.insert(0);
            return Ok(active);
        }
        let now = Now::new(self.clock);
        let mut view = self.look(&now);
        let tier = self.tier_of_request(&view, key, &now);
        let well = view.well.any.without(tried.set());
        let candidates = if well.is_empty() {
            self.of_best(view.doubtful.without(tried.set()))
        } else {
            self.of_tier(tier, well)
        };
        if candidates.is_empty() {
            return Err(Miss::Unavailable);
        }
        loop {
            let open = candidates.without(view.full);
            let index = self.choose(open, key, &now).ok_or(Miss::Busy)?;
            let member = self.members.get(index).ok_or(Miss::Busy)?;
            if let Some(active) = Active::begin(&member.upstream, member.max_connections) {
                tried.insert(index);
                return Ok(active);
            }
            // Another worker was quicker.
            view.full.insert(index);
        }
    }

    /// What can be used, and notes since when.
    fn look(&self, now: &Now) -> View {
        let (mut view, usable) = (View::default(), self.usable());
        for (index, member) in self.members.iter().enumerate() {
            let since = &member.upstream.since;
            match usable.fit(index) {
                Fit::Eligible => {
                    view.well.any.insert(index);
                    let well = since.well(|| now.get());
                    if well.is_none_or(|well| well >= self.hold) {
                        view.well.held.insert(index);
                    }
                    if well.is_some_and(|well| well >= self.hold.max(self.slow_start)) {
                        since.settle();
                    }
                }
                Fit::Resort => {
                    view.doubtful.insert(index);
                    since.lost();
                }
                Fit::Out => since.lost(),
            }
            if member.is_full() {
                view.full.insert(index);
            }
        }
        view
    }

    /// Notes how all stand when no request does.
    pub(super) fn note(&self) {
        let now = Now::new(self.clock);
        self.move_on(&self.look(&now), &now);
    }

    /// Has another tier serve, where it is time for it.
    fn move_on(&self, view: &View, now: &Now) {
        let serving = &self.state.serving;
        if let Some(moved) = serving.look(&self.tiers, view.well, || now.get()) {
            self.series.queue.tier_changes.inc();
            let (region, from, to) = (&*self.region, moved.from, moved.to);
            if to > from {
                tracing::warn!(target: "Proxy", region, from, to, "nothing of tier {from} can be used: tier {to} serves");
            } else {
                tracing::info!(target: "Proxy", region, from, to, "tier {to} serves again");
            }
        }
    }

    fn tier_of_request(&self, view: &View, key: Option<u64>, now: &Now) -> u8 {
        self.move_on(view, now);
        // By its key, a request stays where it is while the others move.
        let point = || match key {
            Some(key) => u32::try_from(hash::mix(key) % u64::from(UNIT)).unwrap_or_default(),
            None => self.state.points.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE) % UNIT,
        };
        self.state.serving.of_request(self.slow_start, || now.get(), point)
    }

    /// Those of the tier, or where it has none of them, of the best that has.
    fn of_tier(&self, tier: u8, set: Set) -> Set {
        let own = self.tiers.iter().find(|(number, _)| *number == tier);
        let own = own.map(|(_, all)| all.and(set)).filter(|own| !own.is_empty());
        own.unwrap_or_else(|| self.of_best(set))
    }

    pub(super) fn of_best(&self, set: Set) -> Set {
        let mut tiers = self.tiers.iter().map(|(_, all)| all.and(set));
        tiers.find(|own| !own.is_empty()).unwrap_or(Set::EMPTY)
    }

    fn choose(&self, open: Set, key: Option<u64>, now: &Now) -> Option<usize> {
        if let Some(only) = open.only() {
            return Some(only);
        }
        let weight = |index: usize| self.members.get(index).map_or(1, |one| self.weight(one, now));
        let active = |index: usize| self.members.get(index).map_or(0, |one| one.upstream.active());
        match self.balance {
            Balance::LeastConn => {
                let load = |index| Load { active: active(index), weight: weight(index) };
                balance::least_conn(open, &self.turns, load)
            }
            Balance::RoundRobin => balance::round_robin(open, &self.turns, weight),
            Balance::P2cEwma => {
                let cost = |index: usize| {
                    let member = self.members.get(index);
                    let latency =
                        member.map(|one| one.upstream.latency.cost(active(index), now.get()));
                    latency.unwrap_or(f64::MAX)
                };
                balance::two_choices(open, |below| fastrand::u64(..below), weight, cost)
            }
            Balance::ConsistentHash => {
                let name = |index: usize| self.members.get(index).map_or(0, |one| one.name);
                hash::rendezvous(open, key.unwrap_or_default(), name, weight)
            }
        }
    }

    /// A member's weight in thousandths, less what its slow start leaves out; not 0.
    pub(super) fn weight(&self, member: &Member, now: &Now) -> u32 {
        let share = if self.slow_start == 0 {
            UNIT
        } else {
            let well = member.upstream.since.well(|| now.get());
            well.map_or(UNIT, |well| ramp::share(well, self.slow_start))
        };
        member.weight().saturating_mul(share).max(1)
    }
}

/// What one look at the members has found.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    well: Eligible,
    doubtful: Set,
    /// At their bound.
    full: Set,
}
