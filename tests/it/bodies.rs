//! Bodies both ways: streamed, never held; trailers, 100-continue, connection reuse, and what happens when a backend
//! fails.

use std::time::Duration;

use crate::harness::backend::{Backend, Step};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange};
use crate::harness::port::Port;
use crate::harness::{eventually, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";

#[tokio::test]
async fn backend_connections_are_used_again() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    for _ in 0..20 {
        http.send(GET).await;
        assert_eq!(http.answer(GET).await.text(), "ok");
    }
    // Another client's request finds the same connection.
    assert_eq!(exchange(gateway.proxy(), GET).await.text(), "ok");
    assert_eq!(backend.connections(), 1);
}

/// A large body up, and an answer that depends on all of it having passed.
#[tokio::test]
async fn a_large_body_is_streamed_up_and_down() {
    const SIZE: usize = 64 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut chunk, mut head) = (0, vec![0; 64 * 1024], Vec::new());
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        while read < SIZE {
            let bytes = stream.read(&mut chunk).await.unwrap();
            assert!(bytes > 0, "cut after {read}");
            read += bytes;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..SIZE / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
    });
    let gateway = Gateway::before(address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: {SIZE}\r\n\r\n"
    ))
    .await;
    let chunk = vec![7; 64 * 1024];
    for _ in 0..SIZE / chunk.len() {
        http.send(&chunk).await;
    }
    http.read_to("\r\n\r\n").await;
    let mut down = 0;
    let mut chunk = vec![0; 64 * 1024];
    while down < SIZE - 256 * 1024 {
        let bytes = within("the body", http.stream.read(&mut chunk)).await.unwrap();
        assert!(bytes > 0, "cut after {down}");
        down += bytes;
    }
    backend.await.unwrap();
}

/// Each event arrives before the next is sent: nothing is held back.
#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(GET).await;
    let (mut stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    http.read_to("\r\n\r\n").await;
    for index in 0..5 {
        let event = format!("data: {index}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.unwrap();
        http.read_to(&event).await;
    }
}

/// The same the other way: the backend sees each piece of a request before the next is sent.
#[tokio::test]
async fn pieces_of_a_request_arrive_as_they_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    for index in 0..5 {
        http.send(format!("7\r\npiece-{index}\r\n")).await;
        backend.read_to(&format!("piece-{index}")).await;
    }
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let backend = Backend::saying("thanks").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    http.send(head).await;
    assert_eq!(http.answer(head).await.status, 100);
    http.send("body").await;
    assert_eq!(http.answer(head).await.text(), "thanks");
    assert_eq!(backend.seen.lock().unwrap().bodies, [b"body".to_vec()]);
}

/// Row 40 (RFC 9110, sections 15.6.3 to 15.6.5).
#[tokio::test]
async fn a_backend_that_refuses_is_a_bad_gateway() {
    let dead = Port::reserve();
    let gateway = Gateway::before(dead.address()).await;
    for _ in 0..3 {
        let answer = exchange(gateway.proxy(), GET).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));
        assert!(!answer.text().contains("127.0.0.1"), "an inner address leaks: {}", answer.text());
    }
}

#[tokio::test]
async fn a_backend_that_stalls_within_its_answer_is_cut() {
    let backend =
        Backend::scripted([Step::Reply("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".into())])
            .await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        settings.proxy.body_idle_timeout = Duration::from_millis(200);
    })
    .await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(GET).await;
    assert!(http.rest().await.ends_with(b"abc"));
}

#[tokio::test]
async fn the_next_backend_serves_what_the_first_refused() {
    let dead = Port::reserve();
    let alive = Backend::saying("alive").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", dead.address());
        add_backend(settings, "1", alive.address);
    })
    .await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 2\r\n\r\nhi";
    for request in [GET, post, GET, post] {
        assert_eq!(exchange(gateway.proxy(), request).await.text(), "alive");
    }
}

#[tokio::test]
async fn a_backup_is_used_only_when_the_primary_is_not_there() {
    let (primary, backup) = (Backend::saying("primary").await, Backend::saying("backup").await);
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", primary.address);
        add_backend(settings, "1", backup.address);
        let region = settings.regions.values_mut().next().unwrap();
        region.backends.last_mut().unwrap().tier = 1;
    })
    .await;
    for _ in 0..5 {
        assert_eq!(exchange(gateway.proxy(), GET).await.text(), "primary");
    }
    let _dead = primary.kill().await;
    eventually("the backup", async || {
        let answer = exchange(gateway.proxy(), GET).await;
        answer.status == 200 && answer.text() == "backup"
    })
    .await;
}

/// Two requests at once to two backends: each gets one, since the other is busy.
#[tokio::test]
async fn the_least_busy_backend_is_next() {
    let listeners = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let gateway = Gateway::start(|settings| {
        for listener in &listeners {
            add_backend(settings, "1", listener.local_addr().unwrap());
        }
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(GET).await;
        clients.push(http);
    }
    for listener in &listeners {
        for _ in 0..3 {
            within("three of six at each", listener.accept()).await.unwrap();
        }
    }
}

/// RFC 9112, section 9.6: a client that has said all is owed the end of the connection, too, and not some time later.
#[tokio::test]
async fn the_connection_of_a_client_that_has_said_all_ends_with_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", listener.local_addr().unwrap());
        // No watchdog looks at the connection while this test runs.
        settings.proxy.header_timeout = Duration::from_hours(1);
        settings.proxy.body_idle_timeout = Duration::from_hours(1);
    })
    .await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(GET).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    backend.read_to("\r\n\r\n").await;
    http.stream.shutdown().await.unwrap();
    // An exchange on another connection of the one worker: the FIN above has been seen by then.
    let health = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(exchange(gateway.proxy(), health).await.status, 200);
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert!(http.rest().await.ends_with(b"done"));
}

/// What is left of a refused request's body is not the head of the next one.
#[tokio::test]
async fn the_rest_of_a_body_nobody_wanted_is_not_taken_for_a_head() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    // The head fills the first read to its last byte, and a part of the body the second, which is made before anybody
    // has looked at the request; so that the rest comes with the read that clears the body away.
    let length = 16 * 1024 + 9;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nx-region: nowhere\r\nContent-Length: {length}\r\nx-pad: "
    );
    let pad = "p".repeat(8 * 1024 - head.len() - 4);
    http.send(format!("{head}{pad}\r\n\r\n{}/a#b HTTP", "x".repeat(16 * 1024))).await;
    assert_eq!(http.answer(&head).await.status, 404);
    http.send(GET).await;
    assert_eq!(http.answer(GET).await.status, 200);
}

#[tokio::test]
async fn a_chat_handshake_has_no_body() {
    let gateway = Gateway::start(|_| ()).await;
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for framing in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    {
        let request = format!(
            "GET /ws?userId=a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n{framing}"
        );
        let answer = exchange(gateway.hub("1"), &request).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "upgrade_invalid"));
    }
}

/// The same where body and FIN come together, before the backend has been given any of it.
#[tokio::test]
async fn a_body_and_the_end_may_come_in_one_piece() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    for framing in [
        "Content-Length: 2\r\n\r\nhi",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        // Several frames out of one read.
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(format!("POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n{framing}")).await;
        http.stream.shutdown().await.unwrap();
        let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
        let mut backend = Http::over(stream);
        backend.read_to("hi").await;
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nyes!").await;
        assert!(http.rest().await.ends_with(b"yes!"), "{framing}");
    }
}

/// What breaks off in the middle is over at once, wherever that is.
#[tokio::test]
async fn a_body_that_breaks_off_ends_the_exchange() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    for (framing, passed) in [
        ("Content-Length: 3\r\n\r\nhi", "hi"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "hi"),
        ("Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n2\r\nhi\r\n2", "hi"),
        ("Transfer-Encoding: chunked\r\n\r\n2", "\r\n\r\n"),
    ] {
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(format!("POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n{framing}")).await;
        http.stream.shutdown().await.unwrap();
        let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
        let mut backend = Http::over(stream);
        backend.read_to(passed).await;
        backend.rest().await;
        // Whether it is told so is nobody's concern, but not that all went well.
        assert!(!http.rest().await.starts_with(b"HTTP/1.1 200"), "{framing}");
    }
}
