//! Rows 21 to 30, and 40 to 42: what a backend answers, and what a client gets of it (RFC 9110 and 9112).

use super::case::{After, Case, GET, POST, passes, replies};
use crate::harness::backend::{Step, ok};

pub(super) fn table() -> Vec<Case> {
    [
        bodiless(),
        framings(),
        cuts(),
        heads(),
        many_fields(),
        interims(),
        trailers(),
        failures(),
        repeats(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// RFC 9110, 6.4.1 and 9.3.2; RFC 9112, 6.3.
fn bodiless() -> Vec<Case> {
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    vec![
        passes(21, "HEAD with a length", head)
            .by([Step::Reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into())])
            .gets(&["\r\ncontent-length: 5\r\n"]),
        passes(21, "HEAD with chunks", head)
            .by([Step::Reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into())]),
        replies(21, "204", "HTTP/1.1 204 No Content\r\n\r\n")
            .status(&[204])
            .gets_not(&["content-length", "transfer-encoding"]),
        replies(
            21,
            "304 with a length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n",
        )
        .status(&[304])
        .gets(&["\r\netag: \"x\"\r\n"]),
        replies(21, "205", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n")
            .status(&[205])
            .body(""),
    ]
}

/// RFC 9112, 6.3 and 9.3.
fn framings() -> Vec<Case> {
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let both = |name: &str, lines: &str| {
        // Refused, or framed anew; never handed on with both.
        replies(22, name, &format!("HTTP/1.1 200 OK\r\n{lines}\r\n{chunks}"))
            .status(&[502])
            .then(After::Either)
    };
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    vec![
        both("a length and chunks", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")
            .elsewhere(&[200]),
        both("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n")
            .elsewhere(&[200]),
        both("chunks twice", "Transfer-Encoding: chunked, chunked\r\n"),
        both("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n"),
        replies(
            22,
            "chunks alone",
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        )
        .body("abc"),
        passes(24, "an answer that ends with the connection", format!("{GET}\r\n"))
            .by([Step::ReplyAndClose("HTTP/1.1 200 OK\r\n\r\nall of it".into())])
            .body("all of it")
            .then(After::Either),
        passes(24, "the same, framed anew", format!("{GET}\r\n"))
            .by([Step::ReplyAndClose("HTTP/1.1 200 OK\r\n\r\nall of it".into())])
            .gets(&["\r\ntransfer-encoding: chunked\r\n"])
            .body("all of it")
            .ours(),
        passes(24, "the same to HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nx-region: 1\r\n\r\n")
            .by([Step::ReplyAndClose("HTTP/1.1 200 OK\r\n\r\nall of it".into())])
            .gets_not(&["transfer-encoding"])
            .body("all of it")
            .then(After::Closes),
        replies(25, "more than the length", surplus).body("abc"),
        replies(
            26,
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .status(&[502])
        .then(After::Either),
    ]
}

/// RFC 9112, 8: never a clean end.
fn cuts() -> Vec<Case> {
    let cut = |name: &str, reply: &str| {
        passes(23, name, format!("{GET}\r\n")).by([Step::ReplyAndClose(reply.into())]).cut()
    };
    vec![
        cut("less than the length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        cut(
            "chunks without an end",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ),
        cut(
            "a chunk that is cut",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc",
        ),
    ]
}

/// RFC 9112, 4 and 5: what is no answer is the backend's fault, and told as such.
fn heads() -> Vec<Case> {
    let reply = |lines: &str| format!("HTTP/1.1 {lines}Content-Length: 2\r\n\r\nok");
    let no = |name: &str, reply: &str| {
        let replies = replies(40, name, reply).by([Step::Reply(reply.into())]);
        Case { reaches: usize::MAX, ..replies.status(&[502]).then(After::Either) }
    };
    let yes = |name: &str, reply: &str| replies(40, name, reply).body("ok").elsewhere(&[502]);
    vec![
        no("a name with a space", &reply("200 OK\r\nX Y: z\r\n")).elsewhere(&[200]),
        no("a folded line of an answer", &reply("200 OK\r\nX: y\r\n z\r\n")).elsewhere(&[200]),
        no("a NUL in an answer", &reply("200 OK\r\nX: a\0b\r\n")).elsewhere(&[200]),
        no("a status of two digits", &reply("20 OK\r\n")).elsewhere(&[200]),
        no("a status below 100", &reply("099 OK\r\n")).elsewhere(&[99, 200]),
        no("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok"),
        no("a length below zero", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        no("another version", "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok").elsewhere(&[200]),
        no("a coding that is not undone", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok")
            .elsewhere(&[200]),
        yes("no reason behind the status", &reply("200\r\n")),
        yes("a backend of HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        yes("bare LF of a backend", "HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok")
            .gets(&["\r\nx: y\r\n", "\r\ncontent-length: 2\r\n"])
            .gets_not(&["y\n\n"]),
    ]
}

/// As many fields as the settings have it.
fn many_fields() -> Vec<Case> {
    let reply = |count: usize| {
        let fields = "X: y\r\n".repeat(count);
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok")
    };
    let no = |name: &str, count: usize| {
        let case = replies(40, name, &reply(count)).by([Step::Reply(reply(count).into())]);
        Case { reaches: usize::MAX, ..case.status(&[502]).then(After::Either).ours() }
    };
    vec![
        replies(40, "99 fields of a backend", &reply(99)).body("ok").ours(),
        no("151 fields of a backend", 150),
        replies(40, "151 fields where they may be", &reply(150))
            .body("ok")
            .with(|settings| settings.proxy.max_answer_headers = 200),
        no("10,000 fields where fewer may be", 10_000)
            .with(|settings| settings.proxy.max_answer_headers = 1_000),
    ]
}

/// RFC 9110, 10.1.1 and 15.2.
fn interims() -> Vec<Case> {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let expecting = format!("{POST}Content-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
    vec![
        replies(27, "103, then 200", early).body("ok"),
        replies(
            27,
            "100 that nobody waits for",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .body("ok"),
        passes(28, "an expectation with its body", expecting),
    ]
}

/// RFC 9110, 6.5.
fn trailers() -> Vec<Case> {
    let reply = |announced: &str, trailers: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{announced}\r\n2\r\nok\r\n0\r\n{trailers}\r\n"
        )
    };
    let asking = format!("{GET}TE: trailers\r\n\r\n");
    let case = |name: &str, request: &str, reply: String, trailers: &'static str| {
        passes(30, name, request).by([Step::Reply(reply.into())]).body("ok").trailers(trailers)
    };
    let announced = "Trailer: x-sum\r\n";
    vec![
        case(
            "trailers that were asked for",
            &asking,
            reply(announced, "x-sum: 42\r\n"),
            "x-sum: 42\r\n",
        )
        .ours(),
        case(
            "trailers for one who did not ask",
            &format!("{GET}\r\n"),
            reply(announced, "x-sum: 42\r\n"),
            "",
        )
        .ours(),
        // Left out, as RFC 9110, 6.5.1 permits: HTTP/1.1 has them announced.
        case("trailers without an announcement", &asking, reply("", "x-sum: 42\r\n"), "").ours(),
        case(
            "trailers that would be framing",
            &asking,
            reply(
                "Trailer: content-length, transfer-encoding, x-sum\r\n",
                "content-length: 9\r\ntransfer-encoding: gzip\r\nx-sum: 1\r\n",
            ),
            "x-sum: 1\r\n",
        )
        .ours(),
    ]
}

/// RFC 9110, 15.6.3 to 15.6.5.
fn failures() -> Vec<Case> {
    let bad = |name: &str, step: Step| {
        // Twice, because a backend may be asked once more.
        passes(40, name, format!("{GET}\r\n"))
            .by([step.clone(), step])
            .status(&[502])
            .then(After::Either)
    };
    vec![
        Case { reaches: usize::MAX, ..bad("no answer", Step::Close) },
        Case {
            reaches: usize::MAX,
            ..bad("another protocol", Step::ReplyAndClose("SSH-2.0-OpenSSH\r\n".into()))
        },
        Case {
            reaches: usize::MAX,
            ..bad("half a head", Step::ReplyAndClose("HTTP/1.1 200".into()))
        },
        Case {
            reaches: usize::MAX,
            ..bad(
                "a status that is none",
                Step::ReplyAndClose("HTTP/1.1 999999 What\r\n\r\n".into()),
            )
        },
        passes(40, "silence", format!("{GET}\r\n"))
            .by([Step::Silence])
            .status(&[504])
            .then(After::Either)
            .with(|settings| {
                settings.proxy.first_byte_timeout = std::time::Duration::from_millis(100);
            }),
        passes(40, "nobody to ask", "GET / HTTP/1.1\r\nHost: a\r\nx-region: 2\r\n\r\n")
            .reaches(0)
            .status(&[503])
            .gets(&["\r\nretry-after: "])
            .then(After::Either)
            .ours(),
    ]
}

/// RFC 9112, 9.3.1; RFC 9110, 9.2.2: the second request meets a kept connection that is closed on it.
fn repeats() -> Vec<Case> {
    let script = || [ok("first"), Step::Close, ok("again")];
    vec![
        passes(
            41,
            "GET on a connection that was just closed",
            format!("{GET}\r\n{GET}Connection: close\r\n\r\n"),
        )
        .by(script())
        .body("first")
        .reaches(3)
        .then(After::Answers(&[200])),
        passes(
            42,
            "POST in the same spot",
            format!("{GET}\r\n{POST}Content-Length: 2\r\nConnection: close\r\n\r\nhi"),
        )
        .by(script())
        .body("first")
        .reaches(2)
        .then(After::Answers(&[502])),
    ]
}
