//! `hub.delivery = "at-most-once"`: whoever is there hears it, and nothing is kept.

use serde_json::json;

use super::harness::House;
use crate::settings::{DeliveryMode, HubSettings};

fn house() -> House {
    House::with(&HubSettings { delivery: DeliveryMode::AtMostOnce, ..HubSettings::default() })
}

#[tokio::test(start_paused = true)]
async fn every_connection_hears_it_and_a_repeat_is_another_message() {
    let house = house();
    let mut alice = house.connect("userId=alice").await;
    let (first, welcome) = house.join("userId=bob").await;
    assert_eq!(
        (&welcome["epoch"], &welcome["seq"], &welcome["resumed"]),
        (&json!(""), &json!(0), &json!(false))
    );
    let mut bobs = [first, house.connect("userId=bob").await];
    for id in ["c1", "c1", "c2"] {
        alice.says("bob", "hi", id).await;
        let ack = alice.hears().await;
        assert_eq!(
            ack,
            json!({"type": "ack", "id": id, "seq": 0, "ts": ack["ts"], "duplicate": false})
        );
        for bob in &mut bobs {
            let message = bob.hears().await;
            assert_eq!(
                (&message["id"], &message["seq"], &message["ts"]),
                (&json!(id), &json!(0), &ack["ts"])
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_and_no_resume_is_promised() {
    let house = house();
    let mut alice = house.connect("userId=alice").await;
    alice.says("bob", "nobody is there", "c1").await;
    assert_eq!(alice.hears().await["type"], "ack");
    // What a client of another mode, and one of this mode, would come back with.
    for resume in ["since=3&epoch=e", "since=0&epoch="] {
        let (mut bob, welcome) = house.join(&format!("userId=bob&{resume}")).await;
        assert_eq!((&welcome["seq"], &welcome["resumed"]), (&json!(0), &json!(false)));
        alice.says("bob", "now he is", "c2").await;
        assert_eq!(alice.hears().await["type"], "ack");
        assert_eq!(bob.hears().await["id"], "c2");
    }
}

/// A hub that stores, or a backend, on the same bus.
#[tokio::test(start_paused = true)]
async fn what_others_have_stored_is_handed_on_without_looking_back() {
    let house = house();
    house.publish("bob", "s1").await;
    let mut bob = house.connect("userId=bob").await;
    for (id, seq) in [("s2", 2), ("s3", 3)] {
        house.publish("bob", id).await;
        assert_eq!(bob.hears().await["seq"], seq);
    }
}
