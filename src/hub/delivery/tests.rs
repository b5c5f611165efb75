//! Joining while the bus is away, which the embedded bus never is: its answers are given by hand.

use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::Admission;
use super::super::relay::BusError;
use super::super::tests::harness::House;
use super::*;

/// A delivery of which the join has not been answered.
async fn joining(house: &House, query: &str) -> (Delivery, Place) {
    let Admission { place, cursor, .. } = house.admit(query).await.unwrap();
    let mut delivery = Delivery::new(cursor, &place, Instant::now());
    delivery.reading = None;
    (delivery, place)
}

fn away(from: Seq) -> Read {
    let error = BusError::Unavailable(Arc::from("test"));
    Read { subscription: None, from, replay: Err(error) }
}

fn answer(from: Seq, epoch: &str, kept: std::ops::RangeInclusive<Seq>) -> Read {
    let top = *kept.end();
    let messages = kept.filter(|seq| *seq > from).map(|seq| (seq, Bytes::from("{}"))).collect();
    Read { subscription: None, from, replay: Ok(Replay { epoch: Arc::from(epoch), top, messages }) }
}

fn frame(frame: Option<Utf8Bytes>) -> Value {
    serde_json::from_str(&frame.expect("a frame")).unwrap()
}

fn given(delivery: &mut Delivery, place: &Place) -> usize {
    let cx = &mut Context::from_waker(Waker::noop());
    std::iter::from_fn(|| delivery.next(place, Instant::now(), cx)).count()
}

#[tokio::test(start_paused = true)]
async fn a_client_is_welcomed_blind_and_told_its_position_later() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob").await;
    let welcome = frame(delivery.was_read(away(Seq::MAX), &place, Instant::now()));
    assert_eq!(
        (&welcome["type"], &welcome["epoch"], &welcome["seq"], &welcome["resumed"]),
        (&json!("welcome"), &json!(""), &json!(0), &json!(false))
    );
    assert!(delivery.deadline().is_some(), "it is tried again without a notice too");
    assert!(delivery.was_read(away(Seq::MAX), &place, Instant::now()).is_none(), "welcomed once");
    let reset = delivery.was_read(answer(Seq::MAX, "e", 1..=7), &place, Instant::now());
    assert_eq!(frame(reset), json!({"type": "reset", "epoch": "e", "seq": 7}));
}

#[tokio::test(start_paused = true)]
async fn a_resume_is_kept_in_mind_while_the_bus_is_away() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob&since=5&epoch=e").await;
    delivery.was_read(away(5), &place, Instant::now());
    delivery.read_at = None;
    let reset = delivery.was_read(answer(5, "e", 1..=7), &place, Instant::now());
    assert_eq!(frame(reset), json!({"type": "reset", "epoch": "e", "seq": 5}));
    assert_eq!(given(&mut delivery, &place), 2);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_read_has_to_wait_is_read_later() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob").await;
    delivery.was_read(away(Seq::MAX), &place, Instant::now());
    let live = |seq| Item::Message { seq, taken_ms: None, frame: "{}".into() };
    house.hub.registry.push("bob", live(8));
    house.hub.registry.push("bob", live(9));
    assert_eq!(given(&mut delivery, &place), 0);
    assert_eq!(delivery.cursor.wants(), 7, "the first one that came is not forgotten");
    let reset = delivery.was_read(answer(7, "e", 1..=9), &place, Instant::now());
    assert_eq!(frame(reset)["seq"], 7);
    delivery.read_at = None;
    assert_eq!(given(&mut delivery, &place), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_to_a_blind_client_before_it_is_told_where_it_stands() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob&since=5&epoch=e").await;
    delivery.was_read(away(5), &place, Instant::now());
    // It may follow, or be the sixth of another history.
    let live = Item::Message { seq: 6, taken_ms: None, frame: "{}".into() };
    house.hub.registry.push("bob", live);
    assert_eq!(given(&mut delivery, &place), 0);
    delivery.read_at = None;
    delivery.was_read(answer(5, "e", 1..=6), &place, Instant::now());
    assert_eq!(given(&mut delivery, &place), 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_interruption_nothing_is_given_before_the_inbox_was_read() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob").await;
    let now = Instant::now();
    delivery.was_read(answer(Seq::MAX, "e", 1..=5), &place, now);
    house.hub.registry.push("bob", Item::Gap);
    delivery.queued(&place, now);
    delivery.reading = None;
    delivery.was_read(away(5), &place, now);
    delivery.read_at = Some(now + Duration::from_secs(3));
    house.hub.registry.push("bob", Item::Message { seq: 6, taken_ms: None, frame: "{}".into() });
    assert_eq!(given(&mut delivery, &place), 0, "it may be the sixth of another history");
    assert_eq!(delivery.deadline(), Some(now + RETRY), "the bus is back");
    assert!(delivery.was_read(answer(5, "f", 1..=6), &place, now).is_none());
    let reset = frame(delivery.was_read(answer(0, "f", 1..=6), &place, now));
    assert_eq!((&reset["epoch"], &reset["seq"]), (&json!("f"), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn what_looks_like_an_overlap_is_looked_into() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob").await;
    delivery.was_read(answer(Seq::MAX, "e", 1..=5), &place, Instant::now());
    assert_eq!(delivery.deadline(), None);
    house.hub.registry.push("bob", Item::Message { seq: 2, taken_ms: None, frame: "{}".into() });
    assert_eq!(given(&mut delivery, &place), 0);
    let deadline = delivery.deadline().expect("it may as well be the second of a new history");
    // Meanwhile what follows is given.
    house.hub.registry.push("bob", Item::Message { seq: 6, taken_ms: None, frame: "{}".into() });
    assert_eq!(given(&mut delivery, &place), 1);
    delivery.wake(&place, deadline);
    assert!(delivery.reading.take().is_some() && delivery.deadline().is_none());
    assert!(delivery.was_read(answer(6, "e", 1..=6), &place, Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn another_epoch_on_a_live_socket_is_told() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob&since=5&epoch=e").await;
    let welcome = frame(delivery.was_read(answer(5, "e", 1..=5), &place, Instant::now()));
    assert_eq!(welcome["resumed"], true);
    assert!(delivery.was_read(answer(5, "f", 1..=2), &place, Instant::now()).is_none());
    assert!(delivery.reading.take().is_some(), "all of the new history is read");
    let reset = delivery.was_read(answer(0, "f", 1..=2), &place, Instant::now());
    assert_eq!(frame(reset), json!({"type": "reset", "epoch": "f", "seq": 0}));
    assert_eq!(given(&mut delivery, &place), 2);
}

#[tokio::test(start_paused = true)]
async fn a_promoted_replica_tells_what_is_gone_and_doubles_nothing() {
    let house = House::new();
    let (mut delivery, place) = joining(&house, "userId=bob&since=0&epoch=e").await;
    let read = |from, epoch: &str, frames: &[&'static str]| {
        let messages: Vec<_> = (1..).zip(frames.iter().map(|frame| Bytes::from(*frame))).collect();
        let top = frames.len() as Seq;
        Read {
            subscription: None,
            from,
            replay: Ok(Replay { epoch: Arc::from(epoch), top, messages }),
        }
    };
    delivery.was_read(read(0, "e", &["a", "b"]), &place, Instant::now());
    assert_eq!(given(&mut delivery, &place), 2);
    let live =
        |seq, frame: &'static str| Item::Message { seq, taken_ms: None, frame: frame.into() };
    house.hub.registry.push("bob", live(3, "c"));
    house.hub.registry.push("bob", live(4, "d"));
    assert_eq!(given(&mut delivery, &place), 2);

    // All is there: only what is new follows.
    let all = ["a", "b", "c", "d", "e"];
    let reset = delivery.was_read(read(0, "f", &all), &place, Instant::now());
    assert_eq!(frame(reset), json!({"type": "reset", "epoch": "f", "seq": 4}));
    assert_eq!(given(&mut delivery, &place), 1);

    // The last three are gone, and two others stand in their place.
    let reset = delivery.was_read(read(0, "g", &["a", "b", "x", "y"]), &place, Instant::now());
    assert_eq!(frame(reset), json!({"type": "reset", "epoch": "g", "seq": 2}));
    assert_eq!(given(&mut delivery, &place), 2);

    // Nothing is as it was.
    let reset = delivery.was_read(read(0, "h", &["p", "q"]), &place, Instant::now());
    assert_eq!(frame(reset), json!({"type": "reset", "epoch": "h", "seq": 0}));
    assert_eq!(given(&mut delivery, &place), 2);
}
