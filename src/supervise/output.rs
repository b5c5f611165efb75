//! What instances write goes into the log, line by line, with where it came from.
//!
//! The pipe is always read, so that nothing that is written ever waits for the log; what is too long is cut, what is too
//! much is left out, and how much that was is said.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

use super::spec::Key;
use crate::rate::{Budget, Rate};

/// Bytes of a line; the rest of a longer one is left out.
const MAX_LINE: usize = 8 * 1024;
/// What is read at once.
const PIECE: usize = 16 * 1024;
/// Lines a second of one stream in the long run, and at once.
const RATE: (u32, u32) = (1_000, 5_000);
/// How often it is said what was left out.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Whose output it is.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) key: Key,
    pub(super) instance: usize,
    /// `stdout` or `stderr`.
    pub(super) stream: &'static str,
}

impl Origin {
    fn line(&self, line: &str) {
        tracing::info!(
            target: "Process",
            region = %self.key.region,
            process = %self.key.process,
            instance = self.instance,
            stream = self.stream,
            "{line}"
        );
    }

    fn left_out(&self, lines: u64) {
        tracing::warn!(
            target: "Process",
            region = %self.key.region,
            process = %self.key.process,
            instance = self.instance,
            stream = self.stream,
            lines,
            "it writes faster than the log takes: lines were left out"
        );
    }
}

/// Writes what comes into the log, until the last of those who can write has closed it.
pub(super) async fn follow(mut from: impl AsyncRead + Unpin, origin: Origin) {
    let mut piece = vec![0; PIECE];
    let (mut lines, mut budget) = (Lines::default(), Limited::new());
    loop {
        let read = from.read(&mut piece);
        // What was left out is said even where nothing more comes.
        let read = match budget.next_telling() {
            None => read.await,
            Some(at) => match timeout_at(at, read).await {
                Ok(read) => read,
                Err(_elapsed) => {
                    budget.tell(&origin, false);
                    continue;
                }
            },
        };
        let Ok(read @ 1..) = read else { break };
        let new = piece.get(..read).unwrap_or_default();
        lines.push(new, |line| budget.line(&origin, line));
        budget.tell(&origin, false);
    }
    lines.end(|line| budget.line(&origin, line));
    budget.tell(&origin, true);
}

/// Lets so many lines through, and counts the others.
struct Limited {
    rate: Rate,
    budget: Budget,
    began: Instant,
    left_out: u64,
    told: Instant,
}

impl Limited {
    fn new() -> Self {
        let [second, burst] =
            [RATE.0, RATE.1].map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        let now = Instant::now();
        let rate = Rate::per_second(second, burst);
        Self { rate, budget: Budget::default(), began: now, left_out: 0, told: now }
    }

    fn line(&mut self, origin: &Origin, line: &str) {
        if self.budget.take(&self.rate, self.began.elapsed()) {
            origin.line(line);
        } else {
            self.left_out += 1;
        }
    }

    /// When it is to be said what was left out, where something was.
    fn next_telling(&self) -> Option<Instant> {
        (self.left_out > 0).then(|| self.told + TELL_EVERY)
    }

    fn tell(&mut self, origin: &Origin, last: bool) {
        if self.left_out > 0 && (last || self.told.elapsed() >= TELL_EVERY) {
            origin.left_out(std::mem::take(&mut self.left_out));
            self.told = Instant::now();
        }
    }
}

/// Cuts a stream into lines of a bounded length; pure.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The line was cut, and said: what follows of it is left out.
    skipping: bool,
}

impl Lines {
    fn push(&mut self, mut new: &[u8], mut say: impl FnMut(&str)) {
        while let Some(at) = memchr::memchr(b'\n', new) {
            let (line, rest) = new.split_at(at);
            new = rest.get(1..).unwrap_or_default();
            self.take(line);
            if !self.skipping {
                self.say(&mut say);
            }
            self.begun.clear();
            self.skipping = false;
        }
        self.take(new);
        if self.begun.len() > MAX_LINE && !self.skipping {
            self.say(&mut say);
            self.begun.clear();
            self.skipping = true;
        }
    }

    /// What was not ended by a line feed is a line, too.
    fn end(&mut self, mut say: impl FnMut(&str)) {
        if !self.begun.is_empty() && !self.skipping {
            self.say(&mut say);
        }
        self.begun.clear();
    }

    fn take(&mut self, more: &[u8]) {
        if !self.skipping {
            // One byte more than fits tells that it was too long.
            let room = (MAX_LINE + 1).saturating_sub(self.begun.len());
            self.begun.extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
        }
    }

    fn say(&self, say: &mut impl FnMut(&str)) {
        let is_cut = self.begun.len() > MAX_LINE;
        let line = self.begun.get(..MAX_LINE).unwrap_or(&self.begun);
        let mut text = readable(&String::from_utf8_lossy(line));
        if is_cut {
            text.push('…');
        }
        if !text.is_empty() {
            say(&text);
        }
    }
}

/// Without what would move a terminal's cursor or end the line of the log: colours (CSI sequences) vanish, tabs are
/// blanks, any other control character is a `?`.
fn readable(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.trim_end_matches('\r').chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' if rest.peek() == Some(&'[') => {
                rest.next();
                // Parameters, then one final byte (ECMA-48, 5.4).
                while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\t' => text.push(' '),
            control if control.is_control() => text.push('?'),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| said.push(line.to_owned()));
        }
        lines.end(|line| said.push(line.to_owned()));
        said
    }

    #[test]
    fn a_stream_is_cut_into_lines_wherever_its_pieces_end() {
        assert_eq!(lines(&[b"a\nb", b"c\r\n\n", b"d"]), ["a", "bc", "d"]);
        assert_eq!(lines(&[b""]), [""; 0]);
    }

    #[test]
    fn a_long_line_is_cut_once_and_the_next_is_whole() {
        let long = vec![b'x'; MAX_LINE * 3];
        let expected = format!("{}…", "x".repeat(MAX_LINE));
        assert_eq!(lines(&[&long, &long, b"tail\nnext\n"]), [&expected, "next"]);
        assert_eq!(lines(&[&[&long[..], b"\nnext"].concat()]), [&expected, "next"]);
        let fits = vec![b'x'; MAX_LINE];
        assert_eq!(lines(&[&fits, b"\n"])[0].len(), MAX_LINE);
    }

    #[test]
    fn a_line_cannot_forge_another() {
        assert_eq!(readable("\u{1b}[31mred\u{1b}[0m\tx\rfake\u{1b}]0;t\u{7}"), "red x?fake?]0;t?");
        assert_eq!(lines(&[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let (one, other) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(lines(&[one, other]), lines(&[&bytes]));
        }
    }
}
