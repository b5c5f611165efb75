//! Two gateways over one Redis, as on two machines.

use serde_json::json;

use crate::harness::chat::Chat;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::http::get;
use crate::harness::redis::RedisServer;

async fn node(redis: &RedisServer) -> Gateway {
    let gateway = Gateway::start(|settings| {
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = redis.port();
    })
    .await;
    ready(&gateway, 200).await;
    gateway
}

async fn ready(gateway: &Gateway, status: u16) {
    eventually("readiness", async || get(gateway.proxy(), "/ready", "").await.status == status)
        .await;
}

#[tokio::test]
async fn users_on_two_nodes_talk() {
    let redis = RedisServer::start().await;
    let (left, right) = (node(&redis).await, node(&redis).await);
    let mut alice = Chat::join(left.hub("1"), "alice").await;
    let mut bob = Chat::join(right.hub("2"), "bob").await;
    for index in 0..50 {
        let ack = alice.say("bob", &format!("{index}"), &format!("c{index}")).await;
        assert_eq!(ack["seq"], index + 1);
        assert_eq!(bob.hears_type("message").await["text"], format!("{index}"));
    }
    bob.send(json!({"type": "typing", "to": "alice"})).await;
    assert_eq!(alice.hears_type("typing").await["from"], "bob");
    let again = alice.say("bob", "0", "c0").await;
    assert_eq!((&again["duplicate"], &again["seq"]), (&json!(true), &json!(1)));
    drop(bob);
    alice.say("bob", "while away", "c50").await;
    let mut bob =
        Chat::resume(left.hub("1"), "bob", 50, alice_epoch(&redis, &left).await.as_str()).await;
    assert_eq!(bob.welcome["resumed"], true);
    assert_eq!(bob.hears_type("message").await["text"], "while away");
    left.stop().await.unwrap();
    right.stop().await.unwrap();
}

/// The epoch of bob's inbox, as a fresh socket of his is told.
async fn alice_epoch(_: &RedisServer, node: &Gateway) -> String {
    Chat::join(node.hub("2"), "bob").await.epoch()
}

#[tokio::test]
async fn any_client_of_redis_may_listen_in() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let mut listener = redis.listener("chat:bob").await;
    let mut alice = Chat::join(node.hub("1"), "alice").await;
    alice.send(json!({"type": "typing", "to": "bob"})).await;
    alice.say("bob", "hi", "c1").await;
    listener.hears(r#""region":"1","seq":1,"ts":""#).await;
    let heard = listener.so_far();
    assert!(
        heard.contains(r#"{"type":"message","id":"c1","from":"alice","to":"bob","text":"hi""#),
        "{heard}"
    );
    assert!(!heard.contains("typing"), "{heard}");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn without_redis_sends_are_refused_and_http_goes_on() {
    let mut redis = RedisServer::start().await;
    let node = node(&redis).await;
    let mut alice = Chat::join(node.hub("1"), "alice").await;
    let mut bob = Chat::join(node.hub("2"), "bob").await;
    redis.kill();
    ready(&node, 503).await;
    assert!(get(node.proxy(), "/ready", "").await.text().contains("bus"));
    alice.send(json!({"type": "message", "to": "bob", "text": "x", "id": "c1"})).await;
    let error = alice.hears_type("error").await;
    assert_eq!(
        (&error["code"], &error["retryable"], &error["id"]),
        (&json!("bus_unavailable"), &json!(true), &json!("c1"))
    );
    assert_eq!(get(node.proxy(), "/health", "").await.status, 200);
    // A socket that comes meanwhile is let in, and told later where it stands.
    let mut carol = Chat::join(node.hub("1"), "carol").await;
    redis.up().await;
    ready(&node, 200).await;
    carol.hears_type("reset").await;
    alice.say("bob", "x", "c1").await;
    let heard = loop {
        let frame = bob.hears().await;
        if frame["type"] == "message" {
            break frame;
        }
        assert_eq!(frame["type"], "reset");
    };
    assert_eq!(heard["text"], "x");
    alice.say("carol", "and you", "c2").await;
    assert_eq!(carol.hears_type("message").await["text"], "and you");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn the_gateway_starts_before_redis_does() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let port = redis.port();
    let node = Gateway::start(|settings| {
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = port;
    })
    .await;
    assert_eq!(get(node.proxy(), "/health", "").await.status, 200);
    ready(&node, 503).await;
    redis.up().await;
    ready(&node, 200).await;
    let mut alice = Chat::join(node.hub("1"), "alice").await;
    alice.say("alice", "note to self", "c1").await;
    node.stop().await.unwrap();
}
