//! Message framing where it takes more than an entry in the tables of `rows`: kept connections, slow clients, and those
//! that leave (RFC 9112 and RFC 9110).

use crate::harness::backend::{Backend, Step, ok};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange};
use crate::harness::{eventually, within};

/// What the parser refuses is answered like everything else: JSON, an id, and the reason.
#[tokio::test]
async fn a_request_that_cannot_be_parsed_is_told_so_in_json() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let cases = [
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("complete nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\nx-region: 1\r\n\r\n".to_owned(), 400, "bad_request"),
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

/// Row 10 (RFC 9112, section 2.2), where heads and bodies come piece by piece on a kept connection.
#[tokio::test]
async fn a_bare_line_feed_is_found_however_it_comes() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let good = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                4\r\na\nb\n\r\n0\r\n\r\n";
    let bad = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nx: y\n\r\n";
    for size in [1, 7] {
        let mut http = Http::connect(gateway.proxy()).await;
        for (request, status) in [(good, 200), (good, 200), (bad, 400)] {
            for piece in request.as_bytes().chunks(size) {
                http.send(std::str::from_utf8(piece).unwrap()).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(http.answer(request).await.status, status, "in pieces of {size}");
        }
        assert!(http.rest().await.is_empty());
    }
    assert_eq!(backend.heads().len(), 4);
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

/// Row 43.
#[tokio::test]
async fn slow_clients_are_closed_in_every_phase_and_others_are_not() {
    let big = "x".repeat(8 * 1024 * 1024);
    let backend = Backend::scripted([ok(&big)]).await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        settings.proxy.header_timeout = std::time::Duration::from_secs(1);
        settings.proxy.body_idle_timeout = std::time::Duration::from_secs(1);
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
