//! Rows 2 to 15 and 43 once more: the odd ends of the grammar, where parsers differ (RFC 9112, 2 to 7).

use super::case::{After, Case, GET, POST, passes, refused};

pub(super) fn table() -> Vec<Case> {
    [first_lines(), targets(), hosts(), fields(), lengths(), codings(), chunks(), nominations()]
        .into_iter()
        .flatten()
        .collect()
}

const REST: &str = "Host: a\r\nx-region: 1\r\n\r\n";

/// RFC 9112, 3 and 2.3.
fn first_lines() -> Vec<Case> {
    let no = |name: &str, line: &str| refused(12, name, format!("{line}{REST}"), &[400]);
    let version = |version: &str| {
        let name = format!("the version {version:?}");
        let line = format!("GET / {version}\r\n{REST}");
        refused(12, &name, line, &[400, 505]).elsewhere(&[0, 200])
    };
    let mut cases = vec![
        no("two spaces before the target", "GET  / HTTP/1.1\r\n").elsewhere(&[200]),
        no("two spaces behind the target", "GET /  HTTP/1.1\r\n").elsewhere(&[200]),
        no("a tab for a space", "GET\t/ HTTP/1.1\r\n"),
        no("a space behind the version", "GET / HTTP/1.1 \r\n").elsewhere(&[200]),
        no("a space before the method", " GET / HTTP/1.1\r\n"),
        no("a method that is no token", "GE(T / HTTP/1.1\r\n"),
        no("no target", "GET HTTP/1.1\r\n"),
        no("CR alone behind the request line", "GET / HTTP/1.1\r"),
        no("CR twice behind the request line", "GET / HTTP/1.1\r\r\n"),
        refused(12, "a request of HTTP/0.9", "GET /\r\n", &[400]).elsewhere(&[200, 0]),
        passes(12, "a method in lower case", format!("get / HTTP/1.1\r\n{REST}"))
            .elsewhere(&[400, 405, 501])
            .sees(&["get / http/1.1\r\n"]),
        passes(12, "empty lines before a request", format!("\r\n\r\n{GET}\r\n")),
    ];
    cases.extend(
        [
            "HTTP/2.0",
            "HTTP/1.2",
            "HTTP/01.1",
            "HTTP/1.10",
            "HTTP/1",
            "http/1.1",
            "HTTPS/1.1",
            "HTTP/ 1.1",
        ]
        .map(version),
    );
    cases
}

/// RFC 9112, 3.2: the four forms, each where it belongs.
fn targets() -> Vec<Case> {
    let no = |name: &str, target: &str| {
        refused(12, name, format!("GET {target} HTTP/1.1\r\n{REST}"), &[400])
    };
    vec![
        no("a target without a slash", "index.html"),
        no("a host and a port for a target", "a:80"),
        no("an asterisk for a GET", "*"),
        no("a NUL in the target", "/a\0b"),
        no("a tab in the target", "/a\tb"),
        no("an absolute target without a host", "http:///x"),
        no("an absolute target with userinfo", "http://user@a/").elsewhere(&[200]),
        passes(3, "an absolute target without a path", format!("GET http://a HTTP/1.1\r\n{REST}"))
            .elsewhere(&[400])
            .sees(&["get / http/1.1\r\n", "\r\nhost: a\r\n"]),
        passes(
            3,
            "an absolute target with a query alone",
            format!("GET http://a?x HTTP/1.1\r\n{REST}"),
        )
        .elsewhere(&[400])
        .sees(&["get /?x http/1.1\r\n"]),
        passes(
            12,
            "escapes stay as they are",
            format!("GET /%2e%2E/%2f/a%zz?%00 HTTP/1.1\r\n{REST}"),
        )
        .elsewhere(&[400])
        .sees(&["get /%2e%2e/%2f/a%zz?%00 http/1.1\r\n"])
        .ours(),
        passes(12, "dots stay as they are", format!("GET /a/../b/./c//d HTTP/1.1\r\n{REST}"))
            .sees(&["get /a/../b/./c//d http/1.1\r\n"])
            .ours(),
    ]
}

/// RFC 9110, 7.2.
fn hosts() -> Vec<Case> {
    let host = |value: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: {value}\r\nx-region: 1\r\n\r\n");
        refused(2, &format!("Host: {value:?}"), request, &[400]).elsewhere(&[200])
    };
    let values =
        ["a b", "a:80:80", "a:-1", "a:65536", "a#b", "a?b", "a\\b", "[::1", "http://a", ",a", "a,"];
    let mut cases: Vec<_> = values.map(host).into();
    cases.push(refused(
        2,
        "a field before Host that is folded",
        format!("GET / HTTP/1.1\r\n x: y\r\n{REST}"),
        &[400],
    ));
    cases
}

/// RFC 9112, 5; RFC 9110, 5.5 and 5.6.2.
fn fields() -> Vec<Case> {
    let no = |name: &str, line: &str| refused(9, name, format!("{GET}{line}\r\n\r\n"), &[400]);
    vec![
        no("a tab before the colon", "X\t: y").elsewhere(&[200]),
        no("a space in a name", "X Y: z").elsewhere(&[200]),
        no("a name beyond ASCII", "X\u{e9}: y").elsewhere(&[200]),
        no("a quoted name", "\"X\": y").elsewhere(&[200]),
        no("a DEL in a value", "X: a\x7fb").elsewhere(&[200]),
        no("a bell in a value", "X: a\x07b").elsewhere(&[200]),
        no("a CR behind a value", "X: a\r"),
        no("a NUL behind a name", "X\0: y"),
        no("a line folded by a tab", "X: a\r\n\tb").elsewhere(&[200]),
        passes(9, "white space around a value", format!("{GET}X:\t  y z \t\r\n\r\n"))
            .sees(&["\r\nx: y z\r\n"])
            .ours(),
        passes(9, "a value beyond ASCII", format!("{GET}X: \u{e9}\r\n\r\n"))
            .elsewhere(&[400])
            .sees(&["\r\nx: \u{e9}\r\n"]),
        passes(9, "an empty value", format!("{GET}X:\r\nY: z\r\n\r\n")).sees(&["\r\ny: z\r\n"]),
    ]
}

/// RFC 9110, 8.6; RFC 9112, 6.3.
fn lengths() -> Vec<Case> {
    let no =
        |lines: &str| refused(5, &format!("{lines:?}"), format!("{POST}{lines}\r\n\r\nab"), &[400]);
    vec![
        no("Content-Length: 2, 2").elsewhere(&[200]),
        no("Content-Length: 2;"),
        no("Content-Length: 2.0"),
        no("Content-Length: 1e1"),
        no("Content-Length: \"2\""),
        no("Content-Length: 2\r\nContent-Length: x"),
        no("Content-Length: 2\r\nContent-Length:"),
        no("Content-Length : 2").elsewhere(&[200]),
        no("Content-Length: 18446744073709551616"),
        passes(
            5,
            "a length behind an alias",
            format!("{POST}Content_Length: 9\r\nContent-Length: 2\r\n\r\nab"),
        )
        .elsewhere(&[400])
        .sees(&["\r\ncontent-length: 2\r\n"])
        .sees_not(&["content_length"])
        .ours(),
        passes(6, "a GET with a body", format!("{GET}Content-Length: 2\r\n\r\nab"))
            .elsewhere(&[400])
            .sees(&["\r\ncontent-length: 2\r\n"]),
        passes(
            6,
            "a GET with chunks",
            format!("{GET}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        )
        .elsewhere(&[400]),
    ]
}

/// RFC 9112, 6.1: one way to say it, and no other.
fn codings() -> Vec<Case> {
    let body = "\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    let no = |lines: &str| {
        refused(8, &format!("{lines:?}"), format!("{POST}{lines}{body}"), &[400])
            .elsewhere(&[422, 501])
    };
    vec![
        no("Transfer-Encoding: chunked;q=1"),
        no("Transfer-Encoding: \"chunked\""),
        no("Transfer-Encoding: ,chunked").elsewhere(&[200]),
        no("Transfer-Encoding: chunked,").elsewhere(&[200]),
        no("Transfer-Encoding: \x0bchunked"),
        no("Transfer-Encoding: chunked x"),
        no("Transfer-Encoding:"),
        no("Transfer-Encoding : chunked"),
        no("Transfer-Encoding: identity, chunked"),
        no("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        passes(8, "CHUNKED", format!("{POST}Transfer-Encoding: \t CHUNKED \t{body}"))
            .elsewhere(&[400, 501])
            .sees(&["transfer-encoding: chunked\r\n"]),
        // To some it would be a coding: it goes no further.
        passes(
            8,
            "a coding behind an alias",
            format!("{POST}Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nab"),
        )
        .sees_not(&["transfer_encoding", "transfer-encoding"])
        .ours(),
    ]
}

/// RFC 9112, 7.1.
fn chunks() -> Vec<Case> {
    let post = |chunks: &str| format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    let no = |name: &str, chunks: &str| Case {
        reaches: usize::MAX,
        ..refused(11, name, post(chunks), &[400])
    };
    let end = "0\r\n\r\n";
    vec![
        no("a space before the size", &format!(" 1\r\na\r\n{end}")).elsewhere(&[200]),
        no("an empty size", &format!("\r\na\r\n{end}")),
        no("an underscore in a size", &format!("1_0\r\na\r\n{end}")),
        no("an extension alone", &format!(";x\r\na\r\n{end}")),
        no("a bare LF in an extension", &format!("1;x\na\r\n{end}")).elsewhere(&[200]),
        no("a bare CR in an extension", &format!("1;x\ry\r\na\r\n{end}")).elsewhere(&[200]),
        no("a bare CR behind the size", &format!("1\ra\r\n{end}")),
        no("a bare LF behind the data", &format!("1\r\na\n{end}")),
        no("less data than its size", &format!("5\r\na\r\n{end}GET /x HTTP/1.1\r\n\r\n")),
        no("an extension of 20 KB", &format!("1;{}\r\na\r\n{end}", "x".repeat(20_000)))
            .elsewhere(&[200]),
        no("a trailer without a colon", "1\r\na\r\n0\r\nx\r\n\r\n"),
        no("200 trailers", &format!("1\r\na\r\n0\r\n{}\r\n", "x: y\r\n".repeat(200)))
            .elsewhere(&[200, 431]),
        passes(
            11,
            "sizes with zeros, and extensions",
            post(&format!("001;a=\"b\" ;c\r\na\r\n0A\r\n0123456789\r\n{end}")),
        )
        .elsewhere(&[400])
        .sees(&["transfer-encoding: chunked"]),
    ]
}

/// RFC 9110, 7.6.1: who nominates what frames or routes a message gets nowhere.
fn nominations() -> Vec<Case> {
    let posted = |name: &str, line: &str| {
        passes(13, name, format!("{POST}Connection: {line}\r\nContent-Length: 2\r\n\r\nab"))
            .sees(&["\r\nhost: a\r\n", "\r\ncontent-length: 2\r\n"])
    };
    vec![
        posted("Connection: host", "host").elsewhere(&[400]),
        posted("Connection: content-length", "content-length").elsewhere(&[400]),
        posted("Connection: close of the client's", "close")
            .sees_not(&["connection: close"])
            .then(After::Closes)
            .ours(),
        passes(
            13,
            "Connection: transfer-encoding",
            format!("{POST}Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        )
        .elsewhere(&[400])
        .sees(&["transfer-encoding: chunked"]),
    ]
}
