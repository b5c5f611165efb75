//! A receiver that writes down everything the bus hands on, and waits for what is to come. For tests.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Deliver, Gap, SeatNumber, Seq};

/// Nothing here takes long; what does not come in this time does not come.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Writes down everything that is delivered.
#[derive(Default)]
pub(super) struct Recorder {
    heard: Mutex<Heard>,
    changed: Notify,
    takes_unstored: AtomicBool,
}

#[derive(Default)]
struct Heard {
    messages: HashMap<String, Vec<(Seq, Bytes)>>,
    signals: HashMap<String, Vec<Bytes>>,
    gaps: usize,
    told_all: bool,
    told: HashSet<String>,
    changes: HashMap<String, usize>,
    evicted: Vec<(String, SeatNumber)>,
}

impl Deliver for Recorder {
    fn message(&self, user: &str, seq: Seq, payload: Bytes) {
        let mut heard = self.heard.lock().unwrap();
        heard.messages.entry(user.to_owned()).or_default().push((seq, payload));
        self.changed.notify_waiters();
    }

    fn takes_unstored(&self) -> bool {
        self.takes_unstored.load(Ordering::Relaxed)
    }

    fn signal(&self, user: &str, payload: Bytes) {
        self.heard.lock().unwrap().signals.entry(user.to_owned()).or_default().push(payload);
        self.changed.notify_waiters();
    }

    fn gap(&self, of: Gap<'_>) {
        let mut heard = self.heard.lock().unwrap();
        heard.gaps += 1;
        match of {
            Gap::Everyone => heard.told_all = true,
            Gap::Of(users) => heard.told.extend(users.iter().map(ToString::to_string)),
        }
        drop(heard);
        self.changed.notify_waiters();
    }

    fn presence_changed(&self, user: &str) {
        *self.heard.lock().unwrap().changes.entry(user.to_owned()).or_default() += 1;
        self.changed.notify_waiters();
    }

    fn evict(&self, user: &str, seat: SeatNumber) {
        self.heard.lock().unwrap().evicted.push((user.to_owned(), seat));
        self.changed.notify_waiters();
    }
}

impl Recorder {
    /// Whether messages that nobody stored are wanted.
    pub(super) fn take_unstored(&self, wanted: bool) {
        self.takes_unstored.store(wanted, Ordering::Relaxed);
    }

    pub(super) fn messages(&self, user: &str) -> Vec<(Seq, Bytes)> {
        self.heard.lock().unwrap().messages.get(user).cloned().unwrap_or_default()
    }

    pub(super) fn seqs(&self, user: &str) -> Vec<Seq> {
        self.messages(user).into_iter().map(|(seq, _)| seq).collect()
    }

    pub(super) fn last(&self, user: &str) -> Option<Seq> {
        Some(self.heard.lock().unwrap().messages.get(user)?.last()?.0)
    }

    pub(super) fn signals(&self, user: &str) -> Vec<Bytes> {
        self.heard.lock().unwrap().signals.get(user).cloned().unwrap_or_default()
    }

    pub(super) fn gaps(&self) -> usize {
        self.heard.lock().unwrap().gaps
    }

    pub(super) fn changes(&self, user: &str) -> usize {
        self.heard.lock().unwrap().changes.get(user).copied().unwrap_or_default()
    }

    /// Each once, though it may be told twice.
    pub(super) fn evicted(&self, user: &str) -> Vec<SeatNumber> {
        let heard = self.heard.lock().unwrap();
        let seats = heard.evicted.iter().filter(|(one, _)| one == user).map(|(_, seat)| *seat);
        seats.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether a gap of `user`'s was told.
    pub(super) fn was_told(&self, user: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.told_all || heard.told.contains(user)
    }

    pub(super) fn forget_gaps(&self) {
        let mut heard = self.heard.lock().unwrap();
        (heard.told_all, heard.told) = (false, HashSet::new());
    }

    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if is_so(self) {
                    return;
                }
                changed.await;
            }
        };
        let patience = tokio::time::timeout(PATIENCE, wait).await;
        assert!(patience.is_ok(), "waited in vain until {what}");
    }
}
