//! What stands against a backend, in one atomic that every choice reads.
//!
//! Invariants: 0 means that nothing does, so that a choice among the well costs one relaxed load each. A bit says
//! that, not why or until when: this is kept where it is needed seldom.

use std::sync::atomic::{AtomicU8, Ordering};

/// What stands against a backend; several may at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Marks(u8);

impl Marks {
    /// Probes of our own failed.
    pub(in crate::proxy) const DOWN: Self = Self(1);
    /// Its exchanges failed, more than others' do.
    pub(in crate::proxy) const EJECTED: Self = Self(1 << 1);
    /// Its breaker is open.
    pub(in crate::proxy) const OPEN: Self = Self(1 << 2);
    /// Its breaker is half-open: it takes a few exchanges on trial.
    pub(in crate::proxy) const TRIAL: Self = Self(1 << 3);
    /// It could not be reached a moment ago.
    pub(in crate::proxy) const UNREACHABLE: Self = Self(1 << 4);

    pub(in crate::proxy) fn is_clear(self) -> bool {
        self.0 == 0
    }

    pub(in crate::proxy) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }
}

/// The marks of one backend, set by whoever finds something out.
#[derive(Debug, Default)]
pub(super) struct SharedMarks(AtomicU8);

impl SharedMarks {
    pub(super) fn get(&self) -> Marks {
        Marks(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, mark: Marks) {
        self.0.fetch_or(mark.0, Ordering::Relaxed);
    }

    pub(super) fn clear(&self, mark: Marks) {
        self.0.fetch_and(!mark.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_and_go_by_themselves() {
        let shared = SharedMarks::default();
        assert!(shared.get().is_clear());
        let all = [Marks::DOWN, Marks::EJECTED, Marks::OPEN, Marks::TRIAL, Marks::UNREACHABLE];
        for mark in all {
            shared.set(mark);
        }
        for (index, mark) in all.into_iter().enumerate() {
            assert!(shared.get().has(mark));
            shared.clear(mark);
            for (other, left) in all.into_iter().enumerate() {
                assert_eq!(shared.get().has(left), other > index);
            }
        }
        assert!(shared.get().is_clear());
    }
}
