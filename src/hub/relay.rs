//! Between the hub and the bus: the only file here that names the bus.
//!
//! Walk: a session subscribes, reads and publishes through a [`Relay`]; what the bus delivers comes in by
//! [`Inward`], which finds the user's seats and queues the one shared frame for each.
//!
//! Invariants: [`Inward`] runs in the task that reads the bus, so it only checks, looks up and queues;
//! a message's text is checked once a process, never once a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::outbox::Item;
use super::presence::Watchers;
use super::registry::Registry;
pub(super) use crate::bus::{
    Bus, BusError, Epoch, Presence, Receipt, Replay, SeatError, SeatHold, SeatLimit, SeatNumber,
    Seq, Subscription, Watch,
};
use crate::bus::{BusState, Deliver, Envelope, Gap};
use crate::protocol::outgoing::{Outgoing, taken_at};
use crate::settings::{DeliveryMode, HubSettings};

/// The way of one message in so many is measured, from the sender's hub to each reader's socket.
const MEASURED: u32 = 32;

/// What a session may ask of the bus. Each answer is a future that owns what it needs.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    bus: Bus,
    delivery: DeliveryMode,
    /// Bytes of an inbox that one reader holds at once; the rest is read when he has taken them.
    page: usize,
}

/// The answer to a join or a read.
pub(super) struct Read {
    /// The subscription that a join took.
    pub(super) subscription: Option<Subscription>,
    /// The position that was read after.
    pub(super) from: Seq,
    pub(super) replay: Result<Replay, BusError>,
}

impl Read {
    /// Whether the inbox holds more than what was read: a page ended before it did.
    pub(super) fn has_more(replay: &Replay) -> bool {
        replay.messages.last().is_some_and(|(seq, _)| *seq < replay.top)
    }
}

impl Relay {
    pub(super) fn new(bus: Bus, settings: &HubSettings) -> Self {
        Self { bus, delivery: settings.delivery, page: settings.outbox_bytes.get() }
    }

    fn stores(&self) -> bool {
        self.delivery == DeliveryMode::ExactlyOnce
    }

    /// Joins the bus to the users of `registry`, and to those whom `watchers` watch.
    pub(super) fn attach(&self, registry: Arc<Registry>, watchers: Arc<Watchers>) {
        let (delivery, count) = (self.delivery, AtomicU32::new(0));
        self.bus.attach(Arc::new(Inward { registry, delivery, watchers, count }));
    }

    /// Subscribes at once; then, when it is sure that live messages come, reads the inbox after `from`.
    pub(super) fn join(&self, user: &Arc<str>, from: Seq) -> impl Future<Output = Read> + use<> {
        let (this, user) = (self.clone(), user.clone());
        let subscription = this.bus.subscribe(&user);
        async move {
            let replay = match subscription.confirmed().await {
                Ok(()) => this.page(&user, from).await,
                // Nothing will ever be read that could make up for it: what comes, comes.
                Err(_away) if !this.stores() => Ok(nothing()),
                Err(error) => Err(error),
            };
            Read { subscription: Some(subscription), from, replay }
        }
    }

    /// Reads the inbox after `from`.
    pub(super) fn read(&self, user: &Arc<str>, from: Seq) -> impl Future<Output = Read> + use<> {
        let (reader, user) = (self.clone(), user.clone());
        async move { Read { subscription: None, from, replay: reader.page(&user, from).await } }
    }

    /// As much of the inbox after `from` as one reader may hold.
    async fn page(&self, user: &str, from: Seq) -> Result<Replay, BusError> {
        if self.stores() {
            self.bus.read(user, from).await.map(|replay| cut(replay, self.page))
        } else {
            Ok(nothing())
        }
    }

    /// Publishes `outgoing`, and gives it back with the answer.
    pub(super) fn publish(
        &self,
        outgoing: Outgoing,
        from: &Arc<str>,
    ) -> impl Future<Output = Option<(Outgoing, Result<Receipt, BusError>)>> + use<> {
        let (bus, from, stores) = (self.bus.clone(), from.clone(), self.stores());
        async move {
            let envelope = Envelope {
                to: outgoing.to(),
                from: &from,
                id: outgoing.id(),
                at_ms: outgoing.at_ms,
                head: outgoing.head(),
                tail: outgoing.tail(),
            };
            let receipt = if stores {
                bus.publish(envelope).await
            } else {
                let unstored = Receipt { seq: 0, at_ms: outgoing.at_ms, duplicate: false };
                bus.cast(envelope).await.map(|()| unstored)
            };
            Some((outgoing, receipt))
        }
    }

    /// Takes a seat for `user`, who may have as many as `limit` says over all nodes.
    pub(super) fn take_seat(&self, user: &str, limit: SeatLimit) -> SeatHold {
        self.bus.take_seat(user, limit)
    }

    pub(super) fn watch(&self, user: &str) -> Watch {
        self.bus.watch(user)
    }

    pub(super) async fn presence(&self, user: &str) -> Result<Presence, BusError> {
        self.bus.presence(user).await
    }

    /// Waits until the bus works.
    pub(super) async fn up(&self) {
        let mut state = self.bus.state();
        if state.wait_for(|state| *state == BusState::Up).await.is_err() {
            // The bus is gone, and nothing comes any more.
            std::future::pending::<()>().await;
        }
    }

    /// Publishes a passing frame; whether anyone hears it is nobody's concern.
    pub(super) fn signal(&self, to: &str, frame: Utf8Bytes) -> impl Future<Output = ()> + use<> {
        let (bus, to) = (self.bus.clone(), Box::<str>::from(to));
        async move { drop(bus.signal(&to, frame.into()).await) }
    }
}

/// What stands in an inbox that nobody keeps.
fn nothing() -> Replay {
    Replay { epoch: Epoch::from(""), top: 0, messages: Vec::new() }
}

/// The first messages of `replay`, of `most` bytes together, and one at least.
fn cut(mut replay: Replay, most: usize) -> Replay {
    let mut bytes = 0_usize;
    let fit = replay.messages.iter().take_while(|(_, payload)| {
        bytes = bytes.saturating_add(payload.len());
        bytes <= most
    });
    let fit = fit.count().max(1);
    if fit < replay.messages.len() {
        // Copies, since the payloads of one answer may share its memory.
        let first = replay.messages.iter().take(fit);
        replay.messages =
            first.map(|(seq, payload)| (*seq, Bytes::copy_from_slice(payload))).collect();
    }
    replay
}

/// What the bus calls.
struct Inward {
    registry: Arc<Registry>,
    delivery: DeliveryMode,
    watchers: Arc<Watchers>,
    /// Messages so far, to measure one in [`MEASURED`].
    count: AtomicU32,
}

impl Deliver for Inward {
    fn message(&self, user: &str, seq: Seq, payload: Bytes) {
        let measured = self.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(MEASURED);
        let taken_ms = if measured { taken_at(&payload) } else { None };
        let Some(frame) = text(user, payload) else { return };
        // Where nothing is read, nothing can be missed: a position, from a hub that stores, tells nothing here.
        let seq = if self.takes_unstored() { 0 } else { seq };
        self.registry.push(user, Item::Message { seq, taken_ms, frame });
    }

    fn takes_unstored(&self) -> bool {
        self.delivery == DeliveryMode::AtMostOnce
    }

    fn signal(&self, user: &str, payload: Bytes) {
        let Some(frame) = text(user, payload) else { return };
        self.registry.push(user, Item::Signal(frame));
    }

    fn gap(&self, of: Gap<'_>) {
        if self.takes_unstored() {
            return;
        }
        match of {
            Gap::Everyone => self.registry.push_all(&Item::Gap),
            Gap::Of(users) => users.iter().for_each(|user| self.registry.push(user, Item::Gap)),
        }
    }

    fn presence_changed(&self, user: &str) {
        self.watchers.unsure(user);
    }

    fn evict(&self, user: &str, seat: SeatNumber) {
        self.registry.evict(user, seat);
    }
}

/// A payload as the text of a frame. No hub publishes anything else, but others may write to the bus.
pub(super) fn text(user: &str, payload: Bytes) -> Option<Utf8Bytes> {
    let frame = Utf8Bytes::try_from(payload);
    if frame.is_err() {
        tracing::warn!(target: "Hub", "dropped a payload that is not UTF-8, for user={user}");
    }
    frame.ok()
}
