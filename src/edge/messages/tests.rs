//! Faults in whole messages, in pieces of any size, and in nonsense.

use proptest::prelude::*;

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nCookie: #\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nContent-Length: 6\r\n\r\n/a#b\n\n";
const CHUNKS: &str = "PUT /a HTTP/1.1\r\ncontent-length: 9\r\nTRANSFER-ENCODING: chunked\r\n\r\n\
                      b;x=\"y\"\r\nGET /#a\n\n\r\n\r\n0002 \r\n\n\n\r\n0\r\nx: y#\r\n\r\n";
const FRAGMENT: &str = "GET /a#b HTTP/1.1\r\n";
const BARE: &str = "GET /a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n";

/// The number of the request that is at fault, and the fault.
fn fault_in(reads: &[&[u8]]) -> Option<(u64, Fault)> {
    let mut messages = Messages::default();
    reads.iter().find_map(|read| messages.follow(read)).map(|fault| (messages.number(), fault))
}

#[test]
fn a_fragment_is_found_in_any_request_of_a_read() {
    let at = |number| Some((number, Fault::Fragment));
    for (read, found) in [
        (FRAGMENT.to_owned(), at(1)),
        (format!("\r\n{FRAGMENT}"), at(1)),
        (format!("{GET}{FRAGMENT}"), at(2)),
        (format!("{GET}{POST}\r\n{FRAGMENT}"), at(3)),
        (format!("{CHUNKS}{CHUNKS}{FRAGMENT}"), at(3)),
        (format!("{GET}{POST}{CHUNKS}{GET}"), None),
        ("GET / HTTP/1.1\r\nX: #\r\n".to_owned(), None),
        (String::new(), None),
        (format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{FRAGMENT}", u64::MAX), None),
        // What the parser refuses is no matter.
        (format!("POST / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{FRAGMENT}"), at(2)),
    ] {
        assert_eq!(fault_in(&[read.as_bytes()]), found, "{read:?}");
    }
}

#[test]
fn a_bare_line_feed_is_found_in_any_line_of_a_head_and_in_no_body() {
    let at = |number| Some((number, Fault::BareLf));
    for (read, found) in [
        (BARE.to_owned(), at(1)),
        ("GET / HTTP/1.1\n".to_owned(), at(1)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(), at(1)),
        ("\n\r\n\nGET / HTTP/1.1\r\n\r\n".to_owned(), None),
        (format!("{GET}{POST}{CHUNKS}{BARE}"), at(4)),
        (format!("{GET}{POST}{CHUNKS}"), None),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: y\n\r\n\r\n".into(), at(1)),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET ".into(), at(1)),
    ] {
        assert_eq!(fault_in(&[read.as_bytes()]), found, "{read:?}");
    }
}

#[test]
fn nothing_is_followed_behind_a_fault() {
    let mut messages = Messages::default();
    assert_eq!(messages.follow(BARE.as_bytes()), Some(Fault::BareLf));
    assert_eq!(messages.follow(BARE.as_bytes()), None);
    assert!(messages.is_in_head() && messages.number() == 1);
}

#[test]
fn it_is_known_whether_a_head_is_whole() {
    let mut messages = Messages::default();
    let mut after = |read: &str| {
        messages.follow(read.as_bytes());
        messages.is_in_head()
    };
    assert!(after("G") && after("ET / HTTP/1.1\r\n") && !after("Host: a\r\n\r\n"));
    assert!(after("PUT / HTTP/1.1\r\nContent-Length: 3\r\n") && !after("\r\na") && !after("bc"));
    assert!(!after("\r\n") && after("\r\nP"));
}

#[test]
fn a_length_is_found_in_a_long_line_or_refused() {
    let post = |spaces: usize| {
        format!(
            "POST / HTTP/1.1\r\nContent-Length:{}6\r\n\r\n/a#b\n\n{FRAGMENT}",
            " ".repeat(spaces)
        )
    };
    for (spaces, found) in
        [(0, (2, Fault::Fragment)), (200, (2, Fault::Fragment)), (5_000, (1, Fault::LongFraming))]
    {
        let whole = post(spaces);
        let (one, other) = whole.as_bytes().split_at(30);
        assert_eq!(fault_in(&[whole.as_bytes()]), Some(found), "{spaces}");
        assert_eq!(fault_in(&[one, other]), Some(found), "{spaces}, in pieces");
    }
}

proptest! {
    #[test]
    fn however_it_is_cut_the_same_is_found(
        parts in prop::collection::vec(
            prop::sample::select(vec![GET, POST, CHUNKS, "\r\n", "\n", FRAGMENT, BARE, "x: y\r\n\r\n"]),
            0..6,
        ),
        sizes in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let whole = parts.concat();
        let mut rest = whole.as_bytes();
        let mut reads = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (read, behind) = rest.split_at((*size).min(rest.len()));
            reads.push(read);
            rest = behind;
        }
        prop_assert_eq!(fault_in(&reads), fault_in(&[whole.as_bytes()]));
    }
}
