//! The little of the Redis protocol (RESP2) that a subscribed connection speaks. Pure.
//!
//! Subscriptions are read here and not by the client library, since that hands messages on through a
//! ring which overwrites what its reader has not taken: under a burst most were lost. Read from the
//! socket, a late reader only makes Redis wait.
//!
//! Invariants: input of any kind gives a frame, a wish for more, or [`Malformed`]; lengths are bounded
//! before anything is kept for them.

use memchr::memchr;

/// Longer header lines than this come from no Redis.
const MAX_LINE: usize = 64 * 1024;

/// Longer payloads than this are refused; Redis itself cuts a subscriber off at half of it by default.
const MAX_BULK: usize = 64 * 1024 * 1024;

/// One thing that a subscribed connection hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// Something was published.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// The server took a subscription (`true`) of this channel, or ended one: as asked, or, in a Cluster, because it
    /// serves the channel no more.
    Confirmed { channel: &'a [u8], subscribed: bool },
    /// The answer to a `PING`.
    Pong,
    /// A command was refused.
    Refused(&'a [u8]),
    /// An answer that says nothing of interest, as `+OK`.
    Other,
}

/// What came is not the protocol; the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis sent what is not its protocol")]
pub(super) struct Malformed;

/// The first frame of `input` and its length in bytes; `None` while it is not complete.
pub(super) fn parse(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let mut cursor = Cursor { input, at: 0 };
    match cursor.frame() {
        Ok(frame) => Ok(Some((frame, cursor.at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Malformed) => Err(Malformed),
    }
}

/// Appends a command, as an array of its words.
pub(super) fn command<'a>(
    output: &mut Vec<u8>,
    words: impl IntoIterator<Item = &'a str, IntoIter: ExactSizeIterator>,
) {
    let words = words.into_iter();
    header(output, b'*', words.len());
    for word in words {
        header(output, b'$', word.len());
        output.extend_from_slice(word.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
}

fn header(output: &mut Vec<u8>, kind: u8, length: usize) {
    output.push(kind);
    output.extend_from_slice(length.to_string().as_bytes());
    output.extend_from_slice(b"\r\n");
}

enum Stop {
    More,
    Malformed,
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

/// One part of an array.
#[derive(Clone, Copy)]
enum Item<'a> {
    Bulk(&'a [u8]),
    /// A number, or nothing.
    Other,
}

impl<'a> Cursor<'a> {
    fn frame(&mut self) -> Result<Frame<'a>, Stop> {
        let (kind, line) = self.line()?;
        match kind {
            b'+' if line == b"PONG" => Ok(Frame::Pong),
            b'+' | b':' => Ok(Frame::Other),
            b'-' => Ok(Frame::Refused(line)),
            b'$' => self.bulk(line).map(|_| Frame::Other),
            b'*' => self.array(line),
            _ => Err(Stop::Malformed),
        }
    }

    fn array(&mut self, length: &[u8]) -> Result<Frame<'a>, Stop> {
        let mut items = [Item::Other; 3];
        let length = number(length)?.ok_or(Stop::Malformed)?;
        // A pong has two parts, everything else on such a connection three.
        for item in items.get_mut(..length).ok_or(Stop::Malformed)? {
            *item = self.item()?;
        }
        Ok(match items {
            [Item::Bulk(b"message" | b"smessage"), Item::Bulk(channel), Item::Bulk(payload)] => {
                Frame::Message { channel, payload }
            }
            [Item::Bulk(b"subscribe" | b"ssubscribe"), Item::Bulk(channel), Item::Other] => {
                Frame::Confirmed { channel, subscribed: true }
            }
            [Item::Bulk(b"unsubscribe" | b"sunsubscribe"), Item::Bulk(channel), Item::Other] => {
                Frame::Confirmed { channel, subscribed: false }
            }
            [Item::Bulk(b"pong"), ..] => Frame::Pong,
            _ => Frame::Other,
        })
    }

    fn item(&mut self) -> Result<Item<'a>, Stop> {
        let (kind, line) = self.line()?;
        match kind {
            b'$' => self.bulk(line),
            b':' => Ok(Item::Other),
            _ => Err(Stop::Malformed),
        }
    }

    fn bulk(&mut self, length: &[u8]) -> Result<Item<'a>, Stop> {
        let Some(length) = number(length)? else { return Ok(Item::Other) };
        let rest = self.input.get(self.at..).unwrap_or_default();
        let (bytes, rest) = rest.split_at_checked(length).ok_or(Stop::More)?;
        match rest {
            [b'\r', b'\n', ..] => {
                self.at += length + 2;
                Ok(Item::Bulk(bytes))
            }
            [] | [b'\r'] => Err(Stop::More),
            _ => Err(Stop::Malformed),
        }
    }

    /// A kind, and what stands behind it up to the end of the line.
    fn line(&mut self) -> Result<(u8, &'a [u8]), Stop> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else {
            return Err(if rest.len() > MAX_LINE { Stop::Malformed } else { Stop::More });
        };
        self.at += end + 1;
        match rest.get(..end) {
            Some([kind, line @ .., b'\r']) => Ok((*kind, line)),
            _ => Err(Stop::Malformed),
        }
    }
}

/// A length; `None` for "nothing" (-1).
fn number(digits: &[u8]) -> Result<Option<usize>, Stop> {
    if digits == b"-1" {
        return Ok(None);
    }
    let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    match number {
        Some(number) if number <= MAX_BULK => Ok(Some(number)),
        _ => Err(Stop::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_a_subscriber_hears() {
        let input = b"*3\r\n$7\r\nmessage\r\n$8\r\nchat:bob\r\n$4\r\nh\r\ni\r\n+OK\r\n";
        let (frame, length) = parse(input).unwrap().unwrap();
        assert_eq!(frame, Frame::Message { channel: b"chat:bob", payload: b"h\r\ni" });
        assert_eq!(parse(&input[length..]), Ok(Some((Frame::Other, 5))));
        let confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        let frame = Frame::Confirmed { channel: b"a", subscribed: true };
        assert_eq!(parse(confirmed).unwrap().unwrap().0, frame);
        let ended = b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:1\r\n";
        let frame = Frame::Confirmed { channel: b"a", subscribed: false };
        assert_eq!(parse(ended).unwrap().unwrap().0, frame);
        for pong in [&b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"[..], b"+PONG\r\n"] {
            assert_eq!(parse(pong), Ok(Some((Frame::Pong, pong.len()))));
        }
        let none = b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n";
        assert_eq!(parse(none), Ok(Some((Frame::Other, none.len()))));
        assert_eq!(parse(b"-NOAUTH x\r\n"), Ok(Some((Frame::Refused(b"NOAUTH x"), 11))));
    }

    #[test]
    fn refuses_what_is_not_the_protocol() {
        for input in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"*3\n",
            b"*4\r\n",
            b"*-1\r\n",
            b"$99999999999\r\n",
            b"$-2\r\n",
            b"$1\r\nabc",
            b"*1\r\n*1\r\n",
        ] {
            assert_eq!(parse(input), Err(Malformed), "{}", input.escape_ascii());
        }
        assert_eq!(parse(&vec![b'+'; MAX_LINE + 1]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, length))) = parse(&input) {
                prop_assert!(length <= input.len());
            }
        }

        #[test]
        fn a_message_is_complete_only_at_its_end(
            channel in proptest::collection::vec(any::<u8>(), 0..40),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut input = b"*3\r\n$7\r\nmessage\r\n".to_vec();
            for bulk in [&channel, &payload] {
                header(&mut input, b'$', bulk.len());
                input.extend_from_slice(bulk);
                input.extend_from_slice(b"\r\n");
            }
            for end in 0..input.len() {
                prop_assert_eq!(parse(&input[..end]), Ok(None));
            }
            let frame = Frame::Message { channel: &channel, payload: &payload };
            prop_assert_eq!(parse(&input), Ok(Some((frame, input.len()))));
        }
    }

    #[test]
    fn writes_commands() {
        let mut output = Vec::new();
        command(&mut output, ["SUBSCRIBE", "chat:bob"]);
        assert_eq!(output, b"*2\r\n$9\r\nSUBSCRIBE\r\n$8\r\nchat:bob\r\n");
    }
}
