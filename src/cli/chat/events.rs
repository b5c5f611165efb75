//! What the client tells of a conversation, shown.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Chat, End, ON, Step};
use crate::cli::wording::{content, one_line, received};
use crate::client::{Draft, Event, Message, Presence};

/// A whole second is cut off, and a server may look at its clock once a second only.
const AGREE: Duration = Duration::from_secs(2);

impl Chat {
    pub(super) fn on_event(&mut self, event: Event, timeout: Duration) -> Step {
        let now = Instant::now();
        if let Some(ending) = &mut self.ending {
            ending.quiet_since = now;
            if matches!(
                event,
                Event::Acknowledged(..) | Event::Refused(..) | Event::Connected { .. }
            ) {
                ending.give_up = now + timeout;
            }
        }
        match event {
            Event::Connected { region, whole, server_time } => {
                self.on_connected(&region, whole, server_time)?;
            }
            Event::Disconnected { why, .. } => {
                if let Some(line) = self.status.disconnected(one_line(&why)) {
                    self.view.note(&line)?;
                }
            }
            Event::Message(message) => self.on_message(&message)?,
            Event::Acknowledged(draft, _) => self.settled(&draft, "✓")?,
            Event::Refused(draft, fault) => {
                let why = format!("(not sent: {})", one_line(&fault.message));
                self.settled(&draft, &why)?;
                self.unsaid = !self.view.is_terminal();
            }
            Event::Typing { from } => {
                if let Some(line) =
                    self.status.typing(one_line(&from), now).filter(|_| !self.view.is_terminal())
                {
                    self.view.note(&line)?;
                }
            }
            Event::Presence(presence) => self.on_presence(&presence)?,
            Event::Lost => {
                self.view.note("-- messages to you were lost for good, the gateway says")?;
            }
            Event::Ended { why } => return Err(End::Ended(why)),
        }
        ON
    }

    fn on_connected(
        &mut self,
        region: &str,
        whole: bool,
        at: Option<SystemTime>,
    ) -> Result<(), End> {
        self.began.get_or_insert_with(|| server_now(at, SystemTime::now()));
        let line = self.status.connected(&self.me, &one_line(region));
        self.view.note(&line)?;
        if !whole {
            self.view.note("-- messages may be missing: the gateway cannot tell")?;
        }
        Ok(())
    }

    fn on_message(&mut self, message: &Message) -> Result<(), End> {
        self.status.heard_from(&message.from);
        let began = self.began.unwrap_or(SystemTime::UNIX_EPOCH);
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let earlier = message.taken_ms().is_some_and(|at| u128::from(at) < began.as_millis());
        self.view.received(&received(message, earlier, self.view.is_terminal()))?;
        Ok(())
    }

    /// One of our own, with what became of it.
    fn settled(&mut self, draft: &Draft, mark: &str) -> Result<(), End> {
        let words = content(draft.text.as_deref(), None, self.view.is_terminal());
        self.view.note(&format!("{} to {}: {words} {mark}", self.me, draft.to))?;
        Ok(())
    }

    fn on_presence(&mut self, presence: &Presence) -> Result<(), End> {
        if let Some(line) = self.status.presence(presence) {
            self.view.note(&line)?;
        }
        Ok(())
    }
}

/// The server's clock, which it says to the second; where ours agrees with that, ours is the more exact.
fn server_now(said: Option<SystemTime>, ours: SystemTime) -> SystemTime {
    let agrees = |said| ours.duration_since(said).is_ok_and(|since| since < AGREE);
    said.filter(|said| !agrees(*said)).unwrap_or(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_clock_counts_where_ours_is_wrong() {
        let ours = SystemTime::now();
        let early = ours - Duration::from_mins(1);
        assert_eq!(server_now(None, ours), ours);
        assert_eq!(server_now(Some(ours - Duration::from_millis(1_200)), ours), ours);
        assert_eq!(server_now(Some(early), ours), early);
        assert_eq!(server_now(Some(ours), early), ours);
    }
}
