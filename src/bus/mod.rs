//! What carries messages between hubs, and keeps each user's inbox.
//!
//! Walk: a hub's relay publishes an [`Envelope`]; the bus gives it the next position of the
//! recipient's inbox, stores it, publishes it on `chat:<user>`, and answers a [`Receipt`]. What arrives
//! on a subscribed channel is handed to the one [`Deliver`] of the process, in the order of the
//! channel. [`Bus::read`] gives what the inbox still holds after a position.
//!
//! Invariants: the bus carries bytes and does not know what a chat frame is; the wanted subscriptions
//! are kept here, and restored by our own loop; nothing waits without a bound.
//! Absent on purpose: sockets, frames, users' seats (that is `hub`).

use std::sync::Arc;

use bytes::Bytes;

/// A position counts one user's messages, from 1; 0 stands before the first.
pub type Seq = u64;

/// The history that positions belong to: after a loss of data it is another one.
pub type Epoch = Arc<str>;

/// One message on its way to one user.
///
/// What listeners see is `head`, the position in decimal, `tail`, without anything between: so the
/// sender composes the text once, and the bus fills in what only it knows.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The recipient.
    pub to: &'a str,
    /// The sender; with `id` it makes a repeat harmless.
    pub from: &'a str,
    /// The sender's own name of this message.
    pub id: &'a str,
    /// When the hub took it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub head: &'a [u8],
    pub tail: &'a [u8],
}

/// The bus has it: stored and published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The position in the recipient's inbox; of the first one, where this is a repeat.
    pub seq: Seq,
    /// When the hub took it; of the first one, where this is a repeat.
    pub at_ms: u64,
    /// The same `(from, id)` was published before, within the window.
    pub duplicate: bool,
}

/// What an inbox still holds after some position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub epoch: Epoch,
    /// The last position given out; 0 when there was none.
    pub top: Seq,
    /// Every retained message after the position asked for, in order. Contiguous up to `top`;
    /// where it starts later than asked for, what is between was trimmed.
    pub messages: Vec<(Seq, Bytes)>,
}

/// Why the bus did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// It is away, or did not answer in time. Whether a message was taken is not known: a repeat with the
    /// same id is safe.
    #[error("the message bus is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Who gets what arrives; called from the task that reads the bus, so it must neither wait nor block.
pub trait Deliver: Send + Sync + 'static {
    /// A stored message for `user`, with its position.
    fn message(&self, user: &str, seq: Seq, payload: Bytes);
    /// A passing notice for `user`; not stored, no position.
    fn signal(&self, user: &str, payload: Bytes);
    /// Anything may have been missed by every subscribed user: read the inboxes from where they stood.
    fn gap(&self);
}

/// Whether the bus works, and if not, why; watched by readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusState {
    Up,
    Down(Arc<str>),
}
