//! Who is wished for, whichever primary serves him: the wish follows its user to another shard.
//!
//! Invariants: a name is wished for at one shard at a time, that of the present table; when he comes to another one, he is
//! confirmed there with a gap report, since what was published in between nobody heard. The lock of the roll is taken before that of
//! a shard's wishes, never the other way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::table::Table;
use super::{names, slots};
use crate::bus::BusError;
use crate::bus::redis::shard::Shard;
use crate::bus::redis::verdict::Member;
use crate::bus::redis::wishes::{Wish, Wishes};

/// Everybody who is wished for.
pub(super) struct Roll {
    names: Mutex<HashMap<Arc<str>, Entry>>,
    patience: Duration,
}

struct Entry {
    wishes: usize,
    placed: Option<(Member, Wish)>,
}

impl Roll {
    pub(super) fn new(patience: Duration) -> Self {
        Self { names: Mutex::default(), patience }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `table` gives the present one, and is called while no table can take its place here.
    pub(super) fn wish(
        self: &Arc<Self>,
        name: &str,
        table: impl FnOnce() -> Arc<Table>,
    ) -> Following {
        let name: Arc<str> = Arc::from(name);
        let mut names = self.lock();
        let entry = names.entry(Arc::clone(&name)).or_insert_with(|| {
            let shard = table().shard(slot_of(&name)).cloned();
            let placed = shard.map(|shard| (shard.member, shard.subscriber.wishes.wish(&name)));
            Entry { wishes: 0, placed }
        });
        entry.wishes += 1;
        drop(names);
        Following { roll: Arc::clone(self), name }
    }

    /// Moves everybody to where `table` says, after `taken` has made that the present table.
    pub(super) fn follow(&self, table: &Table, taken: impl FnOnce()) {
        let mut names = self.lock();
        taken();
        for (name, entry) in names.iter_mut() {
            let shard = table.shard(slot_of(name));
            let now = entry.placed.as_ref().map(|(member, _)| *member);
            if now != shard.map(|shard| shard.member) {
                let wish =
                    |shard: &Arc<Shard>| (shard.member, shard.subscriber.wishes.wish_late(name));
                entry.placed = shard.map(wish);
            }
        }
    }

    fn placed(&self, name: &str) -> Option<Arc<Wishes>> {
        let names = self.lock();
        let (_, wish) = names.get(name)?.placed.as_ref()?;
        Some(Arc::clone(wish.wishes()))
    }
}

/// The slot of a user, or of a channel of his.
fn slot_of(name: &str) -> u16 {
    slots::of_user(names::owner(name))
}

/// One wish that follows its name; dropped, it counts no more.
pub(in crate::bus) struct Following {
    roll: Arc<Roll>,
    name: Arc<str>,
}

impl Following {
    pub(in crate::bus) async fn confirmed(&self) -> Result<(), BusError> {
        let deadline = Instant::now() + self.roll.patience;
        loop {
            let Some(wishes) = self.roll.placed(&self.name) else {
                return Err(BusError::Unavailable(Arc::from("no primary serves the user's slot")));
            };
            let confirmed = wishes.confirmed(&self.name).await;
            let now = self.roll.placed(&self.name);
            // Where he was moved meanwhile, the answer is that of a shard which has nothing to do with him.
            let stayed = now.is_some_and(|now| Arc::ptr_eq(&now, &wishes));
            if stayed || Instant::now() >= deadline {
                return if stayed || confirmed.is_err() { confirmed } else { Err(moving()) };
            }
        }
    }
}

fn moving() -> BusError {
    BusError::Unavailable(Arc::from("the user's slot moves from primary to primary"))
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut names = self.roll.lock();
        let Some(entry) = names.get_mut(&self.name) else { return };
        entry.wishes -= 1;
        if entry.wishes == 0 {
            names.remove(&self.name);
        }
    }
}
