//! Pings of our own between the frames of others, and the Pongs that answer them.
//!
//! Pure. A Pong is known by its payload, which is a number that nobody else knows; what has begun like it is held back
//! until it is told apart, 14 bytes at most.

use super::frames::{FIN, MASKED, PING, PONG, Writer};

/// What a Ping of ours says, and the Pong that answers it.
pub(super) type Payload = [u8; 8];

const LENGTH: u8 = 8;

/// A Ping as `writer` writes it.
pub(super) fn ping(writer: Writer, payload: Payload) -> ([u8; 14], usize) {
    let [p0, p1, p2, p3, p4, p5, p6, p7] = payload;
    match writer {
        Writer::Server => ([FIN | PING, LENGTH, p0, p1, p2, p3, p4, p5, p6, p7, 0, 0, 0, 0], 10),
        Writer::Client => {
            let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
            let masked = [p0 ^ a, p1 ^ b, p2 ^ c, p3 ^ d, p4 ^ a, p5 ^ b, p6 ^ c, p7 ^ d];
            let [p0, p1, p2, p3, p4, p5, p6, p7] = masked;
            ([FIN | PING, MASKED | LENGTH, a, b, c, d, p0, p1, p2, p3, p4, p5, p6, p7], 14)
        }
    }
}

/// What stands at the boundary between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Something of the other side's.
    Other,
    /// The beginning of a Pong that may be ours.
    Perhaps,
    /// The Pong to our Ping, of this many bytes.
    Ours(usize),
}

/// Waits for the Pongs to Pings of ours.
#[derive(Debug)]
pub(super) struct Sieve {
    payload: Payload,
    /// Pings that were not answered, or not each.
    open: u8,
    /// What has come of what may be ours.
    held: Vec<u8>,
}

impl Sieve {
    pub(super) fn new(payload: Payload) -> Self {
        Self { payload, open: 0, held: Vec::new() }
    }

    /// One more Ping with this payload is sent.
    pub(super) fn asked(&mut self) {
        self.open = self.open.saturating_add(1);
    }

    /// One was answered; whether that was the last.
    pub(super) fn answered(&mut self) -> bool {
        self.open = self.open.saturating_sub(1);
        self.open == 0
    }

    /// Keeps the beginning of a frame until more of it is there.
    pub(super) fn hold(&mut self, begun: &[u8]) {
        self.held.extend_from_slice(begun);
    }

    /// Gives back what was kept, if anything.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        (!self.held.is_empty()).then(|| std::mem::take(&mut self.held))
    }

    /// Looks at what `writer` has written at a boundary.
    pub(super) fn look(&self, writer: Writer, bytes: &[u8]) -> Found {
        let mask_bit = if writer == Writer::Client { MASKED } else { 0 };
        let head = [FIN | PONG, mask_bit | LENGTH];
        if bytes.iter().zip(head).any(|(byte, expected)| *byte != expected) {
            return Found::Other;
        }
        let rest = bytes.get(head.len()..).unwrap_or_default();
        let (mask, said) = match writer {
            Writer::Server => ([0; 4], rest),
            Writer::Client => match rest.split_first_chunk::<4>() {
                Some((mask, said)) => (*mask, said),
                None => return Found::Perhaps,
            },
        };
        let mut said = said.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let mut known = 0;
        for expected in self.payload {
            match said.next() {
                Some(byte) if byte == expected => known += 1,
                Some(_) => return Found::Other,
                None => return Found::Perhaps,
            }
        }
        Found::Ours(bytes.len() - rest.len() + if mask_bit == 0 { 0 } else { 4 } + known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Payload = *b"meridian";

    /// The Pong to a Ping of this payload.
    fn pong(writer: Writer, payload: Payload) -> Vec<u8> {
        let (bytes, length) = ping(writer, payload);
        let mut bytes = bytes[..length].to_vec();
        bytes[0] = FIN | PONG;
        bytes
    }

    #[test]
    fn only_the_answer_to_ours_is_ours() {
        let sieve = Sieve::new(OURS);
        for writer in [Writer::Client, Writer::Server] {
            let whole = pong(writer, OURS);
            for cut in 0..whole.len() {
                assert_eq!(sieve.look(writer, &whole[..cut]), Found::Perhaps, "{cut}");
            }
            assert_eq!(sieve.look(writer, &whole), Found::Ours(whole.len()));
            let more = [&*whole, b"next"].concat();
            assert_eq!(sieve.look(writer, &more), Found::Ours(whole.len()));
            for index in [0, 1, whole.len() - 1] {
                let mut other = whole.clone();
                other[index] ^= 1;
                assert_eq!(sieve.look(writer, &other), Found::Other, "{index}");
            }
            assert_eq!(sieve.look(writer, &pong(writer, *b"meridiam")), Found::Other);
            let (ping, length) = ping(writer, OURS);
            assert_eq!(sieve.look(writer, &ping[..length]), Found::Other);
        }
    }
}
