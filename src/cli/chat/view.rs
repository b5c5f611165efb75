//! Where a conversation is shown: on a terminal above the line that is typed, or as plain lines.
//!
//! As plain lines, what others say goes to standard output, and everything else (notices, marks of what is
//! acknowledged) to standard error, so that a program that reads the one is not told the other.

use std::io::{self, Write};

use super::editor::{Editor, Outcome};
use super::screen;
use super::terminal::{self, Keys};

pub(super) enum View {
    Plain,
    Terminal { _keys: Keys, editor: Editor, prompt: String },
}

impl View {
    /// The terminal, where standard input and output are one.
    pub(super) fn open() -> io::Result<Self> {
        Ok(match Keys::take()? {
            None => Self::Plain,
            Some(keys) => {
                Self::Terminal { _keys: keys, editor: Editor::default(), prompt: String::new() }
            }
        })
    }

    /// Whether a person sits there.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// What somebody else said.
    pub(super) fn received(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Plain => plain(&mut io::stdout().lock(), line),
            Self::Terminal { .. } => self.draw(Some(line)),
        }
    }

    /// Everything that is not what somebody else said.
    pub(super) fn note(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Plain => plain(&mut io::stderr().lock(), line),
            Self::Terminal { .. } => self.draw(Some(line)),
        }
    }

    /// What stands before the typed line.
    pub(super) fn prompt(&mut self, text: String) -> io::Result<()> {
        match self {
            Self::Terminal { prompt, .. } if *prompt != text => {
                *prompt = text;
                self.draw(None)
            }
            Self::Terminal { .. } | Self::Plain => Ok(()),
        }
    }

    /// Takes typed bytes; what they gave rise to.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> io::Result<Vec<Outcome>> {
        let Self::Terminal { editor, .. } = self else { return Ok(Vec::new()) };
        let outcomes: Vec<_> = bytes.iter().filter_map(|byte| editor.push(*byte)).collect();
        self.draw(None)?;
        Ok(outcomes)
    }

    /// Whether what is being typed is for `chat` itself.
    pub(super) fn is_command(&self) -> bool {
        matches!(self, Self::Terminal { editor, .. } if editor.text().first() == Some(&'/'))
    }

    /// Draws the row anew, as after a change of the terminal's size.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        self.draw(None)
    }

    /// Takes the row that is typed in away.
    pub(super) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::Terminal { .. } => screen::erase(&mut io::stdout().lock()),
        }
    }

    fn draw(&mut self, lines: Option<&str>) -> io::Result<()> {
        let Self::Terminal { editor, prompt, .. } = self else { return Ok(()) };
        screen::draw(&mut io::stdout().lock(), lines, prompt, editor, terminal::columns())
    }
}

fn plain(out: &mut impl Write, line: &str) -> io::Result<()> {
    writeln!(out, "{line}")?;
    out.flush()
}
