//! What is known of the connection and of the other side, and the words for it. Pure.
//!
//! Invariant: a thing is told once: attempts that fail alike, and presence that has not changed, are not told again.

use std::time::Duration;

use tokio::time::Instant;

use crate::cli::wording::{moment, one_line};
use crate::client::Presence;

/// A typing notice holds this long.
const TYPING: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Status {
    peer: Option<String>,
    connected: bool,
    /// There was a connection before.
    begun: bool,
    /// Why there is no connection, as told.
    trouble: String,
    /// Who is typing, and until when that is believed.
    typing: Option<(String, Instant)>,
    /// Whether the peer is there, as told.
    online: Option<bool>,
}

impl Status {
    pub(super) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    pub(super) fn talk_with(&mut self, user: String) {
        self.online = None;
        self.peer = Some(user);
    }

    /// Whether there was a connection.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Why there is no connection.
    pub(super) fn trouble(&self) -> &str {
        if self.connected { "the gateway does not take them for now" } else { &self.trouble }
    }

    pub(super) fn connected(&mut self, me: &str, region: &str) -> String {
        self.connected = true;
        self.trouble.clear();
        if std::mem::replace(&mut self.begun, true) {
            "-- connected again".to_owned()
        } else {
            format!("-- connected as {me} in region {region}")
        }
    }

    /// What to say, where it is news.
    pub(super) fn disconnected(&mut self, why: String) -> Option<String> {
        self.typing = None;
        let was = std::mem::replace(&mut self.connected, false);
        if !was && self.trouble == why {
            return None;
        }
        let what = if was { "connection lost" } else { "no connection" };
        let line = format!("-- {what} ({why}); trying again by itself");
        self.trouble = why;
        Some(line)
    }

    /// What to say, where the user was not typing already.
    pub(super) fn typing(&mut self, from: String, now: Instant) -> Option<String> {
        let line = format!("-- {from} is typing");
        let news = self.typing.as_ref().is_none_or(|(user, until)| *user != from || *until <= now);
        self.typing = Some((from, now + TYPING));
        news.then_some(line)
    }

    /// A user who has said it is not typing it any more.
    pub(super) fn heard_from(&mut self, user: &str) {
        if self.typing.as_ref().is_some_and(|(typing, _)| typing == user) {
            self.typing = None;
        }
    }

    pub(super) fn forget_typing(&mut self, now: Instant) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.typing = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.typing.as_ref().map(|(_, until)| *until)
    }

    /// What to say, where it is news of the peer.
    pub(super) fn presence(&mut self, presence: &Presence) -> Option<String> {
        let Presence { user_id, online, last_seen } = presence;
        if self.peer.as_ref() != Some(user_id) || self.online.replace(*online) == Some(*online) {
            return None;
        }
        let user = one_line(user_id);
        let seen = last_seen.as_ref().and_then(|at| humantime::parse_rfc3339(at).ok());
        Some(match (online, seen) {
            (true, _) => format!("-- {user} is online"),
            (false, Some(at)) => format!("-- {user} is offline, last seen {}", moment(at)),
            (false, None) => format!("-- {user} is offline"),
        })
    }

    /// What stands before the line that is typed.
    pub(super) fn prompt(&self, waits: usize) -> String {
        let mut prompt = String::new();
        if let Some((user, _)) = &self.typing {
            prompt.extend(["(", user, " is typing) "]);
        }
        if !self.connected {
            prompt.push_str("(not connected) ");
        }
        if waits > 0 {
            prompt.extend(["(", &waits.to_string(), " waiting) "]);
        }
        prompt.push_str(self.peer().unwrap_or_default());
        prompt.push_str("> ");
        prompt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once() {
        let mut status = Status::default();
        let refused = || "refused".to_owned();
        assert!(status.disconnected(refused()).unwrap().starts_with("-- no connection (refused)"));
        assert_eq!(status.disconnected(refused()), None);
        assert!(status.disconnected("reset".into()).is_some(), "for another reason");
        assert_eq!(status.connected("al", "1"), "-- connected as al in region 1");
        assert!(
            status.disconnected(refused()).unwrap().starts_with("-- connection lost (refused)")
        );
        assert_eq!(status.connected("al", "1"), "-- connected again");
    }

    #[test]
    fn presence_is_told_when_it_changes() {
        let mut status = Status::default();
        let bob = |online| Presence {
            user_id: "bob".into(),
            online,
            last_seen: Some("2026-11-21T09:30:00Z".into()),
        };
        assert_eq!(status.presence(&bob(true)), None, "nobody asked for it");
        status.talk_with("bob".into());
        assert_eq!(status.presence(&bob(true)).unwrap(), "-- bob is online");
        assert_eq!(status.presence(&bob(true)), None);
        assert_eq!(
            status.presence(&bob(false)).unwrap(),
            "-- bob is offline, last seen 2026-11-21 09:30 UTC"
        );
    }

    #[test]
    fn the_prompt_says_what_is_going_on() {
        let (mut status, now) = (Status::default(), Instant::now());
        assert_eq!(status.prompt(0), "(not connected) > ");
        status.connected("al", "1");
        status.talk_with("bob".into());
        assert!(status.typing("bob".into(), now).is_some());
        assert!(status.typing("bob".into(), now).is_none());
        assert_eq!(status.prompt(2), "(bob is typing) (2 waiting) bob> ");
        status.forget_typing(now);
        assert_eq!(status.deadline(), Some(now + TYPING));
        status.heard_from("bob");
        assert_eq!(status.prompt(0), "bob> ");
    }
}
