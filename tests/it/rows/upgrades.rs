//! Rows 31 to 36: what becomes a WebSocket, and what does not (RFC 6455, 4.2; RFC 9110, 7.8).

use super::case::{ASKING, After, Case, GET, SWITCH, passes, refused};
use crate::harness::backend::Step;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

pub(super) fn table() -> Vec<Case> {
    [bodies(), handshakes(), refusals()].into_iter().flatten().collect()
}

/// One that could mean two things.
fn bodies() -> Vec<Case> {
    // Others strip the upgrade and pass the request on, which is as good.
    let no =
        |name: &str, lines: &str| refused(31, name, format!("{GET}{ASKING}{lines}"), &[400]).ours();
    vec![
        no("a handshake with a length", "Content-Length: 2\r\n\r\nhi"),
        no("a handshake with chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        passes(
            32,
            "bytes behind a handshake that is refused",
            format!("{GET}{ASKING}\r\n{GET}Connection: close\r\n\r\n"),
        )
        .reaches(2)
        .then(After::Answers(&[200])),
        passes(33, "bytes behind a handshake", format!("{GET}{ASKING}\r\nEARLY"))
            .by([Step::ReplyAndClose(SWITCH.into())])
            .status(&[101])
            .sees_not(&["early"])
            .then(After::Either),
    ]
}

fn handshakes() -> Vec<Case> {
    let opens = |name: &str, lines: &str| {
        passes(34, name, format!("{GET}{lines}{VERSION}{KEY}\r\n"))
            .by([Step::ReplyAndClose(SWITCH.into())])
            .status(&[101])
            .sees(&["\r\nupgrade: websocket\r\n", "\r\nconnection: upgrade\r\n"])
            .gets(&[
                "\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
                "\r\nupgrade: websocket\r\n",
            ])
            .then(After::Closes)
    };
    let plain = |name: &str, request: String| {
        passes(34, name, request).sees_not(&["\r\nupgrade:", "http2-settings"])
    };
    let no = |name: &str, lines: &str, status: u16| {
        refused(34, name, format!("{GET}{UPGRADE}{lines}\r\n"), &[status]).ours()
    };
    let version = "\r\nsec-websocket-version: 13\r\n";
    vec![
        opens("names in any case", "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"),
        opens(
            "two lines of Connection",
            "Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: websocket\r\n",
        ),
        plain(
            "Upgrade without Connection",
            format!("{GET}Upgrade: websocket\r\n{VERSION}{KEY}\r\n"),
        ),
        plain(
            "h2c",
            format!(
                "{GET}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
            ),
        ),
        plain(
            "HTTP/1.0",
            format!("GET / HTTP/1.0\r\nHost: a\r\nx-region: 1\r\n{UPGRADE}{VERSION}{KEY}\r\n"),
        )
        .then(After::Closes),
        refused(
            34,
            "POST",
            format!("POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n{ASKING}\r\n"),
            &[400, 405],
        )
        .ours(),
        no("no key", VERSION, 400),
        no("a key that is none", &format!("{VERSION}Sec-WebSocket-Key: short\r\n"), 400),
        no("two keys", &format!("{VERSION}{KEY}{KEY}"), 400),
        no("no version", KEY, 426).gets(&[version]),
        no("an old version", &format!("{KEY}Sec-WebSocket-Version: 8\r\n"), 426).gets(&[version]),
    ]
}

/// A refusal is an answer like any other.
fn refusals() -> Vec<Case> {
    let refused = |status: u16, reason: &str| {
        let reply =
            format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 4\r\nx-why: no\r\n\r\nnope");
        passes(36, reason, format!("{GET}{ASKING}\r\n"))
            .by([Step::Reply(reply.into())])
            .status(&[status])
            .gets(&["\r\nx-why: no\r\n"])
            .body("nope")
    };
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
    vec![
        refused(403, "Forbidden"),
        refused(404, "Not Found"),
        refused(503, "Service Unavailable"),
        passes(26, "101 to another protocol", format!("{GET}{ASKING}\r\n"))
            .by([Step::Reply(other.into())])
            .status(&[502])
            .then(After::Either)
            .ours(),
    ]
}
