//! Sessions with a real client on the other end: over pipes on the embedded bus, and on a real Redis.

mod chat;
mod closes;
pub(super) mod harness;
mod redis;
mod resume;
