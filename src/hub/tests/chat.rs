//! Messages between connected users, and the errors that leave a connection open.

use serde_json::json;

use super::super::{Refusal, UserFault};
use super::harness::{Client, House, nz, nz32};
use crate::settings::HubSettings;

#[tokio::test(start_paused = true)]
async fn the_welcome_says_who_and_where() {
    let house = House::new();
    let (_alice, welcome) = house.join("userId=alice").await;
    assert_eq!(welcome["userId"], "alice");
    assert_eq!(welcome["region"], "1");
    assert_eq!(welcome["seq"], 0);
    assert_eq!(welcome["resumed"], false);
    assert_eq!(welcome["pingIntervalMs"], 30_000);
    assert_eq!(welcome["maxTextBytes"], 16_384);
    assert!(!welcome["epoch"].as_str().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_users_talk_and_both_are_told() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let mut bob = house.connect("userId=bob").await;
    alice.says("bob", "hi", "c1").await;
    let ack = alice.hears().await;
    let message = bob.hears().await;
    assert_eq!(
        ack,
        json!({"type": "ack", "id": "c1", "seq": 1, "ts": ack["ts"], "duplicate": false})
    );
    assert_eq!(
        message,
        json!({
            "type": "message", "id": "c1", "from": "alice", "to": "bob", "text": "hi",
            "region": "1", "seq": 1, "ts": ack["ts"],
        })
    );
    bob.says("alice", "hi yourself", "d1").await;
    assert_eq!(bob.hears().await["type"], "ack");
    assert_eq!(alice.hears().await["text"], "hi yourself");
    let metrics = crate::observability::encode(&house.registry).unwrap();
    for series in [
        r#"hub_sockets{region="1"} 2"#,
        r#"hub_sockets{region="2"} 0"#,
        r#"hub_deliveries_total{region="1"} 2"#,
        r#"hub_acks_total{region="1"} 2"#,
        r#"hub_delivery_seconds_count{region="1"} 1"#,
    ] {
        assert!(metrics.contains(series), "{series} is not in:\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn data_is_handed_on_and_a_missing_id_is_made_up() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    alice.sends(&json!({"type": "message", "to": "alice", "data": {"x": [1, null]}})).await;
    let (first, second) = (alice.hears().await, alice.hears().await);
    let (ack, message) = if first["type"] == "ack" { (first, second) } else { (second, first) };
    assert_eq!(message["data"], json!({"x": [1, null]}));
    assert!(message.get("text").is_none());
    assert_eq!(message["id"], ack["id"]);
    assert_eq!(ack["id"].as_str().unwrap().len(), 22);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_acknowledged_and_not_delivered() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let mut bob = house.connect("userId=bob").await;
    alice.says("bob", "hi", "c1").await;
    let first = alice.hears().await;
    alice.says("bob", "hi", "c1").await;
    let again = alice.hears().await;
    assert_eq!((&again["seq"], &again["ts"]), (&first["seq"], &first["ts"]));
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    alice.says("bob", "next", "c2").await;
    assert_eq!(bob.hears().await["id"], "c1");
    assert_eq!(bob.hears().await["id"], "c2");
}

#[tokio::test(start_paused = true)]
async fn a_burst_keeps_its_order_on_every_connection() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let mut bobs = [house.connect("userId=bob").await, house.connect("userId=bob").await];
    for number in 1..=150 {
        alice.says("bob", "x", &format!("c{number}")).await;
    }
    for number in 1..=150 {
        assert_eq!(alice.hears().await["id"], format!("c{number}"));
    }
    for bob in &mut bobs {
        for number in 1..=150 {
            let message = bob.hears().await;
            assert_eq!(
                (&message["seq"], message["id"].as_str()),
                (&json!(number), Some(&*format!("c{number}")))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn typing_and_ping() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let mut bob = house.connect("userId=bob").await;
    alice.sends(&json!({"type": "typing", "to": "bob"})).await;
    assert_eq!(bob.hears().await, json!({"type": "typing", "from": "alice"}));
    alice.sends(&json!({"type": "ping"})).await;
    assert_eq!(alice.hears().await, json!({"type": "pong"}), "typing is not acknowledged");
}

#[tokio::test(start_paused = true)]
async fn each_wrong_frame_has_its_error_and_the_connection_stays() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    let long = "x".repeat(16 * 1024 + 1);
    for (frame, code, id) in [
        (json!("hello"), "bad_frame", json!(null)),
        (json!({"to": "bob", "id": "c1"}), "bad_frame", json!("c1")),
        (json!({"type": "dance", "id": "c1"}), "unknown_type", json!("c1")),
        (
            json!({"type": "message", "to": "b{}", "text": "x", "id": "c1"}),
            "user_invalid",
            json!("c1"),
        ),
        (json!({"type": "message", "to": "bob", "id": "c1"}), "text_empty", json!("c1")),
        (
            json!({"type": "message", "to": "bob", "text": long, "id": "c1"}),
            "text_too_long",
            json!("c1"),
        ),
        (json!({"type": "message", "to": "bob", "text": "x", "id": ""}), "id_invalid", json!(null)),
        (json!({"type": "message", "to": "bob", "text": "x", "id": 5}), "id_invalid", json!(null)),
        (json!({"type": "message", "to": 5, "text": "x", "id": "c1"}), "user_invalid", json!("c1")),
    ] {
        alice.sends(&frame).await;
        assert_eq!(alice.hears_error().await, (code.to_owned(), id));
    }
    alice.says("bob", "still here", "c9").await;
    assert_eq!(alice.hears().await["type"], "ack");
}

#[tokio::test(start_paused = true)]
async fn over_the_rate_a_message_can_be_sent_again_later() {
    let settings = HubSettings {
        messages_per_second: nz32(10),
        message_burst: nz32(2),
        ..HubSettings::default()
    };
    let house = House::with(&settings);
    let mut alice = house.connect("userId=alice").await;
    for id in ["c1", "c2", "c3"] {
        alice.says("bob", "x", id).await;
    }
    let frames = [alice.hears().await, alice.hears().await, alice.hears().await];
    let error = frames.iter().find(|frame| frame["type"] == "error").unwrap();
    assert_eq!((&error["code"], &error["id"]), (&json!("rate_limited"), &json!("c3")));
    assert_eq!(error["retryable"], true);
    tokio::time::advance(std::time::Duration::from_millis(200)).await;
    alice.says("bob", "x", "c3").await;
    assert_eq!(alice.hears().await["type"], "ack");
}

/// Says `count` messages with ids that begin with `prefix`, and counts the acknowledged; each refusal must be for the
/// rate.
async fn acknowledged(client: &mut Client, prefix: &str, count: usize) -> usize {
    for number in 0..count {
        client.says("nobody", "x", &format!("{prefix}{number}")).await;
    }
    let mut acknowledged = 0;
    for _ in 0..count {
        let frame = client.hears().await;
        let refused =
            (&frame["code"], &frame["retryable"]) == (&json!("rate_limited"), &json!(true));
        assert!(frame["type"] == "ack" || refused, "{frame}");
        acknowledged += usize::from(frame["type"] == "ack");
    }
    acknowledged
}

#[tokio::test(start_paused = true)]
async fn more_connections_do_not_make_a_user_louder() {
    let settings = HubSettings {
        messages_per_second: nz32(10),
        message_burst: nz32(10),
        user_messages_per_second: 20,
        user_message_burst: 25,
        ..HubSettings::default()
    };
    let house = House::with(&settings);
    let mut total = 0;
    let mut alices = Vec::new();
    for number in 0..4 {
        let mut alice = house.connect("userId=alice").await;
        total += acknowledged(&mut alice, &format!("{number}-"), 12).await;
        alices.push(alice);
    }
    assert_eq!(total, 25);
    let mut bob = house.connect("userId=bob").await;
    assert_eq!(acknowledged(&mut bob, "b", 12).await, 10, "what he may is his own");
    tokio::time::advance(std::time::Duration::from_millis(500)).await;
    let mut after = 0;
    for (number, alice) in alices.iter_mut().enumerate() {
        alice.sends(&json!({"type": "typing", "to": "bob"})).await;
        after += acknowledged(alice, &format!("{number}+"), 5).await;
    }
    assert_eq!(after + bob.heard_typing().await, 10, "typing is counted too");
}

#[tokio::test(start_paused = true)]
async fn a_region_takes_so_many_connections_a_second() {
    let settings = HubSettings {
        connects_per_second: nz32(10),
        connect_burst: nz32(3),
        max_connections_per_user: nz(1),
        ..HubSettings::default()
    };
    let house = House::with(&settings);
    let alice = house.admit("userId=alice").await.unwrap();
    for _ in 0..9 {
        let again = house.admit("userId=alice").await.unwrap_err();
        assert_eq!(again, Refusal::TooManyConnections, "which takes no turn from the others");
    }
    let others = [house.admit("userId=b").await.unwrap(), house.admit("userId=c").await.unwrap()];
    assert_eq!(house.admit("userId=d").await.unwrap_err(), Refusal::Overloaded);
    assert_eq!(house.hub.snapshot().sockets, 3, "who is refused is not counted");
    drop((alice, others));
    assert_eq!(house.admit("userId=d").await.unwrap_err(), Refusal::Overloaded);
    tokio::time::advance(std::time::Duration::from_millis(100)).await;
    assert!(house.admit("userId=d").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn refusals_come_in_their_order() {
    let settings = HubSettings {
        max_connections: nz(2),
        max_connections_per_user: nz(1),
        allowed_origins: vec!["https://chat.example".to_owned()],
        ..HubSettings::default()
    };
    let house = House::with(&settings);
    let refused = async |query| house.admit(query).await.unwrap_err();
    assert_eq!(refused("").await, Refusal::UserInvalid(UserFault::Missing));
    let alice = house.connect("userId=alice").await;
    assert_eq!(refused("userId=alice").await, Refusal::TooManyConnections);
    let waiting = house.admit("userId=bob").await.unwrap();
    assert_eq!(refused("userId=carol").await, Refusal::Overloaded);
    assert_eq!((house.hub.snapshot().sockets, house.hub.snapshot().users), (2, 2));
    drop(waiting);
    assert_eq!((house.hub.snapshot().sockets, house.hub.snapshot().users), (1, 1));
    drop(alice);
    house.sessions.close();
    house.sessions.wait().await;
    assert_eq!(house.hub.snapshot().sockets, 0);
    assert_eq!(house.drain.flights(), 0);
    house.drain.begin(std::time::Duration::from_secs(1));
    assert_eq!(refused("").await, Refusal::Draining);
}

#[tokio::test(start_paused = true)]
async fn what_came_behind_the_request_is_read_first() {
    use tokio::io::AsyncWriteExt as _;
    let house = House::new();
    let admission = house.admit("userId=alice").await.unwrap();
    let (mut near, far) = tokio::io::duplex(4_096);
    // A masked text frame, split in the middle.
    let body = br#"{"type":"ping"}"#;
    let mut frame = vec![0x81, 0x80 | 15, 0, 0, 0, 0];
    frame.extend_from_slice(body);
    let rest = frame.split_off(9);
    house.sessions.spawn(house.hub.clone().serve(admission, far, frame.into()));
    near.write_all(&rest).await.unwrap();
    let mut client = super::harness::Client {
        socket: tokio_tungstenite::WebSocketStream::from_raw_socket(
            near,
            tokio_tungstenite::tungstenite::protocol::Role::Client,
            None,
        )
        .await,
    };
    assert_eq!(client.hears().await["type"], "welcome");
    assert_eq!(client.hears().await["type"], "pong");
}
