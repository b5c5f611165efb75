//! Sessions with a real client on the other end: over pipes on the embedded bus, and on a real Redis.

mod at_most_once;
mod chat;
mod closes;
mod drain;
pub(super) mod harness;
mod presence;
mod redis;
mod resume;
mod slow;
