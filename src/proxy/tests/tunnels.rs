//! WebSocket handshakes, tunnels, and their end.

use super::*;

const ASK: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: WebSocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\n";

async fn tunnel(gateway: &Gateway, backend: &Backend) -> (Peer, Peer) {
    let mut client = gateway.connect().await;
    client.say(ASK).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say(SWITCH).await;
    client.gets(101, "").await;
    (client, peer)
}

async fn no_tunnels(gateway: &Gateway) {
    gateway.idle().await;
    assert_eq!(gateway.count("proxy_tunnels"), 0);
    within("the drain's count", gateway.drain.idle()).await;
}

#[tokio::test]
async fn bytes_right_behind_the_handshake_are_delivered_once_and_in_order() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say(format!("{ASK}early")).await;
    let mut peer = backend.accept().await;
    let head = peer.head().await;
    assert!(head.starts_with("get /chat?x=1 http/1.1\r\n"), "{head}");
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-key: k\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    assert!(peer.read.is_empty(), "nothing goes on before the 101");
    peer.say(format!("{SWITCH}welcome")).await;
    let head = client.gets(101, "welcome").await;
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: s\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
    peer.hears("early").await;
    assert_eq!(gateway.count("proxy_tunnels"), 1);
    client.say("up").await;
    peer.hears("up").await;
    peer.say("down").await;
    client.hears("down").await;
    // A half that closes lets the other finish.
    client.stream.shutdown().await.unwrap();
    assert_eq!(peer.rest().await, b"");
    peer.say("last").await;
    drop(peer);
    assert_eq!(client.rest().await, b"last");
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn a_side_that_vanishes_ends_the_tunnel() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (client, mut peer) = tunnel(&gateway, &backend).await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(peer.rest().await, b"");
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let backend = Backend::start().await;
    let soon = |settings: &mut ProxySettings| {
        settings.tunnel_idle_timeout = Duration::from_millis(30);
    };
    let gateway = Gateway::start(&[&backend.url()], soon).await;
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    assert_eq!((client.rest().await, peer.rest().await), (Vec::new(), Vec::new()));
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn a_drain_closes_tunnels_and_opens_none() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    let mut late = gateway.connect().await;
    gateway.drain.begin(Duration::ZERO);
    assert_eq!((client.rest().await, peer.rest().await), (Vec::new(), Vec::new()));
    no_tunnels(&gateway).await;
    late.say(ASK).await;
    late.gets(503, "Draining").await;
    late.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.accept().await.answers("still").await;
    late.gets(200, "still").await;
    within("the proxy to close", gateway.proxy.close()).await;
}

#[tokio::test]
async fn the_cut_ends_a_tunnel_whose_turn_has_not_come() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, _peer) = tunnel(&gateway, &backend).await;
    // So many others go first that its turn is minutes away.
    let others: Vec<_> = (0..100_000).map(|_| gateway.drain.socket()).collect();
    gateway.drain.begin(Duration::from_hours(1));
    let last = others.iter().map(|_| gateway.drain.turn()).max();
    assert!(last.unwrap() > tokio::time::Instant::now() + DEADLINE * 10);
    drop(others);
    gateway.drain.cut();
    assert_eq!(client.rest().await, b"");
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn a_refused_handshake_is_an_answer_like_any_other() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say(ASK).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(client.gets(403, "no").await.contains("x-why: no\r\n"));
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    peer.answers("kept").await;
    client.gets(200, "kept").await;
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn a_switch_to_another_protocol_is_a_bad_gateway() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say(ASK).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: irc\r\n\r\n").await;
    client.gets(502, "UnaskedUpgrade").await;
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn what_is_no_handshake_is_a_plain_request_or_an_error() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let plain = [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    for request in plain {
        let mut client = gateway.connect().await;
        client.say(request).await;
        let mut peer = backend.accept().await;
        let head = peer.answers("plain").await;
        assert!(!head.contains("upgrade") && !head.contains("http2"), "{head}");
        assert!(client.head().await.contains(" 200 "));
        client.hears("plain").await;
        peer.stream.shutdown().await.unwrap();
        gateway.idle().await;
        assert_eq!(peer.rest().await, b"");
    }
    let asked = "HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    for (wrong, why) in [
        (format!("POST / {asked}\r\n"), "must be a GET"),
        (format!("GET / {asked}Content-Length: 2\r\n\r\nhi"), "must not have a body"),
        (
            format!("GET / {asked}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "must not have a body",
        ),
    ] {
        let mut client = gateway.connect().await;
        client.say(wrong).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 400 "), "{head}");
        client.until(why).await;
    }
    assert_eq!(gateway.count("proxy_upstream_connects"), 4);
}

#[tokio::test]
async fn the_line_of_a_tunnel_has_all_of_it_as_fields() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(file.reopen().unwrap());
    let log = tracing_subscriber::fmt().with_writer(writer).json().finish();
    let _until_the_end = tracing::subscriber::set_default(log);
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    client.say("up").await;
    peer.hears("up").await;
    drop(peer);
    assert_eq!(client.rest().await, b"");
    drop(client);
    no_tunnels(&gateway).await;
    let lines = std::fs::read_to_string(file.path()).unwrap();
    let line = lines.lines().find(|line| line.contains("Proxy::access")).expect(&lines);
    let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
    let duration_ms = line["fields"]["duration_ms"].take();
    assert!(duration_ms.is_u64(), "{lines}");
    assert_eq!(
        line["fields"],
        serde_json::json!({
            "message": format!("GET /chat 101 - {duration_ms}ms tunnel"), "method": "GET",
            "path": "/chat", "status": 101, "duration_ms": null, "region": "1", "up": 2, "down": 0,
            "ended_by": "backend",
        })
    );
}
