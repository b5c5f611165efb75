//! Where the frames of a WebSocket begin and end, as its bytes pass (RFC 6455, 5.2).
//!
//! Pure, and a few bytes large: of a header only what is still to come is kept, of a payload only how much is left of
//! it. Nothing is unmasked but the code of a Close, and nothing is judged that does not move a boundary: fragments,
//! extensions and texts are the two ends' own business. Bytes that cannot be frames are [`Frames::is_broken`] from
//! then on; they may be another protocol, and pass all the same.

/// Opcodes, and the bits that share a byte with them.
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
pub(super) const FIN: u8 = 0x80;
pub(super) const MASKED: u8 = 0x80;

/// The longest payload of a control frame, and of a length in seven bits.
const SHORT: u8 = 125;

/// The code that stands for a Close without one (RFC 6455, 7.1.5).
const NO_CODE: u16 = 1005;

/// Who writes the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Its frames are masked.
    Client,
    /// Its frames are not.
    Server,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Opcode,
    Length,
    LongLength,
    Mask,
    Payload,
    /// A Close is over: nothing may follow it.
    Closed,
    /// What came was no frame.
    Broken,
}

/// How far the frames of one direction are.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the payload that are still to come.
    left: u64,
    /// Frames that are over.
    count: u64,
    place: Place,
    writer: Writer,
    opcode: u8,
    /// Bytes of a long length or a mask that are still to come.
    ahead: u8,
    /// The first bytes of the mask, for the code of a Close.
    mask: [u8; 2],
    /// Bytes of that code that have come.
    code_bytes: u8,
    code: u16,
    /// Pings that have passed, as a count that wraps.
    pings: u16,
}

impl Frames {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            left: 0,
            count: 0,
            place: Place::Opcode,
            writer,
            opcode: CONTINUATION,
            ahead: 0,
            mask: [0; 2],
            code_bytes: 0,
            code: 0,
            pings: 0,
        }
    }

    /// Whether another frame may be put in here.
    pub(super) fn is_boundary(&self) -> bool {
        self.place == Place::Opcode
    }

    pub(super) fn is_broken(&self) -> bool {
        self.place == Place::Broken
    }

    /// Whether a Close has begun; it may not have passed in full.
    pub(super) fn is_closing(&self) -> bool {
        self.opcode == CLOSE && !self.is_broken()
    }

    /// The code of the Close that has passed, 1005 where it had none.
    pub(super) fn closed(&self) -> Option<u16> {
        let code = if self.code_bytes == 2 { self.code } else { NO_CODE };
        (self.place == Place::Closed).then_some(code)
    }

    /// Frames that have passed in full.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Pings that have passed in full, as a count that wraps.
    pub(super) fn pings(&self) -> u16 {
        self.pings
    }

    /// Whether a frame that begins with `byte` is a Close.
    pub(super) fn begins_close(byte: u8) -> bool {
        byte & OPCODE == CLOSE
    }

    /// Follows `data` to the end of the frame it stands in, or to its own end; how many bytes that were. All of it,
    /// where the frames are over.
    pub(super) fn follow(&mut self, data: &[u8]) -> usize {
        let mut rest = data;
        while let Some((&byte, after)) = rest.split_first() {
            match self.place {
                Place::Opcode => self.opcode(byte),
                Place::Length => self.length(byte),
                Place::LongLength => self.long_length(byte),
                Place::Mask => self.mask(byte),
                Place::Payload => {
                    let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    let (payload, after) = rest.split_at_checked(here).unwrap_or((rest, &[]));
                    self.payload(payload);
                    rest = after;
                    if self.is_boundary() {
                        break;
                    }
                    continue;
                }
                Place::Closed | Place::Broken => return data.len(),
            }
            rest = after;
            if self.is_boundary() {
                break;
            }
        }
        data.len() - rest.len()
    }

    fn opcode(&mut self, byte: u8) {
        self.opcode = byte & OPCODE;
        let known = matches!(self.opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        // A control frame is whole; the reserved bits are the extensions' own.
        let whole = self.opcode & CONTROL == 0 || byte & FIN != 0;
        self.place = if known && whole { Place::Length } else { Place::Broken };
    }

    fn length(&mut self, byte: u8) {
        let (masked, length) = (byte & MASKED != 0, byte & !MASKED);
        if masked != (self.writer == Writer::Client)
            || (length > SHORT && self.opcode & CONTROL != 0)
        {
            self.place = Place::Broken;
            return;
        }
        self.left = 0;
        self.ahead = match length {
            126 => 2,
            127 => 8,
            short => {
                self.left = u64::from(short);
                return self.after_length();
            }
        };
        self.place = Place::LongLength;
    }

    fn long_length(&mut self, byte: u8) {
        self.left = self.left << 8 | u64::from(byte);
        self.ahead -= 1;
        if self.ahead == 0 {
            if self.left >> 63 == 0 {
                self.after_length();
            } else {
                self.place = Place::Broken;
            }
        }
    }

    fn after_length(&mut self) {
        match self.writer {
            Writer::Client => (self.ahead, self.place) = (4, Place::Mask),
            Writer::Server => self.after_header(),
        }
    }

    fn mask(&mut self, byte: u8) {
        if let Some(place) = self.mask.get_mut(usize::from(4 - self.ahead)) {
            *place = byte;
        }
        self.ahead -= 1;
        if self.ahead == 0 {
            self.after_header();
        }
    }

    fn after_header(&mut self) {
        self.place = Place::Payload;
        self.payload(&[]);
    }

    /// No more than what is left of the frame.
    fn payload(&mut self, bytes: &[u8]) {
        if self.opcode == CLOSE {
            for byte in bytes {
                let Some(mask) = self.mask.get(usize::from(self.code_bytes)) else { break };
                self.code = self.code << 8 | u16::from(byte ^ mask);
                self.code_bytes += 1;
            }
        }
        self.left -= u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(self.left);
        if self.left == 0 {
            self.count += 1;
            self.pings = self.pings.wrapping_add(u16::from(self.opcode == PING));
            self.place = if self.opcode == CLOSE { Place::Closed } else { Place::Opcode };
        }
    }
}

/// A Close with `code` and nothing more, as `writer` writes it.
pub(super) fn close(writer: Writer, code: u16) -> ([u8; 8], usize) {
    let [high, low] = code.to_be_bytes();
    match writer {
        Writer::Server => ([FIN | CLOSE, 2, high, low, 0, 0, 0, 0], 4),
        Writer::Client => {
            let [a, b, c, d] = fastrand::u32(..).to_be_bytes();
            ([FIN | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b], 8)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as written by hand: opcode, payload, and how its length is told.
    fn frame(writer: Writer, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if writer == Writer::Client { MASKED } else { 0 };
        let mut bytes = vec![FIN | opcode];
        let length = payload.len();
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..=SHORT), _) => bytes.push(mask | short),
            (_, Ok(middle)) => {
                bytes.push(mask | 0x7e);
                bytes.extend(middle.to_be_bytes());
            }
            _ => {
                bytes.push(mask | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let key = if mask == 0 { [0; 4] } else { [1, 2, 3, 4] };
        if mask != 0 {
            bytes.extend(key);
        }
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// The places after which another frame may be put in.
    fn boundaries(frames: &mut Frames, pieces: &[&[u8]]) -> Vec<usize> {
        let (mut found, mut at) = (Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let taken = frames.follow(rest);
                assert!(taken > 0, "nothing was taken of {} bytes", rest.len());
                rest = &rest[taken..];
                at += taken;
                if frames.is_boundary() {
                    found.push(at);
                }
            }
        }
        found
    }

    fn writers() -> impl Strategy<Value = Writer> {
        prop_oneof![Just(Writer::Client), Just(Writer::Server)]
    }

    fn payloads() -> impl Strategy<Value = (u8, usize)> {
        prop_oneof![
            (prop::sample::select(vec![PING, PONG]), 0..=125_usize),
            (prop::sample::select(vec![CONTINUATION, TEXT, BINARY]), 0..300_usize),
            (Just(BINARY), 65_000..66_000_usize),
        ]
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_boundaries(
            writer in writers(),
            content in prop::collection::vec(payloads(), 0..6),
            mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            single in any::<bool>(),
        ) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (opcode, length) in &content {
                bytes.extend(frame(writer, *opcode, &vec![7; *length]));
                expected.push(bytes.len());
            }
            let mut at: Vec<usize> = if single && bytes.len() < 2_000 {
                (0..bytes.len()).collect()
            } else {
                cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect()
            };
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let mut frames = Frames::new(writer);
            prop_assert_eq!(boundaries(&mut frames, &pieces), expected);
            prop_assert_eq!(frames.count(), content.len() as u64);
            prop_assert!(!frames.is_broken() && !frames.is_closing());
        }

        #[test]
        fn any_bytes_are_followed_to_their_end(bytes in any::<Vec<u8>>(), writer in writers()) {
            boundaries(&mut Frames::new(writer), &[&bytes]);
        }

        #[test]
        fn a_close_tells_its_code_in_any_pieces(
            writer in writers(), code in any::<u16>(), reason in 0..=123_usize, cut in 0..8_usize,
        ) {
            let payload = [&code.to_be_bytes()[..], &vec![b'r'; reason]].concat();
            let bytes = frame(writer, CLOSE, &payload);
            let mut frames = Frames::new(writer);
            let (one, other) = bytes.split_at(cut.min(bytes.len()));
            boundaries(&mut frames, &[one, other]);
            prop_assert_eq!(frames.closed(), Some(code));
            let (ours, length) = close(writer, code);
            let mut frames = Frames::new(writer);
            boundaries(&mut frames, &[&ours[..length]]);
            prop_assert_eq!(frames.closed(), Some(code));
        }
    }

    #[test]
    fn what_cannot_be_a_frame_is_said_to_be_none() {
        for (writer, bytes) in [
            (Writer::Client, &b"GET / HTTP/1.1\r\n"[..]),
            (Writer::Server, &[FIN | 0x3, 0]),
            (Writer::Server, &[PING, 0]),
            (Writer::Server, &[FIN | PING, 126]),
            (Writer::Server, &[FIN | TEXT, MASKED]),
            (Writer::Client, &[FIN | TEXT, 0]),
            (Writer::Server, &[FIN | TEXT, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut frames = Frames::new(writer);
            assert_eq!(boundaries(&mut frames, &[bytes]), [0_usize; 0], "{bytes:?}");
            assert!(frames.is_broken(), "{bytes:?}");
        }
    }

    #[test]
    fn a_close_is_the_end_of_frames() {
        let mut frames = Frames::new(Writer::Server);
        assert_eq!(frames.follow(&[FIN | CLOSE]), 1);
        assert!(frames.is_closing() && frames.closed().is_none());
        assert_eq!(frames.follow(&[0, FIN | TEXT, 0]), 3);
        assert_eq!((frames.closed(), frames.count()), (Some(NO_CODE), 1));
        assert!(!frames.is_boundary());
        assert_eq!(size_of::<Frames>(), 32, "a tunnel has two of them while it is idle");
    }
}
