//! What carries messages between hubs, and keeps each user's inbox.
//!
//! Walk: a hub's relay publishes an [`Envelope`]; the bus gives it the next position of the
//! recipient's inbox, stores it, publishes it on `chat:<user>`, and answers a [`Receipt`]. What arrives
//! on a subscribed channel is handed to the one [`Deliver`] of the process, in the order of the
//! channel. [`Bus::read`] gives what the inbox still holds after a position.
//!
//! Invariants: the bus carries bytes and does not know what a chat frame is; the wanted subscriptions
//! are kept here, and restored by our own loop; nothing waits without a bound.
//! Absent on purpose: sockets and frames (that is `hub`).

#[cfg(test)]
mod contract;
mod draw;
mod embedded;
mod message;
mod metrics;
/// Ports that are known before anybody listens, for the tests here and in other parts.
#[cfg(test)]
#[path = "../../tests/it/harness/port.rs"]
pub(crate) mod port;
mod presence;
mod probe_age;
#[cfg(test)]
mod recorder;
mod redis;
/// A real server for the tests, here and in the hub; the tests of whole gateways have the same file.
#[cfg(test)]
#[path = "../../tests/it/harness/redis/mod.rs"]
#[expect(dead_code, reason = "the tests of whole gateways use the rest")]
pub(crate) mod redis_server;
/// Bad weather between the bus and its server, for the tests here.
#[cfg(test)]
#[path = "../../tests/it/harness/relay.rs"]
#[expect(dead_code, reason = "the tests of whole gateways use the rest")]
pub(crate) mod relay;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::draw::Draw;
use self::embedded::{EmbeddedBus, Share};
pub use self::message::{Envelope, Epoch, Receipt, Replay, Seq};
use self::message::{dedupe_key, epoch};
pub use self::presence::{Presence, SeatError, SeatHold, SeatLimit, SeatNumber, Watch};
pub use self::redis::SetupError;
use self::redis::{Listening, RedisBus};
use crate::observability::Registry;
use crate::settings::{BusSettings, InboxSettings};

/// Why the bus did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// It is away, did not answer in time, or is full. Whether a message was taken is not known: a repeat with the
    /// same id is safe.
    #[error("the message bus is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Who gets what arrives; called while the order of a user's messages is held, so it must neither wait
/// nor block, nor call the bus or drop a [`Subscription`] (the embedded bus holds that user's lock).
pub trait Deliver: Send + Sync + 'static {
    /// A stored message for `user`, with its position.
    fn message(&self, user: &str, seq: Seq, payload: Bytes);
    /// Whether [`Deliver::message`] takes messages that nobody stored, at position 0 (see [`Bus::cast`]). Where it does
    /// not, they count as foreign.
    fn takes_unstored(&self) -> bool {
        false
    }
    /// A passing notice for `user`; not stored, no position.
    fn signal(&self, user: &str, payload: Bytes);
    /// Anything may have been missed by these users: read their inboxes from where they stood.
    fn gap(&self, of: Gap<'_>);
    /// Whether `user`, who is watched, is online may have changed: ask again. A hint: it may be none.
    fn presence_changed(&self, user: &str);
    /// This seat of `user`'s, one of this process, is another's now: close its socket. May be said twice.
    fn evict(&self, user: &str, seat: SeatNumber);
}

/// Who may have missed something.
#[derive(Clone, Copy, Debug)]
pub enum Gap<'a> {
    Everyone,
    /// What carried the messages of these was lost, or came late for them.
    Of(&'a [Arc<str>]),
}

/// Whether the bus works, and if not, why; watched by readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusState {
    Up,
    Down(Arc<str>),
}

/// Which bus; clones are the same bus.
#[derive(Clone)]
pub enum Bus {
    Embedded(EmbeddedBus),
    Redis(RedisBus),
}

impl Bus {
    /// The bus within this process.
    pub fn embedded(inbox: &InboxSettings, registry: &mut Registry) -> Self {
        Self::Embedded(EmbeddedBus::new(inbox, registry))
    }

    /// The bus over Redis. It connects in [`Bus::run`], and not before.
    ///
    /// # Errors
    /// Where the settings name no server that can be used.
    pub fn redis(settings: &BusSettings, registry: &mut Registry) -> Result<Self, SetupError> {
        RedisBus::new(settings, registry).map(Self::Redis)
    }

    /// Names who gets what arrives; once, before [`Bus::run`].
    pub fn attach(&self, deliver: Arc<dyn Deliver>) {
        let first = match self {
            Self::Embedded(bus) => bus.attach(deliver),
            Self::Redis(bus) => bus.attach(deliver),
        };
        debug_assert!(first, "a bus has one receiver");
    }

    /// The long-lived work of the bus; ends, tidied up, after `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        match self {
            Self::Embedded(bus) => bus.run(stop).await,
            // On the heap: it holds a connection in the making, and there is one.
            Self::Redis(bus) => Box::pin(bus.run(stop)).await,
        }
    }

    /// Stores and publishes one message.
    ///
    /// # Errors
    /// [`BusError::Unavailable`]: at once while the bus is away, or after the command timeout; of the
    /// embedded bus, where the inboxes of connected users leave no room.
    pub async fn publish(&self, envelope: Envelope<'_>) -> Result<Receipt, BusError> {
        match self {
            Self::Embedded(bus) => bus.publish(envelope),
            Self::Redis(bus) => bus.publish(envelope).await,
        }
    }

    /// Publishes one message at position 0 to whoever listens to the recipient at this moment, and forgets it: it is
    /// in no inbox, and a repeat is another message.
    ///
    /// # Errors
    /// As [`Bus::publish`]; what failed may have been heard all the same.
    pub async fn cast(&self, envelope: Envelope<'_>) -> Result<(), BusError> {
        match self {
            Self::Embedded(bus) => {
                bus.cast(envelope);
                Ok(())
            }
            Self::Redis(bus) => bus.cast(envelope).await,
        }
    }

    /// Publishes a passing notice: it is not stored, and whether anyone heard it is not known.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn signal(&self, to: &str, payload: Bytes) -> Result<(), BusError> {
        match self {
            Self::Embedded(bus) => {
                bus.signal(to, payload);
                Ok(())
            }
            Self::Redis(bus) => bus.signal(to, payload).await,
        }
    }

    /// Listens for `user` until the last subscription to him is dropped; the wish counts at once.
    pub fn subscribe(&self, user: &str) -> Subscription {
        Subscription {
            held: match self {
                Self::Embedded(bus) => Held::Embedded { _share: bus.subscribe(user) },
                Self::Redis(bus) => Held::Redis(bus.subscribe(user)),
            },
        }
    }

    /// What the inbox of `user` still holds after position `after`.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn read(&self, user: &str, after: Seq) -> Result<Replay, BusError> {
        match self {
            Self::Embedded(bus) => Ok(bus.read(user, after)),
            Self::Redis(bus) => bus.read(user, after).await,
        }
    }

    /// Whether the bus works, now and from now on.
    pub fn state(&self) -> watch::Receiver<BusState> {
        match self {
            Self::Embedded(bus) => bus.state(),
            Self::Redis(bus) => bus.state(),
        }
    }
}

/// One wish to hear a user's messages; dropped, it ends.
#[must_use = "a dropped subscription is ended"]
pub struct Subscription {
    held: Held,
}

enum Held {
    Embedded { _share: Share },
    Redis(Listening),
}

impl Subscription {
    /// Waits until what is published from now on is sure to arrive.
    ///
    /// # Errors
    /// [`BusError::Unavailable`], at once, while the bus is away. The wish stays, is restored when the
    /// bus is back, and [`Deliver::gap`] is called then.
    pub async fn confirmed(&self) -> Result<(), BusError> {
        match &self.held {
            Held::Embedded { .. } => Ok(()),
            Held::Redis(wish) => wish.confirmed().await,
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded(_) => "Bus::Embedded",
            Self::Redis(_) => "Bus::Redis",
        })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}
