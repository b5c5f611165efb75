//! A response body on its way to the client, and the hold on the backend that ends with it.
//!
//! Invariants: frames pass as they come, none is held back; a body that breaks off ends in an error,
//! so that the client's connection is aborted and never looks complete; the connection goes back to
//! the pool at the end of the body and only then.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::backends::Active;
use super::conns::Conns;
use super::dial::Sender;
use super::error::Cause;
use super::region::Region;
use super::trailers;
use super::upload::Upload;
use crate::observability::Ending;

/// Why a response body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the backend broke off its answer")]
    Aborted(#[source] hyper::Error),
    #[error("the backend's answer stopped for {0:?}")]
    Stalled(Duration),
    #[error("the exchange took longer than this gateway allows")]
    TotalTimeout,
}

impl BodyError {
    /// How the exchange ended, for records of it.
    pub fn ending(&self) -> Ending {
        match self {
            Self::Aborted(_) => Ending::BackendAborted,
            Self::Stalled(_) => Ending::BackendStalled,
            Self::TotalTimeout => Ending::TotalTimeout,
        }
    }
}

/// The hold of one exchange on its backend.
pub(super) struct Lease {
    pub(super) sender: Sender,
    pub(super) conns: Arc<Conns>,
    pub(super) active: Active,
    pub(super) region: Arc<Region>,
    /// The request's body, where it had one.
    pub(super) upload: Option<Arc<Upload>>,
}

impl Lease {
    /// The answer was read to its end: the connection can be used again, unless the request is still
    /// on its way.
    fn finish(self) {
        self.active.upstream.health.whole();
        match &self.upload {
            Some(upload) if !upload.is_done() => upload.refuse(),
            _ => self.conns.put(&self.active.upstream, self.sender, &self.region.bounds),
        }
    }
}

/// A response body, streamed from the backend.
pub struct Body {
    inner: Option<Incoming>,
    lease: Option<Lease>,
    idle: IdleTimer,
    /// When the whole exchange has taken too long.
    deadline: Option<Instant>,
    /// Rings then; made when something has to be waited for.
    total: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// The body of a response that has none.
    pub(super) fn empty() -> Self {
        Self {
            inner: None,
            lease: None,
            idle: IdleTimer::new(Duration::ZERO),
            deadline: None,
            total: None,
        }
    }

    /// `deadline`: when the whole exchange must be over.
    pub(super) fn new(
        inner: Incoming,
        lease: Lease,
        idle_timeout: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        let mut body = Self {
            inner: Some(inner),
            lease: Some(lease),
            idle: IdleTimer::new(idle_timeout),
            deadline,
            total: None,
        };
        if body.is_end_stream() {
            // Nobody will poll it.
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn fail(&mut self, cause: Cause, error: BodyError) -> BodyError {
        let client_broke_off =
            |lease: &Lease| lease.upload.as_ref().is_some_and(|upload| upload.verdict().is_some());
        if let Some(lease) = self.lease.take().filter(|lease| !client_broke_off(lease)) {
            lease.active.failed(cause);
            let backend = &lease.active.upstream.label;
            let detail = std::error::Error::source(&error).map(|s| format!(": {s}"));
            let detail = detail.unwrap_or_default();
            tracing::warn!(target: "Proxy", backend = &**backend, "{error}{detail}");
        }
        error
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if this.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Poll::Ready(Some(Err(this.fail(Cause::TotalTimeout, BodyError::TotalTimeout))));
        }
        let mut take = || {
            let polled = Pin::new(&mut *inner).poll_frame(cx);
            (polled, inner.is_end_stream())
        };
        // Where the last piece was taken, its connection has nothing more to do.
        let (polled, _) = match this.lease.as_ref().map(|lease| &lease.sender) {
            Some(Sender::Http1(_, hush)) => hush.during(take, |(_, is_last)| !is_last),
            Some(Sender::Http2(_)) | None => take(),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.moved();
                if frame.is_trailers() || inner.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(trailers::safe(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(this.fail(Cause::Aborted, BodyError::Aborted(error)))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if let Some(deadline) = this.deadline {
                    let total = this.total.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                    if total.as_mut().poll(cx).is_ready() {
                        let error = this.fail(Cause::TotalTimeout, BodyError::TotalTimeout);
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                ready!(this.idle.poll_expired(cx));
                let error = BodyError::Stalled(this.idle.limit);
                Poll::Ready(Some(Err(this.fail(Cause::Stalled, error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// Ends when nothing has moved for a while. The timer is made when something has to be waited for the
/// first time, and moved on only when it fires: a timer a frame would cost more than the frame.
pub(super) struct IdleTimer {
    pub(super) limit: Duration,
    /// Since when nothing has moved.
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None, sleep: None }
    }

    /// Something moved.
    pub(super) fn moved(&mut self) {
        self.since = None;
    }

    /// Nothing can move now; ready when that has been so for the whole limit.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
