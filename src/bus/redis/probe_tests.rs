//! A network that swallows everything, and a server that is not what it was: noticed soon, recovered without help.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::tests::{COMMAND_TIMEOUT, Node, settings};
use super::*;
use crate::bus::contract::{Recorder, send};
use crate::bus::redis_server::RedisServer;
use crate::bus::relay::Relay;

const INTERVAL: Duration = Duration::from_millis(400);

/// Two intervals, and what a busy machine takes.
const NOTICED: Duration = Duration::from_millis(2 * 400 + 1_000);

async fn behind(relay: &Relay) -> Node {
    let mut settings = settings(&format!("redis://127.0.0.1:{}", relay.port()), COMMAND_TIMEOUT);
    settings.redis.probe_interval = INTERVAL;
    let mut node = Node::start_of(&settings);
    node.up().await;
    node
}

async fn assert_recovers(node: &mut Node, subscription: &crate::bus::Subscription, id: &str) {
    node.up().await;
    subscription.confirmed().await.unwrap();
    let receipt = send(&node.bus, "bob", id).await;
    node.heard.until("messages flow again", |heard| heard.last("bob") == Some(receipt.seq)).await;
}

#[tokio::test]
async fn a_black_hole_is_noticed_within_two_intervals_and_outlived() {
    let redis = RedisServer::start().await;
    let relay = Relay::before_port(redis.port()).await;
    let (mut node, mut elsewhere) = (behind(&relay).await, Node::start(&redis));
    elsewhere.up().await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();
    let holes: [fn(&Relay); 3] =
        [Relay::black_hole, Relay::black_hole_requests, Relay::black_hole_replies];
    for (number, hole) in holes.into_iter().enumerate() {
        let lost = node.metrics().probes_lost.get();
        let gaps = node.heard.gaps();
        hole(&relay);
        let began = Instant::now();
        node.down().await;
        assert!(began.elapsed() < NOTICED, "hole {number}: noticed after {:?}", began.elapsed());
        assert!(node.metrics().probes_lost.get() > lost, "hole {number}: {:?}", node.state());
        let missed = send(&elsewhere.bus, "bob", &format!("missed {number}")).await.seq;
        // Also what is connected anew while the hole is there must not stay in it.
        node.until("a connection was replaced", |state| {
            matches!(state, BusState::Down(why) if why.contains("lost Redis") || why.contains("cannot"))
        })
        .await;
        relay.pass();
        assert_recovers(&mut node, &subscription, &number.to_string()).await;
        let heard = |heard: &Recorder| heard.seqs("bob").contains(&missed) || heard.gaps() > gaps;
        node.heard.until("it came, or everybody was told to look", heard).await;
    }
    node.stop().await;
    elsewhere.stop().await;
}

#[tokio::test]
async fn a_detached_replica_behind_the_address_is_noticed_and_left() {
    let primary = RedisServer::start().await;
    let replica = RedisServer::start_replica(&primary).await;
    replica.cut().await;
    let relay = Relay::before_port(primary.port()).await;
    let mut node = behind(&relay).await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();
    relay.switch_to_port(replica.port());
    relay.cut_all();
    node.until(
        "it says what is there",
        |state| matches!(state, BusState::Down(why) if why.contains("it is a replica")),
    )
    .await;
    relay.switch_to_port(primary.port());
    relay.cut_all();
    assert_recovers(&mut node, &subscription, "1").await;
    node.stop().await;
}

#[tokio::test]
async fn a_late_probe_is_told_of_and_costs_no_connection() {
    let redis = RedisServer::start().await;
    let relay = Relay::before_port(redis.port()).await;
    let mut settings =
        settings(&format!("redis://127.0.0.1:{}", relay.port()), Duration::from_secs(5));
    settings.redis.probe_interval = Duration::from_millis(100);
    let mut node = Node::start_of(&settings);
    node.up().await;
    relay.black_hole();
    node.down().await;
    relay.pass();
    node.up().await;
    assert_eq!(node.metrics().reconnects.get(), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_stayed_behind_at_the_old_primary_is_replaced_by_itself() {
    let (old, new) = (RedisServer::start().await, RedisServer::start().await);
    let server = |redis: &RedisServer| {
        let settings = settings(&redis.url(), COMMAND_TIMEOUT).redis;
        Setup::new(&settings).unwrap().nodes.remove(0)
    };
    let (old, new) = (server(&old), server(&new));
    let finders = (Finder::Fixed(old.clone()), Finder::Fixed(new.clone()));
    let usual = settings("redis://h", COMMAND_TIMEOUT);
    let common = RedisBus::new(&usual, &mut Registry::default()).unwrap().common;
    let shard = Shard::new(finders, FIRST, &Tag::of_all(), &common);
    let stop = CancellationToken::new();
    let looks = async {
        let mut parts = shard.health.parts();
        parts.wait_for(health::Parts::connected).await.unwrap();
        let link = shard.commands.link().unwrap();
        shard.stay_at(&old);
        assert!(link.breaker.tripped().now_or_never().is_none());
        shard.stay_at(&new);
        let why = link.breaker.tripped().now_or_never().unwrap_or_default();
        assert!(why.contains("the Sentinels name"), "{why}");
        stop.cancel();
    };
    tokio::join!(shard.run(&stop), looks);
}
