//! Bodies and trailers, both ways, and clients that break theirs.

use super::*;

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client
        .say(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum, x-region\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    let mut peer = backend.accept().await;
    let head = peer.head().await;
    for line in ["transfer-encoding: chunked\r\n", "te: trailers\r\n", "connection: te\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    client.say("5\r\nhello\r\n").await;
    peer.hears("5\r\nhello\r\n").await;
    client.say("0\r\nx-sum: up\r\nx-region: 2\r\n\r\n").await;
    peer.hears("0\r\nx-sum: up\r\n\r\n").await;
    peer.say("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    peer.say("2\r\nhi\r\n0\r\nx-sum: down\r\n\r\n").await;
    client.gets(200, "2\r\nhi\r\n0\r\nx-sum: down\r\n\r\n").await;
    // Both connections are as good as new.
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    peer.answers("again").await;
    client.gets(200, "again").await;
}

#[tokio::test]
async fn a_get_may_have_a_body() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client
        .say("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        .await;
    let mut peer = backend.accept().await;
    assert!(peer.head().await.contains("transfer-encoding: chunked\r\n"));
    peer.hears("2\r\nhi\r\n0\r\n\r\n").await;
    peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.gets(204, "").await;
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const SIZE: usize = 8 * 1024 * 1024;
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    let body: Vec<u8> = (0..SIZE).map(|n| n.to_le_bytes()[1]).collect();
    client.say(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    let ((), got) = tokio::join!(client.say(&body), peer.exactly(SIZE));
    assert!(got == body);
    peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    client.head().await;
    let ((), got) = tokio::join!(peer.say(&body), client.exactly(SIZE));
    assert!(got == body);
    gateway.idle().await;
}

#[tokio::test]
async fn both_lengths_are_one_chunked_request() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client
        .say(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    let mut peer = backend.accept().await;
    let head = peer.head().await;
    assert!(head.contains("chunked") && !head.contains("content-length"), "{head}");
    peer.hears("2\r\nhi\r\n0\r\n\r\n").await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.gets(200, "").await.contains("connection: close"));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_broken_body_is_the_clients_fault() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    for chunk in ["zz\r\n", "0x1\r\na\r\n", "2\r\nabc\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = gateway.connect().await;
        client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let mut peer = backend.accept().await;
        peer.head().await;
        client.say(chunk).await;
        client.gets(400, "BadBody").await;
        peer.rest().await;
    }
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n").await;
    client.gets(400, "Framing(TransferEncoding)").await;
    let text = encode(&gateway.registry).unwrap();
    let counted = text.lines().filter(|line| line.starts_with("proxy_upstream_errors_total"));
    assert!(
        counted.map(|line| line.rsplit(' ').next().unwrap()).all(|count| count == "0"),
        "{text}"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let backend = Backend::start().await;
    let small = |settings: &mut ProxySettings| settings.max_body_bytes = 4;
    let gateway = Gateway::start(&[&backend.url()], small).await;
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    client.gets(400, "BodyTooLarge(4)").await;
    assert_eq!(gateway.count("proxy_upstream_connects"), 0);
    let mut client = gateway.connect().await;
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n")
        .await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.hears("4\r\n1234\r\n").await;
    client.say("1\r\n5\r\n0\r\n\r\n").await;
    client.gets(400, "BodyTooLarge(4)").await;
    assert_eq!(peer.rest().await, b"", "the backend must not take it for complete");
}

#[tokio::test]
async fn a_body_that_stops_is_the_clients_fault() {
    let backend = Backend::start().await;
    let soon = |settings: &mut ProxySettings| {
        settings.body_idle_timeout = Duration::from_millis(60);
        // Shorter, to show that it does not run while the client is waited for.
        settings.first_byte_timeout = Duration::from_millis(20);
    };
    let gateway = Gateway::start(&[&backend.url()], soon).await;
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    client.gets(400, "BodyStalled").await;
    peer.hears("12").await;
    assert_eq!(peer.rest().await, b"");
}

#[tokio::test]
async fn a_client_waits_for_the_backends_word_to_go_on() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut client = gateway.connect().await;
    client.say(request).await;
    let mut peer = backend.accept().await;
    assert!(peer.head().await.contains("expect: 100-continue\r\n"));
    peer.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.gets(100, "").await;
    client.say("hi").await;
    peer.hears("hi").await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.gets(200, "").await;

    // A refusal comes alone, and the connection that still expects a body is given up.
    client.say(request).await;
    peer.head().await;
    peer.say("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno").await;
    client.gets(401, "no").await;
    assert_eq!(peer.rest().await, b"");

    // One that says nothing gets the body after a moment.
    let mut client = gateway.connect().await;
    client.say(request).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    client.gets(100, "").await;
    client.say("hi").await;
    peer.hears("hi").await;
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_comes_through() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    drop(peer);
    client.gets(413, "no").await;
    gateway.idle().await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_everything_back() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    drop(client);
    peer.hears("12").await;
    assert_eq!(peer.rest().await, b"");
    gateway.idle().await;

    // In the middle of the answer.
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\n\r\nsome").await;
    client.head().await;
    drop(client);
    let endless = async { while peer.stream.write_all(&[b'.'; 4096]).await.is_ok() {} };
    within("the backend to notice", endless).await;
    gateway.idle().await;
}
