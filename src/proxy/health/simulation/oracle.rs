//! What a choice must be, reckoned from the marks anew and more simply.

use super::World;
use crate::proxy::backends::Tried;
use crate::proxy::health::share::{Fit, Standing};
use crate::settings::WhenExceeded;

/// What stands against a member before a choice, as the choice must see it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a note of one moment, to be read in a failure")]
pub(super) struct Seen {
    pub(super) tier: u8,
    pub(super) out: bool,
    pub(super) ejected: bool,
    pub(super) unreachable: bool,
    pub(super) full: bool,
    pub(super) tried: bool,
}

impl Seen {
    pub(super) fn is_well(self) -> bool {
        !self.out && !self.ejected && !self.unreachable
    }
}

impl World {
    pub(super) fn seen(&self, tried: Tried) -> Vec<Seen> {
        let mut seen = Vec::new();
        for (index, member) in self.group.members.iter().enumerate() {
            let upstream = &member.upstream;
            let Standing { out, ejected, unreachable } = upstream.health.standing();
            let out = out || upstream.is_draining() || member.weight() == 0;
            let most = member.max_connections as usize;
            let full = most > 0 && upstream.active() >= most;
            let tried = tried.contains(index);
            seen.push(Seen { tier: member.tier, out, ejected, unreachable, full, tried });
        }
        seen
    }

    /// Whether more of a tier are ejected than may be.
    pub(super) fn exceeds(&self, seen: &[Seen], tier: u8) -> bool {
        let own = || seen.iter().filter(|one| one.tier == tier && !one.out);
        let (serving, ejected) = (own().count(), own().filter(|one| one.ejected).count());
        let percent = self.health.max_ejected_percent as usize;
        let least = usize::from(serving > 1 && percent > 0);
        ejected > (serving * percent / 100).max(least)
    }

    /// Whether this one was the right one to choose.
    pub(super) fn chosen(&self, seen: &[Seen], place: usize) {
        let one = seen[place];
        assert!(!one.out && !one.tried && !one.full, "{one:?} of {seen:?}");
        let panics = self.health.when_exceeded == WhenExceeded::Panic;
        let exceeds = self.exceeds(seen, one.tier);
        assert!(!one.ejected || (panics && exceeds), "ejected: {one:?} of {seen:?}");
        let has_well = |tier| seen.iter().any(|o| o.tier == tier && !o.out && !o.ejected);
        if one.ejected && !has_well(one.tier) {
            let panics = |o: &Seen| self.exceeds(seen, o.tier) && has_well(o.tier);
            let mut others = seen.iter().filter(|o| !o.out && !o.unreachable);
            let other = others.find(|o| !o.ejected || panics(o));
            assert!(other.is_none(), "a panic, though there is {other:?} of {seen:?}");
        }
        let eligible = |o: &Seen| {
            let refused = !panics && self.exceeds(seen, o.tier);
            o.is_well() && !o.tried && !refused
        };
        assert!(!one.unreachable || !seen.iter().any(eligible), "in doubt: {one:?} of {seen:?}");
        let is_held = !self.settings.hold.is_zero() || !self.settings.slow_start.is_zero();
        if one.is_well() && !is_held {
            let better = seen.iter().any(|o| eligible(o) && o.tier < one.tier);
            assert!(!better, "of a worse tier: {one:?} of {seen:?}");
        }
    }

    /// No more of a tier are kept out by ejections than may be, unless that is the operator's choice, or others replace them.
    pub(super) fn share_holds(&self, seen: &[Seen]) {
        let usable = self.group.usable();
        let mut exceeded = false;
        for tier in 0..3 {
            let exceeds = self.exceeds(seen, tier);
            exceeded |= exceeds;
            let kept_out = |(index, one): &(usize, &Seen)| {
                one.tier == tier && one.ejected && !one.out && usable.fit(*index) == Fit::Out
            };
            let kept_out = seen.iter().enumerate().filter(kept_out).count();
            let chosen = self.health.when_exceeded == WhenExceeded::Fail || usable.eligible != 0;
            assert!(!exceeds || kept_out == 0 || chosen, "nobody of tier {tier}: {seen:?}");
        }
        assert_eq!(usable.exceeded, exceeded, "{seen:?}");
    }
}
