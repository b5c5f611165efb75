//! Standard input, without stopping the runtime: a thread reads, what it read is awaited.
//!
//! Invariants: at most a few blocks are read ahead; a line has a bound. The thread cannot be called back from a read
//! that never ends, so nobody joins it: it goes with the process.

use std::io::{self, Read as _};

use tokio::sync::mpsc;

/// Bytes read at once, and blocks that may wait.
const BLOCK: usize = 8 * 1024;
const BLOCKS: usize = 4;
/// Bytes of a line; no gateway takes as much.
const MAX_LINE: usize = 1024 * 1024;

/// What comes from standard input.
pub(super) struct Input {
    blocks: mpsc::Receiver<io::Result<Vec<u8>>>,
}

impl Input {
    /// Begins to read.
    pub(super) fn start() -> io::Result<Self> {
        let (sender, blocks) = mpsc::channel(BLOCKS);
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut stdin = io::stdin();
            let mut block = [0; BLOCK];
            loop {
                let read = match stdin.read(&mut block) {
                    Ok(0) => return,
                    Ok(length) => Ok(block.get(..length).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = read.is_err();
                if sender.blocking_send(read).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self { blocks })
    }

    /// The next block; none at the end. Safe to stop awaiting.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.blocks.recv().await.transpose()
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is longer than {MAX_LINE} bytes")]
    TooLong,
}

/// Cuts blocks into lines. Pure.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// The line that was begun is over the bound.
    too_long: bool,
}

impl Lines {
    /// The lines that `block` completes; without their ends.
    pub(super) fn push(&mut self, block: &[u8]) -> Vec<Result<String, BadLine>> {
        let mut complete = Vec::new();
        for piece in block.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) =
                piece.strip_suffix(b"\n").map_or((piece, false), |part| (part, true));
            if self.begun.len().saturating_add(part.len()) > MAX_LINE {
                self.too_long = true;
                self.begun = Vec::new();
            }
            if !self.too_long {
                self.begun.extend_from_slice(part);
            }
            if ends {
                complete.push(self.take());
            }
        }
        complete
    }

    /// The last line, where it has no end.
    pub(super) fn finish(&mut self) -> Option<Result<String, BadLine>> {
        (self.too_long || !self.begun.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Result<String, BadLine> {
        let mut line = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.too_long) {
            return Err(BadLine::TooLong);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|_bytes| BadLine::NotUtf8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_or_no_text_costs_itself_alone() {
        let mut lines = Lines::default();
        let long = vec![b'x'; MAX_LINE];
        assert!(lines.push(&long).is_empty());
        assert_eq!(lines.push(b"x"), []);
        assert_eq!(
            lines.push(b"y\nok\r\n\xff\nen"),
            [Err(BadLine::TooLong), Ok("ok".into()), Err(BadLine::NotUtf8)]
        );
        assert_eq!(lines.finish(), Some(Ok("en".into())));
        assert_eq!(lines.finish(), None);
    }

    proptest! {
        #[test]
        fn blocks_may_be_cut_anywhere(text in "[a-zé\n]{0,60}", size in 1..7_usize) {
            let mut lines = Lines::default();
            let mut got: Vec<_> =
                text.as_bytes().chunks(size).flat_map(|block| lines.push(block)).collect();
            got.extend(lines.finish());
            let got: Vec<String> = got.into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(got, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
