//! The terminal's mode while a conversation runs: keys come one by one, and nothing is echoed but by us.
//!
//! Invariant: whatever ends the conversation, the mode that was found is put back.

use std::io::{self, IsTerminal as _};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize,
    tcsetattr,
};

/// What a terminal that does not say is taken for.
const COLUMNS: usize = 80;

/// Holds the mode; dropped, it puts the former one back.
pub(super) struct Keys {
    found: Termios,
}

impl Keys {
    /// Takes the terminal over; none where standard input or output is no terminal.
    pub(super) fn take() -> io::Result<Option<Self>> {
        let (input, output) = (io::stdin(), io::stdout());
        if !input.is_terminal() || !output.is_terminal() {
            return Ok(None);
        }
        let found = tcgetattr(&input)?;
        let mut keys = found.clone();
        // Ctrl-C comes as a key too: so it cannot leave the terminal in this mode.
        keys.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        keys.input_modes.remove(InputModes::IXON);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&input, OptionalActions::Now, &keys)?;
        Ok(Some(Self { found }))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that has gone has no mode to put back.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.found).ok();
    }
}

/// How wide the terminal is now.
pub(super) fn columns() -> usize {
    tcgetwinsize(io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}
