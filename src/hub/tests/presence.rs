//! Who is online, as clients ask and are told; and what becomes of a connection too many.

use serde_json::{Value, json};

use super::super::Refusal;
use super::harness::{Client, House, nz, nz32};
use crate::settings::{HubSettings, OverLimit};

/// Asks for `users`.
async fn asks(client: &mut Client, users: &[&str]) {
    client.sends(&json!({"type": "presence", "users": users})).await;
}

/// The next frame, which tells of `user`: whether he is online, and when he was seen.
async fn hears_of(client: &mut Client, user: &str) -> (bool, Value) {
    let frame = client.hears().await;
    assert_eq!((&frame["type"], &frame["userId"]), (&json!("presence"), &json!(user)), "{frame}");
    (frame["online"].as_bool().unwrap(), frame["lastSeen"].clone())
}

/// Waits until nobody but those who stay has a socket.
async fn sockets(house: &House, count: usize) {
    while house.hub.snapshot().sockets != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_answered_at_once_and_changes_are_told() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    asks(&mut alice, &["bob"]).await;
    assert_eq!(hears_of(&mut alice, "bob").await, (false, Value::Null));
    let bob = house.connect("userId=bob").await;
    let (online, seen) = hears_of(&mut alice, "bob").await;
    assert!(online && seen.is_string(), "{seen}");
    // A second device changes nothing, and nor does its end.
    drop(house.connect("userId=bob").await);
    sockets(&house, 2).await;
    drop(bob);
    let (online, seen) = hears_of(&mut alice, "bob").await;
    assert!(!online && seen.as_str().unwrap().ends_with('Z'), "{seen}");
    let _bob = house.connect("userId=bob").await;
    assert!(hears_of(&mut alice, "bob").await.0);
}

#[tokio::test(start_paused = true)]
async fn a_new_list_replaces_the_old_one_and_answers_who_is_in_both_again() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    asks(&mut alice, &["bob", "bob", "carol"]).await;
    assert!(!hears_of(&mut alice, "bob").await.0);
    assert!(!hears_of(&mut alice, "carol").await.0);
    asks(&mut alice, &["bob", "alice"]).await;
    assert!(hears_of(&mut alice, "alice").await.0);
    assert!(!hears_of(&mut alice, "bob").await.0);
    assert_eq!(house.hub.watchers.users(), 2);
    let _carol = house.connect("userId=carol").await;
    let _bob = house.connect("userId=bob").await;
    // Carol, who came first, is told of no more.
    assert!(hears_of(&mut alice, "bob").await.0);
    asks(&mut alice, &[]).await;
    alice.sends(&json!({"type": "ping"})).await;
    assert_eq!(alice.hears().await["type"], "pong");
    assert_eq!(house.hub.watchers.users(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_watcher_is_told_and_the_last_one_takes_the_watch_along() {
    let house = House::new();
    let mut watchers = Vec::new();
    for number in 0..3 {
        let mut watcher = house.connect(&format!("userId=w{number}")).await;
        asks(&mut watcher, &["bob"]).await;
        assert!(!hears_of(&mut watcher, "bob").await.0);
        watchers.push(watcher);
    }
    let bob = house.connect("userId=bob").await;
    for watcher in &mut watchers {
        assert!(hears_of(watcher, "bob").await.0);
    }
    drop((watchers, bob));
    sockets(&house, 0).await;
    assert_eq!(house.hub.watchers.users(), 0);
    let metrics = crate::observability::encode(&house.registry).unwrap();
    assert!(metrics.contains("bus_watches 0"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn lists_have_a_bound_and_count_as_one_message() {
    let settings = HubSettings {
        max_presence_users: nz(2),
        messages_per_second: nz32(1),
        message_burst: nz32(2),
        ..HubSettings::default()
    };
    let house = House::with(&settings);
    let mut alice = house.connect("userId=alice").await;
    asks(&mut alice, &["a", "b", "c"]).await;
    assert_eq!(alice.hears_error().await.0, "bad_frame");
    asks(&mut alice, &["a{"]).await;
    assert_eq!(alice.hears_error().await.0, "user_invalid");
    asks(&mut alice, &["a", "b"]).await;
    hears_of(&mut alice, "a").await;
    hears_of(&mut alice, "b").await;
    asks(&mut alice, &["a"]).await;
    assert_eq!(alice.hears_error().await.0, "rate_limited");
    let _a = house.connect("userId=a").await;
    assert!(hears_of(&mut alice, "a").await.0, "a refused list changes nothing");
}

fn capped(over_limit: OverLimit) -> HubSettings {
    HubSettings { max_connections_per_user: nz(2), over_limit, ..HubSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_is_refused() {
    let house = House::with(&capped(OverLimit::Refuse));
    let (first, _second) = (house.connect("userId=bob").await, house.connect("userId=bob").await);
    assert_eq!(house.admit("userId=bob").await.unwrap_err(), Refusal::TooManyConnections);
    drop(first);
    sockets(&house, 1).await;
    house.connect("userId=bob").await;
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_closes_the_oldest() {
    let house = House::with(&capped(OverLimit::CloseOldest));
    let mut first = house.connect("userId=bob").await;
    let mut second = house.connect("userId=bob").await;
    let mut third = house.connect("userId=bob").await;
    assert_eq!(first.closes().await.0, 4001);
    house.publish("bob", "c1").await;
    for client in [&mut second, &mut third] {
        assert_eq!(client.hears().await["id"], "c1", "the others stay");
    }
    drop(first);
    sockets(&house, 2).await;
    let metrics = crate::observability::encode(&house.registry).unwrap();
    assert!(metrics.contains(r#"hub_closes_total{region="1",code="4001"} 1"#), "{metrics}");
    assert!(metrics.contains("bus_seats_evicted_total 1"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_place_is_taken_before_it_begins_is_closed() {
    let house = House::with(&capped(OverLimit::CloseOldest));
    let admission = house.admit("userId=bob").await.unwrap();
    let _second = house.connect("userId=bob").await;
    let _third = house.connect("userId=bob").await;
    let (near, far) = tokio::io::duplex(4_096);
    house.sessions.spawn(house.hub.clone().serve(admission, far, bytes::Bytes::new()));
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let socket = tokio_tungstenite::WebSocketStream::from_raw_socket(near, role, None).await;
    assert_eq!(Client { socket }.closes().await.0, 4001);
}
