//! Access lines: an [`Entry`] as text, as JSON, or in the combined format, appended to a buffer.
//!
//! Pure, and written by hand: `write!` costs several times what is written here, a request each time. What comes from a
//! client never ends a line or a value before its time: it is escaped for where it stands.

mod values;

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::values::{Escape, address, escaped, millis_of, number, padded, shown, span};
use super::entry::{Entry, Socket};
use crate::settings::{AccessFormat, ClientShown};

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) format: AccessFormat,
    pub(super) queries: bool,
    pub(super) client: ClientShown,
}

/// The time of lines: the text of the last second is kept, since most lines are of the same one.
#[derive(Debug)]
pub(super) struct Stamp {
    second: u64,
    /// `2026-11-21T18:05:32`.
    text: [u8; 19],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00" }
    }
}

impl Stamp {
    /// Moves on to `now`; gives the milliseconds of it.
    fn set(&mut self, now: SystemTime) -> u32 {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            let whole = UNIX_EPOCH + Duration::from_secs(self.second);
            let mut rest = self.text.as_mut_slice();
            // It fills the text and leaves the Z out.
            drop(write!(rest, "{}", humantime::format_rfc3339_seconds(whole)));
        }
        since.subsec_millis()
    }

    fn part(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.text.get(range).unwrap_or_default()
    }

    /// RFC 3339 with milliseconds.
    fn write(&self, millis: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
        out.push(b'.');
        padded(out, millis);
        out.push(b'Z');
    }

    /// `21/Nov/2026:18:05:32 +0000`.
    fn write_combined(&self, out: &mut Vec<u8>) {
        let digit = |at: usize| usize::from(self.text.get(at).map_or(0, |byte| byte - b'0'));
        let month = (digit(5) * 10 + digit(6)).saturating_sub(1) * 3;
        for part in [
            self.part(8..10),
            b"/",
            MONTHS.get(month..month + 3).unwrap_or(b"Jan"),
            b"/",
            self.part(0..4),
            b":",
            self.part(11..19),
            b" +0000",
        ] {
            out.extend_from_slice(part);
        }
    }
}

/// The name of a field with what stands around it.
#[derive(Clone, Copy)]
struct Name {
    text: &'static str,
    json: &'static str,
}

macro_rules! name {
    ($name:literal) => {
        Name { text: concat!(" ", $name, "="), json: concat!(",\"", $name, "\":") }
    };
}

/// A usual line with all its fields: room is made once.
const ROOM: usize = 768;

/// Appends the line of `entry`, ended at `now`.
pub(super) fn write(
    entry: &Entry<'_>,
    style: Style,
    now: SystemTime,
    stamp: &mut Stamp,
    out: &mut Vec<u8>,
) {
    let millis = stamp.set(now);
    out.reserve(ROOM);
    match style.format {
        AccessFormat::Text => text(entry, style, (stamp, millis), out),
        AccessFormat::Json => json(entry, style, (stamp, millis), out),
        AccessFormat::Combined => combined(entry, style, stamp, out),
    }
    out.push(b'\n');
}

fn text(entry: &Entry<'_>, style: Style, (stamp, millis): (&Stamp, u32), out: &mut Vec<u8>) {
    out.push(b'[');
    stamp.write(millis, out);
    out.extend_from_slice(b"] [INFO] [");
    out.extend_from_slice(entry.part.as_str().as_bytes());
    out.extend_from_slice(b"] ");
    message(entry, style, Escape::Plain, out);
    fields(entry, style, &mut TextFields(out));
}

fn json(entry: &Entry<'_>, style: Style, (stamp, millis): (&Stamp, u32), out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    stamp.write(millis, out);
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"component\":\"");
    out.extend_from_slice(entry.part.as_str().as_bytes());
    out.extend_from_slice(b"\",\"fields\":{\"message\":\"");
    message(entry, style, Escape::Json, out);
    out.push(b'"');
    let mut said = JsonFields(out);
    if !entry.method.is_empty() {
        said.text(name!("method"), entry.method.as_bytes());
        said.name(name!("path"));
        said.0.push(b'"');
        target(entry, style, Escape::Json, said.0);
        said.0.push(b'"');
    }
    said.number(name!("status"), u64::from(entry.status));
    said.number(name!("duration_ms"), millis_of(entry.took));
    fields(entry, style, &mut said);
    out.extend_from_slice(b"}}");
}

/// `GET /x 200 - 2ms`
fn message(entry: &Entry<'_>, style: Style, escape: Escape, out: &mut Vec<u8>) {
    if entry.method.is_empty() {
        out.extend_from_slice(b"unparsed request ");
    } else {
        escaped(out, entry.method.as_bytes(), escape);
        out.push(b' ');
        target(entry, style, escape, out);
        out.push(b' ');
    }
    number(out, u64::from(entry.status));
    out.extend_from_slice(b" - ");
    number(out, millis_of(entry.took));
    out.extend_from_slice(b"ms");
}

fn target(entry: &Entry<'_>, style: Style, escape: Escape, out: &mut Vec<u8>) {
    escaped(out, entry.path.as_bytes(), escape);
    if style.queries
        && let Some(query) = entry.query
    {
        out.push(b'?');
        escaped(out, query.as_bytes(), escape);
    }
}

/// Writes `name=value` in its way.
trait Fields {
    fn text(&mut self, name: Name, value: &[u8]);
    /// A text of our own, in which nothing is to be escaped.
    fn word(&mut self, name: Name, value: &str);
    fn number(&mut self, name: Name, value: u64);
    /// In milliseconds, to the microsecond.
    fn span(&mut self, name: Name, value: Duration);
    fn address(&mut self, name: Name, value: IpAddr);
}

/// What all but the combined format say behind the message, in this order.
fn fields(entry: &Entry<'_>, style: Style, said: &mut impl Fields) {
    let mut word = |name: Name, value: Option<&str>| {
        if let Some(value) = value {
            said.word(name, value);
        }
    };
    word(name!("region"), entry.region);
    word(name!("served"), entry.served);
    word(name!("why"), entry.why);
    let mut text = |name: Name, value: Option<&str>| {
        if let Some(value) = value {
            said.text(name, value.as_bytes());
        }
    };
    text(name!("backend"), entry.backend);
    text(name!("key"), entry.key);
    if let Some(Socket { user: Some(user), .. }) = &entry.socket {
        said.text(name!("user"), user.as_bytes());
    }
    if entry.attempts > 0 {
        said.number(name!("attempts"), u64::from(entry.attempts));
    }
    if let Some(first_byte) = entry.first_byte {
        said.span(name!("first_byte_ms"), first_byte);
    }
    if let Some(received) = entry.received {
        said.number(name!("bytes_in"), received);
    }
    if let Some(sent) = entry.sent {
        said.number(name!("bytes"), sent);
    }
    if let Some(socket) = &entry.socket {
        said.number(name!("in"), socket.frames_in);
        said.number(name!("out"), socket.frames_out);
        if let Some(close) = socket.close {
            said.number(name!("close"), u64::from(close));
        }
        said.text(name!("ended_by"), socket.ended_by.as_bytes());
    }
    if let Some(end) = entry.end {
        said.word(name!("end"), end.as_str());
    }
    if let Some(client) = entry.client.and_then(|client| shown(client, style.client)) {
        said.address(name!("client"), client);
    }
    if !entry.protocol.is_empty() {
        said.word(name!("protocol"), entry.protocol);
    }
    if let Some(tls) = entry.tls {
        said.word(name!("tls"), tls);
    }
    if !entry.request_id.is_empty() {
        said.text(name!("request_id"), entry.request_id.as_bytes());
    }
    if let Some(trace_id) = entry.trace_id {
        said.word(name!("trace_id"), trace_id);
    }
}

struct TextFields<'a>(&'a mut Vec<u8>);

impl TextFields<'_> {
    fn name(&mut self, name: Name) {
        self.0.extend_from_slice(name.text.as_bytes());
    }
}

impl Fields for TextFields<'_> {
    fn text(&mut self, name: Name, value: &[u8]) {
        self.name(name);
        escaped(self.0, value, Escape::Plain);
    }

    fn word(&mut self, name: Name, value: &str) {
        self.name(name);
        self.0.extend_from_slice(value.as_bytes());
    }

    fn number(&mut self, name: Name, value: u64) {
        self.name(name);
        number(self.0, value);
    }

    fn span(&mut self, name: Name, value: Duration) {
        self.name(name);
        span(self.0, value);
    }

    fn address(&mut self, name: Name, value: IpAddr) {
        self.name(name);
        address(self.0, value);
    }
}

struct JsonFields<'a>(&'a mut Vec<u8>);

impl JsonFields<'_> {
    fn name(&mut self, name: Name) {
        self.0.extend_from_slice(name.json.as_bytes());
    }
}

impl Fields for JsonFields<'_> {
    fn text(&mut self, name: Name, value: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        escaped(self.0, value, Escape::Json);
        self.0.push(b'"');
    }

    fn word(&mut self, name: Name, value: &str) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'"');
    }

    fn number(&mut self, name: Name, value: u64) {
        self.name(name);
        number(self.0, value);
    }

    fn span(&mut self, name: Name, value: Duration) {
        self.name(name);
        span(self.0, value);
    }

    fn address(&mut self, name: Name, value: IpAddr) {
        self.name(name);
        self.0.push(b'"');
        address(self.0, value);
        self.0.push(b'"');
    }
}

/// `client - key [time] "GET /x HTTP/1.1" 200 12 "referer" "agent"`
fn combined(entry: &Entry<'_>, style: Style, stamp: &Stamp, out: &mut Vec<u8>) {
    match entry.client.and_then(|client| shown(client, style.client)) {
        Some(client) => address(out, client),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    let user = entry.socket.and_then(|socket| socket.user).or(entry.key);
    escaped(out, user.unwrap_or("-").as_bytes(), Escape::Plain);
    out.extend_from_slice(b" [");
    stamp.write_combined(out);
    out.extend_from_slice(b"] \"");
    if entry.method.is_empty() {
        out.push(b'-');
    } else {
        escaped(out, entry.method.as_bytes(), Escape::Quoted);
        out.push(b' ');
        target(entry, style, Escape::Quoted, out);
        if !entry.protocol.is_empty() {
            out.push(b' ');
            out.extend_from_slice(entry.protocol.as_bytes());
        }
    }
    out.extend_from_slice(b"\" ");
    number(out, u64::from(entry.status));
    out.push(b' ');
    number(out, entry.sent.unwrap_or(0));
    for value in [entry.referer, entry.agent] {
        out.extend_from_slice(b" \"");
        escaped(out, value.unwrap_or(b"-"), Escape::Quoted);
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests;
