//! The seats of users over all nodes that share a Redis.

use std::sync::Arc;

use super::RedisBus;
use super::wishes::Wish;
use crate::bus::{BusError, Presence, SeatError, SeatLimit, SeatNumber};

impl RedisBus {
    pub(in crate::bus) fn take_seat(&self, _user: &str, _limit: SeatLimit) -> Claim {
        Claim { number: 0 }
    }

    #[expect(clippy::unused_async, reason = "the interface comes before what is behind it")]
    pub(in crate::bus) async fn presence(&self, _user: &str) -> Result<Presence, BusError> {
        Err(BusError::Unavailable(Arc::from("presence is not known yet")))
    }

    pub(in crate::bus) fn watch(&self, user: &str) -> Wish {
        self.shard(user).subscriber.wishes.wish(user)
    }
}

/// One seat.
pub(in crate::bus) struct Claim {
    number: SeatNumber,
}

impl Claim {
    pub(in crate::bus) fn number(&self) -> SeatNumber {
        self.number
    }

    #[expect(clippy::unused_async, reason = "the interface comes before what is behind it")]
    pub(in crate::bus) async fn granted(&self) -> Result<(), SeatError> {
        Ok(())
    }

    pub(in crate::bus) fn confirm(&self) {}
}
