//! Counting events of a rate for all processes that share a bus.

use crate::rate::{Drawn, Rate};

use super::{Bus, BusError};

/// One event that is to be counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw<'a> {
    /// What is limited; a name of the configuration.
    pub(crate) limit: &'a str,
    /// Whose event it is: short, visible ASCII without braces.
    pub(crate) key: &'a str,
    /// The same wherever the limit is.
    pub(crate) rate: &'a Rate,
}

impl Bus {
    /// Books one event, by the clock of the server, where it is within the rate. It may take as long as a command may:
    /// who asks has a clock of his own.
    ///
    /// # Errors
    /// [`BusError::Unavailable`]: at once while the bus is away, or too many ask at once. Whether it was booked is not
    /// known then.
    pub(crate) async fn take(&self, draw: Draw<'_>) -> Result<Drawn, BusError> {
        match self {
            Self::Embedded(bus) => Ok(bus.take(draw)),
            Self::Redis(bus) => bus.take(draw).await,
        }
    }
}
