//! The frames as a client sees them: what it writes, and what it reads. Pure.
//!
//! Invariant: a frame of an unknown type, and one that is no frame at all, is [`ServerFrame::Unknown`]: a newer server
//! may say more than this client understands.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A frame that the server sent.
#[derive(Debug)]
pub(super) enum ServerFrame {
    Welcome(Welcome),
    Message(Message),
    Ack(Ack),
    Error(Fault),
    Typing { from: String },
    Presence(Presence),
    Reset { epoch: String, seq: u64 },
    Reconnect { after_ms: u64 },
    Unknown,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Welcome {
    pub(super) epoch: String,
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) region: String,
    #[serde(default)]
    pub(super) resumed: bool,
    #[serde(default)]
    pub(super) ping_interval_ms: Option<u64>,
    #[serde(default)]
    pub(super) max_text_bytes: Option<usize>,
}

/// A message from another user.
#[derive(Debug, Deserialize)]
pub struct Message {
    pub id: String,
    pub from: String,
    pub text: Option<String>,
    /// Any JSON value, as its sender wrote it.
    pub data: Option<Box<RawValue>>,
    pub seq: u64,
    /// When the sender's hub took it: RFC 3339.
    pub ts: String,
}

impl Message {
    /// When the sender's hub took it, in milliseconds since the Unix epoch.
    pub fn taken_ms(&self) -> Option<u64> {
        unix_ms(humantime::parse_rfc3339(&self.ts).ok()?)
    }
}

/// The server has stored a message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Ack {
    pub id: String,
    /// The position in the recipient's inbox; 0 where inboxes are not kept.
    pub seq: u64,
    pub ts: String,
    #[serde(default)]
    pub duplicate: bool,
}

/// Whether a user is connected anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    pub user_id: String,
    pub online: bool,
    /// RFC 3339; absent of who was never seen.
    #[serde(default)]
    pub last_seen: Option<String>,
}

/// The server's word that a frame was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    pub code: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) retryable: bool,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct TypingFields {
    from: String,
}

#[derive(Deserialize)]
struct ResetFields {
    epoch: String,
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReconnectFields {
    #[serde(default)]
    after_ms: u64,
}

/// Reads one text frame.
pub(super) fn read(frame: &str) -> ServerFrame {
    try_read(frame).unwrap_or(ServerFrame::Unknown)
}

fn try_read(frame: &str) -> serde_json::Result<ServerFrame> {
    let Kind { kind } = serde_json::from_str(frame)?;
    Ok(match kind.as_ref() {
        "welcome" => ServerFrame::Welcome(serde_json::from_str(frame)?),
        "message" => ServerFrame::Message(serde_json::from_str(frame)?),
        "ack" => ServerFrame::Ack(serde_json::from_str(frame)?),
        "error" => ServerFrame::Error(serde_json::from_str(frame)?),
        "presence" => ServerFrame::Presence(serde_json::from_str(frame)?),
        "typing" => {
            let TypingFields { from } = serde_json::from_str(frame)?;
            ServerFrame::Typing { from }
        }
        "reset" => {
            let ResetFields { epoch, seq } = serde_json::from_str(frame)?;
            ServerFrame::Reset { epoch, seq }
        }
        "reconnect" => {
            let ReconnectFields { after_ms } = serde_json::from_str(frame)?;
            ServerFrame::Reconnect { after_ms }
        }
        _ => ServerFrame::Unknown,
    })
}

/// What one user wants to tell another.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Makes a repeat harmless; see [`crate::protocol::is_id`].
    pub id: String,
    pub to: String,
    pub text: Option<String>,
    pub data: Option<Box<RawValue>>,
}

impl Draft {
    /// Bytes that count towards the server's limit.
    pub(super) fn size(&self) -> usize {
        let text = self.text.as_ref().map_or(0, String::len);
        text.saturating_add(self.data.as_ref().map_or(0, |data| data.get().len()))
    }

    pub(super) fn frame(&self) -> Utf8Bytes {
        write(&Frame {
            kind: "message",
            to: Some(&self.to),
            text: self.text.as_deref(),
            data: self.data.as_deref(),
            id: Some(&self.id),
            users: None,
        })
    }
}

pub(super) fn typing(to: &str) -> Utf8Bytes {
    write(&Frame { kind: "typing", to: Some(to), ..Frame::default() })
}

pub(super) fn presence(users: &[String]) -> Utf8Bytes {
    write(&Frame { kind: "presence", users: Some(users), ..Frame::default() })
}

/// The fields of every frame that a client sends.
#[derive(Default, Serialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<&'a [String]>,
}

fn write(frame: &Frame<'_>) -> Utf8Bytes {
    // Strings and raw JSON under names of our own: nothing of it can fail to be written.
    serde_json::to_string(frame).unwrap_or_default().into()
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms(at: std::time::SystemTime) -> Option<u64> {
    u64::try_from(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::incoming::{self, ClientFrame};
    use crate::protocol::outgoing::{self, Outgoing, Terms};
    use crate::protocol::{self, Code};

    #[test]
    fn what_the_server_writes_is_read() {
        let terms = Terms { ping_interval: Duration::from_secs(30), max_text_bytes: 99 };
        let ServerFrame::Welcome(welcome) =
            read(&outgoing::welcome("al", "eu", ("e", 41), true, terms))
        else {
            panic!("a welcome")
        };
        assert_eq!((welcome.epoch.as_str(), welcome.seq, welcome.resumed), ("e", 41, true));
        assert_eq!((welcome.ping_interval_ms, welcome.max_text_bytes), (Some(30_000), Some(99)));
        let ServerFrame::Ack(ack) = read(&outgoing::ack("c1", 7, 0, true)) else {
            panic!("an ack")
        };
        assert_eq!((ack.id.as_str(), ack.seq, ack.duplicate), ("c1", 7, true));
        let frame = outgoing::error(Code::BusUnavailable, "later", Some("c1"));
        let ServerFrame::Error(fault) = read(&frame) else { panic!("an error") };
        assert_eq!((fault.id.as_deref(), fault.retryable), (Some("c1"), true));
        assert!(matches!(read(&outgoing::reset("e", 3)), ServerFrame::Reset { seq: 3, .. }));
        assert!(
            matches!(read(&outgoing::typing("al")), ServerFrame::Typing { from } if from == "al")
        );
        let reconnect = outgoing::reconnect(Duration::from_millis(18));
        assert!(matches!(read(&reconnect), ServerFrame::Reconnect { after_ms: 18 }));
        let presence = r#"{"type":"presence","userId":"bob","online":false,"lastSeen":null}"#;
        assert!(matches!(
            read(presence),
            ServerFrame::Presence(Presence { online: false, last_seen: None, .. })
        ));
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        for frame in ["", "[]", "{}", r#"{"type":7}"#, r#"{"type":"novelty"}"#, r#"{"type":"ack"}"#]
        {
            assert!(matches!(read(frame), ServerFrame::Unknown), "{frame}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives(
            to in "[!-z|~]{1,128}", id in "[!-~]{1,64}", text in ".{1,40}", number in any::<i64>(),
        ) {
            let data = RawValue::from_string(format!("[{number}]")).unwrap();
            let draft = Draft { id: id.clone(), to, text: Some(text.clone()), data: Some(data) };
            let frame = draft.frame();
            let Ok(ClientFrame::Message(taken)) = incoming::parse(&frame, draft.size()) else {
                return Err(TestCaseError::fail(frame.to_string()));
            };
            prop_assert!(incoming::parse(&frame, draft.size() - 1).is_err(), "the size is as counted");
            let outgoing = Outgoing::compose(&taken, "al", "1", 1_700_000_000_123);
            let mut sent = outgoing.head().to_vec();
            sent.push(b'9');
            sent.extend_from_slice(outgoing.tail());
            let ServerFrame::Message(message) = read(std::str::from_utf8(&sent).unwrap()) else {
                return Err(TestCaseError::fail("no message"));
            };
            prop_assert!(protocol::is_id(&message.id));
            prop_assert_eq!((message.id.as_str(), message.seq), (id.as_str(), 9));
            prop_assert_eq!(message.text.as_deref(), Some(text.as_str()));
            prop_assert_eq!(message.data.as_ref().unwrap().get(), format!("[{number}]"));
            prop_assert_eq!(message.taken_ms(), Some(1_700_000_000_123));
        }
    }
}
