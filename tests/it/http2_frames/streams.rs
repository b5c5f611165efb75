//! Frames out of place: in the life of a stream (RFC 9113, 5.1), and of a connection (3.4, 6.5 to 6.9).

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Case, Connection, FLOW_CONTROL_ERROR, Lives, NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, Status,
    Stream, asks, case, data, holds, later, opens,
};
use crate::harness::backend::Backend;
use crate::harness::gateway::add_backend;
use crate::harness::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    Raw, SETTINGS, WINDOW_UPDATE, frame, get,
};
use crate::harness::tls::Authority;
use crate::harness::within;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

fn grows(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 100])
}

fn depends(stream: u32, on: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[0, 0, 0, on, 1])
}

/// A request for a backend, whole.
fn whole(stream: u32) -> Vec<u8> {
    [opens(stream), data(END_STREAM, stream, b"body")].concat()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn lives() -> Vec<Case> {
    vec![
        case("5.1 DATA of an idle stream", data(END_STREAM, 1, b"x"), Connection(PROTOCOL_ERROR)),
        case("5.1 a reset of an idle stream", reset(1), Connection(PROTOCOL_ERROR)),
        case("5.1 a window of an idle stream", grows(1), Connection(PROTOCOL_ERROR)),
        case(
            "5.1 DATA of a half-closed stream",
            [whole(1), data(END_STREAM, 1, b"x")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.1 a request on a half-closed stream",
            [whole(1), asks(1)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.1 CONTINUATION of a half-closed stream",
            [whole(1), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.1 a window and a priority of a half-closed stream",
            [whole(1), grows(1), depends(1, 0)].concat(),
            Status(1, 200),
        ),
        case(
            "5.1 DATA behind a reset",
            [opens(1), reset(1), data(END_STREAM, 1, b"x")].concat(),
            Stream(1, STREAM_CLOSED),
        ),
        case(
            "5.1 a request behind a reset",
            [opens(1), reset(1), asks(1)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case(
            "5.1 a priority, a window and a reset behind a reset",
            [opens(1), reset(1), depends(1, 0), grows(1), reset(1)].concat(),
            Lives,
        ),
        later("5.1 DATA of a closed stream", data(END_STREAM, 1, b"x"), Stream(1, STREAM_CLOSED)),
        later("5.1 a request on a closed stream", asks(1), Connection(PROTOCOL_ERROR)),
        later(
            "5.1 a priority, a window and a reset of a closed stream",
            [depends(1, 0), grows(1), reset(1)].concat(),
            Lives,
        ),
        case("5.1.1 a stream of a server's", asks(2), Connection(PROTOCOL_ERROR)),
        case("5.1.1 a window of a server's stream", grows(2), Connection(PROTOCOL_ERROR)),
        case("5.1.1 a reset of a server's stream", reset(2), Connection(PROTOCOL_ERROR)),
        case(
            "5.1.1 a stream below the last",
            [opens(5), asks(3)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        case("5.1.1 streams may be left out", [asks(1), asks(99)].concat(), Status(99, 200)),
        case(
            "5.3.1 a stream that depends on itself",
            [opens(1), depends(1, 1)].concat(),
            Stream(1, PROTOCOL_ERROR),
        ),
        case(
            "5.3.1 a request that depends on itself",
            frame(
                HEADERS,
                0x20 | END_STREAM | END_HEADERS,
                1,
                &[&[0, 0, 0, 1, 15], &get("/health", &[])[..]].concat(),
            ),
            Stream(1, PROTOCOL_ERROR),
        ),
        case(
            "6.9 more than the window of a stream",
            [opens(1), data(0, 1, &[b'x'; 16_384]).repeat(17)].concat(),
            Connection(FLOW_CONTROL_ERROR),
        ),
        case(
            "6.9.2 a window that falls below nothing and rises again",
            [
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
                whole(1),
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            ]
            .concat(),
            Status(1, 200),
        ),
    ]
}

#[tokio::test]
async fn each_frame_has_its_time_in_the_life_of_a_stream() {
    holds(lives()).await;
}

#[tokio::test]
async fn a_connection_begins_with_its_preface() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // Settings are due behind it.
        &[PREFACE, &asks(1)].concat(),
    ] {
        let mut raw = Raw::silent(&authority, &gateway).await;
        raw.send(bytes).await;
        // There may be a GOAWAY, and there need not: who speaks something else would not know it.
        let goaway = raw.end().await;
        assert!(goaway.is_none_or(|goaway| goaway.error_code() == PROTOCOL_ERROR), "{bytes:?}");
    }
}

#[tokio::test]
async fn settings_and_pings_are_answered() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.send(&frame(PING, 0, 0, b"12345678")).await;
    let mut seen = Vec::new();
    let answered = async {
        while seen.len() < 3 {
            let frame = raw.any().await.expect("the connection lives");
            match (frame.kind, frame.flags & ACK) {
                // 3.4: those of the server come first.
                (SETTINGS, 0) => assert!(seen.is_empty()),
                (SETTINGS, _) => assert!(frame.payload.is_empty(), "6.5.3"),
                (PING, ACK) => assert_eq!(frame.payload, b"12345678", "6.7"),
                (WINDOW_UPDATE, _) => continue,
                _ => panic!("{frame:?}"),
            }
            seen.push(frame.kind);
        }
    };
    within("the answers", answered).await;
    seen.sort_unstable();
    assert_eq!(seen, [SETTINGS, SETTINGS, PING]);
}

/// 6.9.1 and 6.9.2: an answer comes in pieces of what the client has room for, and a window that was shrunk below what
/// was sent already has to grow above nothing first.
#[tokio::test]
async fn answers_keep_to_the_window() {
    let backend = Backend::saying("0123456789").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut raw = Raw::with_settings(&authority, &gateway, &[(4, 3)]).await;
    raw.request(1, &get("/?region=1", &[])).await;
    assert_eq!(raw.next_of(1).await.status(), 200);
    let piece = raw.next_of(1).await;
    assert_eq!((piece.kind, piece.payload.as_slice()), (DATA, &b"012"[..]));
    // From 0 to -2, then to 4.
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
    raw.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 6])).await;
    let piece = raw.next_of(1).await;
    assert_eq!((piece.kind, piece.payload.as_slice()), (DATA, &b"3456"[..]));
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])).await;
    let mut rest = Vec::new();
    loop {
        let piece = raw.next_of(1).await;
        rest.extend_from_slice(&piece.payload);
        if piece.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(rest, b"789");
}

/// What the client has no room for yet waits in the codec; a drain waits for it, too.
#[tokio::test]
async fn a_drain_waits_for_the_window() {
    let backend = Backend::saying("0123456789").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut raw = Raw::with_settings(&authority, &gateway, &[(4, 3)]).await;
    raw.request(1, &get("/?region=1", &[])).await;
    assert_eq!(raw.next_of(1).await.status(), 200);
    assert_eq!(raw.next_of(1).await.payload, b"012");
    gateway.begin_stop().await;
    // Longer than what is idle is given.
    let ended = async { while raw.any().await.is_some() {} };
    assert!(timeout(Duration::from_millis(1_200), ended).await.is_err(), "it was cut");
    raw.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])).await;
    let rest = raw.next_of(1).await;
    assert_eq!((rest.kind, rest.payload.as_slice()), (DATA, &b"3456789"[..]));
    drop(raw);
    gateway.ended().await.unwrap();
}

/// 6.8: who says goodbye still gets his answer.
#[tokio::test]
async fn a_goodbye_ends_the_connection_behind_its_answers() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.send(&[asks(1), frame(GOAWAY, 0, 0, &[0; 8])].concat()).await;
    assert_eq!(raw.answer(1).await.0, 200);
    assert!(raw.end().await.is_none_or(|goaway| goaway.error_code() == NO_ERROR));
}
