//! The way down: readiness first, then what is open finishes, then the end.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::chat::{self, Chat};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, get};
use crate::harness::{eventually, within};

#[tokio::test]
async fn a_request_in_flight_is_finished_and_new_upgrades_are_not_begun() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    http.send(request).await;
    let (mut backend, _) = within("the backend's connection", listener.accept()).await.unwrap();
    gateway.begin_stop().await;
    eventually("readiness to fail", async || {
        get(gateway.proxy(), "/ready", "").await.status == 503
    })
    .await;
    let ready = get(gateway.proxy(), "/ready", "").await;
    assert!(ready.text().contains("draining"), "{}", ready.text());
    // Alive all the same, and each answer says that it is the last on its connection.
    let health = get(gateway.proxy(), "/health", "").await;
    assert_eq!((health.status, health.header("connection")), (200, Some("close")));
    for (address, target) in
        [(gateway.hub("1"), "/?userId=a"), (gateway.proxy(), "/ws?userId=a&region=1")]
    {
        let refused = chat::open(address, target, &[]).await.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (503, "draining"));
    }
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await.unwrap();
    assert_eq!(http.answer(request).await.text(), "late");
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn sockets_get_1012_after_what_is_queued() {
    let gateway = Gateway::start(|_| ()).await;
    let mut alice = Chat::join(gateway.hub("1"), "alice").await;
    let mut bob = Chat::join(gateway.hub("2"), "bob").await;
    for index in 0..50 {
        alice.say("bob", &format!("line {index}"), &format!("c{index}")).await;
    }
    gateway.begin_stop().await;
    for index in 0..50 {
        assert_eq!(bob.hears_type("message").await["text"], format!("line {index}"));
    }
    assert_eq!(bob.closed().await, 1012);
    assert_eq!(alice.closed().await, 1012);
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn a_second_request_to_stop_cuts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    let _backend = within("the backend's connection", listener.accept()).await.unwrap();
    gateway.begin_stop().await;
    gateway.stop().await.unwrap();
    assert!(http.rest().await.is_empty());
}

#[tokio::test]
async fn the_grace_bounds_the_drain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", address);
        settings.shutdown.grace = Duration::from_millis(200);
    })
    .await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    let _backend = within("the backend's connection", listener.accept()).await.unwrap();
    gateway.stop().await.unwrap();
    assert!(http.rest().await.is_empty());
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_stop_up() {
    let gateway = Gateway::start(|_| ()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    http.send(request).await;
    assert_eq!(http.answer(request).await.status, 200);
    gateway.stop().await.unwrap();
    assert!(http.rest().await.is_empty());
}

/// A client that was told nothing else may be sending its next request in the moment of the stop.
#[tokio::test]
async fn a_kept_connection_is_answered_once_more() {
    let backend = crate::harness::backend::Backend::saying("once more").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        add_backend(settings, "2", listener.local_addr().unwrap());
    })
    .await;
    // Something to finish, so that the stop is not over before the others come.
    let mut slow = Http::connect(gateway.proxy()).await;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 2\r\n\r\n").await;
    let (flight, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut http = Http::connect(gateway.proxy()).await;
    let mut spare = Http::connect(gateway.proxy()).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    http.send(request).await;
    assert_eq!(http.answer(request).await.header("connection"), None);
    gateway.begin_stop().await;
    eventually("readiness to fail", async || {
        get(gateway.proxy(), "/ready", "").await.status == 503
    })
    .await;
    for kept in [&mut http, &mut spare] {
        kept.send(request).await;
        let answer = kept.answer(request).await;
        assert_eq!((answer.text(), answer.header("connection")), ("once more", Some("close")));
        assert!(kept.rest().await.is_empty());
    }
    drop(flight);
    gateway.ended().await.unwrap();
}

/// What a slow client has not taken yet when everything else is done is still its answer.
#[tokio::test]
async fn the_rest_of_an_answer_reaches_a_slow_client() {
    // More than the buffers of the system hold, so that the client sets the pace.
    const SIZE: usize = 32 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut http = Http::over(socket.connect(gateway.proxy()).await.unwrap());
    http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    let (mut backend, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let backend = tokio::spawn(async move {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n");
        backend.write_all(head.as_bytes()).await.unwrap();
        backend.write_all(&vec![b'x'; SIZE]).await.unwrap();
        // The gateway closes when it has taken the last byte.
        tokio::io::copy(&mut backend, &mut tokio::io::sink()).await
    });
    http.read_to("\r\n\r\n").await;
    let (mut left, mut chunk) = (SIZE - http.buffered(), vec![0; 2 * 1024]);
    while !backend.is_finished() {
        left -= within("a part", http.stream.read(&mut chunk)).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(left > 0, "the client was not slow");
    gateway.begin_stop().await;
    while left > 0 {
        let read = within("the rest", http.stream.read(&mut chunk)).await.unwrap();
        assert!(read > 0, "cut with {left} bytes to come");
        left -= read;
        tokio::task::yield_now().await;
    }
    gateway.ended().await.unwrap();
}

/// A connection that the system accepted for us in the moment of the end is ours to answer.
#[tokio::test]
async fn a_request_in_the_accept_queue_is_answered() {
    let backend = crate::harness::backend::Backend::saying("in time").await;
    let gateway = Gateway::before(backend.address).await;
    assert_eq!(get(gateway.proxy(), "/health", "").await.status, 200);
    // Blocking calls: the gateway, on this very thread, sees the connection no sooner than the stop.
    let mut stream = std::net::TcpStream::connect(gateway.proxy()).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    gateway.begin_stop().await;
    stream.set_nonblocking(true).unwrap();
    let mut http = Http::over(tokio::net::TcpStream::from_std(stream).unwrap());
    assert_eq!(http.answer(request).await.text(), "in time");
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn half_a_request_to_the_admin_listener_does_not_make_the_end_a_failure() {
    let gateway = Gateway::start(|_| ()).await;
    let mut http = Http::connect(gateway.admin()).await;
    http.send("GET /metr").await;
    // Answered after the bytes above were read.
    assert_eq!(get(gateway.admin(), "/health", "").await.status, 200);
    gateway.stop().await.unwrap();
}
