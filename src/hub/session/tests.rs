//! What cannot be seen from outside, or not with a bus that is never away.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::relay::BusError;
use super::super::tests::harness::House;
use super::*;
use crate::protocol::incoming::Draft;
use crate::protocol::outgoing::Outgoing;

#[tokio::test(start_paused = true)]
async fn a_session_is_small() {
    let house = House::new();
    let admission = house.admit("userId=alice").await.unwrap();
    let (_near, far) = tokio::io::duplex(1_024);
    let size = std::mem::size_of_val(&run(admission, far, Bytes::new()));
    assert!(size <= 1_280, "{size} bytes a session");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_is_a_retryable_error_with_the_id() {
    let house = House::new();
    let (_near, far) = tokio::io::duplex(1_024);
    let limits = config(&house.hub.limits);
    let socket = WebSocketStream::from_raw_socket(far, Role::Server, Some(limits)).await;
    let mut session = Session::new(house.admit("userId=alice").await.unwrap(), socket);
    let draft = Draft { to: "bob".into(), id: Some("c1".into()), text: None, data: Some("1") };
    let outgoing = Outgoing::compose(&draft, "alice", "1", 0);
    let away = BusError::Unavailable(Arc::from("test"));
    session.answer(Some((outgoing, Err(away))));
    let frame: Value = serde_json::from_str(&session.replies.pop_front().unwrap()).unwrap();
    assert_eq!(
        (&frame["code"], &frame["id"], &frame["retryable"]),
        (&json!("bus_unavailable"), &json!("c1"), &json!(true))
    );
}
