//! A message on its way, and what is said of it: positions, receipts, replays. Pure.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;

/// A position counts one user's messages, from 1; 0 stands before the first.
pub type Seq = u64;

/// The history that positions belong to: after a loss of data it is another one.
pub type Epoch = Arc<str>;

/// One message on its way to one user.
///
/// What listeners see is `head`, the position in decimal, `tail`, without anything between: so the
/// sender composes the text once, and the bus fills in what only it knows.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The recipient.
    pub to: &'a str,
    /// The sender; with `id` it makes a repeat harmless.
    pub from: &'a str,
    /// The sender's own name of this message; without a space, which parts it from `from` in a key.
    pub id: &'a str,
    /// When the hub took it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub head: &'a [u8],
    pub tail: &'a [u8],
}

/// The bus has it: stored and published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The position in the recipient's inbox; of the first one, where this is a repeat.
    pub seq: Seq,
    /// When the hub took it; of the first one, where this is a repeat.
    pub at_ms: u64,
    /// The same `(from, id)` was published before, within the window.
    pub duplicate: bool,
}

/// What an inbox still holds after some position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub epoch: Epoch,
    /// The last position given out; 0 when there was none.
    pub top: Seq,
    /// Every retained message after the position asked for, in order. Contiguous up to `top`;
    /// where it starts later than asked for, what is between was trimmed.
    pub messages: Vec<(Seq, Bytes)>,
}

impl Envelope<'_> {
    /// What listeners see, at position `seq`.
    pub(super) fn render(&self, seq: Seq) -> Bytes {
        let digits = seq.checked_ilog10().map_or(1, |digits| digits as usize + 1);
        // Exact, so that the vector becomes shared bytes without another copy.
        let mut text = Vec::with_capacity(self.head.len() + digits + self.tail.len());
        text.extend_from_slice(self.head);
        // Writing to a vector cannot fail.
        drop(write!(text, "{seq}"));
        text.extend_from_slice(self.tail);
        Bytes::from(text)
    }
}

/// What makes a repeat of one recipient's message the same message.
pub(super) fn dedupe_key(from: &str, id: &str) -> String {
    [from, " ", id].concat()
}

/// A fresh epoch: 96 random bits.
pub(super) fn epoch() -> Epoch {
    Arc::from(format!("{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_stands_between_head_and_tail() {
        let envelope =
            Envelope { to: "", from: "", id: "", at_ms: 0, head: b"{\"seq\":", tail: b"}" };
        for seq in [0, 1, 9, 10, 99, 100, 12_345, Seq::MAX] {
            assert_eq!(envelope.render(seq), format!("{{\"seq\":{seq}}}"));
        }
    }
}
