//! The backends of a region: each one (`upstream`), all of them together (`group`), and who is next (`balance`).

mod balance;
mod group;
mod upstream;

pub(super) use self::balance::Tried;
pub use self::group::BackendSnapshot;
pub(super) use self::group::{Ground, Group, NoBackend};
pub(super) use self::upstream::{Active, Address, Clock, Upstream};
