//! WebSocket handshakes, tunnels, and their end.

use super::*;
use crate::observability::AccessLog;
use crate::settings::AccessFormat;

pub(super) const ASK: &str = "GET /chat?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
pub(super) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\n";

pub(super) async fn tunnel(gateway: &Gateway, backend: &Backend) -> (Peer, Peer) {
    let mut client = gateway.connect().await;
    client.say(ASK).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say(SWITCH).await;
    client.gets(101, "").await;
    (client, peer)
}

pub(super) async fn no_tunnels(gateway: &Gateway) {
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
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
    ] {
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

/// A text frame of a client's, and one of a backend's.
const ASKED: &[u8] = &[0x81, 0x83, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'y' ^ 3];
const TOLD: &[u8] = &[0x81, 2, b'y', b'o'];
/// A Close 1012, as a backend and (masked with nothing) as a client writes it.
pub(super) const CLOSE_DOWN: &[u8] = &[0x88, 2, 3, 0xf4];
pub(super) const CLOSE_UP: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 3, 0xf4];

/// Both ends of a tunnel are told to connect anew, answer, and are let go.
pub(super) async fn parts<C, B>(client: &mut Peer<C>, backend: &mut Peer<B>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    assert_eq!(client.exactly(4).await, CLOSE_DOWN);
    // It was said before the Close was seen, and arrives.
    client.say(ASKED).await;
    assert_eq!(backend.exactly(ASKED.len()).await, ASKED);
    client.say(CLOSE_UP).await;
    let close = backend.exactly(8).await;
    let code = [close[6] ^ close[2], close[7] ^ close[3]];
    assert_eq!((&close[..2], u16::from_be_bytes(code)), (&[0x88, 0x82][..], 1012));
    backend.say(CLOSE_DOWN).await;
    assert_eq!((client.rest().await, backend.rest().await), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_backend_that_is_taken_out_parts_with_its_tunnels() {
    let (backend, other) = (Backend::start().await, Backend::start().await);
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    let handle = gateway
        .shared
        .add_backend(&RegionName::literal("1"), BackendSettings::primary(other.url()))
        .unwrap();
    client.say(ASKED).await;
    assert_eq!(peer.exactly(ASKED.len()).await, ASKED);
    gateway.shared.operate("1", &backend.address().to_string()).unwrap().drain(true);
    parts(&mut client, &mut peer).await;
    let (mut next, mut there) = tunnel(&gateway, &other).await;
    handle.drain();
    parts(&mut next, &mut there).await;
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn a_tunnel_that_is_old_is_asked_to_connect_anew() {
    let backend = Backend::start().await;
    let soon = |settings: &mut ProxySettings| {
        settings.max_tunnel_age = Some(Duration::from_millis(30));
    };
    let gateway = Gateway::start(&[&backend.url()], soon).await;
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    parts(&mut client, &mut peer).await;
    no_tunnels(&gateway).await;
}

#[tokio::test]
async fn no_more_tunnels_are_open_than_may_be() {
    let backend = Backend::start().await;
    let one = |settings: &mut ProxySettings| settings.max_tunnels = std::num::NonZeroUsize::MIN;
    let gateway = Gateway::start(&[&backend.url()], one).await;
    let (client, peer) = tunnel(&gateway, &backend).await;
    let mut late = gateway.connect().await;
    late.say(ASK).await;
    late.gets(503, "TooManyTunnels").await;
    drop((client, peer));
    no_tunnels(&gateway).await;
    tunnel(&gateway, &backend).await;
}

#[tokio::test]
async fn a_drain_closes_tunnels_and_opens_none() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    let mut late = gateway.connect().await;
    gateway.drain.begin(Duration::ZERO);
    parts(&mut client, &mut peer).await;
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
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let kept = AccessLog::kept(AccessFormat::Json);
    gateway.shared.record_in(kept.clone());
    let (mut client, mut peer) = tunnel(&gateway, &backend).await;
    client.say(ASKED).await;
    assert_eq!(peer.exactly(ASKED.len()).await, ASKED);
    peer.say([TOLD, &[0x88, 2, 3, 0xe9]].concat()).await;
    client.exactly(8).await;
    drop(peer);
    assert_eq!(client.rest().await, b"");
    drop(client);
    no_tunnels(&gateway).await;
    let lines = kept.taken();
    let mut line: serde_json::Value = serde_json::from_str(&lines).expect(&lines);
    let said = line["fields"].as_object_mut().unwrap();
    let [took, backend, first_byte, id] = ["duration_ms", "backend", "first_byte_ms", "request_id"]
        .map(|name| said.remove(name).unwrap());
    assert!(took.is_u64() && first_byte.is_f64() && id.is_string(), "{lines}");
    assert!(backend.as_str().unwrap().starts_with("127.0.0.1:"), "{lines}");
    assert_eq!(
        line["fields"],
        serde_json::json!({
            "message": format!("GET /chat 101 - {took}ms"), "method": "GET", "path": "/chat",
            "status": 101, "region": "1", "served": "1", "attempts": 1, "bytes_in": 9, "bytes": 8,
            "in": 1, "out": 2, "close": 1001, "ended_by": "backend", "end": "backend_closed",
            "client": "127.0.0.1", "protocol": "HTTP/1.1",
        })
    );
}
