//! Requests that are malformed (RFC 9113, 8).

use super::{Case, Connection, Lives, PROTOCOL_ERROR, Status, Stream, case, data, holds, opens};
use crate::harness::h2::{END_HEADERS, END_STREAM, HEADERS, fields, frame, get};

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "https");
const AUTHORITY: (&str, &str) = (":authority", "a.example");
const PATH: (&str, &str) = (":path", "/health");

/// Malformed for the codec: an error of the stream.
const RESET: super::Expected = Stream(1, PROTOCOL_ERROR);

/// What the codec cannot even take for fields: of the connection, as 5.4.1 allows.
const ENDS: super::Expected = Connection(PROTOCOL_ERROR);

/// A request of these fields alone.
fn head(all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(all))
}

/// A good request and one field more.
fn with(name: &str, value: &str) -> Vec<u8> {
    head(&[METHOD, SCHEME, AUTHORITY, PATH, (name, value)])
}

/// A request with a body whose length is stated so.
fn stated(lengths: &[&str], body: &[&[u8]]) -> Vec<u8> {
    let lengths: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
    let flags = if body.is_empty() { END_STREAM | END_HEADERS } else { END_HEADERS };
    let mut bytes = frame(HEADERS, flags, 1, &get("/?region=1", &lengths));
    for (index, piece) in body.iter().enumerate() {
        let last = index + 1 == body.len();
        bytes.extend(data(if last { END_STREAM } else { 0 }, 1, piece));
    }
    bytes
}

/// A request whose body is followed by these fields.
fn trailed(flags: u8, trailers: &[(&str, &str)]) -> Vec<u8> {
    [opens(1), data(0, 1, b"x"), frame(HEADERS, flags, 1, &fields(trailers))].concat()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn pseudo_fields() -> Vec<Case> {
    vec![
        case("8.3.1 without :method", head(&[SCHEME, AUTHORITY, PATH]), RESET),
        case("8.3.1 without :scheme", head(&[METHOD, AUTHORITY, PATH]), RESET),
        case("8.3.1 without :path", head(&[METHOD, SCHEME, AUTHORITY]), RESET),
        case("8.3.1 an empty :path", head(&[METHOD, SCHEME, AUTHORITY, (":path", "")]), RESET),
        case(
            "8.3.1 a :path without a slash",
            head(&[METHOD, SCHEME, AUTHORITY, (":path", "health")]),
            RESET,
        ),
        case(
            "8.3.1 :path * for GET",
            head(&[METHOD, SCHEME, AUTHORITY, (":path", "*")]),
            Status(1, 400),
        ),
        case("8.3.1 :method twice", with(":method", "GET"), RESET),
        case("8.3.1 :scheme twice", with(":scheme", "https"), RESET),
        case("8.3.1 :path twice", with(":path", "/"), RESET),
        case("8.3.1 :authority twice", with(":authority", "a.example"), RESET),
        case(
            "8.3.1 a method that is no token",
            head(&[(":method", "G T"), SCHEME, AUTHORITY, PATH]),
            ENDS,
        ),
        case(
            "8.3.1 userinfo in :authority",
            head(&[METHOD, SCHEME, (":authority", "me@a.example"), PATH]),
            Status(1, 400),
        ),
        case(
            "8.3.1 an :authority that is none",
            head(&[METHOD, SCHEME, (":authority", "a b"), PATH]),
            RESET,
        ),
        case("8.3.1 an empty :authority", head(&[METHOD, SCHEME, (":authority", ""), PATH]), RESET),
        case("8.3.1 no :authority and no host", head(&[METHOD, SCHEME, PATH]), Status(1, 400)),
        case(
            "8.3.1 a host for :authority",
            head(&[METHOD, SCHEME, PATH, ("host", "a.example")]),
            Status(1, 200),
        ),
        case("8.3.1 another host than :authority", with("host", "b.example"), Status(1, 400)),
        case("8.3 a pseudo-field that is none", with(":what", "x"), ENDS),
        case("8.3 one of answers", with(":status", "200"), RESET),
        case(
            "8.3 one behind a field",
            head(&[METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH]),
            RESET,
        ),
        case(
            "8.3 one in trailers",
            trailed(END_STREAM | END_HEADERS, &[(":method", "POST")]),
            Status(1, 200),
        ),
        case(
            "8.5 CONNECT with :scheme and :path",
            head(&[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH]),
            RESET,
        ),
        case("8.5 CONNECT without :authority", head(&[(":method", "CONNECT")]), Status(1, 405)),
        case("8441, 4 :protocol beside GET", with(":protocol", "websocket"), RESET),
        case(
            "8441, 4 :protocol without :path",
            head(&[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, AUTHORITY]),
            RESET,
        ),
        case(
            "8.3.1 OPTIONS *",
            head(&[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")]),
            Status(1, 204),
        ),
    ]
}

fn field_lines() -> Vec<Case> {
    vec![
        case("8.2.1 a name in capitals", with("X-A", "1"), ENDS),
        case("8.2.1 a space in a name", with("x a", "1"), ENDS),
        case("8.2.1 a colon in a name", with("x:a", "1"), ENDS),
        case("8.2.1 a control character in a name", with("x\u{1}", "1"), ENDS),
        case("8.2.1 a name beyond ASCII", with("x\u{e9}", "1"), ENDS),
        case("8.2.1 no name", with("", "1"), ENDS),
        case("8.2.1 a line feed in a value", with("x-a", "1\nx-b: 2"), ENDS),
        case("8.2.1 a carriage return in a value", with("x-a", "1\r"), ENDS),
        case("8.2.1 NUL in a value", with("x-a", "1\u{0}"), ENDS),
        case("8.2.1 an empty value", with("x-a", ""), Status(1, 200)),
        case("8.2.1 a space before a value", with("x-a", " 1"), Status(1, 400)),
        case("8.2.1 a tab behind a value", with("x-a", "1\t"), Status(1, 400)),
        case("8.2.2 te: trailers", with("te", "trailers"), Status(1, 200)),
        case("8.2.2 te with more", with("te", "trailers, gzip"), RESET),
        case("8.2.2 connection", with("connection", "keep-alive"), RESET),
        case(
            "8.2.2 http2-settings",
            with("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            Status(1, 200),
        ),
    ]
}

fn bodies() -> Vec<Case> {
    vec![
        case("8.1.1 a body as long as stated", stated(&["4"], &[b"bo", b"dy"]), Status(1, 200)),
        case("8.1.1 a body that is longer", stated(&["1"], &[b"body"]), RESET),
        case("8.1.1 a body that is longer, in pieces", stated(&["3"], &[b"bo", b"dy"]), RESET),
        case("8.1.1 a body that is shorter", stated(&["9"], &[b"bo", b"dy"]), RESET),
        case("8.1.1 a length and no body", stated(&["4"], &[]), RESET),
        case("8.1.1 two lengths", stated(&["4", "5"], &[b"body"]), RESET),
        case("8.1.1 a length that is no number", stated(&["four"], &[b"body"]), RESET),
        case("8.1.1 a length with a sign", stated(&["+4"], &[b"body"]), RESET),
        case("8.1.1 a length below nothing", stated(&["-4"], &[b"body"]), RESET),
        case(
            "8.1.1 a length beyond all bounds",
            stated(&["99999999999999999999"], &[b"body"]),
            RESET,
        ),
        case("8.1 trailers", trailed(END_STREAM | END_HEADERS, &[("x-sum", "1")]), Status(1, 200)),
        case("8.1 trailers that do not end it", trailed(END_HEADERS, &[("x-sum", "1")]), RESET),
        case(
            "8.2 trailers with a name in capitals",
            trailed(END_STREAM | END_HEADERS, &[("X-Sum", "1")]),
            ENDS,
        ),
        case("8.1 an unfinished request alone", opens(1), Lives),
    ]
}

#[tokio::test]
async fn pseudo_fields_are_held_to_their_rules() {
    holds(pseudo_fields()).await;
}

#[tokio::test]
async fn fields_are_held_to_their_rules() {
    holds(field_lines()).await;
}

#[tokio::test]
async fn bodies_are_held_to_their_rules() {
    holds(bodies()).await;
}
