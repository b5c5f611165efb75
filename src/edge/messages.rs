//! Where the messages of a client begin and end, and what their heads have that the parser takes without a word.
//!
//! RFC 9112 has no `#` in a target (section 3.2): the parser behind us drops it and what follows. And it ends lines with
//! CRLF: the parser takes a bare LF as well, which section 2.2 permits; but who stands before us may not, and would see other
//! messages in the same bytes. So what comes is followed as it comes, line by line in heads and trailers, while bodies are
//! stepped over. Which of the requests is at fault is told by its number, and the service refuses it in its turn.
//!
//! Invariant: what is followed here is what the parser sees, or the parser refuses it: then nothing behind it is read as
//! a message by either. Lines come in pieces, messages many in one read.
//!
//! Pure. Absent on purpose: whatever the parser refuses by itself.

use memchr::memchr;

/// So much of a line that comes in pieces is kept; the fields that are read here must be shorter.
const KEPT: usize = 256;

/// What the parser does not see, or does not mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    /// A `#` in the request line.
    Fragment = 1,
    /// A line of the head, or of the trailers, ends without a CR.
    BareLf = 2,
    /// A field that says how long the body is, in a line too long to be followed.
    LongFraming = 3,
}

impl Fault {
    /// For the client.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Fragment => "the request target must not have a fragment",
            Self::BareLf => "every header line must end with CRLF, not with LF alone",
            Self::LongFraming => "a line that states the length of the body must be short",
        }
    }

    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Fragment, Self::BareLf, Self::LongFraming]
            .into_iter()
            .find(|fault| *fault as u8 == number)
    }
}

/// Where the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before or in a request line; empty lines before it are passed over (RFC 9112, 2.2).
    #[default]
    Start,
    /// Behind the request line.
    Fields,
    /// So many bytes of a body are left, with the line end behind them where it is a chunk.
    Body(u64),
    Chunk(u64),
    /// In the line before a chunk, whose size is this as far as it has come; `false` behind its digits.
    Size(u64, bool),
    Trailers,
    /// Behind a fault: the connection ends with the answer to it.
    Lost,
}

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct Messages {
    place: Place,
    /// Requests whose line has come.
    begun: u64,
    /// What the fields of this one have said of its body.
    length: u64,
    is_chunked: bool,
    /// The start of a line whose end has not come; empty at the start of one.
    line: Vec<u8>,
    /// Of such a line: how it ended, and whether there was a `#` in it.
    last: u8,
    has_mark: bool,
}

impl Messages {
    /// Which request was last begun, from 1 on.
    pub(super) fn number(&self) -> u64 {
        self.begun
    }

    /// Whether a part of a head has come, and its end has not.
    pub(super) fn is_in_head(&self) -> bool {
        match self.place {
            Place::Start => !self.line.is_empty(),
            Place::Fields | Place::Lost => true,
            _ => false,
        }
    }

    /// Follows what came. A fault is of the request that was last begun; nothing is followed behind it.
    pub(super) fn follow(&mut self, mut read: &[u8]) -> Option<Fault> {
        while !read.is_empty() {
            read = match self.place {
                Place::Body(left) => {
                    let (left, rest) = skip(left, read);
                    self.place = if left == 0 { Place::Start } else { Place::Body(left) };
                    rest
                }
                Place::Chunk(left) => {
                    let (left, rest) = skip(left, read);
                    self.place = if left == 0 { Place::Size(0, true) } else { Place::Chunk(left) };
                    rest
                }
                Place::Size(size, in_digits) => self.size(size, in_digits, read),
                Place::Start | Place::Fields | Place::Trailers => {
                    let Some((line, rest)) = split(read) else {
                        self.keep(read);
                        return None;
                    };
                    if let Err(fault) = self.line(line) {
                        self.place = Place::Lost;
                        return Some(fault);
                    }
                    rest
                }
                Place::Lost => return None,
            };
        }
        None
    }

    /// A line has ended, of which `piece` came last.
    fn line(&mut self, piece: &[u8]) -> Result<(), Fault> {
        if self.line.is_empty() {
            let has_mark = self.place == Place::Start && memchr(b'#', piece).is_some();
            return self.take(piece, piece.last() == Some(&b'\r'), has_mark);
        }
        self.keep(piece);
        let (line, has_mark) = (std::mem::take(&mut self.line), std::mem::take(&mut self.has_mark));
        self.take(&line, self.last == b'\r', has_mark)
    }

    /// Keeps a part of a line.
    fn keep(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        self.last = *last;
        self.has_mark |= self.place == Place::Start && memchr(b'#', piece).is_some();
        let room = KEPT.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
    }

    /// Takes a line, as much of it as was kept.
    fn take(&mut self, line: &[u8], has_cr: bool, has_mark: bool) -> Result<(), Fault> {
        let is_empty = matches!(line, [] | [b'\r']);
        if self.place == Place::Start {
            if is_empty {
                return Ok(());
            }
            self.begun += 1;
            (self.length, self.is_chunked) = (0, false);
            self.place = Place::Fields;
            if has_mark {
                return Err(Fault::Fragment);
            }
        }
        if !has_cr {
            return Err(Fault::BareLf);
        }
        if is_empty {
            self.place = match self.place {
                Place::Fields if self.is_chunked => Place::Size(0, true),
                Place::Fields if self.length > 0 => Place::Body(self.length),
                _ => Place::Start,
            };
            return Ok(());
        }
        match line.first() {
            Some(b'c' | b'C' | b't' | b'T') if self.place == Place::Fields => self.field(line),
            _ => Ok(()),
        }
    }

    /// Reads a field that may be one of framing. What is wrong with its value the parser refuses.
    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Some((name, value)) = memchr(b':', line).and_then(|colon| line.split_at_checked(colon))
        else {
            return Ok(());
        };
        let is_length = name.eq_ignore_ascii_case(b"content-length");
        if !is_length && !name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Ok(());
        }
        if line.len() >= KEPT {
            return Err(Fault::LongFraming);
        }
        if is_length {
            let digits = value.get(1..).unwrap_or_default().trim_ascii();
            let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            self.length = length.unwrap_or_default();
        } else {
            self.is_chunked = true;
        }
        Ok(())
    }

    /// Reads the line before a chunk, the rest of which the parser judges.
    fn size<'a>(&mut self, mut size: u64, mut in_digits: bool, read: &'a [u8]) -> &'a [u8] {
        let line = split(read);
        for byte in line.map_or(read, |(line, _)| line) {
            let digit = char::from(*byte).to_digit(16).filter(|_| in_digits);
            let Some(digit) = digit else {
                in_digits = false;
                break;
            };
            size = size.saturating_mul(16).saturating_add(u64::from(digit));
        }
        let Some((_, rest)) = line else {
            self.place = Place::Size(size, in_digits);
            return &[];
        };
        self.place = if size == 0 { Place::Trailers } else { Place::Chunk(size.saturating_add(2)) };
        rest
    }
}

/// What is left of `left` bytes, and of `read`, when the one was passed over in the other.
fn skip(left: u64, read: &[u8]) -> (u64, &[u8]) {
    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(read.len());
    (left - passed as u64, read.get(passed..).unwrap_or_default())
}

/// The first line, without its LF, and what is behind it.
fn split(read: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = read.split_at_checked(memchr(b'\n', read)?)?;
    Some((line, rest.get(1..)?))
}

#[cfg(test)]
mod tests;
