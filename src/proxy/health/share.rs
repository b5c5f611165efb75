//! Which backends of a group may be used, all marks considered; pure.
//!
//! One that probes call down, whose breaker is open or that drains is out. One that is ejected is out as long as no more
//! than a share of its tier is: of those that could serve otherwise so many percent, rounded down, but one of two or more
//! in any case (of none if the share is 0 percent). Beyond that the failures say more of the region than of its
//! backends, and the operator's choice counts: with `fail` none of the tier may be used; with `panic` all may, unless a
//! later tier has somebody who is well while here nobody is. Of one that could not be reached a moment ago only the last
//! resort is made: where nobody else may be used, an error is certain otherwise.
//!
//! The share is of a tier and not of the region, because backups are there to replace all primaries.

use super::rules::Share;
use crate::settings::WhenExceeded;

/// What stands against a backend at one moment, as a choice sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Standing {
    /// Not to be used at all.
    pub(in crate::proxy) out: bool,
    pub(in crate::proxy) ejected: bool,
    pub(in crate::proxy) unreachable: bool,
}

/// Backends of a group as bits, by their place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Usable {
    /// To be chosen from, whatever the tier.
    pub(in crate::proxy) eligible: u64,
    /// Where none of those is left: could not be reached a moment ago, but the mark may be out of date.
    pub(in crate::proxy) resort: u64,
    /// Of the eligible those that are not ejected. Where there are none, a region that may fail over does it now, and
    /// panics only where nobody takes its place.
    pub(in crate::proxy) well: u64,
    /// Of some tier more were to be ejected than may be.
    pub(in crate::proxy) exceeded: bool,
}

/// Whether a backend may be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Fit {
    Eligible,
    /// Only where nobody eligible is left, for what is known of it may be out of date.
    Resort,
    Out,
}

/// Sums up what the ejections of one tier mean.
#[derive(Clone, Copy, Debug, Default)]
struct Census {
    serving: usize,
    ejected: usize,
}

impl Census {
    fn of(members: &[(u8, Standing)], tier: u8) -> Self {
        let mut census = Self::default();
        for (_, standing) in members.iter().filter(|(of, standing)| *of == tier && !standing.out) {
            census.serving += 1;
            census.ejected += usize::from(standing.ejected);
        }
        census
    }

    fn exceeds(self, share: Share) -> bool {
        let percent = usize::try_from(share.percent).unwrap_or(100);
        let most = self.serving * percent / 100;
        let least = usize::from(self.serving > 1 && percent > 0);
        self.ejected > most.max(least)
    }

    fn has_well(self) -> bool {
        self.serving > self.ejected
    }
}

impl Usable {
    /// Lets the member at a place in the group be used, as long as none is ejected: then it is judged for itself alone.
    pub(in crate::proxy) fn admit_one(&mut self, index: usize, standing: Standing) {
        if standing.out || index >= 64 {
            return;
        }
        let bit = 1 << index;
        if standing.unreachable {
            self.resort |= bit;
        } else {
            self.eligible |= bit;
            self.well |= bit;
        }
    }

    /// Whether any may be used.
    pub(in crate::proxy) fn is_any(self) -> bool {
        self.eligible | self.resort != 0
    }

    /// Whether the member at a place in the group may be used.
    pub(in crate::proxy) fn fit(self, index: usize) -> Fit {
        let bit = 1 << (index % 64);
        if self.eligible & bit != 0 {
            Fit::Eligible
        } else if self.resort & bit != 0 {
            Fit::Resort
        } else {
            Fit::Out
        }
    }

    /// Of members with their tiers, at most 64, in their order in the group.
    pub(in crate::proxy) fn of(members: &[(u8, Standing)], share: Share) -> Self {
        let mut usable = Self::default();
        // A panic uses everybody only where no tier has somebody who is well.
        let mut panicking = Self::default();
        let mut seen = Tiers::default();
        for (tier, _) in members {
            if !seen.insert(*tier) {
                continue;
            }
            let census = Census::of(members, *tier);
            if !census.exceeds(share) {
                usable.admit(members, *tier, false);
                continue;
            }
            usable.exceeded = true;
            match share.when_exceeded {
                WhenExceeded::Fail => {}
                WhenExceeded::Panic if census.has_well() => usable.admit(members, *tier, true),
                WhenExceeded::Panic => panicking.admit(members, *tier, true),
            }
        }
        if usable.eligible == 0 {
            usable.eligible = panicking.eligible;
            usable.resort |= panicking.resort;
        }
        usable
    }

    /// Lets the members of a tier be used, the ejected ones among them where ejections are ignored.
    fn admit(&mut self, members: &[(u8, Standing)], tier: u8, ignore: bool) {
        for (index, (of, standing)) in members.iter().take(64).enumerate() {
            if *of != tier || standing.out || (standing.ejected && !ignore) {
                continue;
            }
            let bit = 1 << index;
            if standing.unreachable {
                self.resort |= bit;
            } else {
                self.eligible |= bit;
                self.well |= if standing.ejected { 0 } else { bit };
            }
        }
    }
}

/// Tiers, each as a bit.
#[derive(Debug, Default)]
struct Tiers([u64; 4]);

impl Tiers {
    /// Whether it was not there.
    fn insert(&mut self, tier: u8) -> bool {
        let Some(bits) = self.0.get_mut(usize::from(tier / 64)) else { return false };
        let bit = 1 << (tier % 64);
        let new = *bits & bit == 0;
        *bits |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF: Share = Share { percent: 50, when_exceeded: WhenExceeded::Panic };
    const FAIL: Share = Share { percent: 50, when_exceeded: WhenExceeded::Fail };

    /// One character a member: `.` well, `e` ejected, `u` unreachable, `x` out; a space begins the next tier.
    fn usable(text: &str, share: Share) -> Usable {
        let mut members = Vec::new();
        for (tier, part) in text.split(' ').enumerate() {
            for standing in part.chars() {
                let standing = Standing {
                    out: standing == 'x',
                    ejected: standing == 'e',
                    unreachable: standing == 'u',
                };
                members.push((u8::try_from(tier).unwrap(), standing));
            }
        }
        Usable::of(&members, share)
    }

    /// The eligible, a `+` for each, and whether the share is exceeded.
    fn shown(text: &str, share: Share) -> (String, bool) {
        let usable = usable(text, share);
        let members = text.chars().filter(|c| *c != ' ').count();
        let bit = |index: usize| if usable.eligible & (1_u64 << index) == 0 { '-' } else { '+' };
        ((0..members).map(bit).collect(), usable.exceeded)
    }

    #[test]
    fn ejections_count_up_to_the_share() {
        for (members, panic, fail) in [
            ("....", ("++++", false), ("++++", false)),
            ("ee..", ("--++", false), ("--++", false)),
            ("eee.", ("++++", true), ("----", true)),
            ("eeee", ("++++", true), ("----", true)),
            // Three of five would be more than half; rounded down.
            ("ee...", ("--+++", false), ("--+++", false)),
            ("eee..", ("+++++", true), ("-----", true)),
            // One of two or three may be, but a lone one may not.
            ("e..", ("-++", false), ("-++", false)),
            ("e.", ("-+", false), ("-+", false)),
            ("e", ("+", true), ("-", true)),
            // Of those that could serve otherwise: two of four are down.
            ("xxee", ("--++", true), ("----", true)),
            ("xxe.", ("---+", false), ("---+", false)),
        ] {
            assert_eq!(shown(members, HALF), (panic.0.to_owned(), panic.1), "{members} panic");
            assert_eq!(shown(members, FAIL), (fail.0.to_owned(), fail.1), "{members} fail");
        }
    }

    #[test]
    fn the_bounds_of_the_share() {
        let percent = |percent| Share { percent, ..HALF };
        assert_eq!(shown("eeee", percent(100)), ("----".to_owned(), false));
        assert_eq!(shown("e", percent(100)), ("-".to_owned(), false));
        assert_eq!(shown("e..", percent(0)), ("+++".to_owned(), true));
        assert_eq!(shown("e.........", percent(1)).0, "-+++++++++");
    }

    #[test]
    fn a_backup_replaces_all_primaries_before_anybody_panics() {
        assert_eq!(shown("ee .", HALF), ("--+".to_owned(), true));
        assert_eq!(shown("ee e", HALF), ("+++".to_owned(), true));
        assert_eq!(shown("ee x", HALF), ("++-".to_owned(), true));
        // One primary is well: the backup has no part in it.
        assert_eq!(shown("eee. .", HALF), ("+++++".to_owned(), true));
        assert_eq!(shown("eee. .", FAIL), ("----+".to_owned(), true));
    }

    #[test]
    fn who_could_not_be_reached_is_the_last_resort() {
        let both = usable("u.", HALF);
        assert_eq!((both.eligible, both.resort), (0b10, 0b01));
        let all = usable("uux", HALF);
        assert_eq!((all.eligible, all.resort), (0, 0b011));
    }

    proptest! {
        #[test]
        fn the_share_holds(
            members in prop::collection::vec(
                (0_u8..3, any::<bool>(), any::<bool>(), any::<bool>()), 0..64),
            percent in 0_u32..=100, fails in any::<bool>(),
        ) {
            let members: Vec<_> = members.into_iter().map(|(tier, out, ejected, unreachable)| {
                (tier, Standing { out, ejected, unreachable })
            }).collect();
            let when_exceeded = if fails { WhenExceeded::Fail } else { WhenExceeded::Panic };
            let share = Share { percent, when_exceeded };
            let usable = Usable::of(&members, share);
            prop_assert_eq!(usable.eligible & usable.resort, 0);
            prop_assert_eq!(usable.eligible & usable.well, usable.well);
            let mut one_by_one = Usable::default();
            for (index, (_, standing)) in members.iter().enumerate() {
                one_by_one.admit_one(index, *standing);
            }
            let nobody = members.iter().all(|(_, standing)| !standing.ejected);
            prop_assert!(!nobody || usable == one_by_one);
            for (index, (tier, standing)) in members.iter().enumerate() {
                let used = (usable.eligible | usable.resort) & (1_u64 << index) != 0;
                prop_assert!(!(used && standing.out), "out is out");
                prop_assert!(!(used && standing.ejected) || usable.exceeded);
                prop_assert!(!(used && standing.ejected && fails), "no panic was asked for");
                if !used && !standing.out && !fails && !standing.ejected {
                    prop_assert!(false, "who is well of tier {} is passed over", tier);
                }
            }
            // Nobody is left without a backend by ejections alone, where a panic is asked for and one may be used.
            let could = members.iter().any(|(_, standing)| !standing.out);
            if !fails && percent < 100 && could {
                prop_assert!(usable.eligible | usable.resort != 0);
            }
        }
    }
}
