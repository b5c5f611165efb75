//! Rows 1 to 12, and 38, 39, 43, 44: what a request line, its framing and its body may be (RFC 9110 and 9112).

use super::case::{After, Case, GET, POST, passes, refused};

pub(super) fn table() -> Vec<Case> {
    [hosts(), lengths(), lines(), line_feeds(), chunks(), targets(), methods(), bounds()]
        .into_iter()
        .flatten()
        .collect()
}

/// RFC 9112, 3.2; RFC 9110, 7.2.
fn hosts() -> Vec<Case> {
    let region = "x-region: 1\r\n\r\n";
    let host = |name: &str, lines: &str| {
        refused(2, name, format!("GET / HTTP/1.1\r\n{lines}{region}"), &[400])
    };
    vec![
        refused(1, "no Host", format!("GET / HTTP/1.1\r\n{region}"), &[400]),
        refused(
            1,
            "no Host beside an absolute target",
            format!("GET http://a/ HTTP/1.1\r\n{region}"),
            &[400],
        ),
        host("Host twice, the same", "Host: a\r\nHost: a\r\n"),
        host("Host twice, different", "Host: a\r\nHost: b\r\n"),
        host("a list in Host", "Host: a, b\r\n"),
        host("userinfo in Host", "Host: user@a\r\n"),
        host("a path in Host", "Host: a/path\r\n"),
        host("a port that is none", "Host: a:http\r\n"),
        passes(
            3,
            "an absolute target and another Host",
            format!("GET http://a/x?y HTTP/1.1\r\nHost: b\r\n{region}"),
        )
        .elsewhere(&[400])
        .sees(&["get /x?y http/1.1\r\n", "\r\nhost: a\r\n"])
        .sees_not(&["host: b"]),
    ]
}

/// RFC 9110, 8.6; RFC 9112, 6.1, 6.3 and 11.2.
fn lengths() -> Vec<Case> {
    let tail = "3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    let both = |name: &str, lines: &str| {
        passes(4, name, format!("{POST}{lines}\r\n{tail}"))
            .elsewhere(&[400])
            .sees(&["transfer-encoding: chunked"])
            .sees_not(&["content-length", "smuggled"])
            .then(After::Closes)
    };
    let length = |value: &str| {
        refused(
            5,
            &format!("Content-Length: {value:?}"),
            format!("{POST}Content-Length: {value}\r\n\r\nab"),
            &[400],
        )
    };
    let coding = |row, version: &str, value: &str| {
        let name = format!("HTTP/{version} with Transfer-Encoding: {value:?}");
        let request = format!(
            "POST / HTTP/{version}\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n"
        );
        refused(row, &name, request, &[400]).elsewhere(&[422, 501])
    };
    let mut cases = vec![
        both("a length, then chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        both("chunks, then a length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        both("a long length, then chunks", "Content-Length: 500\r\nTransfer-Encoding: chunked\r\n"),
        passes(
            6,
            "two equal lengths",
            format!("{POST}Content-Length: 2\r\nContent-Length: 2\r\n\r\nab"),
        )
        .elsewhere(&[400])
        .sees(&["content-length: 2\r\n"])
        .sees_not(&["content-length: 2\r\ncontent-length", "2, 2"]),
        coding(7, "1.1", "gzip"),
        coding(7, "1.1", "identity"),
        coding(7, "1.1", "chunked, gzip"),
        coding(7, "1.1", "xchunked"),
        coding(7, "1.0", "chunked"),
        coding(8, "1.1", "chunked, chunked"),
        coding(8, "1.1", "gzip, chunked"),
        coding(8, "1.1", "chunked\r\nTransfer-Encoding: chunked"),
    ];
    let lengths =
        ["2\r\nContent-Length: 3", "2, 3", "", "+2", "-1", "0x2", "2 2", "99999999999999999999"];
    cases.extend(lengths.map(length));
    cases
}

/// RFC 9112, 2.2, 5.1 and 5.2; RFC 9110, 5.5.
fn lines() -> Vec<Case> {
    let line = |name: &str, line: &str| refused(9, name, format!("{GET}{line}\r\n\r\n"), &[400]);
    vec![
        line("a space before the colon", "X : y"),
        line("a folded line", "X: a\r\n b").ours(),
        line("an empty name", ": empty"),
        line("a name that is no token", "X(: y"),
        line("a NUL in a value", "X: a\0b"),
        line("a bare CR in a value", "X: a\rb"),
        line("no colon", "X"),
        refused(
            9,
            "a space before the first line's end",
            "\x01GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &[400],
        ),
    ]
}

/// RFC 9112, 2.2: a line of a head ends with CRLF, wherever the head begins.
fn line_feeds() -> Vec<Case> {
    let bare = |name: &str, request: String| refused(10, name, request, &[400]).elsewhere(&[200]);
    let first = "GET / HTTP/1.1\n";
    let rest = "Host: a\r\nx-region: 1\r\n\r\n";
    let last = format!("{GET}Connection: close\r\n\r\n");
    let behind = |name: &str, before: String| {
        passes(10, name, format!("{before}{GET}x: y\n\r\n"))
            .elsewhere(&[200])
            .then(After::Answers(&[400]))
            .ours()
    };
    vec![
        bare("bare LF behind every line", format!("{first}Host: a\nx-region: 1\nx: y\n\n")),
        bare("bare LF behind the request line", format!("{first}{rest}")),
        bare("bare LF behind a field", format!("{GET}x: y\n\r\n")),
        bare("bare LF behind the last field", format!("{GET}x: y\r\n\n")),
        bare("bare LF in a head of HTTP/1.0", format!("GET / HTTP/1.0\n{rest}")),
        bare("bare LF and a body", format!("{POST}Content-Length: 2\n\r\nab")),
        behind("bare LF in a pipelined head", format!("{GET}\r\n")),
        behind("bare LF behind a body", format!("{POST}Content-Length: 4\r\n\r\na\nb\n")),
        behind(
            "bare LF behind chunks",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n4;x\r\na\nb\n\r\n0\r\nx: y\r\n\r\n"),
        ),
        passes(
            10,
            "bare LFs in bodies and before a request line",
            format!("{POST}Content-Length: 4\r\n\r\n\n\n\n\n\n{last}"),
        )
        .reaches(2)
        .then(After::Answers(&[200])),
    ]
}

/// RFC 9112, 7.1: the client's fault, and told as such.
fn chunks() -> Vec<Case> {
    let broken = [
        ("a size that is no number", "zz\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF behind the size", "3\nabc\r\n0\r\n\r\n"),
        ("no CRLF behind the data", "3\r\nabcXX0\r\n\r\n"),
        ("a size with 0x", "0x1\r\na\r\n0\r\n\r\n"),
        ("a size with a sign", "+1\r\na\r\n0\r\n\r\n"),
        ("a size that overflows", "fffffffffffffffff\r\n"),
        ("a negative size", "-1\r\na\r\n0\r\n\r\n"),
        ("a bare LF behind a trailer", "1\r\na\r\n0\r\nx: y\n\r\n\r\n"),
        ("a bare LF at the end", "1\r\na\r\n0\r\n\n"),
    ];
    let case = |(name, chunks): (&str, &str)| {
        // Whether the backend has had the head by then is nobody's concern; a whole request it must not have.
        let request = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}");
        Case { reaches: usize::MAX, ..refused(11, name, request, &[400]) }
    };
    broken.into_iter().map(case).collect()
}

/// RFC 9112, 3.2.
fn targets() -> Vec<Case> {
    let lines = "Host: a\r\nx-region: 1\r\n\r\n";
    let good = format!("GET /good HTTP/1.1\r\n{lines}");
    let last = format!("{GET}Connection: close\r\n\r\n");
    let fragment = format!("GET /a#b HTTP/1.1\r\n{lines}");
    let posted = format!("{POST}Content-Length: 3\r\n\r\na#b");
    let behind = |name: &str, first: &str| {
        passes(12, name, format!("{first}{fragment}")).then(After::Answers(&[400]))
    };
    vec![
        refused(12, "a fragment", fragment.clone(), &[400]),
        refused(12, "a space in the target", format!("GET /a b HTTP/1.1\r\n{lines}"), &[400]),
        behind("a fragment in a pipelined request", &good),
        behind("a fragment behind a body with one", &posted),
        behind("a fragment in the third of one read", &format!("{good}{posted}"))
            .reaches(2)
            .then(After::Answers(&[200, 400])),
        passes(
            12,
            "a number sign where one may be",
            format!("{POST}X: #\r\nContent-Length: 5\r\n\r\n/a#b\n{last}"),
        )
        .reaches(2)
        .then(After::Answers(&[200])),
    ]
}

/// RFC 9110, 9.3.6 to 9.3.8, and 7.6.2, 7.6.3.
fn methods() -> Vec<Case> {
    let lines = "Host: a\r\nx-region: 1\r\n\r\n";
    let answered = |row, name: &str, request: String, status: &[u16]| Case {
        after: After::Either,
        ..refused(row, name, request, status)
    };
    vec![
        answered(38, "TRACE", format!("TRACE / HTTP/1.1\r\n{lines}"), &[405]).elsewhere(&[501]),
        answered(
            38,
            "CONNECT",
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nx-region: 1\r\n\r\n".into(),
            &[405],
        )
        .elsewhere(&[400, 501]),
        answered(38, "OPTIONS *", format!("OPTIONS * HTTP/1.1\r\n{lines}"), &[204]).ours(),
        passes(38, "a method that nobody knows", format!("BREW /pot HTTP/1.1\r\n{lines}"))
            .sees(&["brew /pot http/1.1\r\n"]),
        answered(
            39,
            "Max-Forwards: 0",
            format!("OPTIONS / HTTP/1.1\r\nMax-Forwards: 0\r\n{lines}"),
            &[204, 200],
        )
        .gets(&["\r\nallow: "])
        .ours(),
        passes(
            39,
            "Max-Forwards counts down",
            format!("OPTIONS / HTTP/1.1\r\nMax-Forwards: 7\r\n{lines}"),
        )
        .sees(&["max-forwards: 6\r\n"])
        .ours(),
        answered(
            39,
            "Via with our own name",
            format!("GET / HTTP/1.1\r\nVia: 1.1 me\r\n{lines}"),
            &[508],
        )
        .with(|settings| settings.proxy.via = Some("me".into())),
    ]
}

/// RFC 6585, 5; RFC 9110, 15.5.14 and 15.5.15.
fn bounds() -> Vec<Case> {
    let many = (0..101).map(|index| format!("x-{index}: y\r\n")).collect::<Vec<_>>().concat();
    let small = |case: Case| case.with(|settings| settings.proxy.max_body_bytes = 10);
    vec![
        refused(43, "101 fields", format!("{GET}{many}\r\n"), &[431]).elsewhere(&[400]).ours(),
        refused(
            43,
            "a field of 70 KB",
            format!("{GET}x: {}\r\n\r\n", "v".repeat(70_000)),
            &[431, 400],
        ),
        refused(
            43,
            "a target of 100 KB",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n", "a".repeat(100_000)),
            &[414],
        )
        .elsewhere(&[400]),
        small(refused(
            44,
            "a stated body over the limit",
            format!("{POST}Content-Length: 11\r\n\r\n12345678901"),
            &[413],
        )),
        small(Case {
            reaches: usize::MAX,
            ..refused(
                44,
                "chunks over the limit",
                format!(
                    "{POST}Transfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n"
                ),
                &[413],
            )
        }),
        small(passes(
            44,
            "a body of just the limit",
            format!("{POST}Content-Length: 10\r\n\r\n1234567890"),
        )),
    ]
}
