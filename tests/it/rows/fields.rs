//! Rows 13 to 19, and 29: which fields pass, which stop here, and who may say what (RFC 9110, 7.6; RFC 7239).

use super::case::{ASKING, After, Case, GET, SWITCH, passes, refused};
use crate::harness::backend::Step;

pub(super) fn table() -> Vec<Case> {
    [nominated(), hop_by_hop(), claims(), trusted(), regions(), old_clients()]
        .into_iter()
        .flatten()
        .collect()
}

/// RFC 9110, 7.6.1: removed before ours are added.
fn nominated() -> Vec<Case> {
    let junk = |value: &str| {
        passes(14, &format!("Connection: {value:?}"), format!("{GET}Connection: {value}\r\n\r\n"))
            .status(&[200, 400])
            .then(After::Either)
    };
    let lines = "x-secret: s\r\nx-kept: k\r\nx-forwarded-for: 6.6.6.6\r\n\
                 Connection: keep-alive, X-Region, x-forwarded-for\r\nConnection: x-secret\r\n";
    let mut cases = vec![
        passes(13, "nominated fields", format!("{GET}{lines}\r\n"))
            .sees(&["x-kept: k\r\n"])
            .sees_not(&["x-secret", "6.6.6.6"]),
        passes(13, "nominated fields, and ours", format!("{GET}{lines}\r\n"))
            .sees(&["\r\nx-region: 1\r\n", "\r\nx-forwarded-for: 127.0.0.1\r\n"])
            .ours(),
        passes(
            13,
            "nominated on a WebSocket's way",
            format!("{GET}{ASKING}x-secret: s\r\nConnection: x-secret, x-region\r\n\r\n"),
        )
        .by([Step::ReplyAndClose(SWITCH.into())])
        .status(&[101])
        .sees(&["\r\nx-region: 1\r\n", "\r\nupgrade: websocket\r\n"])
        .sees_not(&["x-secret"])
        .then(After::Either),
    ];
    cases.extend(["upgrade, @@@ ,,;", "\u{fc}pgrade", "upgrade", ",", "a b c"].map(junk));
    cases
}

/// RFC 9110, 7.6.1 and 10.1.4.
fn hop_by_hop() -> Vec<Case> {
    let asked = "Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: trailers, gzip\r\nTrailer: x-t\r\n\
                 Upgrade: h2c\r\nProxy-Authorization: Basic eDp5\r\nx-end: 1\r\n";
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
                 Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTE: x\r\nConnection: x-hop\r\nx-hop: 1\r\nx-end: 2\r\n\r\nok";
    let stops = ["\r\nkeep-alive:", "\r\nproxy-", "\r\nupgrade:", "\r\nx-hop:"];
    vec![
        passes(15, "hop-by-hop fields of a request", format!("{GET}{asked}\r\n"))
            .sees(&["\r\nx-end: 1\r\n"])
            .sees_not(&stops)
            .sees_not(&["\r\ntrailer:", "gzip"]),
        passes(15, "of TE, the trailers are asked for anew", format!("{GET}TE: trailers, gzip;q=0.5\r\n\r\n"))
            .sees(&["\r\nte: trailers\r\n"])
            .ours(),
        passes(15, "hop-by-hop fields of an answer", format!("{GET}\r\n"))
            .by([Step::Reply(reply.into())])
            .gets(&["\r\nx-end: 2\r\n"])
            .gets_not(&stops)
            .gets_not(&["\r\nte:"]),
        passes(29, "an expectation that nobody knows", format!("{GET}Expect: the-unexpected\r\n\r\n"))
            .elsewhere(&[417])
            .sees(&["\r\nexpect: the-unexpected\r\n"]),
        passes(51, "what may be kept, and by whom, is not ours to say", format!("{GET}Cache-Control: no-cache\r\nIf-None-Match: \"x\"\r\n\r\n"))
            .by([Step::Reply(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: public, max-age=60\r\nVary: cookie\r\nAge: 7\r\nETag: \"y\"\r\nSet-Cookie: a=1\r\n\r\nok"
                    .into(),
            )])
            .sees(&["cache-control: no-cache", "if-none-match: \"x\""])
            .gets(&["cache-control: public, max-age=60", "vary: cookie", "age: 7", "etag: \"y\"", "set-cookie: a=1"]),
        // A copy would be served the second time.
        passes(51, "nothing is kept here", format!("{GET}\r\n{GET}Connection: close\r\n\r\n"))
            .by(["one", "two"].map(|body| {
                Step::Reply(format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\n{body}").into())
            }))
            .body("one")
            .reaches(2)
            .then(After::Answers(&[200])),
    ]
}

/// RFC 7239, 8.1: claims of strangers are replaced.
fn claims() -> Vec<Case> {
    let claims = "X-Forwarded-For: 6.6.6.6, 7.7.7.7\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil\r\n\
                  X-Forwarded-Proto: gopher\r\nX-Forwarded-Port: 6666\r\nX-Forwarded-Prefix: /evil\r\n\
                  x_forwarded_for: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nx_forwarded_proto: gopher\r\n";
    vec![
        passes(16, "claims of a stranger", format!("{GET}{claims}\r\n"))
            .sees(&[
                "\r\nx-forwarded-for: 127.0.0.1\r\n",
                "\r\nx-real-ip: 127.0.0.1\r\n",
                "\r\nx-forwarded-proto: http",
                "\r\nx-forwarded-host: a\r\n",
            ])
            .sees_not(&["6.6.6.6", "evil", "gopher", "_"])
            .ours(),
        passes(
            16,
            "a stranger's id and region",
            format!("{GET}X-Request-Id: mine\r\nx-region-requested: 9\r\nx_region: 9\r\n\r\n"),
        )
        .sees(&["\r\nx-region-requested: 1\r\n"])
        .sees_not(&["mine", "requested: 9", "region: 9"])
        .ours(),
    ]
}

/// RFC 7239, 4 to 6: a trusted hop is believed as far as it goes.
fn trusted() -> Vec<Case> {
    let told = |name: &str, lines: &str, client: &str, chain: &str| {
        let by_us =
            [format!("\r\nx-real-ip: {client}\r\n"), format!("\r\nx-forwarded-for: {chain}\r\n")];
        passes(
            17,
            name,
            format!("{GET}X-Forwarded-Proto: https\r\nX-Request-Id: from-before\r\n{lines}\r\n"),
        )
        .sees(&[
            &by_us[0],
            &by_us[1],
            "\r\nx-forwarded-proto: https\r\n",
            "\r\nx-request-id: from-before\r\n",
        ])
        .gets(&["\r\nx-request-id: from-before\r\n"])
        .with(|settings| {
            settings.proxy.trusted_proxies =
                ["127.0.0.0/8", "10.0.0.0/8"].iter().map(|net| net.parse().unwrap()).collect();
        })
    };
    vec![
        told(
            "the right-most that is not trusted",
            "X-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.0.0.2\r\n",
            "9.9.9.9",
            "6.6.6.6, 9.9.9.9, 10.0.0.2, 127.0.0.1",
        ),
        told(
            "two lines",
            "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 10.0.0.2\r\n",
            "9.9.9.9",
            "9.9.9.9, 10.0.0.2, 127.0.0.1",
        ),
        told(
            "an IPv6 address",
            "X-Forwarded-For: 2001:db8::1\r\n",
            "2001:db8::1",
            "2001:db8::1, 127.0.0.1",
        ),
        told("no address", "X-Forwarded-For: not an address\r\n", "127.0.0.1", "127.0.0.1"),
        told(
            "Forwarded",
            "Forwarded: for=\"[2001:db8::2]:47\";proto=https\r\n",
            "2001:db8::2",
            "127.0.0.1",
        ),
        told("a hidden node", "Forwarded: for=_hidden\r\n", "127.0.0.1", "127.0.0.1"),
        told("nothing", "", "127.0.0.1", "127.0.0.1"),
    ]
}

/// The region's own rules.
fn regions() -> Vec<Case> {
    let asking =
        |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let no = |name: &str, request: String, status: u16| {
        refused(18, name, request, &[status]).then(After::Stays).ours()
    };
    vec![
        passes(18, "twice the same", asking("/", "x-region: 1\r\nX-Region: 1\r\n"))
            .sees(&["\r\nx-region: 1\r\n"])
            .sees_not(&["x-region: 1\r\nx-region: 1", "1, 1"])
            .ours(),
        passes(18, "the header before the query", asking("/?region=2", "x-region: 1\r\n"))
            .sees(&["\r\nx-region: 1\r\n"])
            .ours(),
        passes(18, "the query", asking("/?region=1", ""))
            .sees(&["/?region=1 ", "\r\nx-region: 1\r\n"])
            .ours(),
        passes(18, "with space around", asking("/", "x-region:  1 \r\n"))
            .sees(&["\r\nx-region: 1\r\n"])
            .ours(),
        no("twice, different", asking("/", "x-region: 1\r\nx-region: 2\r\n"), 400),
        no("none", asking("/", ""), 400),
        no("no name", asking("/", "x-region: a/b\r\n"), 400),
        no("one that is not there", asking("/", "x-region: mars\r\n"), 404),
    ]
}

/// RFC 9110, 2.5; RFC 9112, 6.1.
fn old_clients() -> Vec<Case> {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let old = |name: &str, lines: &str, reply: &str| {
        passes(19, name, format!("GET / HTTP/1.0\r\nHost: a\r\nx-region: 1\r\n{lines}\r\n"))
            .by([Step::Reply(reply.into())])
            .sees(&["get / http/1.1\r\n"])
            .gets_not(&["transfer-encoding", "</a>"])
            .body("abc")
    };
    vec![
        old("chunks to HTTP/1.0", "", chunked).then(After::Closes),
        old("an interim answer to HTTP/1.0", "", early).then(After::Closes),
        old(
            "HTTP/1.0 that keeps its connection",
            "Connection: keep-alive\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        ),
    ]
}
