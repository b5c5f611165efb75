//! Whether a user may have one more socket, over all nodes.
//!
//! Walk: the sockets of this process count first, since that costs nothing; then the bus is asked, before the
//! handshake is answered. Where it cannot be asked in time, the sockets of this process decide, and the bus is told
//! of the seat when it is back.
//!
//! Invariants: whoever waits is counted already; no handshake waits longer than [`PATIENCE`]; a seat that was taken
//! away, by whichever node, closes its socket.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Limits;
use super::handshake::Refusal;
use super::registry::{Registry, Seat};
use super::relay::{Relay, SeatError, SeatHold};
use crate::settings::OverLimit;

/// How long a handshake waits for the bus before it is decided without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sockets of one user that this process lets in by itself.
pub(super) fn most_here(limits: &Limits) -> usize {
    match limits.seats.over {
        OverLimit::Refuse => limits.seats.most,
        // The older ones are on their way out.
        OverLimit::CloseOldest => usize::MAX,
    }
}

/// Asks the bus for the place of `seat`, which is counted here.
pub(super) async fn seat(
    user: &Arc<str>,
    seat: &Seat,
    (relay, registry, limits): (&Relay, &Registry, &Limits),
) -> Result<SeatHold, Refusal> {
    let hold = relay.take_seat(user, limits.seats);
    seat.name(hold.number());
    match timeout(PATIENCE, hold.granted()).await {
        Ok(Ok(())) => Ok(hold),
        Ok(Err(SeatError::Full)) => Err(Refusal::TooManyConnections),
        Ok(Err(SeatError::Unavailable(_))) | Err(_) => {
            tracing::debug!(target: "Hub", "the bus could not be asked for a seat of user={user}");
            if limits.seats.over == OverLimit::CloseOldest {
                registry.evict_over(user, limits.seats.most);
            }
            Ok(hold)
        }
    }
}
