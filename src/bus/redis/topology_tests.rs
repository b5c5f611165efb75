//! The bus over Sentinels, a Cluster, TLS, and with logins: the contract, and what becomes of it when primaries change.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::tests::{COMMAND_TIMEOUT, Node, settings};
use super::*;
use crate::bus::contract::{self, send, try_send};
use crate::bus::redis_server::RedisServer;
use crate::bus::redis_server::cluster::RedisCluster;
use crate::bus::redis_server::sentinel::SentinelSet;
use crate::bus::redis_server::tls::TlsServer;
use crate::settings::{InboxSettings, RedisSettings, Secret};

/// A failover takes some seconds, and more on a loaded machine.
const FAILOVER: Duration = Duration::from_mins(2);

/// Sends until the bus takes it: what is refused may be repeated.
async fn send_until_taken(node: &Node, to: &str, id: &str) -> Receipt {
    let sending = async {
        loop {
            if let Ok(receipt) = try_send(&node.bus, to, id).await {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(FAILOVER, sending).await.expect("nothing is taken any more")
}

#[tokio::test]
async fn keeps_the_contract_over_sentinels() {
    let set = SentinelSet::start(0, 1).await;
    let mut node = Node::start_with(&set.url(), COMMAND_TIMEOUT);
    node.up().await;
    contract::run(&node.bus, &node.heard, 10).await;
    node.stop().await;
}

#[tokio::test]
async fn keeps_the_contract_over_a_cluster() {
    let cluster = RedisCluster::start(3, false).await;
    let mut node = Node::start_with(&cluster.url(), COMMAND_TIMEOUT);
    node.up().await;
    contract::run(&node.bus, &node.heard, 10).await;
    assert_eq!(node.metrics().shards.get(), 3);
    node.stop().await;
}

#[tokio::test]
async fn keeps_the_contract_over_tls_with_certificates_both_ways() {
    let tls = TlsServer::start(true).await;
    let settings = RedisSettings {
        url: Some(Secret::new(tls.url())),
        tls_ca: Some(tls.files.ca.clone()),
        tls_cert: Some(tls.files.cert.clone()),
        tls_key: Some(tls.files.key.clone()),
        ..RedisSettings::default()
    };
    let mut node = Node::start_at(settings.clone());
    node.up().await;
    contract::run(&node.bus, &node.heard, 10).await;
    node.stop().await;

    let nameless = RedisSettings { tls_cert: None, tls_key: None, ..settings.clone() };
    let distrustful = RedisSettings { tls_ca: None, ..settings };
    for wrong in [nameless, distrustful] {
        let mut node = Node::start_at(wrong);
        let why = |state: &BusState| matches!(state, BusState::Down(why) if why.contains("ertificate") || why.contains("UnknownIssuer"));
        node.until("it says why", why).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn logs_in_at_sentinels_and_at_the_servers_they_name() {
    let set = SentinelSet::start(0, 1).await;
    set.sentinels[0].run(&["ACL", "SETUSER", "default", "resetpass", ">watchword"]).await;
    set.servers[0].run(&["ACL", "SETUSER", "hub", "on", ">s3cret", "~*", "&*", "+@all"]).await;
    set.servers[0].run(&["ACL", "SETUSER", "default", "off"]).await;
    let settings = RedisSettings {
        url: Some(Secret::new(set.url().replace("://", "://hub:s3cret@"))),
        sentinel_password: Some(Secret::new("watchword")),
        ..RedisSettings::default()
    };
    let mut node = Node::start_at(settings);
    node.up().await;
    send(&node.bus, "bob", "1").await;
    node.stop().await;
}

#[tokio::test]
async fn a_primary_that_dies_is_replaced_by_whom_the_sentinels_name() {
    let mut set = SentinelSet::start(1, 3).await;
    let mut node = Node::start_with(&set.url(), COMMAND_TIMEOUT);
    node.up().await;
    let subscription = node.bus.subscribe("bob");
    subscription.confirmed().await.unwrap();
    let before = (send(&node.bus, "bob", "1").await, node.bus.read("bob", 0).await.unwrap().epoch);
    set.servers[1].until(&["EXISTS", "inbox:{chat:bob}"], ":1").await;
    set.servers[0].kill();
    node.down().await;
    set.promoted(0).await;
    let receipt = send_until_taken(&node, "bob", "2").await;
    assert_eq!((before.0.seq, receipt.seq), (1, 2));
    node.up().await;
    send(&node.bus, "bob", "3").await;
    node.heard.until("it is heard at the new one", |heard| heard.last("bob") == Some(3)).await;
    let after = node.bus.read("bob", 0).await.unwrap();
    assert_ne!(after.epoch, before.1, "what the old one had alone is gone, and nobody is told");
    node.stop().await;
}

#[tokio::test]
async fn a_primary_that_lost_its_place_but_not_its_connections_is_left() {
    let set = SentinelSet::start(1, 1).await;
    let mut node = Node::start_with(&set.url(), COMMAND_TIMEOUT);
    node.up().await;
    send(&node.bus, "bob", "1").await;
    // It is named no more, takes writes all the same, and nobody closes its connections.
    set.servers[1].run(&["REPLICAOF", "NO", "ONE"]).await;
    let new = set.servers[1].port().to_string();
    let words = ["SENTINEL", "REMOVE", "mymaster"];
    assert_eq!(set.sentinels[0].run(&words).await, "+OK\r\n");
    let words = ["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &new, "1"];
    assert_eq!(set.sentinels[0].run(&words).await, "+OK\r\n");
    node.until(
        "it says why",
        |state| matches!(state, BusState::Down(why) if why.contains("Sentinels name")),
    )
    .await;
    node.up().await;
    send(&node.bus, "bob", "2").await;
    assert!(
        set.servers[1].run(&["LRANGE", "inbox:{chat:bob}", "-1", "-1"]).await.contains("\"2\"")
    );
    node.stop().await;
}

#[tokio::test]
async fn two_nodes_hear_each_other_over_a_cluster_and_so_does_a_listener_outside() {
    let cluster = RedisCluster::start(3, false).await;
    let (mut one, mut two) = (
        Node::start_with(&cluster.url(), COMMAND_TIMEOUT),
        Node::start_with(&cluster.url(), COMMAND_TIMEOUT),
    );
    one.up().await;
    two.up().await;
    let owner = cluster.owner(cluster.slot("chat:bob").await).await;
    let mut outside = cluster.servers[owner].sharded_listener("chat:bob").await;
    let listening = two.bus.subscribe("bob");
    listening.confirmed().await.unwrap();
    send(&one.bus, "bob", "1").await;
    two.heard.until("the message came", |heard| heard.seqs("bob") == [1]).await;
    outside.hears(r#"{"type":"message","id":"1","seq":1,"more":""}"#).await;
    drop(listening);
    let words = ["PUBSUB", "SHARDNUMSUB", "chat:bob"];
    cluster.servers[owner].until(&words, "chat:bob\r\n:1\r\n").await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn users_whose_slot_moves_under_traffic_lose_nothing() {
    let mut cluster = RedisCluster::start(3, false).await;
    let new = cluster.grow().await;
    let mut node = Node::start_with(&cluster.url(), Duration::from_secs(3));
    node.up().await;
    let bob = node.bus.subscribe("bob");
    bob.confirmed().await.unwrap();
    let slot = cluster.slot("chat:bob").await;
    let old = cluster.owner(slot).await;
    let traffic = async {
        for number in 1..=300 {
            send_until_taken(&node, "bob", &number.to_string()).await;
        }
    };
    let moves = async {
        node.heard.until("traffic flows", |heard| heard.last("bob") > Some(5)).await;
        for (from, to) in [(old, new), (new, old), (old, new)] {
            cluster.begin_migration(slot, from, to).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            cluster.finish_migration(slot, from, to).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(traffic, moves);
    // What came between the two shards nobody heard; the gap that was told leads to the inbox.
    node.heard.until("a gap was told", |heard| heard.gaps() > 1).await;
    send_until_taken(&node, "bob", "last").await;
    node.heard.until("the last came", |heard| heard.last("bob") == Some(301)).await;
    let heard = node.heard.seqs("bob");
    assert!(heard.is_sorted_by(|one, next| one < next), "doubled or out of order: {heard:?}");
    let inbox = node.bus.read("bob", 291).await.unwrap();
    assert_eq!((inbox.top, inbox.messages.len()), (301, 10));
    assert_eq!(cluster.owner(slot).await, new);
    node.stop().await;
}

/// Sends as a socket does: many at a time, of which the oldest is waited for.
async fn send_in_a_row(node: &Node, to: &str, numbers: std::ops::RangeInclusive<u64>) {
    let mut under_way = VecDeque::new();
    for number in numbers {
        let mut sending = Box::pin(async move { send(&node.bus, to, &number.to_string()).await });
        match futures_util::poll!(sending.as_mut()) {
            Poll::Ready(receipt) => under_way.push_back(async move { receipt }.boxed()),
            Poll::Pending => under_way.push_back(sending.boxed()),
        }
        if under_way.len() == 32
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await;
        }
    }
    for sending in under_way {
        sending.await;
    }
}

#[tokio::test]
async fn what_many_send_at_a_time_is_taken_once_while_the_slot_moves() {
    const COUNT: u64 = 1_500;
    let cluster = RedisCluster::start(2, false).await;
    let usual = settings(&cluster.url(), Duration::from_secs(5));
    let inbox = InboxSettings { max_messages: 2_000.try_into().unwrap(), ..usual.inbox };
    let mut node = Node::start_of(&BusSettings { inbox, ..usual });
    node.up().await;
    let slot = cluster.slot("chat:bob").await;
    let old = cluster.owner(slot).await;
    let new = 1 - old;
    let bob = node.bus.subscribe("bob");
    bob.confirmed().await.unwrap();
    let moves = async {
        for (from, to) in [(old, new), (new, old), (old, new), (new, old)] {
            cluster.begin_migration(slot, from, to).await;
            cluster.finish_migration(slot, from, to).await;
            // What was sent to the server of before is through, and live again.
            let last = node.heard.last("bob");
            node.heard.until("it goes on", |heard| heard.last("bob") > last).await;
        }
    };
    tokio::join!(send_in_a_row(&node, "bob", 1..=COUNT), moves);
    let inbox = node.bus.read("bob", 0).await.unwrap();
    let id = |text: &Bytes| -> u64 {
        let frame: serde_json::Value = serde_json::from_slice(text).unwrap();
        frame["id"].as_str().unwrap().parse().unwrap()
    };
    let mut ids: Vec<_> = inbox.messages.iter().map(|(_, text)| id(text)).collect();
    // One that was tried again may stand behind others that were under way with it.
    ids.sort_unstable();
    assert_eq!(ids, (1..=COUNT).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test]
async fn a_primary_of_a_cluster_that_dies_is_replaced_and_only_its_users_are_told() {
    let mut cluster = RedisCluster::start(3, true).await;
    let mut node = Node::start_with(&cluster.url(), COMMAND_TIMEOUT);
    node.up().await;
    let slot = cluster.slot("chat:bob").await;
    let owner = cluster.owner(slot).await;
    let bob = node.bus.subscribe("bob");
    bob.confirmed().await.unwrap();
    let mut number = 0;
    let other = loop {
        number += 1;
        let name = format!("other{number}");
        if cluster.owner(cluster.slot(&format!("chat:{name}")).await).await != owner {
            break name;
        }
    };
    let others = node.bus.subscribe(&other);
    others.confirmed().await.unwrap();
    send(&node.bus, "bob", "1").await;
    let epoch = node.bus.read("bob", 0).await.unwrap().epoch;
    let replica = owner + 3;
    cluster.servers[replica].until(&["INFO", "replication"], "master_link_status:up").await;
    cluster.servers[replica].has_what(&cluster.servers[owner]).await;
    node.heard.forget_gaps();

    cluster.servers[owner].kill();
    node.down().await;
    // The others' shard works meanwhile.
    assert_eq!(send(&node.bus, &other, "1").await.seq, 1);
    let receipt = send_until_taken(&node, "bob", "2").await;
    assert_eq!(receipt.seq, 2);
    node.up_within(FAILOVER).await;
    send(&node.bus, "bob", "3").await;
    node.heard.until("it is heard", |heard| heard.last("bob") == Some(3)).await;
    assert_ne!(node.bus.read("bob", 0).await.unwrap().epoch, epoch);
    assert!(node.heard.was_told("bob") && !node.heard.was_told(&other));

    // The dead one comes back as a replica, and takes no part.
    cluster.servers[owner].up().await;
    cluster.works().await;
    assert_eq!(send(&node.bus, "bob", "4").await.seq, 4);
    node.stop().await;
}

#[tokio::test]
async fn a_cluster_is_found_by_any_node_and_waited_for() {
    let mut server = RedisServer::prepare();
    let mut node =
        Node::start_with(&format!("redis-cluster://127.0.0.1:{}", server.port()), COMMAND_TIMEOUT);
    let wanted = node.bus.subscribe("bob");
    assert!(wanted.confirmed().await.is_err());
    assert!(try_send(&node.bus, "bob", "1").await.is_err());
    server.up().await;
    let why = |state: &BusState| matches!(state, BusState::Down(why) if why.contains("cluster support disabled"));
    node.until("a plain server is found out", why).await;
    node.stop().await;

    let cluster = RedisCluster::start(2, false).await;
    let replica = cluster.servers[1].port();
    let mut node =
        Node::start_with(&format!("redis-cluster://127.0.0.1:{replica}"), COMMAND_TIMEOUT);
    let wanted = node.bus.subscribe("bob");
    node.up().await;
    wanted.confirmed().await.unwrap();
    send(&node.bus, "bob", "1").await;
    node.heard.until("it is heard", |heard| heard.last("bob") == Some(1)).await;
    node.stop().await;
}
