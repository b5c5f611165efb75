//! What clients get: small functions that write one frame each.
//!
//! Users and ids are visible ASCII, so two characters are all that a string here can need escaped.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Code;
use super::incoming::Draft;

/// The last millisecond that RFC 3339 can name, counted from the Unix epoch.
const MAX_MS: u64 = 253_402_300_799_999;

/// Room for the fixed parts of a message frame.
const FRAME_OVERHEAD: usize = 160;

/// What the welcome frame tells besides the position.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub ping_interval: Duration,
    pub max_text_bytes: usize,
}

pub fn welcome(
    user: &str,
    region: &str,
    position: (&str, u64),
    resumed: bool,
    terms: Terms,
) -> Utf8Bytes {
    let (epoch, seq) = position;
    format!(
        r#"{{"type":"welcome","userId":{},"region":{},"epoch":{},"seq":{seq},"resumed":{resumed},"pingIntervalMs":{},"maxTextBytes":{}}}"#,
        Quoted(user),
        Quoted(region),
        Quoted(epoch),
        terms.ping_interval.as_millis(),
        terms.max_text_bytes,
    )
    .into()
}

pub fn reset(epoch: &str, seq: u64) -> Utf8Bytes {
    format!(r#"{{"type":"reset","epoch":{},"seq":{seq}}}"#, Quoted(epoch)).into()
}

pub fn ack(id: &str, seq: u64, at_ms: u64, duplicate: bool) -> Utf8Bytes {
    let at = Timestamp(at_ms);
    format!(
        r#"{{"type":"ack","id":{},"seq":{seq},"ts":"{at}","duplicate":{duplicate}}}"#,
        Quoted(id)
    )
    .into()
}

/// `advice` goes in as it is: it holds nothing that JSON escapes.
pub fn error(code: Code, advice: &'static str, id: Option<&str>) -> Utf8Bytes {
    let mut frame = format!(r#"{{"type":"error","code":"{}","message":"{advice}""#, code.as_str());
    if let Some(id) = id {
        append(&mut frame, format_args!(r#","id":{}"#, Quoted(id)));
    }
    frame.push_str(if code.is_retryable() { r#","retryable":true}"# } else { "}" });
    frame.into()
}

pub fn typing(from: &str) -> Utf8Bytes {
    format!(r#"{{"type":"typing","from":{}}}"#, Quoted(from)).into()
}

/// `last_seen_ms` counts from the Unix epoch; nothing where the user was never seen.
pub fn presence(user: &str, online: bool, last_seen_ms: Option<u64>) -> Utf8Bytes {
    let user = Quoted(user);
    let mut frame = format!(r#"{{"type":"presence","userId":{user},"online":{online},"lastSeen":"#);
    match last_seen_ms {
        Some(at) => append(&mut frame, format_args!(r#""{}"}}"#, Timestamp(at))),
        None => frame.push_str("null}"),
    }
    frame.into()
}

pub fn reconnect(after: Duration) -> Utf8Bytes {
    format!(r#"{{"type":"reconnect","afterMs":{}}}"#, after.as_millis()).into()
}

pub fn pong() -> Utf8Bytes {
    Utf8Bytes::from_static(r#"{"type":"pong"}"#)
}

/// A message on its way to the bus: recipient, id and frame in one allocation.
///
/// The frame is written around its position, which only the bus knows.
#[derive(Debug)]
pub struct Outgoing {
    buffer: String,
    to_end: usize,
    id_end: usize,
    head_end: usize,
    pub at_ms: u64,
}

impl Outgoing {
    /// Writes `draft` as its recipient will see it.
    pub fn compose(draft: &Draft<'_>, from: &str, region: &str, at_ms: u64) -> Self {
        let text = draft.text.unwrap_or_default();
        let data = draft.data.unwrap_or_default();
        let made_up;
        let id = if let Some(id) = &draft.id {
            id.as_ref()
        } else {
            made_up = random_id();
            &made_up
        };
        let size = 2 * (draft.to.len() + id.len()) + from.len() + text.len() + data.len();
        let mut buffer = String::with_capacity(size + FRAME_OVERHEAD);
        buffer.push_str(&draft.to);
        let to_end = buffer.len();
        buffer.push_str(id);
        let id_end = buffer.len();
        let (quoted_id, from, to) = (Quoted(id), Quoted(from), Quoted(&draft.to));
        append(
            &mut buffer,
            format_args!(r#"{{"type":"message","id":{quoted_id},"from":{from},"to":{to}"#),
        );
        if draft.text.is_some() {
            buffer.push_str(r#","text":"#);
            buffer.push_str(text);
        }
        if draft.data.is_some() {
            buffer.push_str(r#","data":"#);
            buffer.push_str(data);
        }
        append(&mut buffer, format_args!(r#","region":{},"seq":"#, Quoted(region)));
        let head_end = buffer.len();
        append(&mut buffer, format_args!(r#","ts":"{}"}}"#, Timestamp(at_ms)));
        Self { buffer, to_end, id_end, head_end, at_ms }
    }

    pub fn to(&self) -> &str {
        self.buffer.get(..self.to_end).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.buffer.get(self.to_end..self.id_end).unwrap_or_default()
    }

    /// The frame up to the position.
    pub fn head(&self) -> &[u8] {
        self.buffer.as_bytes().get(self.id_end..self.head_end).unwrap_or_default()
    }

    /// The frame after the position.
    pub fn tail(&self) -> &[u8] {
        self.buffer.as_bytes().get(self.head_end..).unwrap_or_default()
    }
}

/// When the message frame `frame` was taken, in milliseconds since the Unix epoch.
pub fn taken_at(frame: &[u8]) -> Option<u64> {
    /// What closes every message frame.
    const LAYOUT: &[u8] = br#"0000-00-00T00:00:00.000Z"}"#;
    let stamp = frame.get(frame.len().checked_sub(LAYOUT.len())?..)?.strip_suffix(br#""}"#)?;
    let at = humantime::parse_rfc3339(std::str::from_utf8(stamp).ok()?).ok()?;
    u64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// Writes to a `String`, which cannot fail.
fn append(buffer: &mut String, text: std::fmt::Arguments<'_>) {
    let written = buffer.write_fmt(text);
    debug_assert!(written.is_ok(), "a String takes everything");
}

/// 22 characters, some 130 random bits: never seen before.
fn random_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(22).collect()
}

/// Visible ASCII as a JSON string.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('"')?;
        for part in self.0.split_inclusive(['"', '\\']) {
            // At most the last character of a part is one of the two.
            let plain = part.trim_end_matches(['"', '\\']);
            f.write_str(plain)?;
            if let Some(special) = part.chars().next_back().filter(|_| plain.len() < part.len()) {
                f.write_char('\\')?;
                f.write_char(special)?;
            }
        }
        f.write_char('"')
    }
}

/// Milliseconds since the Unix epoch as RFC 3339.
struct Timestamp(u64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(MAX_MS));
        write!(f, "{}", humantime::format_rfc3339_millis(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::incoming::{ClientFrame, parse};
    use super::*;

    fn read(frame: &str) -> Value {
        serde_json::from_str(frame).unwrap_or_else(|error| panic!("{error}: {frame}"))
    }

    #[test]
    fn the_frames_are_as_agreed() {
        let terms = Terms { ping_interval: Duration::from_secs(30), max_text_bytes: 16_384 };
        assert_eq!(
            welcome("alice", "1", ("e1", 41), true, terms).as_str(),
            r#"{"type":"welcome","userId":"alice","region":"1","epoch":"e1","seq":41,"resumed":true,"pingIntervalMs":30000,"maxTextBytes":16384}"#
        );
        assert_eq!(
            ack("c1", 42, 1_700_000_000_123, false).as_str(),
            r#"{"type":"ack","id":"c1","seq":42,"ts":"2023-11-14T22:13:20.123Z","duplicate":false}"#
        );
        assert_eq!(reset("e", 57).as_str(), r#"{"type":"reset","epoch":"e","seq":57}"#);
        assert_eq!(typing(r#"a"\b"#).as_str(), r#"{"type":"typing","from":"a\"\\b"}"#);
        assert_eq!(
            reconnect(Duration::from_millis(1_830)).as_str(),
            r#"{"type":"reconnect","afterMs":1830}"#
        );
        assert_eq!(
            presence("bob", false, Some(1_700_000_000_123)).as_str(),
            r#"{"type":"presence","userId":"bob","online":false,"lastSeen":"2023-11-14T22:13:20.123Z"}"#
        );
        assert_eq!(
            presence("bob", false, None).as_str(),
            r#"{"type":"presence","userId":"bob","online":false,"lastSeen":null}"#
        );
        let retryable = read(&error(Code::BusUnavailable, "later", Some("c1")));
        assert_eq!((&retryable["id"], &retryable["retryable"]), (&json!("c1"), &json!(true)));
        for code in Code::ALL {
            let frame = read(&error(code, code.advice(), None));
            assert_eq!(frame["code"], code.as_str());
            assert!(frame.get("id").is_none());
        }
    }

    #[test]
    fn a_stamp_out_of_range_is_still_a_frame() {
        read(&ack("c1", 1, u64::MAX, true));
    }

    #[test]
    fn a_missing_id_is_made_up() {
        let ClientFrame::Message(draft) =
            parse(r#"{"type":"message","to":"bob","text":"hi"}"#, 99).unwrap()
        else {
            panic!("a message")
        };
        let outgoing = Outgoing::compose(&draft, "alice", "1", 0);
        assert_eq!(outgoing.id().len(), 22);
        assert!(super::super::is_id(outgoing.id()));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_got(
            to in "[!-z|~]{1,128}", from in "[!-z|~]{1,128}", id in "[!-~]{1,64}",
            text in ".{1,40}", number in any::<i64>(), at_ms in 0..MAX_MS, seq in any::<u64>(),
        ) {
            let data = json!([number, {"x": text.clone()}]);
            let sent = json!({"type": "message", "to": to, "text": text, "id": id, "data": data});
            let sent = sent.to_string();
            let Ok(ClientFrame::Message(draft)) = parse(&sent, 4_096) else {
                return Err(TestCaseError::fail(sent));
            };
            let outgoing = Outgoing::compose(&draft, &from, "1", at_ms);
            prop_assert_eq!((outgoing.to(), outgoing.id()), (to.as_str(), id.as_str()));
            let mut frame = outgoing.head().to_vec();
            frame.extend_from_slice(seq.to_string().as_bytes());
            frame.extend_from_slice(outgoing.tail());
            prop_assert_eq!(taken_at(&frame), Some(at_ms));
            let got = read(std::str::from_utf8(&frame).unwrap());
            prop_assert_eq!(&got["type"], "message");
            prop_assert_eq!(&got["to"], to.as_str());
            prop_assert_eq!(&got["from"], from.as_str());
            prop_assert_eq!(&got["id"], id.as_str());
            prop_assert_eq!(&got["text"], text.as_str());
            prop_assert_eq!(&got["data"], &data);
            prop_assert_eq!(&got["seq"], seq);
        }

        #[test]
        fn no_bytes_make_a_stamp_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(taken_at(&bytes).is_none_or(|at_ms| at_ms <= MAX_MS));
        }
    }
}
