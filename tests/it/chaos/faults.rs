//! What breaks: a function for each fault, over a size.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::sleep;

use super::stage::{Single, Size, Stage, in_step};
use crate::harness::redis::RedisServer;
use crate::harness::redis::cluster::RedisCluster;
use crate::harness::redis::sentinel::SentinelSet;
use crate::harness::relay::Relay;
use crate::harness::report::{Line, Losses};

type Fault = fn(Size) -> Pin<Box<dyn Future<Output = Line>>>;

/// Every fault, by the name that `scripts/chaos.sh` and the report call it.
pub(super) const ALL: &[(&str, Fault)] = &[
    (RESTART, |size| Box::pin(async move { restart(&size).await })),
    (PAUSE, |size| Box::pin(async move { pause(&size).await })),
    (KILL_SUBSCRIBERS, |size| Box::pin(async move { kill_subscribers(&size).await })),
    (KILL_CLIENTS, |size| Box::pin(async move { kill_clients(&size).await })),
    (LOST_REPLIES, |size| Box::pin(async move { lost_replies(&size).await })),
    (BLACK_HOLE_ONE, |size| Box::pin(async move { black_hole_one(&size).await })),
    (BLACK_HOLE_ALL, |size| Box::pin(async move { black_hole_all(&size).await })),
    (STOP_NODE, |size| Box::pin(async move { stop_node(&size).await })),
    (KILL_NODE, |size| Box::pin(async move { kill_node(&size).await })),
    (PROMOTION, |size| Box::pin(async move { promotion(&size).await })),
    (SENTINEL_FAILOVER, |size| Box::pin(async move { sentinel_failover(&size).await })),
    (CLUSTER_FAILOVER, |size| Box::pin(async move { cluster_failover(&size).await })),
];

const RESTART: &str = "redis-restart";
const PAUSE: &str = "redis-pause";
const KILL_SUBSCRIBERS: &str = "kill-pubsub";
const KILL_CLIENTS: &str = "kill-normal";
const LOST_REPLIES: &str = "lost-replies";
const BLACK_HOLE_ONE: &str = "black-hole-one";
const BLACK_HOLE_ALL: &str = "black-hole-all";
const STOP_NODE: &str = "node-stop";
const KILL_NODE: &str = "node-kill";
const PROMOTION: &str = "promotion";
const SENTINEL_FAILOVER: &str = "sentinel-failover";
const CLUSTER_FAILOVER: &str = "cluster-failover";

/// Between two strokes of a fault that strikes several times.
const STROKES_APART: Duration = Duration::from_millis(400);

/// Redis is killed with -9 and started again; its append-only file is written before each answer.
pub(super) async fn restart(size: &Size) -> Line {
    let mut bus = Single::start().await;
    let stage = Stage::open(size, bus.urls()).await;
    bus.redis.kill();
    sleep(size.outage / 2).await;
    bus.redis.up().await;
    stage.close(RESTART, Losses::Never).await
}

/// Redis stands still; connections stay, and nothing is answered for longer than a command may take.
pub(super) async fn pause(size: &Size) -> Line {
    let bus = Single::start().await;
    let stage = Stage::open(size, bus.urls()).await;
    bus.redis.pause();
    sleep(size.outage).await;
    bus.redis.resume();
    stage.close(PAUSE, Losses::Never).await
}

/// Redis ends all subscribing connections, three times.
pub(super) async fn kill_subscribers(size: &Size) -> Line {
    kill(size, KILL_SUBSCRIBERS, "pubsub").await
}

/// Redis ends all other connections, three times.
pub(super) async fn kill_clients(size: &Size) -> Line {
    kill(size, KILL_CLIENTS, "normal").await
}

async fn kill(size: &Size, fault: &'static str, kind: &str) -> Line {
    let bus = Single::start().await;
    let stage = Stage::open(size, bus.urls()).await;
    for _ in 0..3 {
        let answer = bus.redis.run(&["CLIENT", "KILL", "TYPE", kind]).await;
        assert!(answer.starts_with(':'), "{answer}");
        sleep(STROKES_APART).await;
    }
    stage.close(fault, Losses::Never).await
}

/// What Redis did is not heard of: its answers are dropped for a moment, and then the connections cut, three times.
pub(super) async fn lost_replies(size: &Size) -> Line {
    let bus = Single::start().await;
    let stage = Stage::open(size, bus.urls()).await;
    for _ in 0..3 {
        for relay in &bus.relays {
            relay.drop_replies();
        }
        sleep(STROKES_APART).await;
        for relay in &bus.relays {
            relay.cut_all();
            relay.pass();
        }
        // Until there is something to lose again.
        stage.pairs.talked(size.messages_a_second() / 4).await;
    }
    stage.close(LOST_REPLIES, Losses::Never).await
}

/// The network between the first node and Redis swallows everything.
pub(super) async fn black_hole_one(size: &Size) -> Line {
    black_hole(size, BLACK_HOLE_ONE, 1).await
}

/// The network between both nodes and Redis swallows everything.
pub(super) async fn black_hole_all(size: &Size) -> Line {
    black_hole(size, BLACK_HOLE_ALL, 2).await
}

async fn black_hole(size: &Size, fault: &'static str, nodes: usize) -> Line {
    let bus = Single::start().await;
    let stage = Stage::open(size, bus.urls()).await;
    for relay in &bus.relays[..nodes] {
        relay.black_hole();
    }
    sleep(size.outage).await;
    for relay in &bus.relays {
        relay.pass();
    }
    stage.close(fault, Losses::Never).await
}

/// A node is told to stop, drains, and is started again; its clients go to the other.
pub(super) async fn stop_node(size: &Size) -> Line {
    let bus = Single::start().await;
    let mut stage = Stage::open(size, bus.urls()).await;
    stage.nodes[0].terminate().await;
    stage.nodes[0].up();
    stage.nodes[0].is_ready(true).await;
    stage.close(STOP_NODE, Losses::Never).await
}

/// A node is killed with -9, and started again after a while; its clients go to the other.
pub(super) async fn kill_node(size: &Size) -> Line {
    let bus = Single::start().await;
    let mut stage = Stage::open(size, bus.urls()).await;
    stage.nodes[0].kill().await;
    sleep(size.outage / 2).await;
    stage.nodes[0].up();
    stage.nodes[0].is_ready(true).await;
    stage.close(KILL_NODE, Losses::Never).await
}

/// A replica is cut off, the primary goes on for a while, and then the replica takes its place: what was acknowledged
/// in between is gone, and its positions are given out again.
pub(super) async fn promotion(size: &Size) -> Line {
    let bus = Single::start().await;
    let link = Relay::before_port(bus.redis.port()).await;
    let replica = RedisServer::start().await;
    replica.run(&["REPLICAOF", "127.0.0.1", &link.port().to_string()]).await;
    in_step(&replica).await;
    let stage = Stage::open(size, bus.urls()).await;
    link.refuse();
    link.cut_all();
    stage.pairs.talked(size.messages_a_second()).await;
    replica.run(&["REPLICAOF", "NO", "ONE"]).await;
    for relay in &bus.relays {
        relay.switch_to_port(replica.port());
        relay.cut_all();
    }
    stage.close(PROMOTION, Losses::Told).await
}

/// The primary that Sentinels watch is killed, and they promote its replica.
pub(super) async fn sentinel_failover(size: &Size) -> Line {
    let mut set = SentinelSet::start(1, 3).await;
    let stage = Stage::open(size, [set.url(), set.url()]).await;
    let primary = set.primary().await;
    set.servers[primary].kill();
    set.promoted(primary).await;
    stage.close(SENTINEL_FAILOVER, Losses::Told).await
}

/// One of the three primaries of a Cluster is killed, and its replica takes over its slots.
pub(super) async fn cluster_failover(size: &Size) -> Line {
    let mut cluster = RedisCluster::start(3, true).await;
    let stage = Stage::open(size, [cluster.url(), cluster.url()]).await;
    let slot = cluster.slot("chat:u0").await;
    let primary = cluster.owner(slot).await;
    cluster.servers[primary].kill();
    cluster.promoted(slot, primary).await;
    stage.close(CLUSTER_FAILOVER, Losses::Told).await
}
