//! The socket of a client, watched: what phase it is in, and whether it moves.
//!
//! A client that shuts its write side down behind its request still gets its answer: the FIN is kept from hyper until
//! then, which would take it for a client that left. A reset is passed on at once, and cancels the request.
//!
//! hyper reads and writes through this; [`ConnectionState`] is what the watchdog in `listen` looks at. What comes is
//! followed as it came (`messages`), before hyper has parsed it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::access::AccessLog;
use super::messages::{Fault, Messages};
use super::probe::Probe;
use super::slow::Place;
use super::unparsed::Substitute;
use crate::proxy::Arrival;
use crate::shutdown::InFlight;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Between requests: nothing of the next one has come.
    Idle = 0,
    /// A part of a request head has come.
    Head = 1,
    /// A request is being answered.
    Active = 2,
    /// The connection has left HTTP: what passes is none of our business.
    Upgraded = 3,
}

/// Shared by the socket, the service and the watchdog of one connection. All of them run on one thread, so
/// the atomics are there for `Send`, and relaxed.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    phase: AtomicU8,
    /// Counts changes of the phase, so that a sampler can tell "still" from "again".
    changes: AtomicU64,
    written: AtomicU64,
    write_blocked: AtomicBool,
    /// The watchdog ends it, because an answer is not taken in time.
    is_slow_reader: AtomicBool,
    /// Requests that the service was given.
    requests: AtomicU64,
    /// Which of them is at fault, and how: its number above [`FAULT_BITS`]; 0 is none, as far as is known.
    fault: AtomicU64,
    /// The head did not come in time.
    expired: AtomicBool,
    /// How far the body of the request being answered has come.
    arrival: Arc<Arrival>,
    /// Whether there is something in `unsent`, to spare each flush the lock.
    has_unsent: AtomicBool,
    /// The count of an answer that hyper has taken whole and the system has not: a drain waits for it, too.
    unsent: Mutex<Option<InFlight>>,
}

const FAULT_BITS: u32 = 8;

/// What the watchdog compares with its last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) phase: Phase,
    changes: u64,
    pub(super) written: u64,
    pub(super) write_blocked: bool,
}

impl Sample {
    /// Whether nothing at all has come yet.
    pub(super) fn never_active(&self) -> bool {
        self.changes == 0
    }
}

impl ConnectionState {
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        if phase == Phase::Idle {
            // The system has told of a FIN once, and wakes nobody for it again.
            self.arrival.release();
        }
    }

    /// The exchange is over for its handler; `flight` counts on until the last byte is with the system.
    pub(super) fn finish(&self, flight: InFlight) {
        *self.lock_unsent() = Some(flight);
        self.has_unsent.store(true, Ordering::Relaxed);
        self.enter(Phase::Idle);
    }

    /// The system has everything.
    fn all_sent(&self) {
        if self.has_unsent.load(Ordering::Relaxed) {
            self.has_unsent.store(false, Ordering::Relaxed);
            self.lock_unsent().take();
        }
    }

    fn lock_unsent(&self) -> MutexGuard<'_, Option<InFlight>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to be answered; `with_body` says whether more of it is to come.
    pub(super) fn begin(&self, with_body: bool) {
        self.arrival.begin(with_body);
        self.enter(Phase::Active);
    }

    /// The watchdog ends the connection, since its answer is not taken in time.
    pub(super) fn give_up(&self) {
        self.is_slow_reader.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_slow_reader(&self) -> bool {
        self.is_slow_reader.load(Ordering::Relaxed)
    }

    /// Bytes of the body that have come.
    pub(super) fn received(&self) -> u64 {
        self.arrival.received()
    }

    /// For the proxy, which tells of the body.
    pub(super) fn arrival(&self) -> Arc<Arrival> {
        Arc::clone(&self.arrival)
    }

    /// Whether a FIN now means "that was all I have to say", and not that something is missing.
    fn hides_end(&self, reader: &Waker) -> bool {
        self.phase() == Phase::Active && !self.arrival.is_broken_off(reader)
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Active,
            _ => Phase::Upgraded,
        }
    }

    pub(super) fn sample(&self) -> Sample {
        Sample {
            phase: self.phase(),
            changes: self.changes.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            write_blocked: self.write_blocked.load(Ordering::Relaxed),
        }
    }

    /// Has the client told that his request did not come in time, and the connection end.
    pub(super) fn expire(&self) {
        self.expired.store(true, Ordering::Relaxed);
    }

    /// What the head of the request that just began had that the parser took without a word; asked once a request.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        let number = self.requests() + 1;
        self.requests.store(number, Ordering::Relaxed);
        let fault = self.fault.load(Ordering::Relaxed);
        if fault >> FAULT_BITS == number { Fault::of(fault.to_le_bytes()[0]) } else { None }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn set_fault(&self, number: u64, fault: Fault) {
        self.fault.store(number << FAULT_BITS | u64::from(fault as u8), Ordering::Relaxed);
    }
}

/// A client's stream with its state: of TCP, or of TLS over it. Generic, so that neither pays for the other.
#[derive(Debug)]
pub(super) struct ClientIo<S> {
    stream: S,
    state: Arc<ConnectionState>,
    log: Arc<AccessLog>,
    peer: IpAddr,
    /// Among the client's connections; it goes where the stream goes.
    place: Place,
    /// What is said in place of hyper's own answer to a request that it could not parse.
    substitute: Option<Substitute>,
    probe: Probe,
    messages: Messages,
}

impl<S> ClientIo<S> {
    pub(super) fn new(
        stream: S,
        state: Arc<ConnectionState>,
        (log, peer): (Arc<AccessLog>, IpAddr),
        place: Place,
    ) -> Self {
        Self {
            stream,
            state,
            log,
            peer,
            place,
            substitute: None,
            probe: Probe::default(),
            messages: Messages::default(),
        }
    }

    /// The bare stream, for a socket that has left HTTP, and its place, to be held as long.
    pub(super) fn into_parts(self) -> (S, Place) {
        (self.stream, self.place)
    }
}

/// Up to this size, copying the pieces together costs less than handing the kernel a list of them.
const GATHERED: usize = 1024;

/// Writes `slices`, as one piece where they are small: the usual head and short body.
fn write_gathered<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    slices: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = slices {
        return stream.poll_write(context, only);
    }
    let mut buffer = [0_u8; GATHERED];
    let mut rest = buffer.as_mut_slice();
    for slice in slices {
        let Some((room, behind)) = rest.split_at_mut_checked(slice.len()) else {
            return stream.poll_write_vectored(context, slices);
        };
        room.copy_from_slice(slice);
        rest = behind;
    }
    let free = rest.len();
    stream.poll_write(context, buffer.get(..GATHERED - free).unwrap_or_default())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.state.expired.load(Ordering::Relaxed) {
            return self.poll_expired(context);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(())))
            && buffer.filled().len() == before
            && buffer.remaining() > 0
            && self.state.hides_end(context.waker())
        {
            return self.poll_gone(context);
        }
        if polled.is_ready()
            && let Some(fresh) = buffer.filled().get(before..)
            && !fresh.is_empty()
        {
            self.read(fresh)?;
        }
        polled
    }
}

impl<S> ClientIo<S> {
    /// Looks at what came.
    ///
    /// # Errors
    /// For the one who reads the body, where its trailers are at fault.
    fn read(&mut self, fresh: &[u8]) -> io::Result<()> {
        let state = &*self.state;
        if state.phase() == Phase::Upgraded {
            return Ok(());
        }
        if let Some(fault) = self.messages.follow(fresh) {
            let number = self.messages.number();
            if number <= state.requests() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault.message()));
            }
            state.set_fault(number, fault);
        }
        if state.phase() == Phase::Idle && self.messages.is_in_head() {
            state.enter(Phase::Head);
        }
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> ClientIo<S> {
    /// The client has ended what it says: whether it is gone, too.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &self.state;
        // Nothing may stand in hyper's or the system's queue that an interim answer would break into.
        if !state.arrival.is_waiting() || state.has_unsent.load(Ordering::Relaxed) {
            self.probe.rest();
            return Poll::Pending;
        }
        self.probe.poll_gone(Pin::new(&mut self.stream), context).map(Err)
    }

    /// Whether what is written now is no answer of the service: then the parser has refused a request.
    fn is_hypers_own(&self) -> bool {
        matches!(self.state.phase(), Phase::Idle | Phase::Head)
            && !self.state.has_unsent.load(Ordering::Relaxed)
    }

    fn replace(&mut self, head: &[u8]) {
        if self.substitute.is_none() {
            self.substitute = Some(Substitute::of(head, &self.log, self.peer));
        }
    }

    /// Tells the client that his request came too late, and ends the connection.
    fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.substitute.is_none() {
            self.substitute = Some(Substitute::request_timeout(&self.log, self.peer));
        }
        ready!(self.poll_substitute(context))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_substitute(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.substitute {
            Some(substitute) => substitute.poll_send(&mut self.stream, context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(bytes)) => {
                self.state.written.fetch_add(*bytes as u64, Ordering::Relaxed);
                self.state.write_blocked.store(false, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.state.write_blocked.store(true, Ordering::Relaxed),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_hypers_own() {
            self.replace(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_hypers_own() {
            self.replace(slices.first().map_or(&[][..], |slice| slice));
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let polled = write_gathered(Pin::new(&mut self.stream), context, slices);
        self.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_substitute(context))?;
        // hyper comes here when its own buffer is empty.
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        if polled.is_ready() {
            self.state.all_sent();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_substitute(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
