//! The client library in Node: its own tests, and two users of it on a gateway that is taken away.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::harness::gateway::Gateway;
use crate::harness::http::get;
use crate::harness::node::node;
use crate::harness::redis::RedisServer;
use crate::harness::{eventually, within};

#[tokio::test]
async fn it_keeps_its_promises_on_a_wire_of_the_tests_own() {
    let mut tests = node("library.test.mjs").await;
    let done = within("the tests of the library", tests.output()).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

async fn gateway(redis: &RedisServer, port: u16) -> Gateway {
    let gateway = Gateway::start(|settings| {
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = redis.port();
        settings.proxy.port = port;
    })
    .await;
    eventually("readiness", async || get(gateway.proxy(), "/ready", "").await.status == 200).await;
    gateway
}

/// Reads on until `count` more messages were acknowledged.
async fn acknowledged(lines: &mut Lines<BufReader<ChildStdout>>, count: usize) {
    let mut seen = 0;
    while seen < count {
        let line = within("an acknowledgement", lines.next_line()).await.unwrap();
        let line: Value = serde_json::from_str(&line.expect("it runs on")).unwrap();
        seen += usize::from(line.get("acknowledged").is_some());
    }
}

/// The gateway drains and another takes its place, twice; Redis is killed and comes back; bob starts anew half way.
#[tokio::test]
async fn every_message_arrives_once_and_in_order_whatever_goes_away() {
    const COUNT: usize = 400;
    let mut redis = RedisServer::start().await;
    let mut node_process = node("soak.mjs").await;
    let mut up = gateway(&redis, 0).await;
    let address = up.proxy();
    node_process.args([address.to_string(), COUNT.to_string()]).stdout(Stdio::piped());
    let mut running = node_process.spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        acknowledged(&mut lines, COUNT / 5).await;
        up.stop().await.unwrap();
        up = gateway(&redis, address.port()).await;
    }
    acknowledged(&mut lines, COUNT / 5).await;
    redis.kill();
    redis.up().await;
    let mut last = Value::Null;
    let mut resets = 0;
    while let Some(line) = within("the end", lines.next_line()).await.unwrap() {
        last = serde_json::from_str(&line).unwrap();
        resets += usize::from(last.get("reset").is_some());
    }
    let expected: Vec<_> = (0..COUNT).map(|index| format!("message {index}")).collect();
    assert_eq!(last, json!({"all": expected}));
    assert_eq!(resets, 0, "Redis kept its data, so nothing was missing");
    assert!(within("its end", running.wait()).await.unwrap().success());
    up.stop().await.unwrap();
}
