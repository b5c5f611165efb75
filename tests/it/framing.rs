//! Message framing, byte by byte: what may come in, and what goes out. Each test names the row of rules it holds:
//! RFC 9112 (HTTP/1.1 messages) and RFC 9110 (HTTP semantics).

use crate::harness::backend::{Backend, Step, ok};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange};
use crate::harness::{eventually, within};

/// Sends the bytes, and gives the first status line's code; 0 where the gateway closed without a word.
async fn status_of(gateway: &Gateway, request: &[u8]) -> u16 {
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(request).await;
    let answer = String::from_utf8_lossy(&http.rest().await).into_owned();
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// What the parser refuses is answered like everything else: JSON, an id, and the reason.
#[tokio::test]
async fn a_request_that_cannot_be_parsed_is_told_so_in_json() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let cases = [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("complete nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)), 431, "headers_too_large"),
    ];
    for (request, status, code) in cases {
        for served_before in [false, true] {
            let mut http = Http::connect(gateway.proxy()).await;
            if served_before {
                let good = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
                http.send(good).await;
                assert_eq!(http.answer(good).await.text(), "ok");
            }
            http.send(&request).await;
            let answer = http.answer("GET").await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let id = answer.header("x-request-id").expect("an id");
            assert_eq!(answer.json()["error"]["requestId"], id);
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(http.rest().await.is_empty());
        }
    }
}

/// Every request is answered 400 and the connection is closed, and nothing of it reaches a backend.
async fn all_refused(requests: &[&str]) {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    for request in requests {
        assert_eq!(status_of(&gateway, request.as_bytes()).await, 400, "{request:?}");
    }
    assert!(backend.heads().is_empty(), "{:?}", backend.heads());
}

/// Rows 1 and 2 (RFC 9112, section 3.2; RFC 9110, section 7.2).
#[tokio::test]
async fn a_request_names_one_host() {
    all_refused(&[
        "GET / HTTP/1.1\r\nx-region: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\nx-region: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nx-region: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\nx-region: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\nx-region: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/path\r\nx-region: 1\r\n\r\n",
    ])
    .await;
}

/// Row 3 (RFC 9112, section 3.2.2).
#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let request = "GET http://a/x?y HTTP/1.1\r\nHost: b\r\nx-region: 1\r\n\r\n";
    assert_eq!(exchange(gateway.proxy(), request).await.status, 200);
    assert_eq!(backend.header("host"), ["a"]);
    assert!(backend.head().starts_with("GET /x?y HTTP/1.1\r\n"), "{}", backend.head());
}

/// Row 4 (RFC 9112, sections 6.1, 6.3 and 11.2).
#[tokio::test]
async fn chunked_wins_over_a_length_and_the_tail_is_not_a_request() {
    for [first, second] in [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ] {
        let backend = Backend::saying("ok").await;
        let gateway = Gateway::before(backend.address).await;
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n{first}\r\n{second}\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n"
        ))
        .await;
        let answers = String::from_utf8(http.rest().await).unwrap();
        let backend_head = backend.head().to_ascii_lowercase();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(!backend_head.contains("content-length"), "{backend_head}");
        assert!(backend_head.contains("transfer-encoding: chunked"), "{backend_head}");
    }
}

/// Row 5 (RFC 9110, section 8.6; RFC 9112, section 6.3).
#[tokio::test]
async fn a_length_is_one_decimal_number() {
    let mut requests = Vec::new();
    for length in ["2\r\nContent-Length: 3", "2, 3", "", "+2", "-1", "0x2", "99999999999999999999"]
    {
        requests.push(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: {length}\r\n\r\nab"
        ));
    }
    all_refused(&requests.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// Row 6.
#[tokio::test]
async fn two_equal_lengths_become_one() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab";
    let answer = exchange(gateway.proxy(), request).await;
    if answer.status == 200 {
        assert_eq!(backend.header("content-length"), ["2"]);
    } else {
        assert_eq!(answer.status, 400);
    }
}

/// Rows 7 and 8 (RFC 9112, section 6.1).
#[tokio::test]
async fn the_only_transfer_coding_is_chunked_once() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    for (coding, version) in [
        ("gzip", "1.1"),
        ("identity", "1.1"),
        ("chunked, gzip", "1.1"),
        ("chunked, chunked", "1.1"),
        ("gzip, chunked", "1.1"),
        ("chunked\r\nTransfer-Encoding: chunked", "1.1"),
        ("chunked", "1.0"),
    ] {
        let request = format!(
            "POST / HTTP/{version}\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
        );
        let status = status_of(&gateway, request.as_bytes()).await;
        assert!(matches!(status, 400 | 501), "{coding:?} got {status}");
    }
    assert!(backend.heads().is_empty(), "{:?}", backend.heads());
}

/// Row 9 (RFC 9112, sections 5.1 and 5.2; RFC 9110, section 5.5).
#[tokio::test]
async fn header_lines_are_well_formed() {
    all_refused(&[
        "GET / HTTP/1.1\r\nHost : a\r\nx-region: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nX(: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nX: a\rb\r\n\r\n",
    ])
    .await;
}

/// Row 10 (RFC 9112, section 2.2): bare LF is read leniently, and never passed on.
#[tokio::test]
async fn a_bare_line_feed_goes_no_further() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let request = "GET / HTTP/1.1\nHost: a\nx-region: 1\n\n";
    let answer = exchange(gateway.proxy(), request).await;
    assert_eq!(answer.status, 200);
    let head = backend.head();
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count(), "{head:?}");
}

/// Row 11 (RFC 9112, section 7.1): the client's fault, and answered as such.
#[tokio::test]
async fn broken_chunks_are_the_clients_fault() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcXX0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        );
        assert_eq!(status_of(&gateway, request.as_bytes()).await, 400, "{chunks:?}");
    }
    let metrics = exchange(gateway.admin(), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for line in metrics.text().lines().filter(|line| line.contains("upstream_errors_total{")) {
        assert!(line.ends_with(" 0"), "counted against the backend: {line}");
    }
}

/// Row 12 (RFC 9112, section 3.2).
#[tokio::test]
async fn a_target_has_no_fragment_and_no_space() {
    all_refused(&[
        "GET /a#b HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n",
    ])
    .await;
    // Also where the connection has served a request before.
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    let good = "GET /good HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    http.send(good).await;
    assert_eq!(http.answer(good).await.status, 200);
    http.send("GET /bad#x HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    assert_eq!(http.answer("GET").await.status, 400);
    assert_eq!(backend.heads().len(), 1);
}

/// Row 19 (RFC 9110, section 2.5).
#[tokio::test]
async fn http_1_0_clients_get_what_they_understand() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let backend = Backend::scripted([Step::Reply(chunked.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("GET / HTTP/1.0\r\nx-region: 1\r\n\r\n").await;
    let answer = String::from_utf8(http.rest().await).unwrap();
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(backend.head().starts_with("GET / HTTP/1.1\r\n"), "{}", backend.head());
}

/// Row 21 (RFC 9110, sections 6.4.1 and 9.3.2; RFC 9112, section 6.3).
#[tokio::test]
async fn answers_without_a_body_keep_the_connection_usable() {
    let backend = Backend::scripted([
        Step::Reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into()),
        Step::Reply("HTTP/1.1 204 No Content\r\n\r\n".into()),
        Step::Reply("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n".into()),
        Step::Reply("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n".into()),
        ok("end"),
    ])
    .await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 205), ("GET", 200)]
    {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n");
        http.send(&request).await;
        let answer = http.answer(&request).await;
        assert_eq!(answer.status, status);
        if method == "HEAD" {
            assert_eq!(answer.header("content-length"), Some("5"));
        }
        if status == 304 {
            assert_eq!(answer.header("etag"), Some("\"x\""));
        }
    }
    assert_eq!(backend.connections(), 1, "the backend's connection was kept");
}

/// Row 22 (RFC 9112, section 6.3): a reply with both is not to be trusted.
#[tokio::test]
async fn a_reply_with_length_and_chunks_is_refused() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let backend = Backend::scripted([Step::Reply(both.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let answer =
        exchange(gateway.proxy(), "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));
}

/// Row 23 (RFC 9112, section 8): never a clean end.
#[tokio::test]
async fn a_reply_cut_short_is_cut_short_for_the_client() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let backend = Backend::scripted([Step::ReplyAndClose(reply.into())]).await;
        let gateway = Gateway::before(backend.address).await;
        let mut http = Http::connect(gateway.proxy()).await;
        http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
        let answer = String::from_utf8(http.rest().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "a clean end: {answer}");
    }
}

/// Row 24 (RFC 9112, section 6.3).
#[tokio::test]
async fn a_reply_that_ends_with_the_connection_is_framed_anew() {
    let backend = Backend::scripted(std::iter::repeat_n(
        Step::ReplyAndClose("HTTP/1.1 200 OK\r\n\r\nall of it".into()),
        2,
    ))
    .await;
    let gateway = Gateway::before(backend.address).await;
    let answer =
        exchange(gateway.proxy(), "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.text(), "all of it");
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("GET / HTTP/1.0\r\nx-region: 1\r\n\r\n").await;
    assert!(http.rest().await.ends_with(b"\r\n\r\nall of it"));
}

/// Row 25 (RFC 9112, section 9.3).
#[tokio::test]
async fn surplus_bytes_of_a_backend_are_nobodys_answer() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let backend = Backend::scripted([Step::Reply(surplus.into()), ok("mine")]).await;
    let gateway = Gateway::before(backend.address).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    assert_eq!(exchange(gateway.proxy(), request).await.text(), "abc");
    assert_eq!(exchange(gateway.proxy(), request).await.text(), "mine");
    assert_eq!(backend.connections(), 2, "the poisoned connection was used again");
}

/// Row 26 (RFC 9110, section 15.2.2).
#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_refused() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let backend = Backend::scripted([Step::Reply(switch.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let answer =
        exchange(gateway.proxy(), "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));
}

/// Row 43: what is too long, and what is too slow.
#[tokio::test]
async fn heads_are_bounded_in_size() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let many = (0..101).map(|index| format!("x-{index}: y\r\n")).collect::<Vec<_>>().concat();
    let cases = [
        (format!("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n{many}\r\n"), 431),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nx: {}\r\n\r\n",
                "v".repeat(70_000)
            ),
            431,
        ),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n", "a".repeat(100_000)), 414),
    ];
    for (request, status) in cases {
        assert_eq!(status_of(&gateway, request.as_bytes()).await, status);
    }
    assert!(backend.heads().is_empty());
}

/// Row 43.
#[tokio::test]
async fn slow_clients_are_closed_in_every_phase_and_others_are_not() {
    let big = "x".repeat(8 * 1024 * 1024);
    let backend = Backend::scripted([ok(&big)]).await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        settings.proxy.header_timeout = std::time::Duration::from_millis(400);
        settings.proxy.body_idle_timeout = std::time::Duration::from_millis(400);
    })
    .await;
    // A reader that takes nothing of a large answer: the backend's connection must not be held for ever.
    let mut reader = Http::connect(gateway.proxy()).await;
    reader.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    eventually("the answer to begin", async || backend.heads().len() == 1).await;
    let mut silent = Http::connect(gateway.proxy()).await;
    let mut dripping = Http::connect(gateway.proxy()).await;
    let mut stalled = Http::connect(gateway.proxy()).await;
    stalled
        .send("POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    within("the dripping client's end", async {
        while tokio::io::AsyncWriteExt::write_all(&mut dripping.stream, b"G").await.is_ok() {
            // Not a wait for anything: the pace of a client that drips.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(silent.rest().await.is_empty());
    let answer = String::from_utf8(stalled.rest().await).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    eventually("the slow reader's end", async || backend.seen.lock().unwrap().closed >= 1).await;
    let answer = exchange(gateway.proxy(), "GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.status, 200);
}

/// Row 44 (RFC 9110, section 15.5.14).
#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        settings.proxy.max_body_bytes = 10;
    })
    .await;
    let known =
        "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 11\r\n\r\n12345678901";
    assert_eq!(status_of(&gateway, known.as_bytes()).await, 413);
    assert!(backend.heads().is_empty(), "a byte went to the backend");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                   8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n";
    assert_eq!(status_of(&gateway, chunked.as_bytes()).await, 413);
    let fits = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 10\r\nConnection: close\r\n\r\n1234567890";
    assert_eq!(status_of(&gateway, fits.as_bytes()).await, 200);
}

/// Row 45: HTTP/2 is not spoken here; its floods meet a closed door.
#[tokio::test]
async fn an_http_2_preface_is_turned_away() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let answer = http.rest().await;
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    assert!(backend.heads().is_empty());
}

/// Row 46: a client that goes away takes its request with it.
#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let backend = Backend::scripted([Step::Silence]).await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("GET /slow HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    eventually("the request at the backend", async || backend.heads().len() == 1).await;
    // A reset, as of a killed process; a mere FIN could be a client that still reads (the next test).
    socket2::SockRef::from(&http.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(http);
    eventually("the cancelled request", async || backend.seen.lock().unwrap().closed == 1).await;
    eventually("its count", async || {
        let metrics = exchange(gateway.admin(), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        metrics.text().contains(r#"http_requests_total{region="1",class="client_gone"} 1"#)
    })
    .await;
}

/// Row 47 (RFC 9112, section 9.6).
#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let backend = Backend::saying("here you are").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut http.stream).await.unwrap();
    let answer = String::from_utf8(http.rest().await).unwrap();
    assert!(answer.ends_with("here you are"), "{answer}");
    // With a body too, once it is whole; the backend answers only after the client has fallen silent.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    for (body, whole) in [("hi", true), ("h", false)] {
        let mut http = Http::connect(gateway.proxy()).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 2\r\n\r\n";
        http.send(format!("{head}{body}")).await;
        let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
        let mut backend = Http::over(stream);
        backend.read_to(&format!("\r\n\r\n{body}")).await;
        tokio::io::AsyncWriteExt::shutdown(&mut http.stream).await.unwrap();
        if whole {
            backend
                .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nyes!")
                .await;
            assert!(http.rest().await.ends_with(b"yes!"));
        } else {
            // What is missing never comes: the request is over, on both sides.
            assert!(backend.rest().await.is_empty());
        }
    }
}
