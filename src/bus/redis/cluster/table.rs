//! Which shard serves which slot, as it was looked at last.

use std::sync::Arc;

use super::layout::Primary;
use super::slots;
use crate::bus::redis::shard::Shard;

/// No shard serves the slot.
const NOBODY: u16 = u16::MAX;

/// One answer, complete; never changed, but replaced.
pub(super) struct Table {
    shards: Vec<Arc<Shard>>,
    /// For each slot the place of its shard.
    owners: Box<[u16]>,
}

impl Table {
    pub(super) fn empty() -> Self {
        Self { shards: Vec::new(), owners: vec![NOBODY; usize::from(slots::COUNT)].into() }
    }

    pub(super) fn new(served: &[(Primary, Arc<Shard>)]) -> Self {
        let mut owners = vec![NOBODY; usize::from(slots::COUNT)];
        for (index, (primary, _)) in served.iter().enumerate() {
            for (first, last) in &primary.ranges {
                let range = usize::from(*first)..=usize::from(*last);
                if let Some(owners) = owners.get_mut(range) {
                    owners.fill(u16::try_from(index).unwrap_or(NOBODY));
                }
            }
        }
        Self {
            shards: served.iter().map(|(_, shard)| Arc::clone(shard)).collect(),
            owners: owners.into(),
        }
    }

    pub(super) fn shard(&self, slot: u16) -> Option<&Arc<Shard>> {
        self.shards.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Whether `other` leads everybody to the same shards.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let members =
            |table: &Self| -> Vec<_> { table.shards.iter().map(|shard| shard.member).collect() };
        self.owners == other.owners && members(self) == members(other)
    }

    /// Slots that nobody serves.
    pub(super) fn uncovered(&self) -> usize {
        self.owners.iter().filter(|owner| **owner == NOBODY).count()
    }
}
