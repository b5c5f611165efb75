//! Who is connected, over all nodes: the seats a user may have, and whether he has any.
//!
//! Walk: before a socket is let in a hub takes a seat for it ([`Bus::take_seat`]) and waits until it is
//! [`SeatHold::granted`]; dropped, the seat is given back. [`Bus::presence`] asks whether a user has a seat anywhere;
//! while a [`Watch`] is held, [`Deliver::presence_changed`](super::Deliver::presence_changed) says when to ask again.
//!
//! Invariants: a seat that could not be asked for counts here, and everywhere once the bus is back; a notice of a
//! change is a hint, and only the answer to a question counts.

use std::fmt;

use super::embedded::{self, Chair};
use super::redis::{self, Claim};
use super::{Bus, BusError};
use crate::settings::OverLimit;

/// How a user stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// He has a seat on some node.
    pub online: bool,
    /// In milliseconds since the Unix epoch: now, for one who is online; else when his last seat was given back;
    /// nothing where that is not known (never, or more than 30 days ago).
    pub last_seen_ms: Option<u64>,
}

/// The name of a seat among those of this process; never given out twice.
pub type SeatNumber = u64;

/// How many seats a user may have over all nodes, and what becomes of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatLimit {
    pub most: usize,
    pub over: OverLimit,
}

/// Why a seat was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// The user has all seats that he may have.
    #[error("the user has all the seats he may have")]
    Full,
    /// Nobody could be asked. The seat is held, and told of when the bus is back.
    #[error(transparent)]
    Unavailable(#[from] BusError),
}

/// One seat; dropped, it is given back.
#[must_use = "a dropped seat is given back"]
pub struct SeatHold {
    held: Held,
}

enum Held {
    Embedded(Chair),
    Redis(Claim),
}

impl SeatHold {
    /// The name by which [`Deliver::evict`](super::Deliver::evict) calls it.
    pub fn number(&self) -> SeatNumber {
        match &self.held {
            Held::Embedded(chair) => chair.number(),
            Held::Redis(claim) => claim.number(),
        }
    }

    /// Asks for the seat, once. Where the answer is [`SeatError::Full`], drop it.
    ///
    /// # Errors
    /// [`SeatError::Full`] where the limit says "refuse"; otherwise the oldest seat is evicted.
    pub async fn granted(&self) -> Result<(), SeatError> {
        match &self.held {
            Held::Embedded(chair) => chair.granted(),
            Held::Redis(claim) => claim.granted().await,
        }
    }

    /// Says the seat again, from when evictions of it are sure to be heard: one that was evicted before is evicted now.
    pub fn confirm(&self) {
        match &self.held {
            Held::Embedded(_) => {}
            Held::Redis(claim) => claim.confirm(),
        }
    }
}

/// A wish to hear when a user's presence may have changed; dropped, it ends.
#[must_use = "a dropped watch is ended"]
pub struct Watch {
    held: Watched,
}

enum Watched {
    Embedded { _share: embedded::Watch },
    Redis(redis::Listening),
}

impl Watch {
    /// Waits until changes from now on are sure to be told. Whoever was told that this could not be, is told of a
    /// change when it is.
    ///
    /// # Errors
    /// [`BusError::Unavailable`], at once, while the bus is away.
    pub async fn confirmed(&self) -> Result<(), BusError> {
        match &self.held {
            Watched::Embedded { .. } => Ok(()),
            Watched::Redis(wish) => wish.confirmed().await,
        }
    }
}

impl Bus {
    /// Takes a seat for `user`: it counts from when it is [granted](SeatHold::granted).
    pub fn take_seat(&self, user: &str, limit: SeatLimit) -> SeatHold {
        SeatHold {
            held: match self {
                Self::Embedded(bus) => Held::Embedded(bus.take_seat(user, limit)),
                Self::Redis(bus) => Held::Redis(bus.take_seat(user, limit)),
            },
        }
    }

    /// How `user` stands.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn presence(&self, user: &str) -> Result<Presence, BusError> {
        match self {
            Self::Embedded(bus) => Ok(bus.presence(user)),
            Self::Redis(bus) => bus.presence(user).await,
        }
    }

    /// Has [`Deliver::presence_changed`](super::Deliver::presence_changed) called for `user` until the last watch of him
    /// is dropped.
    pub fn watch(&self, user: &str) -> Watch {
        Watch {
            held: match self {
                Self::Embedded(bus) => Watched::Embedded { _share: bus.watch(user) },
                Self::Redis(bus) => Watched::Redis(bus.watch(user)),
            },
        }
    }
}

impl fmt::Debug for SeatHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeatHold({})", self.number())
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
