//! The way down of the sockets: told, flushed, closed one after the other; and the rotation that is the same.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Client, House};
use crate::settings::HubSettings;

#[tokio::test(start_paused = true)]
async fn a_drain_flushes_says_when_to_come_back_and_closes_with_1012() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    house.publish("alice", "c1").await;
    house.drain.begin(Duration::from_secs(1));
    let (code, before) = alice.closes().await;
    assert_eq!(code, 1012);
    let kinds: Vec<_> = before.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message", "reconnect"], "what is queued comes first");
    drop(alice);
    house.is_left().await;
    assert_eq!(house.drain.flights(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_peer_that_says_nothing() {
    let house = House::new();
    let _alice = house.connect("userId=alice").await;
    house.drain.begin(Duration::from_secs(1));
    let start = Instant::now();
    house.is_left().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_cut_ends_everything_at_once() {
    let house = House::new();
    let mut alice = house.connect("userId=alice").await;
    house.drain.cut();
    let start = Instant::now();
    assert_eq!(alice.closes().await.0, 1001);
    house.is_left().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Reads to the close: when it came, in which order what came before it, and `afterMs`.
async fn closed(mut client: Client) -> (Instant, Vec<u64>, u64) {
    let (mut seqs, mut after) = (Vec::new(), None);
    loop {
        match client.socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(after, None, "{frame} comes after the reconnect frame");
                match frame["type"].as_str() {
                    Some("message") => seqs.push(frame["seq"].as_u64().unwrap()),
                    Some("reconnect") => after = frame["afterMs"].as_u64(),
                    _ => panic!("{frame}"),
                }
            }
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1012);
                return (Instant::now(), seqs, after.expect("a reconnect frame"));
            }
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The second that this is in.
fn second(since_start: Duration) -> usize {
    usize::try_from(since_start.as_secs()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn thousands_are_closed_at_an_even_rate_with_all_that_was_queued() {
    const SOCKETS: usize = 3_000;
    const WINDOW: Duration = Duration::from_secs(20);
    let house = House::new();
    let mut clients = JoinSet::new();
    for number in 0..SOCKETS {
        clients.spawn(closed(house.connect(&format!("userId=u{number}")).await));
    }
    for number in 0..SOCKETS {
        house.publish(&format!("u{number}"), "c1").await;
    }
    let start = Instant::now();
    house.drain.begin(WINDOW);
    // Whatever comes while they wait for their turns is given, too.
    tokio::time::sleep(WINDOW / 2).await;
    for number in 0..SOCKETS {
        house.publish(&format!("u{number}"), "c2").await;
    }
    let ended = timeout(WINDOW * 2, clients.join_all()).await.expect("all are closed");
    let (mut a_second, mut comebacks, mut different) = ([0; 20], [0; 22], HashSet::new());
    let mut both = 0;
    for (at, seqs, after) in ended {
        let at = at - start;
        a_second[second(at)] += 1;
        comebacks[second(at + Duration::from_millis(after))] += 1;
        different.insert(after);
        assert!(seqs == [1] || seqs == [1, 2], "{seqs:?}");
        both += usize::from(seqs.len() == 2);
    }
    assert!(both >= SOCKETS / 2, "{both} heard what came while they waited");
    let most = SOCKETS / 20 * 6 / 5;
    assert!(a_second.iter().all(|closed| *closed <= most), "{a_second:?}");
    // Drawn at random: about once in a thousand runs one is beyond a fifth more, and never beyond a half.
    let most = SOCKETS / 20 * 3 / 2;
    assert!(comebacks.iter().all(|back| *back <= most), "{comebacks:?}");
    assert!(different.len() > 500, "{} moments to come back at", different.len());
    house.is_left().await;
    assert_eq!(house.drain.flights(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_asked_to_come_anew_each_at_its_own_time() {
    let age = Duration::from_hours(1);
    let settings = HubSettings { max_connection_age: Some(age), ..HubSettings::default() };
    let house = House::with(&settings);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..200 {
        // As a client that pings needs its pongs, it reads all the time.
        let mut client = house.connect(&format!("userId=u{number}")).await;
        clients.spawn(async move {
            let frame = loop {
                match client.socket.next().await.unwrap().unwrap() {
                    Message::Text(text) => break serde_json::from_str::<Value>(&text).unwrap(),
                    Message::Ping(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(frame["type"], "reconnect");
            assert!(frame["afterMs"].as_u64().unwrap() <= 1_000);
            assert_eq!(client.closes().await.0, 1012);
            Instant::now() - start
        });
    }
    let ages = clients.join_all().await;
    assert!(ages.iter().all(|lived| *lived <= age && *lived >= age.mul_f64(0.8)), "{ages:?}");
    let early = ages.iter().filter(|lived| **lived < age.mul_f64(0.9)).count();
    assert!((60..=140).contains(&early), "{early} of 200 in the first half");
}
