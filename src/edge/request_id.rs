//! The id of a request, which ties its answer to its log line and to the backend's.

use http::{HeaderMap, HeaderValue};

use super::answer::X_REQUEST_ID;

const HEX: &[u8; 16] = b"0123456789abcdef";
/// The longest request id that is taken over from a trusted peer.
const MAX_REQUEST_ID: usize = 128;

/// The id of a request: a trusted peer's, if it is short visible ASCII, else a new one of 128 random bits.
pub(super) fn request_id(headers: &HeaderMap, trusted: bool) -> HeaderValue {
    if trusted
        && let Some(given) = headers.get(&X_REQUEST_ID)
        && (1..=MAX_REQUEST_ID).contains(&given.len())
        && given.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte))
    {
        return given.clone();
    }
    let mut random = fastrand::u128(..);
    let id: [u8; 32] = std::array::from_fn(|_| {
        let digit = HEX.get((random & 15) as usize).copied().unwrap_or(b'0');
        random >>= 4;
        digit
    });
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}
