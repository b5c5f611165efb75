//! Where the limits of one request stand, and the header fields that say so.
//!
//! `RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers-11: a list with an item for each
//! limit. `q` is the burst and `w` the time in which it is whole again, `r` what is left and `t` the time in which
//! nothing is added to that. `RateLimit-Limit`, `-Remaining` and `-Reset`, of earlier drafts, are what most clients
//! read; they tell of the strictest limit, and `-Reset` is when all of its burst is there again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Refusal;
use super::key::Asked;
use super::limit::Limit;
use crate::bus::{Bus, Draw};
use crate::rate::{Drawn, Left};
use crate::settings::OnError;

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The limits that apply to one request; at least one.
#[derive(Debug)]
pub(crate) struct Tally {
    first: Standing,
    rest: Vec<Standing>,
}

/// Where one limit stands.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) limit: Arc<Limit>,
    drawn: Drawn,
}

impl Standing {
    fn new(limit: &Arc<Limit>) -> Self {
        Self { limit: Arc::clone(limit), drawn: Drawn { granted: true, ahead: Duration::ZERO } }
    }

    /// Looks, and counts nothing.
    pub(super) fn peek(&mut self, asked: &Asked<'_>) -> bool {
        let counts = &self.limit.counts;
        let drawn = counts.table.peek(self.limit.by.of(asked), counts.now());
        self.note(drawn)
    }

    /// Counts the request in this process.
    pub(super) fn take(&mut self, asked: &Asked<'_>) -> bool {
        let counts = &self.limit.counts;
        let drawn = counts.table.take(self.limit.by.of(asked), counts.now());
        if drawn.granted && !self.limit.shared {
            self.limit.series.passed.inc();
        }
        self.note(drawn)
    }

    /// Counts the request for all gateways, and learns what the others have counted: until then, what they have
    /// used up is refused without asking again.
    pub(super) async fn take_from(
        &mut self,
        bus: &Bus,
        asked: &Asked<'_>,
    ) -> Result<bool, Refusal> {
        let limit = Arc::clone(&self.limit);
        let key = limit.by.of(asked);
        let shared = key.shared();
        let draw = Draw { limit: &limit.name, key: &shared, rate: &limit.rate };
        let answered = tokio::time::timeout(limit.timeout, bus.take(draw)).await;
        let Ok(Ok(drawn)) = answered else {
            limit.series.unknown.inc();
            return match limit.on_error {
                OnError::Allow => Ok(true),
                OnError::Refuse => Err(Refusal::Unavailable),
            };
        };
        limit.counts.table.learn(key, drawn.ahead, limit.counts.now());
        if drawn.granted {
            limit.series.passed.inc();
        }
        Ok(self.note(drawn))
    }

    fn note(&mut self, drawn: Drawn) -> bool {
        self.drawn = drawn;
        if !drawn.granted {
            self.limit.series.refused.inc();
        }
        drawn.granted
    }

    fn left(&self) -> Left {
        self.limit.rate.left(self.drawn.ahead)
    }

    /// As an item of `RateLimit`; by hand, for a formatter takes ten times as long.
    fn write(&self, out: &mut Vec<u8>) {
        let (left, mut digits) = (self.left(), itoa::Buffer::new());
        out.push(b'"');
        out.extend_from_slice(self.limit.name.as_bytes());
        out.extend_from_slice(b"\";r=");
        out.extend_from_slice(digits.format(left.events).as_bytes());
        if !left.until_next.is_zero() {
            out.extend_from_slice(b";t=");
            out.extend_from_slice(digits.format(seconds(left.until_next)).as_bytes());
        }
    }

    /// Until one more passes.
    fn wait(&self) -> Duration {
        if self.drawn.granted {
            return Duration::ZERO;
        }
        self.drawn.ahead.saturating_sub(self.limit.rate.ahead())
    }
}

impl Tally {
    pub(super) fn new(limit: &Arc<Limit>) -> Self {
        Self { first: Standing::new(limit), rest: Vec::new() }
    }

    pub(super) fn add(&mut self, limit: &Arc<Limit>) {
        self.rest.push(Standing::new(limit));
    }

    pub(super) fn standings(&mut self) -> impl Iterator<Item = &mut Standing> {
        std::iter::once(&mut self.first).chain(&mut self.rest)
    }

    /// Whether the request would pass by what was counted here; of one limit alone, that is not asked twice.
    pub(super) fn looks_well(&mut self, asked: &Asked<'_>) -> bool {
        if self.rest.is_empty() {
            return true;
        }
        let mut well = true;
        for standing in self.standings() {
            // Each is looked at, for where it stands goes onto the answer.
            well &= standing.peek(asked);
        }
        well
    }

    /// Counts it with those that are not shared, up to the first that refuses.
    pub(super) fn take_own(&mut self, asked: &Asked<'_>) -> bool {
        self.standings().filter(|standing| !standing.limit.shared).all(|one| one.take(asked))
    }

    fn strictest(&self) -> &Standing {
        let severity = |standing: &Standing| {
            let left = standing.left();
            (standing.wait(), std::cmp::Reverse(left.events), left.until_all)
        };
        self.rest.iter().fold(&self.first, |most, other| {
            if severity(other) > severity(most) { other } else { most }
        })
    }

    pub(super) fn refusal(&self) -> Refusal {
        Refusal::RateLimited { retry_after: seconds(self.strictest().wait()).max(1) }
    }

    /// Puts the fields onto an answer, in the place of a backend's own.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(&POLICY, self.policies());
        let mut states = Vec::with_capacity(64);
        self.first.write(&mut states);
        for standing in &self.rest {
            states.extend_from_slice(b", ");
            standing.write(&mut states);
        }
        // Names of limits are plain ASCII, and so it is a value.
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(states)) {
            headers.insert(&RATE_LIMIT, value);
        }
        let strictest = self.strictest();
        let left = strictest.left();
        headers.insert(&LIMIT, strictest.limit.burst.clone());
        headers.insert(&REMAINING, HeaderValue::from(left.events));
        headers.insert(&RESET, HeaderValue::from(seconds(left.until_all)));
    }

    /// Of one limit alone, which is the usual case, nothing is put together.
    fn policies(&self) -> HeaderValue {
        let first = &self.first.limit.policy;
        if self.rest.is_empty() {
            return first.clone();
        }
        let rest = self.rest.iter().map(|standing| &standing.limit.policy);
        let all: Vec<_> = std::iter::once(first).chain(rest).map(HeaderValue::as_bytes).collect();
        let joined = Bytes::from(all.join(&b", "[..]));
        HeaderValue::from_maybe_shared(joined).unwrap_or_else(|_| first.clone())
    }
}

/// Rounded up: whoever waits so long is not refused for the same again.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX)
}
