//! HTTP/2, rule by rule (RFC 9113, sections 3 to 8; RFC 7541): what a client must not send, as raw frames, and what
//! becomes of it: the connection, the stream, or an answer.
//!
//! Walk: `frames` has what is wrong with a frame by itself, `streams` with its place in the life of a stream or a
//! connection, `messages` with a request, `fields` with the code of its fields. Each entry has a connection of its own; where it should live on,
//! it is asked for something more.
//!
//! An entry states what happens. Where that is not the very word of the rule, it is the codec's doing, and
//! ARCHITECTURE.md has the list: some errors of a stream end the connection (as 5.4.1 allows), some have another code.

mod fields;
mod frames;
mod messages;
mod streams;

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::gateway::add_backend;
use crate::harness::h2::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, frame, get,
};
use crate::harness::tls::Authority;

// RFC 9113, 7.
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
/// What the codec says where it has no word of its own for what the rule calls `FRAME_SIZE_ERROR`, `FLOW_CONTROL_ERROR` or
/// `COMPRESSION_ERROR`: a frame that it cannot read.
const UNNAMED: u32 = PROTOCOL_ERROR;

/// The stream that shows that a connection lives; higher than those of all entries.
const PROBE: u32 = 1_001;

/// How long an entry may take; shorter than other waits, so that a table with holes names them all.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// GOAWAY with this code, and the end.
    Connection(u32),
    /// `RST_STREAM` of this stream with this code, and no more harm.
    Stream(u32, u32),
    /// This stream is answered with this status, and no more harm.
    Status(u32, u16),
    /// Nothing.
    Lives,
}

use Expected::{Connection, Lives, Status, Stream};

/// One entry of a table.
struct Case {
    /// Section and rule.
    name: &'static str,
    /// What is sent first, and the stream whose answer is then waited for.
    first: Option<(Vec<u8>, u32)>,
    sends: Vec<u8>,
    expected: Expected,
}

/// An entry.
fn case(name: &'static str, sends: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { name, first: None, sends: sends.into(), expected }
}

/// An entry behind a whole exchange on stream 1.
fn later(name: &'static str, sends: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { first: Some((asks(1), 1)), ..case(name, sends, expected) }
}

/// A good request, answered by the gateway itself.
fn asks(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/health", &[]))
}

/// A request for a backend, whose body is still to come.
fn opens(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &get("/?region=1", &[]))
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

/// What is wrong with the outcome of an entry, in words.
async fn run(case: &Case, mut raw: Raw) -> Result<(), String> {
    if let Some((bytes, stream)) = &case.first {
        raw.send(bytes).await;
        raw.answer(*stream).await;
    }
    // It may be closed before all is written.
    raw.try_send(&case.sends).await.ok();
    if let Connection(code) = case.expected {
        let goaway = raw.end().await.ok_or("the end, and no GOAWAY")?;
        return same("the GOAWAY's code", code, goaway.error_code());
    }
    raw.try_send(&asks(PROBE)).await.ok();
    let (mut seen, mut ended) = (Vec::new(), false);
    while let Some(frame) = raw.next().await {
        match (frame.kind, frame.stream) {
            (HEADERS, PROBE) => {
                same("the status of the next request", 200, frame.status())?;
                ended = true;
                break;
            }
            (HEADERS, stream) => seen.push(Status(stream, frame.status())),
            (RST_STREAM, stream) => seen.push(Stream(stream, frame.error_code())),
            (GOAWAY, _) => return Err(format!("GOAWAY with {}", frame.error_code())),
            _ => {}
        }
    }
    if !ended {
        return Err("the end".to_owned());
    }
    match case.expected {
        Lives => {
            let resets = seen.iter().filter(|seen| matches!(seen, Stream(..))).count();
            same("the number of resets", 0, resets)
        }
        expected => {
            let stream = of(expected);
            // The next request may be answered first where a backend has a word in it.
            while !seen.iter().any(|seen| of(*seen) == stream) {
                let frame = raw.next().await.ok_or("the end")?;
                match frame.kind {
                    HEADERS => seen.push(Status(frame.stream, frame.status())),
                    RST_STREAM => seen.push(Stream(frame.stream, frame.error_code())),
                    _ => {}
                }
            }
            let found = seen.into_iter().find(|seen| of(*seen) == stream);
            same("what became of it", Some(expected), found)
        }
    }
}

fn of(expected: Expected) -> u32 {
    match expected {
        Stream(stream, _) | Status(stream, _) => stream,
        Connection(_) | Lives => 0,
    }
}

fn same<T: Copy + PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: T,
    found: T,
) -> Result<(), String> {
    if wanted == found { Ok(()) } else { Err(format!("{what}: {found:?} and not {wanted:?}")) }
}

/// Runs all entries of a table, and names those that fail.
async fn holds(table: Vec<Case>) {
    let backend = Backend::saying("ok").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut wrong = Vec::new();
    for case in &table {
        let raw = Raw::connect(&authority, &gateway).await;
        let ran = tokio::time::timeout(PATIENCE, run(case, raw)).await;
        if let Err(why) = ran.unwrap_or_else(|_| Err("nothing".to_owned())) {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}
