//! Some of a group's backends, one bit each: what a choice works on, without a list.

use crate::settings::RegionSettings;

/// The most backends of a region: each has a bit.
pub(in crate::proxy) const MAX_BACKENDS: usize = RegionSettings::MOST_BACKENDS;
const _: () = assert!(MAX_BACKENDS <= u64::BITS as usize);

/// Backends by their index in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) const EMPTY: Self = Self(0);

    /// Those whose bits are set.
    pub(super) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn insert(&mut self, index: usize) {
        self.0 |= 1 << (index % MAX_BACKENDS);
    }

    pub(super) fn contains(self, index: usize) -> bool {
        self.0 & (1 << (index % MAX_BACKENDS)) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The only one, where there is one alone.
    pub(super) fn only(self) -> Option<usize> {
        self.0.is_power_of_two().then(|| self.0.trailing_zeros() as usize)
    }

    /// The indices, from the lowest on.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let index = rest.trailing_zeros() as usize;
            // Clears the lowest bit; of none there is nothing to clear.
            rest &= rest.checked_sub(1)?;
            Some(index)
        })
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::EMPTY;
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            one in prop::collection::btree_set(0..MAX_BACKENDS, 0..20),
            other in prop::collection::btree_set(0..MAX_BACKENDS, 0..20),
        ) {
            let set = |indices: &BTreeSet<usize>| indices.iter().copied().collect::<Set>();
            let back = |set: Set| set.iter().collect::<BTreeSet<usize>>();
            prop_assert_eq!(&back(set(&one)), &one);
            prop_assert_eq!(set(&one).is_empty(), one.is_empty());
            prop_assert!(back(set(&one).and(set(&other))).iter().eq(one.intersection(&other)));
            prop_assert!(back(set(&one).without(set(&other))).iter().eq(one.difference(&other)));
            prop_assert!((0..MAX_BACKENDS).all(|i| set(&one).contains(i) == one.contains(&i)));
            let only = (one.len() == 1).then(|| one.first().copied()).flatten();
            prop_assert_eq!(set(&one).only(), only);
        }
    }
}
