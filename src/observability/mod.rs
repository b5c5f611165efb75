//! What the process says of itself: log lines on standard error, metrics, health and readiness;
//! and the record of exchanges and sockets, which may go to a file.
//!
//! Each part registers and holds its own series (a held handle costs nanoseconds, a look-up by name
//! ten times that); this module owns the registry and the writer.

mod access;
mod endings;
mod health;
mod logs;
mod metrics;
mod verbosity;

pub use self::access::{
    AccessError, AccessLog, AccessWriter, Entry, Part, PreparedAccess, Socket, protocol,
};
pub use self::endings::Ending;
pub use self::health::{Health, Readiness};
pub use self::logs::{LogGuard, install};
pub use self::metrics::{Registry, encode};
pub use self::verbosity::Verbosity;
