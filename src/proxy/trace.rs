//! The trace that a request belongs to: `traceparent` (W3C Trace Context, level 1), passed on with a parent of ours, or
//! begun here.
//!
//! Pure. What comes is passed on whoever sent it: a trace is for looking things up, and nothing is decided by it. What is
//! malformed is taken out, with the `tracestate` that it came with, as the specification has it; a good `tracestate` is not
//! touched.

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::settings::TraceMode;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const HEX: &[u8; 16] = b"0123456789abcdef";
/// `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;
/// Where the parent stands in it.
const PARENT: std::ops::Range<usize> = 36..52;

/// The id of a trace: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// The one of a `traceparent`, if that is well-formed.
    pub fn of(traceparent: &HeaderValue) -> Option<Self> {
        id(&parse(traceparent)?)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Whether a field is of a trace.
pub(super) fn is_of_trace(name: &str) -> bool {
    matches!(name, "traceparent" | "tracestate")
}

/// Makes the request one of ours in its trace; `present`: it has a field of one. Gives the trace, where there is one.
pub(super) fn apply(headers: &mut HeaderMap, mode: TraceMode, present: bool) -> Option<TraceId> {
    if mode == TraceMode::Off {
        return None;
    }
    let came = if present { read(headers) } else { None };
    let parent = if let Some(came) = came {
        // Of a later version only what this one knows is passed on, as this version.
        with_parent(came)
    } else {
        if present {
            headers.remove(&TRACEPARENT);
            headers.remove(&TRACESTATE);
        }
        if mode == TraceMode::Pass {
            return None;
        }
        begun()
    };
    let trace = id(&parent);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&parent)) {
        headers.insert(&TRACEPARENT, value);
    }
    trace
}

/// The one `traceparent` of a request, where there is one and no more.
pub fn traceparent(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(&TRACEPARENT).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn id(parent: &[u8; LENGTH]) -> Option<TraceId> {
    parent.get(3..35).and_then(|digits| digits.try_into().ok()).map(TraceId)
}

/// The one `traceparent` of a request, if it is well-formed.
fn read(headers: &HeaderMap) -> Option<[u8; LENGTH]> {
    traceparent(headers).and_then(parse)
}

fn parse(value: &HeaderValue) -> Option<[u8; LENGTH]> {
    let (known, rest) = value.as_bytes().split_first_chunk::<LENGTH>()?;
    let is_whole = match known.first_chunk::<2>()? {
        b"ff" => false,
        b"00" => rest.is_empty(),
        // A later version may have more behind it.
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let well_formed = known.iter().enumerate().all(|(at, byte)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => is_digit(byte),
    });
    let named = |range: std::ops::Range<usize>| {
        known.get(range).is_some_and(|digits| digits.iter().any(|byte| *byte != b'0'))
    };
    let good = is_whole && well_formed && named(3..35) && named(PARENT);
    good.then_some(*known)
}

/// The same trace, with this hop as the parent.
fn with_parent(mut came: [u8; LENGTH]) -> [u8; LENGTH] {
    if let Some(version) = came.first_chunk_mut::<2>() {
        *version = *b"00";
    }
    if let Some(flags) = came.last_chunk_mut::<2>() {
        // Of the flags of a later version only the first has a meaning here.
        let is_sampled = hex_value(flags[1]) & 1 == 1;
        *flags = if is_sampled { *b"01" } else { *b"00" };
    }
    write_random(came.get_mut(PARENT));
    came
}

fn hex_value(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a') + 10 }
}

/// A trace that begins here. It is sampled: who begins one wants to see it.
fn begun() -> [u8; LENGTH] {
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-01";
    write_random(parent.get_mut(3..19));
    write_random(parent.get_mut(19..35));
    write_random(parent.get_mut(PARENT));
    parent
}

/// Sixteen digits, not all of them 0.
fn write_random(digits: Option<&mut [u8]>) {
    let mut random = fastrand::u64(1..);
    for digit in digits.into_iter().flatten() {
        *digit = HEX.get((random & 15) as usize).copied().unwrap_or(b'0');
        random >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(parents: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(&TRACEPARENT, parent.parse().unwrap());
        }
        headers.insert(&TRACESTATE, "rojo=1, congo=t61".parse().unwrap());
        headers
    }

    fn sent(headers: &HeaderMap) -> &[u8] {
        headers[&TRACEPARENT].as_bytes()
    }

    #[test]
    fn a_good_one_is_passed_on_with_another_parent() {
        for mode in [TraceMode::Pass, TraceMode::Begin] {
            let mut headers = headers(&[GIVEN]);
            let trace = apply(&mut headers, mode, true).unwrap();
            assert_eq!(trace.as_str(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(sent(&headers)[..36], GIVEN.as_bytes()[..36]);
            assert_eq!(sent(&headers)[52..], GIVEN.as_bytes()[52..]);
            assert_ne!(sent(&headers)[PARENT], GIVEN.as_bytes()[PARENT]);
            assert_eq!(headers[&TRACESTATE], "rojo=1, congo=t61");
            let again = read(&headers).unwrap();
            assert_eq!(again, sent(&headers));
        }
    }

    #[test]
    fn a_later_version_becomes_this_one() {
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what-ever";
        let mut headers = headers(&[later]);
        assert!(apply(&mut headers, TraceMode::Pass, true).is_some());
        assert!(sent(&headers).starts_with(b"00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(sent(&headers).ends_with(b"-01") && sent(&headers).len() == LENGTH);
    }

    #[test]
    fn a_malformed_one_is_taken_out_or_replaced() {
        let bad: &[&[&str]] = &[
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"],
            &["00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01"],
            &["cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what"],
            &["", ""],
            &[GIVEN, GIVEN],
        ];
        for parents in bad {
            let mut passed = headers(parents);
            assert_eq!(apply(&mut passed, TraceMode::Pass, true), None, "{parents:?}");
            assert!(passed.is_empty(), "{parents:?}: {passed:?}");
            let mut begun = headers(parents);
            assert!(apply(&mut begun, TraceMode::Begin, true).is_some(), "{parents:?}");
            assert!(read(&begun).is_some() && !begun.contains_key(&TRACESTATE), "{parents:?}");
            let mut left = headers(parents);
            assert_eq!(apply(&mut left, TraceMode::Off, true), None);
            assert_eq!(left, headers(parents));
        }
    }

    #[test]
    fn one_is_begun_where_there_is_none_and_that_is_wanted() {
        let mut headers = HeaderMap::new();
        assert_eq!(apply(&mut headers, TraceMode::Pass, false), None);
        assert!(headers.is_empty());
        let trace = apply(&mut headers, TraceMode::Begin, false).unwrap();
        assert_eq!(&sent(&headers)[3..35], trace.as_str().as_bytes());
        let other = apply(&mut HeaderMap::new(), TraceMode::Begin, false).unwrap();
        assert_ne!(trace, other);
    }
}
