//! Requests that come through: what the backend sees, and on which connection.

use super::*;

#[tokio::test]
async fn the_backend_sees_one_clean_request() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client
        .say(
            "GET http://other.example/a?b=c HTTP/1.1\r\nHost: evil\r\nX-Region: 1\r\nx_region: 2\r\n\
             Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-Forwarded-For: 6.6.6.6\r\nX-App: 1\r\n\r\n",
        )
        .await;
    let head = backend.accept().await.answers("hello").await;
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    let mut lines: Vec<_> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let expected = [
        "host: shop.example",
        "via: 1.1 edge",
        "x-app: 1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: shop.example",
        "x-forwarded-proto: http",
        "x-real-ip: 127.0.0.1",
        "x-region-requested: 1",
        "x-region: 1",
        "x-request-id: r1",
    ];
    assert_eq!(lines, expected);
    client.gets(200, "hello").await;
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut first, mut second) = (gateway.connect().await, gateway.connect().await);
    first.say("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut kept = backend.accept().await;
    kept.answers("one").await;
    first.gets(200, "one").await;
    // Another client, a body in chunks, and then one without any.
    second.say("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(kept.head().await.starts_with("get /2 "));
    kept.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n").await;
    second.gets(200, "3\r\ntwo\r\n0\r\n\r\n").await;
    for (method, status, extra) in
        [("HEAD", 200, "Content-Length: 7\r\n"), ("GET", 204, ""), ("GET", 304, "")]
    {
        first.say(format!("{method} /3 HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        kept.head().await;
        kept.say(format!("HTTP/1.1 {status} X\r\n{extra}\r\n")).await;
        let head = first.gets(status, "").await;
        assert!(head.contains(&extra.to_ascii_lowercase()), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }
    first.say("POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    kept.answers("four").await;
    kept.hears("body").await;
    first.gets(200, "four").await;
    assert_eq!(gateway.count("proxy_upstream_connects"), 1);
    assert_eq!(gateway.count("proxy_upstream_reuses"), 5);
    gateway.idle().await;
    within("the proxy to close", gateway.proxy.close()).await;
    assert_eq!(kept.rest().await, b"");
}

#[tokio::test]
async fn a_connection_idles_no_longer_than_it_may() {
    let backend = Backend::start().await;
    let no_time = |settings: &mut ProxySettings| settings.pool_idle_timeout = Duration::ZERO;
    let gateway = Gateway::start(&[&backend.url()], no_time).await;
    let mut client = gateway.connect().await;
    for body in ["one", "two"] {
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        backend.accept().await.answers(body).await;
        client.gets(200, body).await;
    }
    assert_eq!(gateway.count("proxy_upstream_connects"), 2);
}

#[tokio::test]
async fn an_old_client_gets_an_old_answer() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.0\r\n\r\n").await;
    let mut peer = backend.accept().await;
    assert!(peer.head().await.starts_with("get / http/1.1\r\n"));
    peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).unwrap().to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.0 200 ok\r\n") && answer.ends_with("\r\n\r\nhi"),
        "{answer}"
    );
    assert!(!answer.contains("transfer-encoding"), "{answer}");
}

#[tokio::test]
async fn an_old_backend_ends_its_answer_by_closing() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.0 200 Fine\r\nServer: old\r\n\r\nhi").await;
    drop(peer);
    let head = client.gets(200, "2\r\nhi\r\n0\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 200 fine") && head.contains("chunked"), "{head}");
}

#[tokio::test]
async fn events_pass_as_they_come() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
    client.head().await;
    for _ in 0..3 {
        peer.say("data: 1\n\n").await;
        client.hears("9\r\ndata: 1\n\n\r\n").await;
    }
}

#[tokio::test]
async fn a_hub_is_reached_by_its_url_or_its_port() {
    let hub = Backend::start().await;
    let places = [
        HubPlace { url: Some(hub.url()), ..HubPlace::default() },
        HubPlace { port: Some(hub.address().port()), ..HubPlace::default() },
    ];
    for place in places {
        let region = RegionSettings { hub: Some(place), ..RegionSettings::default() };
        let gateway = Gateway::with(region, |_| {}).await;
        let mut client = gateway.connect().await;
        client.say("GET /hub?userId=a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(hub.accept().await.answers("hub").await.starts_with("get /hub?userid=a "));
        client.gets(200, "hub").await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.gets(503, "NoBackend").await;
    }
}

#[tokio::test]
async fn the_least_busy_backend_is_next() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let gateway = Gateway::start(&[&one.url(), &two.url()], |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = gateway.connect().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    // None is answered, so each has two when all have arrived.
    let mut peers = Vec::new();
    for backend in [&one, &two, &one, &two] {
        let mut peer = backend.accept().await;
        peer.head().await;
        peers.push(peer);
    }
    let busy: Vec<_> =
        gateway.shared.snapshot()[0].backends.iter().map(|backend| backend.active).collect();
    assert_eq!(busy, [2, 2]);
    drop(clients);
    // Whoever sends a request again finds nobody.
    drop((peers, one, two));
    gateway.idle().await;
}
