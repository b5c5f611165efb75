//! What stands in the fields of a line: texts, escaped for where they stand, numbers, spans of time and addresses.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::settings::ClientShown;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Where a value stands, and so what must not be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// Between spaces.
    Plain,
    /// Between quotes of the combined format.
    Quoted,
    /// Between quotes of JSON. The bytes are of a `str`.
    Json,
}

impl Escape {
    fn must(self, byte: u8) -> bool {
        match self {
            Self::Plain => byte <= b' ' || byte >= 0x7f,
            Self::Quoted => !(b' '..0x7f).contains(&byte) || matches!(byte, b'"' | b'\\'),
            Self::Json => byte < b' ' || byte == 0x7f || matches!(byte, b'"' | b'\\'),
        }
    }
}

/// Whether anything is to be escaped. All of it is looked at without a branch, many bytes at a time, since it seldom is.
fn is_odd(value: &[u8], must: impl Fn(u8) -> bool) -> bool {
    value.iter().fold(0, |odd, byte| odd | u8::from(must(*byte))) != 0
}

pub(super) fn escaped(out: &mut Vec<u8>, value: &[u8], escape: Escape) {
    // Told apart before, not at each byte.
    let is_odd = match escape {
        Escape::Plain => is_odd(value, |byte| Escape::Plain.must(byte)),
        Escape::Quoted => is_odd(value, |byte| Escape::Quoted.must(byte)),
        Escape::Json => is_odd(value, |byte| Escape::Json.must(byte)),
    };
    if !is_odd {
        out.extend_from_slice(value);
        return;
    }
    for byte in value {
        match *byte {
            byte if !escape.must(byte) => out.push(byte),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                out.extend_from_slice(if escape == Escape::Json { b"\\u00" } else { b"\\x" });
                for nibble in [byte >> 4, byte & 15] {
                    out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
                }
            }
        }
    }
}

pub(super) fn shown(client: IpAddr, how: ClientShown) -> Option<IpAddr> {
    let client = client.to_canonical();
    match (how, client) {
        (ClientShown::None, _) => None,
        (ClientShown::Full, client) => Some(client),
        (ClientShown::Truncated, IpAddr::V4(client)) => {
            Some(Ipv4Addr::from_bits(client.to_bits() & !0xff).into())
        }
        (ClientShown::Truncated, IpAddr::V6(client)) => {
            Some(Ipv6Addr::from_bits(client.to_bits() >> 80 << 80).into())
        }
    }
}

pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut digits = itoa::Buffer::new();
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        // Writing into a vector does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

pub(super) fn millis_of(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn span(out: &mut Vec<u8>, span: Duration) {
    number(out, millis_of(span));
    out.push(b'.');
    padded(out, span.subsec_micros() % 1_000);
}

/// Three digits.
pub(super) fn padded(out: &mut Vec<u8>, value: u32) {
    for divisor in [100, 10, 1] {
        out.push(digit(u64::from(value / divisor % 10)));
    }
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or(0)
}
