//! The PROXY protocol, versions 1 and 2, as HAProxy speaks it: who the client of a connection is, said before anything else
//! by the proxy that it came through.
//!
//! [`parse`] is pure and takes what has come so far; [`receive`] feeds it from a socket without taking a byte of what
//! follows, so that TLS or HTTP finds its own beginning.
//!
//! Invariants: a header has a bound (107 bytes in version 1, 4 KiB in version 2) and a deadline; only from whom the settings
//! name is one taken at all, since it is believed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const PREFIX: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;
/// The longest header of version 2 that is taken, addresses and extensions together.
const MAX_BLOCK: usize = 4 * 1024;
/// Before the addresses of version 2.
const FIXED: usize = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of it; what follows is the client's.
    length: usize,
    /// Who the client is; nothing where the proxy speaks for itself, or does not know.
    source: Option<SocketAddr>,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("its PROXY header is malformed: {0}")]
    Bad(&'static str),
}

/// What the bytes so far say: nothing yet, where they are the beginning of a header.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes.get(..length) == with.get(..length)
    };
    if begins(SIGNATURE) {
        if bytes.len() < FIXED { Ok(None) } else { parse_block(bytes) }
    } else if begins(PREFIX) {
        parse_line(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

fn parse_line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let shown = bytes.get(..bytes.len().min(MAX_LINE)).unwrap_or_default();
    let Some(end) = memchr::memmem::find(shown, b"\r\n") else {
        let is_full = bytes.len() >= MAX_LINE;
        return if is_full { Err(Malformed::Bad("the line does not end")) } else { Ok(None) };
    };
    let line = shown.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(Malformed::Bad("the line is not ASCII"))?;
    // Whatever follows there is to be ignored.
    let is_unknown = line == "PROXY UNKNOWN" || line.starts_with("PROXY UNKNOWN ");
    let source = match source_of_line(line) {
        None if !is_unknown => return Err(Malformed::Bad("the addresses of the line")),
        source => source,
    };
    Ok(Some(Header { length: end + 2, source }))
}

/// `PROXY TCP4 <source> <destination> <port> <port>`
fn source_of_line(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    let (source, _destination): (IpAddr, IpAddr) = match family {
        "TCP4" => {
            let mut next = || words.next()?.parse::<Ipv4Addr>().ok();
            (next()?.into(), next()?.into())
        }
        "TCP6" => {
            let mut next = || words.next()?.parse::<Ipv6Addr>().ok();
            (next()?.into(), next()?.into())
        }
        _ => return None,
    };
    let mut port = || {
        let word = words.next()?;
        let is_plain = word.bytes().all(|byte| byte.is_ascii_digit())
            && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (from, _to) = (port()?, port()?);
    words.next().is_none().then_some(SocketAddr::new(source, from))
}

fn parse_block(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Err(Malformed::Bad("the version"));
    }
    if length > MAX_BLOCK - FIXED {
        return Err(Malformed::Bad("longer than what is taken here"));
    }
    let is_proxied = match version_and_command & 15 {
        0 => false,
        1 => true,
        _ => return Err(Malformed::Bad("the command")),
    };
    let Some(block) = rest.get(..length) else { return Ok(None) };
    let source = if is_proxied { source_of_block(family, block)? } else { None };
    Ok(Some(Header { length: FIXED + length, source }))
}

/// The addresses stand first; extensions follow, and are passed over.
fn source_of_block(family: u8, block: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    const SHORT: Malformed = Malformed::Bad("too short for its addresses");
    match family {
        // TCP, or UDP, which did not come here.
        0x11 => {
            let addresses = block.first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port)))
        }
        0x21 => {
            let addresses = block.first_chunk::<36>().ok_or(SHORT)?;
            let source = addresses.first_chunk::<16>().copied().unwrap_or_default();
            let [.., high, low, _, _] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(Ipv6Addr::from(source).into(), port)))
        }
        // Not told, or an address that is none of IP: the connection is all that is known.
        _ if family >> 4 > 3 || family & 15 > 2 => Err(Malformed::Bad("the family")),
        _ => Ok(None),
    }
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreceived {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("its PROXY header did not come in time")]
    Timeout,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Takes the header off a connection, and gives the client's address, where it says one.
pub(super) async fn receive(
    stream: &TcpStream,
    limit: Duration,
) -> Result<Option<SocketAddr>, Unreceived> {
    timeout(limit, take(stream)).await.unwrap_or(Err(Unreceived::Timeout))
}

async fn take(stream: &TcpStream) -> Result<Option<SocketAddr>, Unreceived> {
    // On the heap, so that a connection's task is no larger for it.
    let mut buffer = vec![0; MAX_BLOCK];
    let mut taken = 0;
    loop {
        // Looked at first: what is not of the header must stay where it is.
        let room = buffer.get_mut(taken..).unwrap_or_default();
        let shown = stream.peek(room).await?;
        if shown == 0 {
            return Err(Unreceived::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let header = parse(buffer.get(..taken + shown).unwrap_or_default())?;
        // All of a header that is not whole yet is of it.
        let end = header.map_or(taken + shown, |header| header.length);
        while taken < end {
            taken += stream.try_read(buffer.get_mut(taken..end).unwrap_or_default())?;
        }
        if let Some(header) = header {
            return Ok(header.source);
        }
    }
}

#[cfg(test)]
mod tests;
