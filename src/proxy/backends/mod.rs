//! The backends of a region: each one (`upstream`), all of them together (`group`), and who is next.
//!
//! Walk: `group` looks at its members (`set`), asks `tiers` which of them are to serve, and `balance` or `hash` which one
//! gets the request; how much a backend counts that has only just come back, `ramp` says, and how long it takes to answer,
//! `latency`. Where all are at their bound, the request waits in `queue`. Sockets that are served elsewhere find home by `homing`.
//!
//! Invariants: what a choice is made of is pure and is handed its clock; a choice takes no lock and allocates nothing.

mod balance;
mod group;
mod hash;
mod homing;
mod latency;
mod member;
mod metrics;
mod queue;
mod ramp;
mod set;
mod tiers;
mod upstream;

pub(super) use self::balance::Tried;
pub(super) use self::group::{Ground, Group, NoBackend};
pub(super) use self::homing::Stray;
pub use self::member::BackendSnapshot;
pub(super) use self::metrics::{BackendCollector, QueueFamilies, QueueSeries};
pub(super) use self::upstream::{Active, Address, Clock, Upstream, is_https, millis};
