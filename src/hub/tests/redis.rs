//! Two hubs over a real Redis, which fails and comes back. In real time: every wait has a deadline.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::harness::House;
use crate::bus::redis_server::RedisServer;
use crate::bus::{Bus, BusState};
use crate::observability::Registry;
use crate::settings::{BusSettings, DeliveryMode, HubSettings, RedisSettings, Secret};

const PATIENCE: Duration = Duration::from_mins(1);

/// A command waits this long here: a server that hangs costs a test little, and one that is slow on a busy machine is
/// waited for.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A hub on a Redis bus at work.
struct Node {
    house: House,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    async fn start(redis: &RedisServer) -> Self {
        Self::start_with(redis, &HubSettings::default(), COMMAND_TIMEOUT).await
    }

    async fn start_with(redis: &RedisServer, hub: &HubSettings, command_timeout: Duration) -> Self {
        let settings = BusSettings {
            redis: RedisSettings {
                url: Some(Secret::new(redis.url())),
                command_timeout,
                reconnect_min: Duration::from_millis(20),
                reconnect_max: Duration::from_millis(200),
                ..RedisSettings::default()
            },
            ..BusSettings::default()
        };
        let mut registry = Registry::default();
        let bus = Bus::redis(&settings, &mut registry).unwrap();
        let house = House::on(bus.clone(), hub, registry);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (running, stopped) = (bus, stop.clone());
        tasks.spawn(async move { running.run(stopped).await });
        let node = Self { house, stop, tasks };
        node.until(|state| *state == BusState::Up).await;
        node
    }

    async fn until(&self, is_so: impl FnMut(&BusState) -> bool) {
        let mut state = self.house.bus.state();
        assert!(tokio::time::timeout(PATIENCE, state.wait_for(is_so)).await.is_ok());
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.tasks.join_all()).await.expect("it does not stop");
    }
}

#[tokio::test]
async fn users_of_two_hubs_talk_and_resume_at_the_other_one() {
    let redis = RedisServer::start().await;
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let mut alice = one.house.connect("userId=alice").await;
    let (mut bob, welcome) = two.house.join("userId=bob").await;
    for number in 1..=50 {
        alice.says("bob", r#"{"seq":1}"#, &format!("c{number}")).await;
    }
    alice.sends(&json!({"type": "message", "to": "bob", "data": {"seq": 7}, "id": "last"})).await;
    for seq in 1..=51 {
        assert_eq!(alice.hears().await["seq"], seq);
        assert_eq!(bob.hears().await["seq"], seq);
    }
    drop(bob);
    alice.says("bob", "while you were away", "c99").await;
    assert_eq!(alice.hears().await["type"], "ack");
    let epoch = welcome["epoch"].as_str().unwrap();
    let (mut bob, welcome) = one.house.join(&format!("userId=bob&since=51&epoch={epoch}")).await;
    assert_eq!(welcome["resumed"], true);
    assert_eq!(bob.hears().await["id"], "c99");
    alice.sends(&json!({"type": "typing", "to": "bob"})).await;
    assert_eq!(bob.hears().await["type"], "typing");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_redis_that_fails_refuses_sends_and_goes_on_when_it_is_back() {
    let mut redis = RedisServer::start().await;
    let node = Node::start(&redis).await;
    let mut alice = node.house.connect("userId=alice").await;
    let mut bob = node.house.connect("userId=bob").await;
    alice.says("bob", "one", "c1").await;
    assert_eq!(alice.hears().await["type"], "ack");
    assert_eq!(bob.hears().await["seq"], 1);

    redis.kill();
    node.until(|state| *state != BusState::Up).await;
    alice.says("bob", "two", "c2").await;
    let refused = alice.hears().await;
    assert_eq!(
        (&refused["code"], &refused["id"], &refused["retryable"]),
        (&json!("bus_unavailable"), &json!("c2"), &json!(true))
    );
    let (mut carol, blind) = node.house.join("userId=carol").await;
    assert_eq!(
        (&blind["epoch"], &blind["seq"], &blind["resumed"]),
        (&json!(""), &json!(0), &json!(false))
    );

    redis.up().await;
    node.until(|state| *state == BusState::Up).await;
    let found = carol.hears().await;
    assert_eq!((&found["type"], &found["seq"]), (&json!("reset"), &json!(0)));
    assert_ne!(found["epoch"], "");
    for user in ["bob", "carol"] {
        alice.says(user, "again", "c2").await;
        assert_eq!(alice.hears().await["type"], "ack");
    }
    let (of_bob, of_carol) = (bob.hears().await, carol.hears().await);
    assert_eq!((&of_bob["seq"], &of_bob["id"]), (&json!(2), &json!("c2")), "he missed nothing");
    assert_eq!((&of_carol["seq"], &of_carol["id"]), (&json!(1), &json!("c2")));
    node.stop().await;
}

#[tokio::test]
async fn a_history_that_is_wiped_under_a_live_socket_is_told() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis).await;
    let (mut bob, welcome) = node.house.join("userId=bob").await;
    for number in 1..=3 {
        node.house.publish("bob", &format!("c{number}")).await;
        assert_eq!(bob.hears().await["seq"], number);
    }
    redis.run(&["FLUSHALL"]).await;
    node.house.publish("bob", "d1").await;
    let reset = bob.hears().await;
    assert_eq!((&reset["type"], &reset["seq"]), (&json!("reset"), &json!(0)));
    assert_ne!(reset["epoch"], welcome["epoch"]);
    assert_eq!(bob.hears().await["id"], "d1");
    node.stop().await;
}

#[tokio::test]
async fn a_join_that_takes_longer_than_a_pong_may_closes_nobody() {
    let redis = RedisServer::start().await;
    let hub = HubSettings {
        ping_interval: Duration::from_millis(500),
        pong_timeout: Duration::from_millis(400),
        ..HubSettings::default()
    };
    let node = Node::start_with(&redis, &hub, COMMAND_TIMEOUT).await;
    redis.pause();
    let (mut bob, welcome) = node.house.join("userId=bob").await;
    assert_eq!((&welcome["epoch"], &welcome["resumed"]), (&json!(""), &json!(false)));
    redis.resume();
    assert_eq!(bob.hears().await["type"], "reset");
    node.stop().await;
}

/// Publishes until the bus takes it: a machine that is busy enough makes its own connections look dead.
async fn taken(node: &Node, user: &str, id: &str) {
    let tries = async {
        while node.house.try_publish(user, id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, tries).await.expect("the bus stays away");
}

#[tokio::test]
async fn a_crowd_misses_nothing_where_all_are_interrupted_at_once() {
    const CROWD: usize = 1_500;
    let redis = RedisServer::start().await;
    // Nobody reads for as long as the whole crowd joins: a ping, and the first comes at any moment, finds no answer.
    let long = Duration::from_mins(10);
    let hub = HubSettings { ping_interval: long, pong_timeout: long, ..HubSettings::default() };
    let start = || Node::start_with(&redis, &hub, PATIENCE);
    let (crowd, speaker) = (start().await, start().await);
    let names: Vec<_> = (0..CROWD).map(|user| format!("user{user}")).collect();
    let queries: Vec<_> = names.iter().map(|user| format!("userId={user}")).collect();
    let joins = queries.iter().map(|query| crowd.house.join(query).boxed());
    let mut clients = Vec::new();
    for (mut client, welcome) in join_all(joins.collect::<Vec<_>>()).await {
        // Welcomed while the bus was away: where he stands comes later, and what comes before that is not his.
        if welcome["epoch"] == "" {
            assert_eq!(client.hears().await["type"], "reset");
        }
        clients.push(client);
    }
    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    join_all(names.iter().map(|user| taken(&speaker, user, "1").boxed())).await;
    crowd.until(|state| *state == BusState::Up).await;
    join_all(names.iter().map(|user| taken(&speaker, user, "2").boxed())).await;
    for client in &mut clients {
        let heard = [client.hears().await, client.hears().await];
        assert_eq!(heard.map(|frame| frame["seq"].clone()), [json!(1), json!(2)]);
    }
    crowd.stop().await;
    speaker.stop().await;
}

#[tokio::test]
async fn at_most_once_leaves_nothing_in_redis_and_is_heard_at_every_hub() {
    let mut redis = RedisServer::start().await;
    let settings = HubSettings { delivery: DeliveryMode::AtMostOnce, ..HubSettings::default() };
    let one = Node::start_with(&redis, &settings, COMMAND_TIMEOUT).await;
    let two = Node::start_with(&redis, &settings, COMMAND_TIMEOUT).await;
    let mut alice = one.house.connect("userId=alice").await;
    let mut bob = two.house.connect("userId=bob").await;
    for id in ["c1", "c1", "c2"] {
        alice.says("bob", "x", id).await;
        let ack = alice.hears().await;
        assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(0), &json!(false)));
        let message = bob.hears().await;
        assert_eq!((&message["seq"], &message["id"]), (&json!(0), &json!(id)));
    }
    for kept in ["inbox:*", "meta:*", "seen:*"] {
        assert_eq!(redis.run(&["KEYS", kept]).await, "*0\r\n");
    }

    redis.kill();
    one.until(|state| *state != BusState::Up).await;
    two.until(|state| *state != BusState::Up).await;
    alice.says("bob", "x", "c3").await;
    assert_eq!(alice.hears_error().await, ("bus_unavailable".to_owned(), json!("c3")));
    let (mut carol, welcome) = two.house.join("userId=carol&since=3&epoch=e").await;
    assert_eq!((&welcome["epoch"], &welcome["resumed"]), (&json!(""), &json!(false)));
    redis.up().await;
    one.until(|state| *state == BusState::Up).await;
    two.until(|state| *state == BusState::Up).await;
    for (user, reader) in [("bob", &mut bob), ("carol", &mut carol)] {
        alice.says(user, "x", "c4").await;
        assert_eq!(alice.hears().await["type"], "ack");
        assert_eq!(reader.hears().await["id"], "c4", "nothing else is told");
    }
    one.stop().await;
    two.stop().await;
}
