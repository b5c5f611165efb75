//! The code of fields (RFC 7541): what cannot be decoded ends the connection, for nothing behind it could be either.

use super::{Case, Connection, Status, UNNAMED, case, holds, opens};
use crate::harness::h2::{END_HEADERS, END_STREAM, HEADERS, frame, get};

const BROKEN: super::Expected = Connection(UNNAMED);

/// A good request with these bytes behind its fields.
fn behind(bytes: &[u8]) -> Vec<u8> {
    let block = [&get("/health", &[]), bytes].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
}

/// … and before them.
fn before(bytes: &[u8]) -> Vec<u8> {
    let block = [bytes, &get("/health", &[])].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
}

/// A good request, in whose fields everything is taken from the static table but the names of the path and authority.
fn indexed(bytes: &[u8]) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, 7];
    block.extend_from_slice(b"/health");
    block.extend_from_slice(&[0x41, 9]);
    block.extend_from_slice(b"a.example");
    block.extend_from_slice(bytes);
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
}

fn code() -> Vec<Case> {
    let (first, second) = (indexed(&[]), indexed(&[]));
    let mut second = second;
    second[8] = 3;
    vec![
        case(
            "2.3.3 the tables are used, and kept from request to request",
            [first, second].concat(),
            Status(3, 200),
        ),
        case("2.3.3 a place beyond the tables", behind(&[0xff, 0]), BROKEN),
        case("2.3.3 a name beyond the tables", behind(&[0x7f, 0x40, 1, b'x']), BROKEN),
        case("6.1 place 0", behind(&[0x80]), BROKEN),
        case("2.3.3 the last place of the static table", behind(&[0xbd]), Status(1, 200)),
        case("2.3.3 the first of an empty table", behind(&[0xbe]), BROKEN),
        case("4.2 a table as large as may be", before(&[0x3f, 0xe1, 0x1f]), Status(1, 200)),
        case("4.2 a table that is larger", before(&[0x3f, 0xe2, 0x1f]), BROKEN),
        case("4.2 a table's size behind a field", behind(&[0x20]), BROKEN),
        case(
            "5.1 a number beyond all bounds",
            behind(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            BROKEN,
        ),
        case("5.1 a number that breaks off", behind(&[0xff, 0x80]), BROKEN),
        case("5.2 a name that breaks off", behind(&[0x00, 5, b'x']), BROKEN),
        case("5.2 a value that breaks off", behind(&[0x00, 1, b'x', 5, b'y']), BROKEN),
        case("5.2 a name without a value", behind(&[0x00, 1, b'x']), BROKEN),
        case("5.2 a value in Huffman's code", behind(&[0x00, 1, b'x', 0x81, 0x1f]), Status(1, 200)),
        case("5.2 more padding than a byte", behind(&[0x00, 1, b'x', 0x82, 0x1f, 0xff]), BROKEN),
        case("5.2 padding of zeros", behind(&[0x00, 1, b'x', 0x81, 0x18]), BROKEN),
        case(
            "5.2 the end of a string within",
            behind(&[0x00, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            BROKEN,
        ),
        case(
            "6.2.3 a field that is never indexed",
            behind(&[0x10, 1, b'x', 1, b'y']),
            Status(1, 200),
        ),
        case(
            "4.3 trailers that cannot be decoded",
            [opens(1), frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x80])].concat(),
            BROKEN,
        ),
    ]
}

#[tokio::test]
async fn fields_that_cannot_be_decoded_end_the_connection() {
    holds(code()).await;
}
