//! Who the client is, as told by the proxies in front (`X-Forwarded-*`, `Forwarded`), and what the
//! backend is told.
//!
//! Pure. From a peer that is not trusted nothing is believed and everything is replaced; a trusted
//! peer's chain is read from the right, up to the first address that is not trusted itself, and this
//! hop is appended. `X-Forwarded-For` is read before `Forwarded`: it is what nearly every proxy
//! maintains, where the other may be handed through as the client wrote it.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::Caller;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether a field tells of earlier hops.
pub(super) fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// The client's address, and whether `peer` is trusted to tell it.
///
/// The right-most address of the chain that is not trusted; where a hop hides itself or is not
/// readable, the last one before it that is known.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> (IpAddr, bool) {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    if !is_trusted(peer) {
        return (peer, false);
    }
    let client = if headers.contains_key(&X_FORWARDED_FOR) {
        let hops = headers.get_all(&X_FORWARDED_FOR).iter().rev();
        let hops = hops.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        furthest(peer, hops.map(|hop| node(hop.trim_ascii())), is_trusted)
    } else {
        let hops = headers.get_all(FORWARDED).iter().rev();
        let hops = hops.flat_map(|line| split_quoted(line.as_bytes(), b',').into_iter().rev());
        furthest(peer, hops.map(|hop| for_of(hop).and_then(node)), is_trusted)
    };
    (client, true)
}

fn furthest(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        let Some(address) = hop else { break };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// An address as either header writes it: bare, with a port, in brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|a: SocketAddr| a.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The `for` of one element of `Forwarded`, without its quotes (RFC 7239, 4).
fn for_of(element: &[u8]) -> Option<&[u8]> {
    split_quoted(element, b';').into_iter().find_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (name, value) = pair.split_at_checked(equals)?;
        let value = value.get(1..)?.trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
        name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| unquoted.unwrap_or(value))
    })
}

/// The parts between separators that stand outside of quotes.
fn split_quoted(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|byte| {
        match *byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            other => return other == separator && !quoted,
        }
        false
    });
    parts.map(<[u8]>::trim_ascii).collect()
}

/// Whether every element of `Forwarded` is a list of pairs, one of them a readable `for` (RFC 7239, 4).
fn is_well_formed(headers: &HeaderMap) -> bool {
    headers.get_all(FORWARDED).iter().all(|line| {
        memchr::memchr_iter(b'"', line.as_bytes()).count().is_multiple_of(2)
            && split_quoted(line.as_bytes(), b',').into_iter().all(|element| {
                for_of(element).is_some_and(|who| {
                    node(who).is_some() || who.first() == Some(&b'_') || is_unknown(who)
                })
            })
    })
}

fn is_unknown(who: &[u8]) -> bool {
    who.eq_ignore_ascii_case(b"unknown")
}

/// Writes what the backend is told of the hops. `present`: the request carries some such field.
pub(super) fn apply(headers: &mut HeaderMap, caller: &Caller, present: bool) {
    if present && caller.trusted {
        append(headers, caller);
        return;
    }
    if present {
        remove_all(headers);
    }
    let peer = address(caller.peer);
    let client = if caller.client == caller.peer.to_canonical() {
        peer.clone()
    } else {
        address(caller.client)
    };
    headers.insert(&X_FORWARDED_FOR, peer);
    headers.insert(&X_FORWARDED_PROTO, caller.scheme.as_header());
    if !caller.host.is_empty() {
        headers.insert(&X_FORWARDED_HOST, caller.host.clone());
    }
    headers.insert(&X_REAL_IP, client);
}

fn remove_all(headers: &mut HeaderMap) {
    let told: Vec<HeaderName> =
        headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
    for name in told {
        headers.remove(name);
    }
}

/// Adds this hop to a trusted peer's chain; a chain that cannot be read is begun anew.
fn append(headers: &mut HeaderMap, caller: &Caller) {
    let lines = headers.get_all(&X_FORWARDED_FOR);
    let mut hops = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let readable = hops.all(|hop| {
        let hop = hop.trim_ascii();
        node(hop).is_some() || is_unknown(hop)
    });
    let mut chain = Vec::with_capacity(64);
    if readable {
        for line in lines {
            chain.extend_from_slice(line.as_bytes());
            chain.extend_from_slice(b", ");
        }
    }
    // Writing into a vector does not fail.
    drop(write!(chain, "{}", caller.peer.to_canonical()));
    insert(headers, &X_FORWARDED_FOR, chain);
    if headers.contains_key(FORWARDED) {
        append_forwarded(headers, caller);
    }
    if !is_one_token(headers, &X_FORWARDED_PROTO) {
        headers.insert(&X_FORWARDED_PROTO, caller.scheme.as_header());
    }
    if !is_one_token(headers, &X_FORWARDED_HOST) && !caller.host.is_empty() {
        headers.insert(&X_FORWARDED_HOST, caller.host.clone());
    }
    headers.insert(&X_REAL_IP, address(caller.client));
}

fn append_forwarded(headers: &mut HeaderMap, caller: &Caller) {
    let mut chain = Vec::with_capacity(128);
    if is_well_formed(headers) {
        for line in headers.get_all(FORWARDED) {
            chain.extend_from_slice(line.as_bytes());
            chain.extend_from_slice(b", ");
        }
    }
    let proto = caller.scheme.as_str();
    drop(match caller.peer.to_canonical() {
        IpAddr::V4(peer) => write!(chain, "for={peer};proto={proto}"),
        IpAddr::V6(peer) => write!(chain, "for=\"[{peer}]\";proto={proto}"),
    });
    insert(headers, &FORWARDED, chain);
}

/// One line of one value, as a scheme or an authority is.
fn is_one_token(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut lines = headers.get_all(name).iter();
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b',';
    lines.next().is_some_and(|value| !value.is_empty() && value.as_bytes().iter().all(plain))
        && lines.next().is_none()
}

/// Bytes of earlier values and of addresses are always bytes of a value.
fn insert(headers: &mut HeaderMap, name: &HeaderName, value: Vec<u8>) {
    match HeaderValue::from_maybe_shared(Bytes::from(value)) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

fn address(address: IpAddr) -> HeaderValue {
    // The longest address has 39 characters, 45 where it ends in the dotted form.
    let mut text = [0; 48];
    let mut rest = text.as_mut_slice();
    match address.to_canonical() {
        IpAddr::V4(address) => write_v4(&mut rest, address),
        // It fits.
        IpAddr::V6(address) => drop(write!(rest, "{address}")),
    }
    let left = rest.len();
    let used = text.len() - left;
    HeaderValue::from_bytes(text.get(..used).unwrap_or_default())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// By hand: a formatter takes ten times as long, and each request has such addresses.
fn write_v4(rest: &mut impl io::Write, address: Ipv4Addr) {
    let mut digits = itoa::Buffer::new();
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            drop(rest.write(b"."));
        }
        drop(rest.write(digits.format(octet).as_bytes()));
    }
}

#[cfg(test)]
mod tests;
