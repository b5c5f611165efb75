//! What is typed, or piped in, and what it gives rise to.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::editor::{INTERRUPT, Outcome};
use super::words::{self, Words};
use super::{Chat, End, Ending, ON, OVER, Step};
use crate::cli::send::protocol_id;
use crate::cli::wording::{messages, one_line};
use crate::client::Draft;

/// Typing is told at most this often.
const TYPING_EVERY: Duration = Duration::from_secs(3);
/// Messages that may wait before piped lines are not taken on.
const AHEAD: usize = 64;

impl Chat {
    fn end_of_input(&mut self, timeout: Duration) -> Step {
        let waits = self.client.unsettled();
        if self.view.is_terminal() {
            if waits == 0 {
                return OVER;
            }
            self.view.note(&format!(
                "-- waiting for {} to be acknowledged; Ctrl-C leaves",
                messages(waits)
            ))?;
        }
        let now = Instant::now();
        self.ending = Some(Ending { since: now, quiet_since: now, give_up: now + timeout });
        ON
    }

    /// Whether input is to be read: keys always, since Ctrl-C is one; piped lines as there is room for them.
    pub(super) fn takes_input(&self) -> bool {
        let more = self.ending.is_none() && !self.input_ended && self.typed.is_empty();
        self.view.is_terminal() || more
    }

    pub(super) fn on_input(&mut self, block: Option<Vec<u8>>, timeout: Duration) -> Step {
        if self.view.is_terminal() {
            // A terminal that has gone says as little as one that was told to stop.
            return self.on_keys(&block.unwrap_or_else(|| vec![INTERRUPT]), timeout);
        }
        if let Some(block) = block {
            self.typed.extend(self.lines.push(&block));
        } else {
            self.input_ended = true;
            self.typed.extend(self.lines.finish());
        }
        ON
    }

    /// Takes as many of the piped lines as there is room for.
    pub(super) fn take_lines(&mut self, timeout: Duration) -> Result<(), End> {
        while self.ending.is_none() && self.client.unsettled() < AHEAD {
            match self.typed.pop_front() {
                // On pipes no line ends the conversation at once.
                Some(Ok(line)) => drop(self.on_line(&line, timeout)?),
                Some(Err(bad)) => self.unsaid(&format!("-- a line was not sent: {bad}"))?,
                None if self.input_ended => drop(self.end_of_input(timeout)?),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn on_keys(&mut self, bytes: &[u8], timeout: Duration) -> Step {
        for outcome in self.view.typed(bytes)? {
            match outcome {
                Outcome::Line(line) => {
                    self.typing_told = None;
                    if self.on_line(&line, timeout)?.is_break() {
                        return OVER;
                    }
                }
                Outcome::Changed { typed } => {
                    if typed && self.ending.is_none() {
                        self.tell_typing();
                    }
                }
                Outcome::Interrupt => {
                    return self.leave().map(|()| ControlFlow::Break(()));
                }
                Outcome::End => return self.end_of_input(timeout),
            }
        }
        ON
    }

    fn on_line(&mut self, line: &str, timeout: Duration) -> Step {
        match words::read(line) {
            Words::Nothing => {}
            Words::Help => self.view.note(words::HELP)?,
            Words::Wrong(why) => self.unsaid(&format!("-- {}", one_line(&why)))?,
            Words::To(user) => self.talk_with(user),
            Words::Quit => return self.end_of_input(timeout),
            Words::Say(text) => self.say(text)?,
        }
        ON
    }

    fn say(&mut self, text: String) -> Result<(), End> {
        let Some(to) = self.status.peer().map(str::to_owned) else {
            return self.unsaid("-- not sent: say to whom first, as in /to bob");
        };
        let draft = Draft { id: protocol_id(), to, text: Some(text), data: None };
        if let Err(error) = self.client.send(draft) {
            self.unsaid(&format!("-- not sent: {error}"))?;
        }
        Ok(())
    }

    /// Something that was to be said was not: a person sees it, a program is told by the exit code.
    fn unsaid(&mut self, line: &str) -> Result<(), End> {
        self.unsaid = !self.view.is_terminal();
        Ok(self.view.note(line)?)
    }

    pub(super) fn talk_with(&mut self, user: String) {
        self.client.watch(vec![user.clone()]);
        self.status.talk_with(user);
        self.typing_told = None;
    }

    /// A command is nobody else's business.
    fn tell_typing(&mut self) {
        let recent = self.typing_told.is_some_and(|at| at.elapsed() < TYPING_EVERY);
        if recent || self.view.is_command() {
            return;
        }
        if let Some(peer) = self.status.peer() {
            self.client.typing(peer);
            self.typing_told = Some(Instant::now());
        }
    }
}
