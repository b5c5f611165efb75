//! WebSocket tunnels to a region's backend: every path but the hub's (RFC 6455, section 4; RFC 9110, section 7.8).

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::backend::{Backend, Step};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, get};
use crate::harness::relay::Relay;
use crate::harness::{chat, eventually, within};

const ASKING: &str = "x-region: 1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A WebSocket echo server on a port of its own.
pub(crate) async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_close() || socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_tunnel_carries_frames_both_ways() {
    let gateway = Gateway::before(echo().await).await;
    let mut socket = chat::open(gateway.proxy(), "/any/path?region=1", &[]).await.unwrap();
    for size in [0, 1, 125, 126, 70_000, 1_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn the_backend_sees_the_handshake_with_its_region() {
    let backend = Backend::scripted([Step::Reply(SWITCH.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let answer =
        get(gateway.proxy(), "/live", &format!("{ASKING}Sec-WebSocket-Protocol: a, b\r\n")).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(backend.header("x-region"), ["1"]);
    assert_eq!(backend.header("upgrade").join("").to_ascii_lowercase(), "websocket");
    assert_eq!(backend.header("connection").join("").to_ascii_lowercase(), "upgrade");
    assert_eq!(backend.header("sec-websocket-protocol"), ["a, b"]);
}

/// Row 33: bytes right behind the 101 arrive once and in order, from either side.
#[tokio::test]
async fn early_bytes_arrive_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(format!("GET /live HTTP/1.1\r\nHost: a\r\n{ASKING}\r\nEARLY-UP")).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    let head = backend.read_to("\r\n\r\n").await;
    assert!(!head.contains("EARLY"), "sent before the 101");
    backend.send(format!("{SWITCH}EARLY-DOWN")).await;
    assert!(http.read_to("\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    http.read_to("EARLY-DOWN").await;
    backend.read_to("EARLY-UP").await;
    http.send("more").await;
    assert_eq!(backend.read_to("more").await, "more");
    // One side's end is the other's.
    drop(http);
    assert!(backend.rest().await.is_empty());
}

/// A hub that another process hosts is reached through its URL.
#[tokio::test]
async fn the_chat_path_leads_to_a_hub_elsewhere() {
    let hub = Gateway::start(|_| ()).await;
    let url = format!("http://{}", hub.hub("1"));
    let front = Gateway::start(|settings| {
        for region in settings.regions.values_mut() {
            let place = region.hub.as_mut().unwrap();
            (place.port, place.url) = (None, Some(url.clone()));
        }
    })
    .await;
    let mut alice = chat::Chat::at(front.proxy(), "/ws?userId=alice&region=1").await;
    let mut bob = chat::Chat::join(hub.hub("2"), "bob").await;
    alice.say("bob", "through the front", "c1").await;
    assert_eq!(bob.hears_type("message").await["text"], "through the front");
    let refused = chat::open(front.proxy(), "/ws?region=1", &[]).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "user_invalid"));
}

#[tokio::test]
async fn tunnels_end_with_the_drain() {
    let gateway = Gateway::before(echo().await).await;
    let mut socket = chat::open(gateway.proxy(), "/live?region=1", &[]).await.unwrap();
    socket.send(Message::text("x")).await.unwrap();
    within("the echo", socket.next()).await.unwrap().unwrap();
    gateway.begin_stop().await;
    let closed = within("the close", socket.next()).await;
    let Some(Ok(Message::Close(Some(close)))) = closed else { panic!("{closed:?}") };
    assert_eq!(u16::from(close.code), 1012);
    within("the end of the tunnel", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn a_backend_that_dies_ends_its_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::before(listener.local_addr().unwrap()).await;
    let mut http = Http::connect(gateway.proxy()).await;
    http.send(format!("GET /live HTTP/1.1\r\nHost: a\r\n{ASKING}\r\n")).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    backend.read_to("\r\n\r\n").await;
    backend.send(SWITCH).await;
    http.read_to("\r\n\r\n").await;
    socket2::SockRef::from(&backend.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(backend);
    http.rest().await;
    no_tunnel(&gateway).await;
}

/// Waits until the metrics count no tunnel.
async fn no_tunnel(gateway: &Gateway) {
    eventually("no tunnel is counted", async || {
        let text = get(gateway.admin(), "/metrics", "").await;
        text.text().lines().any(|line| {
            line.starts_with("meridian_")
                && line.contains("tunnels")
                && line.contains("region=\"1\"")
                && line.ends_with(" 0")
        })
    })
    .await;
}

/// A network that goes away without a word: the client has answered Pings until then, and both connections are given
/// back; the backend is told.
#[tokio::test]
async fn a_client_that_vanishes_ends_its_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", address);
        settings.proxy.tunnel_ping_interval = Duration::from_millis(100);
        settings.proxy.tunnel_pong_timeout = Duration::from_secs(2);
    })
    .await;
    let relay = Relay::before(gateway.proxy()).await;
    let backend = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Close(close) => return u16::from(close.unwrap().code),
                Message::Ping(_) => {}
                message => panic!("{message:?}"),
            }
        }
    });
    let mut socket = chat::open(relay.address(), "/live?region=1", &[]).await.unwrap();
    for _ in 0..2 {
        let asked = within("a ping", socket.next()).await.unwrap().unwrap();
        assert!(asked.is_ping(), "{asked:?}");
    }
    relay.black_hole();
    assert_eq!(within("the close", backend).await.unwrap(), 1001);
    no_tunnel(&gateway).await;
    assert!(relay.connections() > 0, "the client knows nothing of it");
}
