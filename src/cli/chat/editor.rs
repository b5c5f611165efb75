//! The line that is being typed: bytes of a terminal in, edits and finished lines out. Pure.
//!
//! Invariants: the text never holds a control character; it has a bound; an escape sequence that is not known is
//! swallowed whole.

/// Characters of one line.
const MOST: usize = 16 * 1024;
/// Bytes of an escape sequence; a longer one is not waited for.
const MAX_SEQUENCE: usize = 32;

const ESCAPE: u8 = 0x1b;

/// Ctrl-C
pub(super) const INTERRUPT: u8 = 0x03;

/// What a key gave rise to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The line is finished.
    Line(String),
    /// Something is to be drawn anew; `typed` where it was text.
    Changed { typed: bool },
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
}

/// A line and the place in it.
#[derive(Debug, Default)]
pub(super) struct Editor {
    text: Vec<char>,
    cursor: usize,
    /// Bytes of a character, or of an escape sequence, that is not whole yet.
    pending: Vec<u8>,
}

impl Editor {
    pub(super) fn text(&self) -> &[char] {
        &self.text
    }

    /// Characters before the cursor.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Takes one byte; something where a key is complete and does anything.
    pub(super) fn push(&mut self, byte: u8) -> Option<Outcome> {
        if self.pending.first() == Some(&ESCAPE) {
            return self.escape(byte);
        }
        if !self.pending.is_empty() || byte >= 0x80 {
            return self.character(byte);
        }
        match byte {
            ESCAPE => {
                self.pending.push(byte);
                None
            }
            b'\r' | b'\n' => {
                self.cursor = 0;
                Some(Outcome::Line(self.text.drain(..).collect()))
            }
            INTERRUPT => Some(Outcome::Interrupt),
            0x04 if self.text.is_empty() => Some(Outcome::End),
            // Ctrl-A, Ctrl-B, Ctrl-E, Ctrl-F, as in every shell.
            0x01 => Some(self.go(0)),
            0x02 => Some(self.go(self.cursor.saturating_sub(1))),
            0x05 => Some(self.go(self.text.len())),
            0x06 => Some(self.go(self.cursor + 1)),
            // Ctrl-D, the two backspaces, Ctrl-K, Ctrl-U, Ctrl-W.
            0x04 => Some(self.cut(self.cursor, self.cursor + 1)),
            0x7f | 0x08 => Some(self.cut(self.cursor.saturating_sub(1), self.cursor)),
            0x0b => Some(self.cut(self.cursor, self.text.len())),
            0x15 => Some(self.cut(0, self.cursor)),
            0x17 => Some(self.cut(self.word(), self.cursor)),
            // Ctrl-L
            0x0c => Some(Outcome::Changed { typed: false }),
            b'\t' => self.insert(' '),
            byte if byte < 0x20 => None,
            byte => self.insert(char::from(byte)),
        }
    }

    fn insert(&mut self, character: char) -> Option<Outcome> {
        if self.text.len() >= MOST || character.is_control() {
            return None;
        }
        self.text.insert(self.cursor, character);
        self.cursor += 1;
        Some(Outcome::Changed { typed: true })
    }

    fn go(&mut self, cursor: usize) -> Outcome {
        self.cursor = cursor.min(self.text.len());
        Outcome::Changed { typed: false }
    }

    fn cut(&mut self, from: usize, to: usize) -> Outcome {
        self.text.drain(from..to.min(self.text.len()).max(from));
        self.go(from)
    }

    /// Where the word before the cursor begins.
    fn word(&self) -> usize {
        let before = self.text.iter().take(self.cursor).rev();
        let blanks = before.clone().take_while(|character| **character == ' ').count();
        let letters = before.skip(blanks).take_while(|character| **character != ' ').count();
        self.cursor.saturating_sub(blanks + letters)
    }

    /// Takes a byte of a character of several.
    fn character(&mut self, byte: u8) -> Option<Outcome> {
        self.pending.push(byte);
        match std::str::from_utf8(&self.pending) {
            Ok(text) => {
                let character = text.chars().next();
                self.pending.clear();
                self.insert(character?)
            }
            Err(error) if error.error_len().is_none() => None,
            // No character begins like this. What broke it off may be a key of its own.
            Err(_) => {
                let was_begun = self.pending.len() > 1;
                self.pending.clear();
                if was_begun { self.push(byte) } else { None }
            }
        }
    }

    /// Takes a byte of an escape sequence.
    fn escape(&mut self, byte: u8) -> Option<Outcome> {
        self.pending.push(byte);
        let is_whole = match self.pending.as_slice() {
            [_, b'[' | b'O'] => false,
            [_, _] | [] => true,
            // Up to its final byte (ECMA-48, 5.4).
            [.., last] => (0x40..=0x7e).contains(last) || self.pending.len() >= MAX_SEQUENCE,
        };
        if !is_whole {
            return None;
        }
        let sequence = std::mem::take(&mut self.pending);
        self.key_of(sequence.get(2..).unwrap_or_default())
    }

    fn key_of(&mut self, sequence: &[u8]) -> Option<Outcome> {
        match sequence {
            b"C" => Some(self.go(self.cursor + 1)),
            b"D" => Some(self.go(self.cursor.saturating_sub(1))),
            b"H" | b"1~" | b"7~" => Some(self.go(0)),
            b"F" | b"4~" | b"8~" => Some(self.go(self.text.len())),
            b"3~" => Some(self.cut(self.cursor, self.cursor + 1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(bytes: &[u8]) -> (Editor, Vec<Outcome>) {
        let mut editor = Editor::default();
        let outcomes = bytes.iter().filter_map(|byte| editor.push(*byte)).collect();
        (editor, outcomes)
    }

    #[track_caller]
    fn leaves(bytes: &[u8], text: &str, cursor: usize) {
        let (editor, _) = typed(bytes);
        assert_eq!(
            (editor.text().iter().collect::<String>().as_str(), editor.cursor()),
            (text, cursor)
        );
    }

    #[test]
    fn keys_edit_the_line() {
        leaves("Grüße\x7f".as_bytes(), "Grüß", 4);
        leaves(b"abc\x1b[D\x1b[DX", "aXbc", 2);
        leaves(b"abc\x01X\x05Y\x02\x02Z\x06", "XabZcY", 5);
        leaves(b"abc\x1b[H\x1b[3~\x1b[F!", "bc!", 3);
        leaves(b"one two  \x17x", "one x", 5);
        leaves(b"abc\x02\x15", "c", 0);
        leaves(b"abc\x01\x0b", "", 0);
        leaves(b"a\tb\x04\x07", "a b", 3);
        leaves(b"\x1b[200;5~a\x1bOPb\x1bxc", "abc", 3);
        leaves(b"\xffa\xc3b", "ab", 2);
    }

    #[test]
    fn lines_and_ends_are_told() {
        let (editor, outcomes) = typed(b"hi\r\x04\x03");
        assert_eq!(outcomes[2..], [Outcome::Line("hi".into()), Outcome::End, Outcome::Interrupt]);
        assert!(editor.text().is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (editor, outcomes) = typed(&bytes);
            prop_assert!(editor.cursor() <= editor.text().len());
            prop_assert!(!editor.text().iter().any(|character| character.is_control()));
            for outcome in outcomes {
                if let Outcome::Line(line) = outcome {
                    prop_assert!(!line.chars().any(char::is_control));
                }
            }
        }
    }
}
