//! Readers that do not keep up: bounded, told so, nobody else's matter, and nothing is lost for them.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::harness::{Client, House, nz};
use crate::bus::Envelope;
use crate::observability;
use crate::settings::HubSettings;

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_4008_and_others_are_not_held_up() {
    let settings = HubSettings { outbox_messages: nz(50), ..HubSettings::default() };
    let house = House::with(&settings);
    let mut slow = house.connect_over("userId=bob", 256).await;
    assert_eq!(slow.hears().await["type"], "welcome");
    let mut quick = house.connect("userId=bob").await;
    for number in 1..=200 {
        house.publish("bob", &format!("c{number}")).await;
        assert_eq!(quick.hears().await["seq"], number);
    }
    let (code, before) = slow.closes().await;
    assert_eq!(code, 4008);
    let seqs: Vec<_> = before.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().zip(1..).all(|(seq, expected)| *seq == expected), "{seqs:?}");
    assert!(seqs.len() < 200);
    drop((slow, quick));
    house.is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_dropped_though_it_never_reads() {
    let settings = HubSettings { outbox_bytes: nz(4_000), ..HubSettings::default() };
    let house = House::with(&settings);
    let _slow = house.connect_over("userId=bob", 64).await;
    for number in 1..=200 {
        house.publish("bob", &format!("c{number}")).await;
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    house.is_left().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let metrics = observability::encode(&house.registry).unwrap();
    assert!(metrics.contains(r#"hub_closes_total{region="1",code="4008"} 1"#), "{metrics}");
}

/// Publishes a frame of `size` bytes.
async fn publish_big(house: &House, to: &str, id: &str, size: usize) {
    let head = format!(r#"{{"type":"message","id":"{id}","text":"{}","seq":"#, "x".repeat(size));
    let envelope = Envelope { to, from: "api", id, at_ms: 0, head: head.as_bytes(), tail: b"}" };
    house.bus.publish(envelope).await.unwrap();
}

async fn hears_in_order(client: &mut Client, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        assert_eq!(client.hears().await["seq"], seq);
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_too_slow_resumes_and_has_lost_nothing() {
    let settings = HubSettings { outbox_bytes: nz(20_000), ..HubSettings::default() };
    let house = House::with(&settings);
    let mut slow = house.connect_over("userId=bob", 256).await;
    let welcome = slow.hears().await;
    let epoch = welcome["epoch"].as_str().unwrap();
    for number in 1..=60 {
        publish_big(&house, "bob", &format!("c{number}"), 1_000).await;
        tokio::task::yield_now().await;
    }
    let (code, before) = slow.closes().await;
    assert_eq!(code, 4008);
    let mut since = before.len() as u64;
    assert!(since < 60);
    // Slow as before, and what is missing is more than its queue may hold.
    let query = format!("userId=bob&since={since}&epoch={epoch}");
    let mut slow = house.connect_over(&query, 256).await;
    assert_eq!(slow.hears().await["resumed"], true);
    while since < 60 {
        since += 1;
        assert_eq!(slow.hears().await["seq"], since);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As from a hub of a greater `max_text_bytes`.
#[tokio::test(start_paused = true)]
async fn a_frame_larger_than_all_bounds_is_given_all_the_same() {
    let settings = HubSettings {
        outbox_bytes: nz(10_000),
        max_text_bytes: nz(1_000),
        ..HubSettings::default()
    };
    let house = House::with(&settings);
    let (mut bob, welcome) = house.join("userId=bob").await;
    publish_big(&house, "bob", "big", 300_000).await;
    hears_in_order(&mut bob, 1..=1).await;
    publish_big(&house, "bob", "bigger", 300_000).await;
    hears_in_order(&mut bob, 2..=2).await;
    house.publish("bob", "small").await;
    hears_in_order(&mut bob, 3..=3).await;
    drop(bob);
    let epoch = welcome["epoch"].as_str().unwrap();
    let (mut bob, welcome) = house.join(&format!("userId=bob&since=0&epoch={epoch}")).await;
    assert_eq!(welcome["resumed"], json!(true));
    hears_in_order(&mut bob, 1..=3).await;
}
