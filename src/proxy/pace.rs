//! How fast a request body comes while it is waited for; pure but for the clock.

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

/// The time of waiting over which the rate is reckoned.
const SPAN: Duration = Duration::from_secs(10);

/// Bodies of this type are conversations, and bring little for as long as there is little to say.
const GRPC: &[u8] = b"application/grpc";

/// The bytes a second that a body must bring, with these headers and this setting; 0: it need not.
pub(super) fn min_rate(headers: &HeaderMap, setting: u32) -> u32 {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let is_grpc = kind.get(..GRPC.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC));
    if is_grpc { 0 } else { setting }
}

/// The pace of one body. Only the time counts in which the client is waited for, and not the backend.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; 0: any pace will do.
    min_rate: u32,
    waiting_since: Option<Instant>,
    /// Of the present span.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(min_rate: u32) -> Self {
        Self { min_rate, waiting_since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// There is nothing to take.
    pub(super) fn wait(&mut self) {
        if self.min_rate != 0 && self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
        }
    }

    /// So many bytes came. False, where a whole span of waiting has brought too few.
    pub(super) fn is_kept(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let Some(since) = self.waiting_since.take() else { return true };
        self.waited += since.elapsed();
        if self.waited < SPAN {
            return true;
        }
        let wanted = u128::from(self.min_rate) * self.waited.as_millis() / 1_000;
        let is_kept = u128::from(self.bytes) >= wanted;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_drip_is_told_from_a_body_that_comes() {
        let mut pace = Pace::new(240);
        for _ in 0..9 {
            pace.wait();
            after(1).await;
            assert!(pace.is_kept(1), "the span is not over");
        }
        pace.wait();
        after(1).await;
        assert!(!pace.is_kept(1), "ten bytes in ten seconds");
        let mut pace = Pace::new(240);
        for _ in 0..100 {
            pace.wait();
            after(1).await;
            assert!(pace.is_kept(240));
        }
        pace.wait();
        after(59).await;
        assert!(!pace.is_kept(1), "what came before counts no more");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_backend_costs_the_client_nothing() {
        let mut pace = Pace::new(240);
        assert!(pace.is_kept(1));
        after(3_600).await;
        assert!(pace.is_kept(1));
        let mut any = Pace::new(0);
        any.wait();
        after(3_600).await;
        assert!(any.is_kept(0));
    }

    #[test]
    fn conversations_take_their_time() {
        let of = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
            min_rate(&headers, 240)
        };
        assert_eq!((of("application/grpc+proto"), of("Application/GRPC")), (0, 0));
        assert_eq!((of("application/json"), min_rate(&HeaderMap::new(), 240)), (240, 240));
    }
}
