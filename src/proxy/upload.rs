//! A request body on its way to the backend.
//!
//! Invariants: frames pass as they come; a body over the limit, broken, or stopped ends the exchange
//! with an error that says so, and that is the client's and not the backend's.
//!
//! A client that sent `Expect: 100-continue` is told to go on when its body is polled, so the body is
//! not polled before the backend said so itself, or said nothing for a second: a backend that refuses
//! at once spares the client the upload.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::arrival::Arrival;
use super::body::IdleTimer;
use super::error::ForwardError;
use super::pace::Pace;
use super::trailers;

/// How long a backend may think about `Expect: 100-continue`; many ignore it.
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// Why a request body ended early. hyper carries it as the cause of its own error.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the client's body broke off")]
    Client(#[source] hyper::Error),
    #[error("the client's body is over {0} bytes")]
    TooLarge(u64),
    #[error("the client's body stopped")]
    Stalled,
    #[error("the backend answered without the body")]
    Refused,
}

impl UploadError {
    pub(super) fn verdict(&self) -> ForwardError {
        match self {
            Self::Client(error) if is_malformed(error) => ForwardError::BadBody,
            Self::Client(_) | Self::Refused => ForwardError::ClientGone,
            Self::TooLarge(limit) => ForwardError::BodyTooLarge(*limit),
            Self::Stalled => ForwardError::BodyStalled,
        }
    }
}

/// Whether hyper could not decode what came, as against a connection that went away.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
        }
        source = cause.source();
    }
    false
}

const OPEN: u8 = 0;
const WAITING: u8 = 1;
const REFUSED: u8 = 2;

/// How far a body is, for the exchange that waits for its answer.
#[derive(Debug)]
pub(super) struct Upload {
    started: Instant,
    /// Milliseconds after the start when something last moved.
    moved: AtomicU64,
    done: AtomicBool,
    /// The client is waited for, and not the backend.
    wants_client: AtomicBool,
    /// Whether the client may send: see the header of this file.
    gate: AtomicU8,
    waker: AtomicWaker,
    /// Why it ended early, where it did.
    verdict: OnceLock<ForwardError>,
    /// What the connection knows, too.
    arrival: Arc<Arrival>,
    /// Bytes a second that the client must bring; 0 means that it need not.
    min_rate: u32,
}

impl Upload {
    /// With `expects` the client waits for the word to go on.
    pub(super) fn new(expects: bool, arrival: &Arc<Arrival>) -> Self {
        Self {
            started: Instant::now(),
            moved: AtomicU64::new(0),
            done: AtomicBool::new(false),
            wants_client: AtomicBool::new(expects),
            gate: AtomicU8::new(if expects { WAITING } else { OPEN }),
            waker: AtomicWaker::new(),
            verdict: OnceLock::new(),
            arrival: Arc::clone(arrival),
            min_rate: 0,
        }
    }

    /// Holds the client to so many bytes a second.
    pub(super) fn at_least(self, min_rate: u32) -> Self {
        Self { min_rate, ..self }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The backend wants the body.
    pub(super) fn admit(&self) {
        let change = self.gate.compare_exchange(WAITING, OPEN, Ordering::AcqRel, Ordering::Acquire);
        if change.is_ok() {
            self.waker.wake();
        }
    }

    /// The backend has answered in full without the body: one that the client still holds back is not
    /// asked for any more.
    pub(super) fn refuse(&self) {
        let change =
            self.gate.compare_exchange(WAITING, REFUSED, Ordering::AcqRel, Ordering::Acquire);
        if change.is_ok() {
            self.waker.wake();
        }
    }

    /// Until when an answer may be waited for, `limit` after the last thing the backend was given;
    /// `None` when that time is over. While the client is waited for, its own timer runs.
    pub(super) fn deadline(&self, limit: Duration) -> Option<Instant> {
        let now = Instant::now();
        if self.wants_client.load(Ordering::Relaxed) {
            return Some(now + limit);
        }
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let deadline = self.started + moved + limit;
        (deadline > now).then_some(deadline)
    }

    /// Why it ended early, where it did: the client's doing, whatever becomes of the exchange.
    pub(super) fn verdict(&self) -> Option<ForwardError> {
        self.verdict.get().copied()
    }

    fn fail(&self, error: UploadError) -> UploadError {
        // Only the first word counts.
        self.verdict.get_or_init(|| error.verdict());
        error
    }

    fn note(&self, wants_client: bool, done: bool) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
        self.wants_client.store(wants_client, Ordering::Relaxed);
        if done {
            self.done.store(true, Ordering::Release);
            self.arrival.complete();
        }
    }
}

/// A request body: none, one that was held, or the client's as it comes.
///
/// Small, for most requests have none, and a request is moved more than a dozen times on its way.
pub(super) struct RequestBody {
    held: Bytes,
    coming: Option<Box<Coming>>,
}

/// A body that the client sends.
struct Coming {
    body: Incoming,
    upload: Arc<Upload>,
    limit: u64,
    left: u64,
    idle: IdleTimer,
    patience: IdleTimer,
    pace: Pace,
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self::held(Bytes::new())
    }

    /// A body that is here already.
    pub(super) fn held(held: Bytes) -> Self {
        Self { held, coming: None }
    }

    /// `limit` in bytes.
    pub(super) fn new(
        body: Incoming,
        limit: u64,
        idle_timeout: Duration,
        upload: Upload,
    ) -> (Self, Arc<Upload>) {
        let pace = Pace::new(upload.min_rate);
        let upload = Arc::new(upload);
        let coming = Coming {
            body,
            upload: Arc::clone(&upload),
            limit,
            left: limit,
            idle: IdleTimer::new(idle_timeout),
            patience: IdleTimer::new(EXPECT_PATIENCE),
            pace,
        };
        (Self { held: Bytes::new(), coming: Some(Box::new(coming)) }, upload)
    }

    /// Reads all of it from the client, so that it can be sent more than once.
    pub(super) async fn hold(mut self) -> Result<Self, ForwardError> {
        let mut held = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let frame = frame.map_err(|error| error.verdict())?;
            if let Ok(data) = frame.into_data() {
                held.extend_from_slice(&data);
            }
        }
        Ok(Self::held(held.freeze()))
    }

    /// Whether it is known to be small enough to be held.
    pub(super) fn fits(&self, limit: u32) -> bool {
        self.size_hint().exact().is_some_and(|size| size <= u64::from(limit))
    }

    /// The same again, where it did not come from the client's connection.
    pub(super) fn again(&self) -> Option<Self> {
        self.coming.is_none().then(|| Self::held(self.held.clone()))
    }
}

impl Coming {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let upload = &self.upload;
        if let Err(refused) = ready!(poll_gate(upload, &mut self.patience, cx)) {
            return Poll::Ready(Some(Err(upload.fail(refused))));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.moved();
                upload.arrival.arrived(frame.data_ref().map_or(0, Bytes::len));
                upload.note(false, frame.is_trailers() || self.body.is_end_stream());
                let checked = self.checked(frame);
                Poll::Ready(Some(checked.map_err(|error| self.upload.fail(error))))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(upload.fail(UploadError::Client(error)))))
            }
            Poll::Ready(None) => {
                upload.note(false, true);
                Poll::Ready(None)
            }
            Poll::Pending => {
                upload.wants_client.store(true, Ordering::Relaxed);
                self.pace.wait();
                upload.arrival.starve(cx.waker());
                ready!(self.idle.poll_expired(cx));
                Poll::Ready(Some(Err(upload.fail(UploadError::Stalled))))
            }
        }
    }

    fn checked(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, UploadError> {
        if let Some(data) = frame.data_ref() {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let left = self.left.checked_sub(length);
            self.left = left.ok_or(UploadError::TooLarge(self.limit))?;
            if !self.pace.is_kept(data.len()) {
                return Err(UploadError::Stalled);
            }
        }
        Ok(trailers::safe(frame))
    }
}

fn poll_gate(
    upload: &Upload,
    patience: &mut IdleTimer,
    cx: &mut Context<'_>,
) -> Poll<Result<(), UploadError>> {
    if upload.gate.load(Ordering::Acquire) == WAITING {
        upload.waker.register(cx.waker());
        // Between the look and the registration the backend may have spoken.
        if upload.gate.load(Ordering::Acquire) == WAITING {
            ready!(patience.poll_expired(cx));
            upload.admit();
        }
    }
    Poll::Ready(match upload.gate.load(Ordering::Acquire) {
        REFUSED => Err(UploadError::Refused),
        _ => Ok(()),
    })
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        if let Some(coming) = &mut this.coming {
            return coming.poll_frame(cx);
        }
        let held = Some(std::mem::take(&mut this.held)).filter(|held| !held.is_empty());
        Poll::Ready(held.map(|held| Ok(Frame::data(held))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.coming {
            Some(coming) => coming.body.is_end_stream(),
            None => self.held.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.coming {
            Some(coming) => coming.body.size_hint(),
            None => SizeHint::with_exact(u64::try_from(self.held.len()).unwrap_or(u64::MAX)),
        }
    }
}
