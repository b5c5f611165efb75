//! Whether a client that ends what it says has said all of its request: what the connection and the exchange know of
//! it together.
//!
//! The system tells with the same FIN that a client is done (RFC 9112, 9.6) and that it broke off in the middle of a
//! body; hyper would take either for a client that left. The exchange knows: hyper reads on only when it has handed
//! over all that came, so a body that has nothing to give after the FIN was seen is broken off.
//!
//! The connection and the exchange run on one thread, so the atomics are there for `Send`, and relaxed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::alarm::Alarm;

/// Shared by a connection and its exchanges, one after the other.
#[derive(Debug, Default)]
pub struct Arrival {
    /// The exchange has not taken the last of the body.
    pending: AtomicBool,
    /// Nothing of an answer is there yet, and interim ones would be understood.
    waiting: AtomicBool,
    /// A FIN has come, and is kept from hyper.
    ended: AtomicBool,
    /// The exchange has found nothing more to take since.
    starved: AtomicBool,
    /// Bytes of the body that have come.
    received: AtomicU64,
    /// Reads the connection.
    reader: AtomicWaker,
    /// Takes the body, while it waits.
    taker: AtomicWaker,
    /// Bounds the waits of exchanges.
    pub(super) alarm: Alarm,
}

impl Arrival {
    /// A request begins; `with_body` says whether more of it is to come.
    pub fn begin(&self, with_body: bool) {
        self.pending.store(with_body, Ordering::Relaxed);
        self.ended.store(false, Ordering::Relaxed);
        self.received.store(0, Ordering::Relaxed);
    }

    /// A part of the body has come.
    pub fn arrived(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the body that have come.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A backend's answer is waited for until the guard is dropped; `interim`: the client understands interim answers.
    pub(super) fn wait(&self, interim: bool) -> Waiting<'_> {
        self.waiting.store(interim, Ordering::Relaxed);
        Waiting(self)
    }

    /// Whether nothing of an answer is there yet, all of the request is, and an interim answer would be understood.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) && !self.is_pending()
    }

    /// Whether the exchange has not taken the last of the body.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// A FIN came: whether it breaks the body off. If not, or where the exchange is yet to look, `reader` is woken
    /// when there is something new to say.
    pub fn is_broken_off(&self, reader: &Waker) -> bool {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.starved.store(false, Ordering::Relaxed);
        }
        if self.is_pending() && self.starved.load(Ordering::Relaxed) {
            return true;
        }
        self.reader.register(reader);
        if self.is_pending() {
            // What came last may have been a part of a frame, which wakes nobody.
            self.taker.wake();
        }
        false
    }

    /// The exchange is over: a FIN that was kept from the reader is for it now.
    pub fn release(&self) {
        if self.ended.load(Ordering::Relaxed) {
            self.reader.wake();
        }
    }

    /// The exchange found nothing to take; `taker` waits for more.
    pub fn starve(&self, taker: &Waker) {
        self.taker.register(taker);
        self.starved.store(true, Ordering::Relaxed);
        self.release();
    }

    /// The exchange has taken the last of it.
    pub fn complete(&self) {
        self.pending.store(false, Ordering::Relaxed);
    }
}

/// Somebody waits for a backend's answer.
pub(super) struct Waiting<'a>(&'a Arrival);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Relaxed);
    }
}
