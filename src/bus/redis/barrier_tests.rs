//! Acknowledged means that replicas have it, where that is asked for.

use std::time::Duration;

use super::tests::{COMMAND_TIMEOUT, Node, PATIENCE, settings, until_taken};
use super::*;
use crate::bus::redis_server::RedisServer;
use crate::settings::Fence;

fn envelope(id: &str) -> Envelope<'_> {
    Envelope { to: "bob", from: "alice", id, at_ms: 5, head: b"{\"seq\":", tail: b"}" }
}

async fn node(redis: &RedisServer, command_timeout: Duration) -> Node {
    let mut settings = settings(&redis.url(), command_timeout);
    settings.redis.min_replicas = 1;
    let mut node = Node::start_of(&settings);
    node.up().await;
    node
}

#[tokio::test]
async fn without_its_replica_nothing_is_acknowledged_and_a_repeat_waits_again() {
    let primary = RedisServer::start().await;
    let node = node(&primary, 4 * COMMAND_TIMEOUT).await;
    let before = node.bus.read("bob", 0).await.unwrap();
    let refused = node.bus.publish(envelope("1")).await.unwrap_err();
    assert!(refused.to_string().contains("only 0 of 1 replicas"), "{refused}");
    let replica = RedisServer::start_replica(&primary).await;
    // With its first replica a primary takes another replication id: nothing is taken before we have looked at it anew.
    let taken = until_taken!(node.bus.publish(envelope("1")));
    assert_eq!((taken.seq, taken.duplicate), (1, true), "it was stored the first time");
    assert_eq!(until_taken!(node.bus.read("bob", 0)).epoch, before.epoch);

    // It has time: what it waits for is not over before its reads are.
    let patient = self::node(&primary, 4 * PATIENCE).await;
    replica.pause();
    assert!(node.bus.publish(envelope("2")).await.is_err());
    assert!(node.bus.publish(envelope("2")).await.is_err(), "a repeat is no better than the first");
    // What needs no replica goes on meanwhile.
    let bus = patient.bus.clone();
    let mut waits = std::pin::pin!(bus.publish(envelope("3")));
    let reads = async { while patient.bus.read("bob", 0).await.unwrap().messages.len() < 3 {} };
    tokio::select! {
        answer = &mut waits => panic!("reads wait for replicas: {answer:?}"),
        () = reads => {}
    }
    replica.resume();
    waits.await.unwrap();
    assert!(until_taken!(node.bus.publish(envelope("2"))).duplicate);
    patient.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_on_the_replica() {
    let primary = RedisServer::start().await;
    let replica = RedisServer::start_replica(&primary).await;
    let node = node(&primary, Duration::from_secs(5)).await;
    let ids: Vec<_> = (1..=500).map(|id| id.to_string()).collect();
    let publishes = ids.iter().map(|id| node.bus.publish(envelope(id)));
    let taken = futures_util::future::try_join_all(publishes).await.unwrap();
    assert_eq!(taken.last().map(|receipt| receipt.seq), Some(500));
    let counter = replica.run(&["HGET", "meta:{chat:bob}", "seq"]).await;
    assert_eq!(counter, "$3\r\n500\r\n");
    // One barrier serves many; a publish each would have taken one each.
    let barriers = primary.run(&["INFO", "commandstats"]).await;
    let calls: u32 = barriers
        .split_once("cmdstat_wait:calls=")
        .and_then(|(_, rest)| rest.split(',').next()?.parse().ok())
        .unwrap();
    assert!(calls < 50, "{calls} barriers for 500 messages");
    node.stop().await;
}

#[tokio::test]
async fn a_history_that_only_a_barrier_sees_to_be_another_is_settled_anew() {
    let primary = RedisServer::start_with(&["--repl-backlog-ttl", "1"]).await;
    let replica = RedisServer::start_replica(&primary).await;
    let mut settings = settings(&primary.url(), 4 * COMMAND_TIMEOUT);
    settings.redis.min_replicas = 1;
    // Scripts do not look, here.
    settings.redis.fence = Fence::Connection;
    let mut node = Node::start_of(&settings);
    node.up().await;
    until_taken!(node.bus.publish(envelope("1")));
    replica.promote().await;
    // Without a replica for a while, a primary takes another replication id by itself.
    primary.until(&["INFO", "replication"], "repl_backlog_active:0").await;
    replica.follow(&primary).await;
    let taken = until_taken!(node.bus.publish(envelope("2")));
    assert_eq!((taken.seq, node.metrics().histories.get()), (2, 0));
    node.stop().await;
}

#[tokio::test]
async fn a_barrier_ends_with_its_connection() {
    let primary = RedisServer::start().await;
    let mut settings = settings(&primary.url(), Duration::from_secs(20));
    settings.redis.min_replicas = 1;
    let mut node = Node::start_of(&settings);
    node.up().await;
    let began = tokio::time::Instant::now();
    let bus = node.bus.clone();
    let mut publish = std::pin::pin!(bus.publish(envelope("1")));
    // It is stored and waits for a replica that there is not.
    let stored = primary.until(&["INFO", "clients"], "blocked_clients:1");
    tokio::select! {
        answer = &mut publish => panic!("{answer:?}"),
        () = stored => {}
    }
    primary.run(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    assert!(publish.await.is_err());
    assert!(began.elapsed() < Duration::from_secs(15), "refused after {:?}", began.elapsed());
    node.up().await;
    node.stop().await;
}
