//! Request bodies: read whole, within a size, a time, and a sum of all that is held.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http::header::EXPECT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;
use crate::settings::ApiSettings;

/// The unit in which held bytes are counted.
const KIB: usize = 1024;

/// What a client may still send of a body that nobody wants, before it is cut off: it reads no answer before it has
/// sent all, as a rule. Nothing of it is held; far more passes through the proxy.
const DISCARDED: usize = 256 * 1024 * KIB;
/// … and for how long.
const DISCARDING: Duration = Duration::from_secs(5);

/// The bounds of bodies, and what is held of them.
#[derive(Debug)]
pub(super) struct Intake {
    max: usize,
    patience: Duration,
    /// Free KiB.
    room: Arc<Semaphore>,
}

/// The body of one request, until somebody takes it.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    body: Arc<Mutex<Option<Body>>>,
    /// The client waits for the word to go on (RFC 9110, section 10.1.1): it is given when the body is first polled.
    expects: bool,
}

/// A whole body, which counts as held until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Parcel {
    pub(super) fn new(body: Body, headers: &HeaderMap) -> Self {
        Self { body: Arc::new(Mutex::new(Some(body))), expects: headers.contains_key(EXPECT) }
    }

    fn take(&self) -> Option<Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves what is not read of it to be discarded.
    fn put_back(&self, body: Body) {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }
}

impl Intake {
    pub(super) fn new(settings: &ApiSettings) -> Self {
        let room = settings.max_buffered_bytes.get().div_ceil(KIB).min(Semaphore::MAX_PERMITS);
        Self {
            max: settings.max_body_bytes.get(),
            patience: settings.body_timeout,
            room: Arc::new(Semaphore::new(room)),
        }
    }

    /// The whole body, once.
    ///
    /// # Errors
    /// Where it is too large, too slow or broken, or where too much is held already.
    pub(super) async fn read(&self, parcel: &Parcel) -> Result<Held, Refusal> {
        let Some(mut body) = parcel.take() else { return Err(Refusal::BodyBroken) };
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let read = if announced > self.max {
            Err(Refusal::BodyTooLarge(self.max))
        } else {
            let reading = self.read_frames(&mut body, announced);
            tokio::time::timeout(self.patience, reading).await.unwrap_or(Err(Refusal::BodyStalled))
        };
        if matches!(read, Err(Refusal::BodyTooLarge(_) | Refusal::Overloaded)) {
            parcel.put_back(body);
        }
        read
    }

    async fn read_frames(&self, body: &mut Body, announced: usize) -> Result<Held, Refusal> {
        let mut held = Held { bytes: Vec::new(), room: None };
        let mut counted = 0;
        self.hold(&mut held, &mut counted, announced)?;
        held.bytes.reserve_exact(announced);
        while let Some(data) = next_data(body).await? {
            let length = held.bytes.len().saturating_add(data.len());
            if length > self.max {
                return Err(Refusal::BodyTooLarge(self.max));
            }
            self.hold(&mut held, &mut counted, length)?;
            held.bytes.extend_from_slice(&data);
        }
        Ok(held)
    }

    /// Counts `held` as of `length` bytes; `counted` are its KiB so far.
    fn hold(&self, held: &mut Held, counted: &mut usize, length: usize) -> Result<(), Refusal> {
        let more = length.div_ceil(KIB).saturating_sub(*counted);
        if more == 0 {
            return Ok(());
        }
        // A growing vector doubles; so a body of unknown length may take twice what is counted, for a moment.
        let more_permits = u32::try_from(more).map_err(|_huge| Refusal::Overloaded)?;
        let permit = Arc::clone(&self.room).try_acquire_many_owned(more_permits);
        let permit = permit.map_err(|_full| Refusal::Overloaded)?;
        match &mut held.room {
            Some(room) => room.merge(permit),
            none => *none = Some(permit),
        }
        *counted += more;
        Ok(())
    }

    /// Takes from the client what it still sends of a body that nobody wanted, within bounds: a connection that is
    /// closed on unread bytes is reset, and the answer lost with it.
    pub(super) async fn discard(&self, parcel: Parcel) {
        let Some(mut body) = parcel.take() else { return };
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if parcel.expects || announced > DISCARDED {
            return;
        }
        let mut left = DISCARDED;
        let rest = async {
            while let Ok(Some(data)) = next_data(&mut body).await {
                match left.checked_sub(data.remaining()) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        // Late or not: the answer is next.
        drop(tokio::time::timeout(DISCARDING, rest).await);
    }
}

/// The next piece of a body; `None` at its end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        match frame.transpose().map_err(|_broken| Refusal::BodyBroken)? {
            None => return Ok(None),
            Some(frame) => {
                // Trailers are nobody's.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn intake(max: usize, buffered: usize) -> Intake {
        Intake::new(&ApiSettings {
            max_body_bytes: NonZeroUsize::new(max).unwrap(),
            max_buffered_bytes: NonZeroUsize::new(buffered).unwrap(),
            ..ApiSettings::default()
        })
    }

    fn parcel(body: Body) -> Parcel {
        Parcel::new(body, &HeaderMap::new())
    }

    /// A body that does not say its length.
    fn streamed(pieces: Vec<&'static str>) -> Body {
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_whole() {
        let intake = intake(8, 4_096);
        for body in [Body::from("12345678"), streamed(vec!["123", "45", "678"])] {
            assert_eq!(intake.read(&parcel(body)).await.unwrap().bytes, b"12345678");
        }
        for body in [Body::from("123456789"), streamed(vec!["12345678", "9"])] {
            let refused = intake.read(&parcel(body)).await.unwrap_err();
            assert!(matches!(refused, Refusal::BodyTooLarge(8)), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn what_is_held_has_a_sum_and_is_given_back() {
        let intake = intake(2 * KIB, 2 * KIB);
        let held = intake.read(&parcel(Body::from(vec![b'x'; KIB + 1]))).await.unwrap();
        let refused = intake.read(&parcel(Body::from("x"))).await.unwrap_err();
        assert!(matches!(refused, Refusal::Overloaded), "{refused:?}");
        drop(held);
        assert_eq!(intake.read(&parcel(Body::from("x"))).await.unwrap().bytes, b"x");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let intake = intake(8, 4_096);
        let pending = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let refused = intake.read(&parcel(Body::from_stream(pending))).await.unwrap_err();
        assert!(matches!(refused, Refusal::BodyStalled), "{refused:?}");
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        let refused = intake.read(&parcel(Body::from_stream(broken))).await.unwrap_err();
        assert!(matches!(refused, Refusal::BodyBroken), "{refused:?}");
    }
}
