//! Devices and presence over two gateway processes on one Redis: limits, deaths, hangs, outages.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::chat::{Chat, Refused, open};
use crate::harness::http::get;
use crate::harness::redis::RedisServer;
use crate::harness::{eventually, within};
use crate::running::Process;

const LEASE: Duration = Duration::from_secs(2);

/// One gateway process, and where its hub is.
struct Node {
    process: Process,
    hub: SocketAddr,
    proxy: SocketAddr,
}

impl Node {
    async fn start(redis: &RedisServer, over_limit: &str) -> Self {
        let url = format!("REDIS_URL={}", redis.url());
        let policy = format!("CONF__HUB__OVER_LIMIT={over_limit}");
        let variables = [
            url.as_str(),
            policy.as_str(),
            "CONF__HUB__MAX_CONNECTIONS_PER_USER=3",
            "CONF__BUS__LEASE=2s",
            // Sockets that a test does not read for a while answer no ping.
            "CONF__HUB__PING_INTERVAL=10m",
            "CONF__HUB__PONG_TIMEOUT=9m",
            "CONF__BUS__REDIS__COMMAND_TIMEOUT=500ms",
            "CONF__BUS__REDIS__RECONNECT_MAX=200ms",
        ];
        let mut process = Process::start(&[], &variables);
        let proxy = process.address("proxy").await;
        let hub = process.address("hub region 1").await;
        let node = Self { process, hub, proxy };
        node.ready(200).await;
        node
    }

    async fn ready(&self, status: u16) {
        eventually("readiness", async || get(self.proxy, "/ready", "").await.status == status)
            .await;
    }
}

async fn watch(chat: &mut Chat, users: &[&str]) {
    chat.send(json!({"type": "presence", "users": users})).await;
}

/// Reads on to a frame that says so of `user`, and gives when he was seen.
async fn told(chat: &mut Chat, user: &str, online: bool) -> Value {
    within("a presence frame", async {
        loop {
            let frame = chat.hears().await;
            if (&frame["type"], &frame["userId"], &frame["online"])
                == (&json!("presence"), &json!(user), &json!(online))
            {
                return frame["lastSeen"].clone();
            }
        }
    })
    .await
}

/// The socket of one who may be closed before he is welcomed.
async fn come(hub: SocketAddr, user: &str) -> Result<Chat, Refused> {
    let socket = open(hub, &format!("/?userId={user}"), &[]).await?;
    Ok(Chat { socket, welcome: Value::Null })
}

/// Tries until somebody is let in.
async fn let_in(hub: SocketAddr, user: &str) -> Chat {
    within("a free seat", async {
        loop {
            if let Ok(chat) = come(hub, user).await {
                return chat;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_limit_holds_over_nodes_however_many_come_at_once() {
    let redis = RedisServer::start().await;
    let nodes = [Node::start(&redis, "refuse").await, Node::start(&redis, "refuse").await];
    let rush = (0..60).map(|index| {
        let hub = nodes[index % 2].hub;
        come(hub, "bob")
    });
    let mut came = Vec::new();
    for answer in futures_util::future::join_all(rush).await {
        match answer {
            Ok(socket) => came.push(socket),
            Err(refused) => {
                assert_eq!((refused.status, refused.code.as_str()), (429, "too_many_connections"));
            }
        }
    }
    assert_eq!(came.len(), 3);
    drop(came.pop());
    let _again = let_in(nodes[0].hub, "bob").await;
}

#[tokio::test]
async fn the_oldest_makes_way_wherever_it_is() {
    let redis = RedisServer::start().await;
    let one = Node::start(&redis, "close-oldest").await;
    let two = Node::start(&redis, "close-oldest").await;
    let mut oldest = Chat::join(one.hub, "bob").await;
    let mut others = Vec::new();
    for hub in [two.hub, one.hub, two.hub] {
        others.push(Chat::join(hub, "bob").await);
    }
    assert_eq!(oldest.closed().await, 4001);
    let mut alice = Chat::join(one.hub, "alice").await;
    alice.say("bob", "hi", "c1").await;
    for other in &mut others {
        assert_eq!(other.hears_type("message").await["text"], "hi", "the others stay");
    }
    // A rush: as many as may stay, whoever they are.
    let rush = (0..30).map(|index| come([one.hub, two.hub][index % 2], "carol"));
    let came = futures_util::future::join_all(rush).await;
    let zcard = async || redis.run(&["ZCARD", "seats:{chat:carol}"]).await;
    eventually("the limit", async || zcard().await == ":3\r\n").await;
    let mut open: JoinSet<_> =
        came.into_iter().map(|chat| async { chat.unwrap().closed().await }).collect();
    while open.len() > 3 {
        assert_eq!(
            within("the end of one too many", open.join_next()).await.unwrap().unwrap(),
            4001
        );
    }
    // Nobody else goes, as far as another exchange shows.
    alice.say("carol", "hi", "c2").await;
    assert!(open.try_join_next().is_none(), "one of those who may stay was closed");
}

#[tokio::test]
async fn a_killed_node_frees_its_seats_and_its_users_are_offline_within_a_lease() {
    let redis = RedisServer::start().await;
    let one = Node::start(&redis, "refuse").await;
    let two = Node::start(&redis, "refuse").await;
    let mut alice = Chat::join(two.hub, "alice").await;
    watch(&mut alice, &["bob"]).await;
    assert_eq!(told(&mut alice, "bob", false).await, Value::Null);
    let mut bobs = Vec::new();
    for _ in 0..3 {
        bobs.push(Chat::join(one.hub, "bob").await);
    }
    told(&mut alice, "bob", true).await;
    assert_eq!(open(two.hub, "/?userId=bob", &[]).await.unwrap_err().status, 429);
    let killed = Instant::now();
    one.process.signal("KILL").await;
    let seen = told(&mut alice, "bob", false).await;
    assert!(killed.elapsed() <= 2 * LEASE, "{:?}", killed.elapsed());
    assert!(seen.is_string());
    for _ in 0..3 {
        bobs.push(Chat::join(two.hub, "bob").await);
    }
    told(&mut alice, "bob", true).await;
}

#[tokio::test]
async fn a_node_that_hung_comes_right_again() {
    let redis = RedisServer::start().await;
    let one = Node::start(&redis, "refuse").await;
    let two = Node::start(&redis, "refuse").await;
    let mut alice = Chat::join(two.hub, "alice").await;
    watch(&mut alice, &["bob", "carol"]).await;
    let (_bob, mut carol) = (Chat::join(one.hub, "bob").await, Chat::join(one.hub, "carol").await);
    told(&mut alice, "bob", true).await;
    one.process.signal("STOP").await;
    told(&mut alice, "bob", false).await;
    one.process.signal("CONT").await;
    told(&mut alice, "bob", true).await;
    carol.say("alice", "back", "c1").await;
}

#[tokio::test]
async fn an_outage_and_a_flush_restore_seats_and_presence() {
    let mut redis = RedisServer::start().await;
    let one = Node::start(&redis, "refuse").await;
    let two = Node::start(&redis, "refuse").await;
    let mut alice = Chat::join(two.hub, "alice").await;
    let bobs = [Chat::join(one.hub, "bob").await, Chat::join(one.hub, "bob").await];
    watch(&mut alice, &["bob"]).await;
    told(&mut alice, "bob", true).await;
    redis.kill();
    one.ready(503).await;
    // One who comes while nobody can be asked is let in, and counts later.
    let late = Chat::join(one.hub, "bob").await;
    redis.up().await;
    one.ready(200).await;
    two.ready(200).await;
    let seats = async || redis.run(&["ZCARD", "seats:{chat:bob}"]).await;
    eventually("the seats are said again", async || seats().await == ":3\r\n").await;
    assert_eq!(open(two.hub, "/?userId=bob", &[]).await.unwrap_err().status, 429);
    redis.run(&["FLUSHALL"]).await;
    eventually("the seats are said again", async || seats().await == ":3\r\n").await;
    drop((bobs, late));
    told(&mut alice, "bob", false).await;
}
