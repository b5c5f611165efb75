//! Every close code, and that a session ends whatever its peer does.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::harness::{House, nz, nz32};
use crate::observability;
use crate::settings::HubSettings;

fn metrics(house: &House) -> String {
    observability::encode(&house.registry).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_binary_frame_is_1003() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    alice.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(alice.closes().await.0, 1003);
    drop(alice);
    house.is_left().await;
    let metrics = metrics(&house);
    assert!(metrics.contains(r#"hub_closes_total{region="1",code="1003"} 1"#), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn text_that_is_not_utf8_is_1007() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let frame = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    alice.socket.send(Message::Frame(frame)).await.unwrap();
    assert_eq!(alice.closes().await.0, 1007);
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_violation_of_the_protocol_is_1002() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    // Not masked.
    alice.socket.get_mut().write_all(&[0x81, 2, b'{', b'}']).await.unwrap();
    assert_eq!(alice.closes().await.0, 1002);
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_length_that_cannot_be_is_1002() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let length_and_mask = [0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4];
    let mut frame = vec![0x81, 0xff];
    frame.extend_from_slice(&length_and_mask);
    alice.socket.get_mut().write_all(&frame).await.unwrap();
    assert_eq!(alice.closes().await.0, 1002);
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_over_the_limit_is_1009() {
    let settings = HubSettings { max_text_bytes: nz(100), ..HubSettings::default() };
    let house = House::with(&settings);
    let alice = house.connect("userId=alice").await;
    // Far more than the pipe holds: the close frame must come though nobody reads the rest as frames.
    let big = Message::text("x".repeat(1_000_000));
    let (mut sink, mut stream) = alice.socket.split();
    let reading = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Close(frame))) => return u16::from(frame.unwrap().code),
                Some(Ok(_)) => {}
                ended => panic!("no close frame: {ended:?}"),
            }
        }
    };
    let (_, code) = tokio::join!(sink.send(big), reading);
    assert_eq!(code, 1009);
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn too_many_bad_frames_are_1008_and_some_are_forgiven() {
    let settings = HubSettings { max_bad_frames: nz32(3), ..HubSettings::default() };
    let house = House::with(&settings);
    let mut alice = house.connect("userId=alice").await;
    for _ in 0..3 {
        alice.socket.send(Message::text("x")).await.unwrap();
        assert_eq!(alice.hears_error().await.0, "bad_json");
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    alice.socket.send(Message::text("x")).await.unwrap();
    assert_eq!(alice.hears_error().await.0, "bad_json", "one was forgiven");
    alice.socket.send(Message::text("x")).await.unwrap();
    let (code, before) = alice.closes().await;
    assert_eq!((code, before.len()), (1008, 1), "the last error is told too");
    house.is_left().await;
}

/// Sends `count` typing notices at once, and reads until the hub closes or has answered the ping behind
/// them: the close code, and the errors.
async fn floods(house: &House, count: usize) -> (Option<u16>, usize) {
    let alice = house.connect("userId=alice").await;
    let (mut sink, mut stream) = alice.socket.split();
    let sending = async {
        let typing = json!({"type": "typing", "to": "bob"}).to_string();
        for _ in 0..count {
            if sink.feed(Message::text(typing.clone())).await.is_err() {
                return;
            }
        }
        // Nobody reads it when the hub has closed.
        drop(sink.send(Message::text(r#"{"type":"ping"}"#)).await);
    };
    let reading = async {
        let mut errors = 0;
        loop {
            match stream.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return (Some(frame.unwrap().code.into()), errors);
                }
                Some(Ok(Message::Text(text))) if text.contains("rate_limited") => errors += 1,
                Some(Ok(Message::Text(text))) if text.contains("pong") => return (None, errors),
                Some(Ok(_)) => {}
                ended => panic!("no close frame: {ended:?}"),
            }
        }
    };
    let both = async { tokio::join!(sending, reading).1 };
    timeout(Duration::from_secs(20), both).await.expect("no end")
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_1008_and_a_thousand_at_once_are_none() {
    let house = House::new();
    assert_eq!(floods(&house, 1_000).await, (None, 800));
    assert_eq!(floods(&house, 20_000).await, (Some(1008), 1_001));
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn silence_after_a_ping_is_4000() {
    let house = House::new();
    let start = Instant::now();
    let admission = house.admit("userId=alice").await.unwrap();
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    house.sessions.spawn(house.hub.clone().serve(admission, far, bytes::Bytes::new()));
    // Reads and never answers.
    let mut all = Vec::new();
    near.read_to_end(&mut all).await.unwrap();
    assert!(all.windows(2).any(|window| window == 4000_u16.to_be_bytes()));
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(start.elapsed() <= Duration::from_secs(42), "{:?}", start.elapsed());
    drop(near);
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    // Reading answers pings.
    let quiet = timeout(Duration::from_mins(10), alice.socket.next());
    let mut pings = 0;
    let mut next = quiet.await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_mins(10) {
        assert!(matches!(next, Ok(Some(Ok(Message::Ping(_))))), "{next:?}");
        pings += 1;
        next = timeout(Duration::from_mins(10), alice.socket.next()).await;
    }
    assert!(pings >= 19, "{pings} pings in ten minutes");
    assert_eq!(house.hub.snapshot().sockets, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_may_close_and_may_vanish() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    alice.socket.close(None).await.unwrap();
    while alice.socket.next().await.is_some() {}
    drop(house.connect("userId=bob").await);
    house.is_left().await;
    let metrics = metrics(&house);
    assert!(metrics.contains(r#"hub_closes_total{region="1",code="1005"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"hub_closes_total{region="1",code="1006"} 1"#), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_close_is_published() {
    let house = House::new();
    let mut bob = house.connect("userId=bob").await;
    let mut alice = house.connect("userId=alice").await;
    alice.sends(&json!({"type": "message", "to": "bob", "text": "bye"})).await;
    alice.socket.close(None).await.unwrap();
    assert_eq!(bob.hears().await["text"], "bye");
}

#[tokio::test(start_paused = true)]
async fn who_closes_may_come_back_at_once() {
    let settings = HubSettings { max_connections_per_user: nz(1), ..HubSettings::default() };
    let house = House::with(&settings);
    let mut alice = house.connect("userId=alice").await;
    let start = Instant::now();
    // It keeps its end of the connection open, as some libraries do for a while.
    alice.socket.close(None).await.unwrap();
    let answer = alice.socket.next().await;
    assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
    let mut again = house.connect("userId=alice").await;
    // The same where the hub closes.
    again.socket.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(again.closes().await.0, 1003);
    house.connect("userId=alice").await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}
