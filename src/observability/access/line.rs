//! Access lines: an [`Entry`] as text, as JSON, or in the combined format, appended to a buffer.
//!
//! Pure, and written by hand: `write!` costs several times what is written here, a request each time. What comes from a
//! client never ends a line or a value before its time: it is escaped for where it stands.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::entry::{Entry, Socket};
use crate::settings::{AccessFormat, ClientShown};

const HEX: &[u8; 16] = b"0123456789abcdef";
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

/// Appends the line of `entry`, ended at `now`.
pub(super) fn write(
    entry: &Entry<'_>,
    style: Style,
    now: SystemTime,
    stamp: &mut Stamp,
    out: &mut Vec<u8>,
) {
    let millis = stamp.set(now);
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
        said.text("method", entry.method.as_bytes());
        said.name("path");
        said.0.push(b'"');
        target(entry, style, Escape::Json, said.0);
        said.0.push(b'"');
    }
    said.number("status", u64::from(entry.status));
    said.number("duration_ms", millis_of(entry.took));
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
    fn text(&mut self, name: &str, value: &[u8]);
    fn number(&mut self, name: &str, value: u64);
    /// In milliseconds, to the microsecond.
    fn span(&mut self, name: &str, value: Duration);
    fn address(&mut self, name: &str, value: IpAddr);
}

/// What all but the combined format say behind the message, in this order.
fn fields(entry: &Entry<'_>, style: Style, said: &mut impl Fields) {
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            said.text(name, value.as_bytes());
        }
    };
    text("region", entry.region);
    text("served", entry.served);
    text("why", entry.why);
    text("backend", entry.backend);
    text("key", entry.key);
    if let Some(Socket { user: Some(user), .. }) = &entry.socket {
        said.text("user", user.as_bytes());
    }
    if entry.attempts > 0 {
        said.number("attempts", u64::from(entry.attempts));
    }
    if let Some(first_byte) = entry.first_byte {
        said.span("first_byte_ms", first_byte);
    }
    if let Some(received) = entry.received {
        said.number("bytes_in", received);
    }
    if let Some(sent) = entry.sent {
        said.number("bytes", sent);
    }
    if let Some(socket) = &entry.socket {
        said.number("in", socket.frames_in);
        said.number("out", socket.frames_out);
        if let Some(close) = socket.close {
            said.number("close", u64::from(close));
        }
        said.text("ended_by", socket.ended_by.as_bytes());
    }
    if let Some(end) = entry.end {
        said.text("end", end.as_str().as_bytes());
    }
    if let Some(client) = entry.client.and_then(|client| shown(client, style.client)) {
        said.address("client", client);
    }
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            said.text(name, value.as_bytes());
        }
    };
    let given = |text: &&str| !text.is_empty();
    text("protocol", Some(entry.protocol).filter(given));
    text("tls", entry.tls);
    text("request_id", Some(entry.request_id).filter(given));
    text("trace_id", entry.trace_id);
}

struct TextFields<'a>(&'a mut Vec<u8>);

impl TextFields<'_> {
    fn name(&mut self, name: &str) {
        self.0.push(b' ');
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
    }
}

impl Fields for TextFields<'_> {
    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        escaped(self.0, value, Escape::Plain);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        number(self.0, value);
    }

    fn span(&mut self, name: &str, value: Duration) {
        self.name(name);
        span(self.0, value);
    }

    fn address(&mut self, name: &str, value: IpAddr) {
        self.name(name);
        address(self.0, value);
    }
}

struct JsonFields<'a>(&'a mut Vec<u8>);

impl JsonFields<'_> {
    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl Fields for JsonFields<'_> {
    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        escaped(self.0, value, Escape::Json);
        self.0.push(b'"');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        number(self.0, value);
    }

    fn span(&mut self, name: &str, value: Duration) {
        self.name(name);
        span(self.0, value);
    }

    fn address(&mut self, name: &str, value: IpAddr) {
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

/// Where a value stands, and so what must not be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// Between spaces.
    Plain,
    /// Between quotes of the combined format.
    Quoted,
    /// Between quotes of JSON. The bytes are of a `str`.
    Json,
}

impl Escape {
    fn must(self, byte: u8) -> bool {
        match self {
            Self::Plain => byte <= b' ' || byte >= 0x7f,
            Self::Quoted => !(b' '..0x7f).contains(&byte) || matches!(byte, b'"' | b'\\'),
            Self::Json => byte < b' ' || byte == 0x7f || matches!(byte, b'"' | b'\\'),
        }
    }
}

fn escaped(out: &mut Vec<u8>, value: &[u8], escape: Escape) {
    if !value.iter().any(|byte| escape.must(*byte)) {
        out.extend_from_slice(value);
        return;
    }
    for byte in value {
        match *byte {
            byte if !escape.must(byte) => out.push(byte),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                out.extend_from_slice(if escape == Escape::Json { b"\\u00" } else { b"\\x" });
                for nibble in [byte >> 4, byte & 15] {
                    out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
                }
            }
        }
    }
}

fn shown(client: IpAddr, how: ClientShown) -> Option<IpAddr> {
    let client = client.to_canonical();
    match (how, client) {
        (ClientShown::None, _) => None,
        (ClientShown::Full, client) => Some(client),
        (ClientShown::Truncated, IpAddr::V4(client)) => {
            Some(Ipv4Addr::from_bits(client.to_bits() & !0xff).into())
        }
        (ClientShown::Truncated, IpAddr::V6(client)) => {
            Some(Ipv6Addr::from_bits(client.to_bits() >> 80 << 80).into())
        }
    }
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        // Writing into a vector does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn millis_of(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn span(out: &mut Vec<u8>, span: Duration) {
    number(out, millis_of(span));
    out.push(b'.');
    padded(out, span.subsec_micros() % 1_000);
}

/// Three digits.
fn padded(out: &mut Vec<u8>, value: u32) {
    for divisor in [100, 10, 1] {
        out.push(digit(u64::from(value / divisor % 10)));
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    let (mut digits, mut rest) = ([0; 20], value);
    let mut used = digits.len();
    for place in digits.iter_mut().rev() {
        *place = digit(rest % 10);
        used -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(used..).unwrap_or_default());
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
