//! Frames in pieces, and what is read from those of the codec.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
    let size = u32::try_from(length).unwrap().to_be_bytes();
    let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
    bytes.extend(std::iter::repeat_n(0xff, length));
    bytes
}

fn after(parts: &[&[u8]]) -> Option<u64> {
    let (streams, mut received) = (Streams::default(), Received::default());
    received.pass(PREFACE, &streams);
    received.is_first = false;
    for part in parts {
        assert!(received.pass(part, &streams));
    }
    streams.head()
}

#[test]
fn settings_come_first() {
    let streams = Streams::default();
    let begins = |kind| {
        let mut received = Received::default();
        received.pass(&[PREFACE, &frame(kind, 0, 0)].concat(), &streams)
    };
    assert!(begins(SETTINGS) && !begins(HEADERS));
    assert!(!Received::default().pass(b"GET / HTTP/1.1\r\n", &streams));
}

#[test]
fn a_block_lasts_from_its_first_frame_to_the_end_of_its_last() {
    let (open, end) = (frame(HEADERS, 0, 300), frame(CONTINUATION, END_HEADERS, 5));
    assert_eq!(after(&[&frame(4, 0, 6)]), None);
    assert_eq!(after(&[&open]), Some(1));
    assert_eq!(after(&[&open, &frame(CONTINUATION, 0, 0)]), Some(1));
    assert_eq!(after(&[&open, &end]), None);
    assert_eq!(after(&[&open, &end[..13]]), Some(1));
    assert_eq!(after(&[&open, &end, &frame(0, 0, 70_000), &open]), Some(2));
    assert_eq!(after(&[&frame(HEADERS, END_HEADERS, 0)]), None);
}

#[test]
fn what_the_codec_turns_away_is_seen_in_what_it_sends() {
    let streams = Arc::new(Streams::default());
    let (mut received, mut sent) = (Received::default(), Sent::default());
    received.pass(&[PREFACE, &frame(SETTINGS, 0, 0)].concat(), &streams);
    let mut told = Vec::new();
    let mut sends = |sent: &mut Sent, parts: &[&[u8]]| {
        for byte in parts.concat() {
            sent.pass(&[byte], &streams, |refusal| told.push(refusal));
        }
        std::mem::take(&mut told)
    };
    let mut asks = |stream: u8| {
        let mut request = frame(HEADERS, END_HEADERS, 3);
        request[8] = stream;
        received.pass(&request, &streams);
    };
    let ends = |kind, stream, payload: &[u8]| {
        let mut bytes = frame(kind, 0, payload.len());
        bytes[8] = stream;
        bytes[9..].copy_from_slice(payload);
        bytes
    };
    let reset = |stream| ends(RST_STREAM, stream, &[0, 0, 0, 1]);
    asks(1);
    assert_eq!(sends(&mut sent, &[&reset(1)]), [Refusal::Request(1)]);
    asks(3);
    let _begun = streams.begin();
    let answer = frame(HEADERS, END_STREAM | END_HEADERS, 40);
    assert_eq!(sends(&mut sent, &[&answer, &reset(3)]), [Refusal::Stream(1)]);
    asks(5);
    let mut bare = frame(HEADERS, END_STREAM | END_HEADERS, 5);
    bare[8] = 5;
    assert_eq!(sends(&mut sent, &[&bare, &reset(5)]), [Refusal::TooLarge]);
    let goodbye = |code| ends(GOAWAY, 0, &[0, 0, 0, 5, 0, 0, 0, code, b'x']);
    let said = sends(&mut sent, &[&goodbye(0), &frame(0, 0, 500), &goodbye(11)]);
    assert_eq!(said, [Refusal::Connection(11)]);
}

#[test]
fn short_trailers_are_no_answer_of_the_codec() {
    let (streams, mut sent) = (Arc::new(Streams::default()), Sent::default());
    let mut told = Vec::new();
    let mut sends = |sent: &mut Sent, kind, flags, stream: u8, length| {
        let mut bytes = frame(kind, flags, length);
        bytes[8] = stream;
        sent.pass(&bytes, &streams, |refusal| told.push(refusal));
        std::mem::take(&mut told)
    };
    // Two answers at a time, the fields of whose trailers are in the compressor's table by now.
    for stream in [1, 3] {
        assert_eq!(sends(&mut sent, HEADERS, END_HEADERS, stream, 40), []);
        assert_eq!(sends(&mut sent, 0, 0, stream, 500), []);
    }
    for stream in [3, 1] {
        assert_eq!(sends(&mut sent, HEADERS, END_STREAM | END_HEADERS, stream, 1), []);
    }
    let bare = sends(&mut sent, HEADERS, END_STREAM | END_HEADERS, 5, 1);
    assert_eq!(bare, [Refusal::TooLarge]);
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_bytes_come(
        kinds in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..40), 0..20),
        sizes in prop::collection::vec(1_usize..30, 1..50),
    ) {
        let whole: Vec<u8> =
            kinds.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
        let mut rest = whole.as_slice();
        let mut parts = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, behind) = rest.split_at((*size).min(rest.len()));
            parts.push(part);
            rest = behind;
        }
        prop_assert_eq!(after(&parts), after(&[&whole]));
    }
}
