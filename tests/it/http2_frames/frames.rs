//! Frames that are wrong by themselves (RFC 9113, 4 and 6).

use super::{
    Case, Connection, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, Lives, PROTOCOL_ERROR, Status, Stream,
    UNNAMED, asks, case, data, holds, opens,
};
use crate::harness::h2::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
};

const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;
/// A kind of frame that nobody knows.
const UNKNOWN: u8 = 0xbe;
/// The largest payload that was agreed on.
const LARGEST: usize = 16_384;

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A request with `before` and `behind` its fields.
fn headed(flags: u8, stream: u32, before: &[u8], behind: &[u8]) -> Vec<u8> {
    let payload = [before, &get("/health", &[]), behind].concat();
    frame(HEADERS, flags | END_STREAM | END_HEADERS, stream, &payload)
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn layout() -> Vec<Case> {
    let split = || frame(HEADERS, END_STREAM, 1, &get("/health", &[]));
    vec![
        case("4.1 a frame of an unknown kind", frame(UNKNOWN, 0xff, 0, b"what?"), Lives),
        case(
            "4.1 flags that mean nothing",
            [frame(PING, 0xfe & !ACK, 0, &[1; 8]), headed(0xd2 & !HAS_PRIORITY, 1, &[], &[])]
                .concat(),
            Status(1, 200),
        ),
        case(
            "4.1 the reserved bit of a stream's number",
            headed(0, 0x8000_0001, &[], &[]),
            Status(1, 200),
        ),
        case(
            "4.2 DATA as large as may be",
            [opens(1), data(END_STREAM, 1, &[b'x'; LARGEST])].concat(),
            Status(1, 200),
        ),
        case(
            "4.2 DATA that is larger",
            [opens(1), data(END_STREAM, 1, &[b'x'; LARGEST + 1])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2 HEADERS that are larger",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x82; LARGEST + 1]),
            Connection(FRAME_SIZE_ERROR),
        ),
        case(
            "4.2 a frame of an unknown kind that is larger",
            frame(UNKNOWN, 0, 0, &[0; LARGEST + 1]),
            Connection(FRAME_SIZE_ERROR),
        ),
        case(
            "4.3 PRIORITY within the fields of a request",
            [split(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "4.3 another request within them",
            [split(), asks(3)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "4.3 DATA within them",
            [split(), data(0, 1, b"x")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.5 a frame of an unknown kind within them",
            [split(), frame(UNKNOWN, 0, 1, b"x")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10 fields in three frames",
            [
                split(),
                frame(CONTINUATION, 0, 1, &[]),
                frame(CONTINUATION, END_HEADERS, 1, &[0, 1, b'a', 1, b'b']),
            ]
            .concat(),
            Status(1, 200),
        ),
        case(
            "6.10 CONTINUATION of another stream",
            [split(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10 CONTINUATION of no stream",
            [split(), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10 CONTINUATION behind the last",
            [opens(1), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10 CONTINUATION behind DATA",
            [opens(1), data(0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.10 CONTINUATION first",
            frame(CONTINUATION, END_HEADERS, 1, &get("/health", &[])),
            Connection(PROTOCOL_ERROR),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn requests() -> Vec<Case> {
    vec![
        case("6.1 DATA of no stream", data(0, 0, b"x"), Connection(PROTOCOL_ERROR)),
        case(
            "6.1 DATA with padding",
            [opens(1), data(PADDED | END_STREAM, 1, &[2, b'x', 0, 0])].concat(),
            Status(1, 200),
        ),
        case(
            "6.1 DATA with more padding than payload",
            [opens(1), data(PADDED | END_STREAM, 1, &[4, b'x', 0, 0])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case("6.2 HEADERS of no stream", headed(0, 0, &[], &[]), Connection(PROTOCOL_ERROR)),
        case("6.2 HEADERS with padding", headed(PADDED, 1, &[3], &[0; 3]), Status(1, 200)),
        case(
            "6.2 HEADERS with more padding than payload",
            frame(HEADERS, PADDED | END_STREAM | END_HEADERS, 1, &[200, 0x82]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.2 HEADERS with a priority",
            headed(HAS_PRIORITY, 1, &[0, 0, 0, 0, 15], &[]),
            Status(1, 200),
        ),
        case(
            "6.2 HEADERS with less than a priority",
            frame(HEADERS, HAS_PRIORITY | END_STREAM | END_HEADERS, 1, &[0, 0]),
            Connection(UNNAMED),
        ),
        case(
            "6.3 PRIORITY of no stream",
            frame(PRIORITY, 0, 0, &[0; 5]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.3 PRIORITY of another size",
            [opens(1), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            Connection(UNNAMED),
        ),
        case("6.3 PRIORITY of an idle stream", frame(PRIORITY, 0, 7, &[0, 0, 0, 0, 1]), Lives),
        case(
            "6.4 RST_STREAM of no stream",
            frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.4 RST_STREAM of another size",
            [opens(1), frame(RST_STREAM, 0, 1, &[0, 0, 8])].concat(),
            Connection(UNNAMED),
        ),
        case(
            "6.6 PUSH_PROMISE by a client",
            [
                opens(1),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &get("/", &[])[..]].concat()),
            ]
            .concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "7 a reset with an unknown code",
            [opens(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])].concat(),
            Lives,
        ),
    ]
}

fn connection() -> Vec<Case> {
    vec![
        case("6.5 SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), Connection(PROTOCOL_ERROR)),
        case(
            "6.5 an acknowledgement with a payload",
            frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1]),
            Connection(UNNAMED),
        ),
        case(
            "6.5 SETTINGS of another size",
            frame(SETTINGS, 0, 0, &[0, 3, 0]),
            Connection(UNNAMED),
        ),
        case("6.5.2 a push of 2", setting(2, 2), Connection(PROTOCOL_ERROR)),
        case("6.5.2 a window beyond all bounds", setting(4, 0x8000_0000), Connection(UNNAMED)),
        case("6.5.2 frames below the least", setting(5, 16_383), Connection(PROTOCOL_ERROR)),
        case("6.5.2 frames beyond all bounds", setting(5, 0x0100_0000), Connection(PROTOCOL_ERROR)),
        case("6.5.2 an unknown setting", setting(0xfe, 1), Lives),
        case("8441, 3 a protocol for CONNECT of 2", setting(8, 2), Connection(PROTOCOL_ERROR)),
        case("6.7 PING of a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        case("6.7 PING of another size", frame(PING, 0, 0, &[0; 6]), Connection(UNNAMED)),
        case("6.7 an answer to no PING", frame(PING, ACK, 0, &[9; 8]), Lives),
        case("6.8 GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        case("6.8 GOAWAY of another size", frame(GOAWAY, 0, 0, &[0; 6]), Connection(UNNAMED)),
        case(
            "6.9 WINDOW_UPDATE of another size",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
            Connection(UNNAMED),
        ),
        case(
            "6.9 WINDOW_UPDATE by nothing",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.9 WINDOW_UPDATE by nothing of a stream",
            [opens(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "6.9.1 a window beyond all bounds",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Connection(FLOW_CONTROL_ERROR),
        ),
        case(
            "6.9.1 a stream's window beyond all bounds",
            [opens(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])].concat(),
            Stream(1, FLOW_CONTROL_ERROR),
        ),
        case(
            "6.9.2 a window that is opened and made too large by settings",
            [opens(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xfe, 0, 0]), setting(4, 0x7fff_ffff)]
                .concat(),
            Connection(FLOW_CONTROL_ERROR),
        ),
    ]
}

#[tokio::test]
async fn frames_in_no_form_are_refused() {
    holds(layout()).await;
}

#[tokio::test]
async fn frames_of_requests_are_held_to_their_form() {
    holds(requests()).await;
}

#[tokio::test]
async fn frames_of_connections_are_held_to_their_form() {
    holds(connection()).await;
}
