//! Answers of Redis of any shape (RESP2), for the few questions that are asked over a connection of their own: who is
//! the primary, who serves which slots. Pure.
//!
//! Invariants: input of any kind gives a reply, a wish for more, or [`Malformed`]; depth and size are bounded
//! before anything is kept for them.

use memchr::memchr;

use super::resp::Malformed;

/// Longer texts than this answer no question of ours.
const MAX_BULK: usize = 16 * 1024 * 1024;

/// More parts than this, too: slots in pieces, with all their replicas.
const MAX_PARTS: usize = 65_536;

/// The layout of a Cluster is three deep, and metadata of its nodes one more.
const MAX_DEPTH: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A status or a text.
    Text(String),
    Refused(String),
    Number(i64),
    List(Vec<Self>),
    Nothing,
}

impl Reply {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&self) -> Option<T> {
        match self {
            Self::Number(number) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(parts) => parts,
            _ => &[],
        }
    }

    /// The value behind `name` in a flat list of names and values.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut pairs = self.list().chunks_exact(2);
        pairs.find_map(|pair| match pair {
            [key, value] if key.text() == Some(name) => value.text(),
            _ => None,
        })
    }
}

/// The first reply in `input` and its length; `None` while it is not complete.
pub(super) fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut cursor = Cursor { input, at: 0, parts: 0 };
    match cursor.reply(0) {
        Ok(reply) => Ok(Some((reply, cursor.at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Malformed) => Err(Malformed),
    }
}

enum Stop {
    More,
    Malformed,
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    parts: usize,
}

impl Cursor<'_> {
    fn reply(&mut self, depth: usize) -> Result<Reply, Stop> {
        self.parts += 1;
        if depth > MAX_DEPTH || self.parts > MAX_PARTS {
            return Err(Stop::Malformed);
        }
        let (kind, line) = self.line()?;
        match kind {
            b'+' => Ok(Reply::Text(line)),
            b'-' => Ok(Reply::Refused(line)),
            b':' => line.parse().map(Reply::Number).map_err(|_not| Stop::Malformed),
            b'$' | b'*' if line == "-1" => Ok(Reply::Nothing),
            b'$' => self.bulk(length(&line, MAX_BULK)?),
            b'*' => {
                let count = length(&line, MAX_PARTS)?;
                (0..count).map(|_| self.reply(depth + 1)).collect::<Result<_, _>>().map(Reply::List)
            }
            _ => Err(Stop::Malformed),
        }
    }

    fn bulk(&mut self, length: usize) -> Result<Reply, Stop> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let (text, rest) = rest.split_at_checked(length).ok_or(Stop::More)?;
        match rest {
            [b'\r', b'\n', ..] => {
                self.at += length + 2;
                Ok(Reply::Text(String::from_utf8_lossy(text).into_owned()))
            }
            [] | [b'\r'] => Err(Stop::More),
            _ => Err(Stop::Malformed),
        }
    }

    fn line(&mut self) -> Result<(u8, String), Stop> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else {
            return Err(if rest.len() > MAX_BULK { Stop::Malformed } else { Stop::More });
        };
        self.at += end + 1;
        match rest.get(..end) {
            Some([kind, line @ .., b'\r']) => {
                Ok((*kind, String::from_utf8_lossy(line).into_owned()))
            }
            _ => Err(Stop::Malformed),
        }
    }
}

fn length(digits: &str, most: usize) -> Result<usize, Stop> {
    digits.parse().ok().filter(|length| *length <= most).ok_or(Stop::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_is_nested_and_waits_for_the_rest() {
        let input = b"*3\r\n:5\r\n*2\r\n$4\r\nh\r\ni\r\n*-1\r\n$-1\r\n+OK\r\n";
        let (reply, length) = parse(input).unwrap().unwrap();
        let inner = Reply::List(vec![Reply::Text("h\r\ni".to_owned()), Reply::Nothing]);
        assert_eq!(reply, Reply::List(vec![Reply::Number(5), inner, Reply::Nothing]));
        assert_eq!(parse(&input[length..]), Ok(Some((Reply::Text("OK".to_owned()), 5))));
        for end in 0..length {
            assert_eq!(parse(&input[..end]), Ok(None));
        }
    }

    #[test]
    fn refuses_what_is_not_the_protocol_or_has_no_bound() {
        let deep = b"*1\r\n".repeat(MAX_DEPTH + 2);
        for input in [&b"HTTP/1.1\r\n"[..], b"*99999999\r\n", b":x\r\n", b"$1\r\nabc", &deep] {
            assert_eq!(parse(input), Err(Malformed), "{}", input.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_calmly(input in "[-+:$*0-9a\r\n]{0,80}") {
            if let Ok(Some((_, length))) = parse(input.as_bytes()) {
                prop_assert!(length <= input.len());
            }
        }
    }
}
