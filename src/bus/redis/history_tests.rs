//! Positions mean what they meant, or the epoch says that they do not: every way in which Redis loses or keeps its
//! data, against real servers.

use std::time::Duration;

use super::tests::{COMMAND_TIMEOUT, Node, settings, until_taken};
use super::*;
use crate::bus::Replay;
use crate::bus::redis_server::RedisServer;
use crate::bus::relay::Relay;
use crate::settings::Fence;

async fn send(node: &Node, to: &str, id: &str) -> Receipt {
    let (head, tail) = (format!(r#"{{"id":"{id}","seq":"#), b"}");
    let envelope = Envelope { to, from: "alice", id, at_ms: 5, head: head.as_bytes(), tail };
    until_taken!(node.bus.publish(envelope))
}

async fn send_all(node: &Node, to: &str, ids: impl Iterator<Item = u32>) {
    for id in ids {
        send(node, to, &id.to_string()).await;
    }
}

async fn read(node: &Node, user: &str, after: Seq) -> Replay {
    until_taken!(node.bus.read(user, after))
}

fn ids(replay: &Replay) -> Vec<(Seq, String)> {
    let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
    replay.messages.iter().map(|(seq, payload)| (*seq, text(payload))).collect()
}

fn entry(id: u32, seq: Seq) -> (Seq, String) {
    (seq, format!(r#"{{"id":"{id}","seq":{seq}}}"#))
}

/// A bus that reaches `redis` through a relay, with this fence.
async fn node_behind(redis: &RedisServer, fence: Fence) -> (Node, Relay) {
    let relay = Relay::before_port(redis.port()).await;
    let mut settings = settings(&format!("redis://127.0.0.1:{}", relay.port()), COMMAND_TIMEOUT);
    settings.redis.fence = fence;
    let mut node = Node::start_of(&settings);
    node.up().await;
    (node, relay)
}

#[tokio::test]
async fn a_kill_with_an_append_only_file_keeps_the_epoch_also_for_a_new_process() {
    let mut redis = RedisServer::start().await;
    let mut old = Node::start(&redis);
    old.up().await;
    send_all(&old, "bob", 1..=3).await;
    let before = read(&old, "bob", 0).await;
    redis.kill();
    old.down().await;
    old.stop().await;
    redis.up().await;
    let mut new = Node::start(&redis);
    new.up().await;
    assert_eq!(read(&new, "bob", 0).await, before);
    assert!(send(&new, "bob", "3").await.duplicate);
    assert_eq!(send(&new, "bob", "4").await.seq, 4);
    new.stop().await;
}

#[tokio::test]
async fn a_snapshot_of_everything_keeps_the_epoch_where_somebody_can_tell() {
    let mut redis = RedisServer::start_with_snapshots().await;
    let mut node = Node::start(&redis);
    node.up().await;
    send_all(&node, "bob", 1..=3).await;
    let before = read(&node, "bob", 0).await;
    redis.shut_down_with_snapshot().await;
    node.down().await;
    redis.up().await;
    node.up().await;
    assert_eq!(read(&node, "bob", 0).await, before);

    redis.shut_down_with_snapshot().await;
    node.down().await;
    node.stop().await;
    redis.up().await;
    let mut stranger = Node::start(&redis);
    stranger.up().await;
    let after = read(&stranger, "bob", 0).await;
    assert_ne!(after.epoch, before.epoch, "nobody could know that nothing was lost");
    assert_eq!((after.top, after.messages), (3, before.messages), "what is there goes on");
    stranger.stop().await;
}

#[tokio::test]
async fn a_lost_tail_is_another_epoch_also_where_its_numbers_were_given_out_again() {
    let mut redis = RedisServer::start_with_snapshots().await;
    let mut node = Node::start(&redis);
    node.up().await;
    send_all(&node, "bob", 1..=3).await;
    redis.run(&["SAVE"]).await;
    send_all(&node, "bob", 4..=5).await;
    let before = read(&node, "bob", 0).await;
    let gaps = node.heard.gaps();
    redis.kill();
    node.down().await;
    redis.up().await;
    send_all(&node, "bob", 6..=8).await;
    let after = read(&node, "bob", 5).await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!((after.top, ids(&after)), (6, vec![entry(8, 6)]));
    node.heard.until("everybody is told to look", |heard| heard.gaps() > gaps).await;
    // What was lost is stored when it comes again, and what was not is not.
    assert!(!send(&node, "bob", "5").await.duplicate);
    assert!(send(&node, "bob", "3").await.duplicate);
    node.stop().await;
}

#[tokio::test]
async fn who_has_a_witness_breaks_a_line_that_others_went_on_with() {
    let mut redis = RedisServer::start().await;
    let (mut node, relay) = node_behind(&redis, Fence::Script).await;
    send_all(&node, "bob", 1..=3).await;
    let copy = redis.copy_files();
    send_all(&node, "bob", 4..=5).await;
    let before = read(&node, "bob", 0).await;
    // The network takes one process away; Redis comes back without its tail, and a new process cannot know.
    relay.refuse();
    relay.cut_all();
    node.down().await;
    redis.kill();
    redis.replace_files(&copy);
    redis.up().await;
    let mut stranger = Node::start(&redis);
    stranger.up().await;
    send_all(&stranger, "bob", 14..=15).await;
    assert_eq!(read(&stranger, "bob", 0).await.epoch, before.epoch, "how could it know?");
    let gaps = stranger.heard.gaps();

    relay.pass();
    node.up().await;
    let after = read(&node, "bob", 5).await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.top, 5);
    stranger.heard.until("it is told, too", |heard| heard.gaps() > gaps).await;
    assert_eq!(read(&stranger, "bob", 5).await.epoch, after.epoch);
    node.stop().await;
    stranger.stop().await;
}

/// Five messages that only the old primary has, then seven under the same numbers on the promoted replica.
async fn promoted_too_early(fence: Fence) -> (Replay, Replay) {
    let primary = RedisServer::start().await;
    let (mut node, relay) = node_behind(&primary, fence).await;
    send_all(&node, "bob", 1..=100).await;
    let replica = RedisServer::start_replica(&primary).await;
    replica.cut().await;
    send_all(&node, "bob", 101..=105).await;
    let before = read(&node, "bob", 95).await;
    assert_eq!(before.top, 105);
    relay.refuse();
    relay.cut_all();
    node.down().await;
    replica.promote().await;
    relay.switch_to_port(replica.port());
    relay.pass();
    node.up().await;
    send_all(&node, "bob", 201..=207).await;
    let after = read(&node, "bob", 105).await;
    assert_eq!((after.top, ids(&after)), (107, vec![entry(206, 106), entry(207, 107)]));
    node.stop().await;
    (before, after)
}

#[tokio::test]
async fn a_promoted_replica_is_another_epoch() {
    for fence in [Fence::Script, Fence::Connection] {
        let (before, after) = promoted_too_early(fence).await;
        assert_ne!(after.epoch, before.epoch, "with the fence {fence:?}");
    }
    let (before, after) = promoted_too_early(Fence::Off).await;
    assert_eq!(after.epoch, before.epoch, "the fence is what tells");
}

#[tokio::test]
async fn a_primary_that_was_a_replica_meanwhile_is_another_epoch_though_it_is_the_same_process() {
    let primary = RedisServer::start().await;
    let mut node = Node::start(&primary);
    node.up().await;
    send_all(&node, "bob", 1..=3).await;
    let replica = RedisServer::start_replica(&primary).await;
    replica.promote().await;
    send_all(&node, "bob", 4..=5).await;
    let before = read(&node, "bob", 0).await;
    primary.follow(&replica).await;
    primary.promote().await;
    let after = read(&node, "bob", 3).await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!((after.top, after.messages), (3, vec![]));
    node.stop().await;
}

#[tokio::test]
async fn lost_keys_are_another_epoch_or_show_what_is_missing() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    send_all(&node, "bob", 1..=2).await;
    let before = read(&node, "bob", 0).await;
    let gaps = node.heard.gaps();
    redis.run(&["FLUSHALL"]).await;
    let after = read(&node, "bob", 0).await;
    assert_eq!((after.top, after.messages.len()), (0, 0));
    assert_ne!(after.epoch, before.epoch);
    node.heard.until("sockets that idle are told", |heard| heard.gaps() > gaps).await;
    assert_eq!(send(&node, "bob", "1").await.seq, 1);

    // The counter alone is gone: neither what is left of the old inbox nor an old receipt may pass for the new one's.
    redis.run(&["DEL", "meta:{chat:bob}"]).await;
    let again = send(&node, "bob", "1").await;
    assert_eq!((again.seq, again.duplicate), (1, false));
    let again = read(&node, "bob", 0).await;
    assert_eq!((again.top, ids(&again)), (1, vec![entry(1, 1)]));
    assert_ne!(again.epoch, after.epoch);
    // The inbox alone is gone: positions go on, nothing is made up, and what is missing shows.
    redis.run(&["DEL", "inbox:{chat:bob}"]).await;
    let rest = read(&node, "bob", 0).await;
    assert_eq!((rest.top, rest.messages.len()), (1, 0));
    assert_eq!(send(&node, "bob", "4").await.seq, 2);
    let rest = read(&node, "bob", 0).await;
    assert_eq!((rest.top, ids(&rest)), (2, vec![entry(4, 2)]));
    assert_eq!(rest.epoch, again.epoch);
    node.stop().await;
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_by_the_next_connection() {
    let redis = RedisServer::start().await;
    let mut node = Node::start(&redis);
    node.up().await;
    let before = read(&node, "bob", 0).await;
    redis.run(&["SCRIPT", "FLUSH"]).await;
    let envelope = Envelope { to: "bob", from: "alice", id: "1", at_ms: 1, head: b"", tail: b"" };
    let refused = node.bus.publish(envelope).await;
    assert!(refused.is_err(), "sent again, it may be overtaken: {refused:?}");
    assert_eq!(send(&node, "bob", "1").await.seq, 1);
    assert_eq!(read(&node, "bob", 0).await.epoch, before.epoch);
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_refuses_info_says_which_setting_helps() {
    let redis = RedisServer::start().await;
    let made =
        redis.run(&["ACL", "SETUSER", "hub", "on", ">pw", "~*", "&*", "+@all", "-info"]).await;
    assert_eq!(made, "+OK\r\n");
    let url = format!("redis://hub:pw@127.0.0.1:{}", redis.port());
    let mut settings = settings(&url, COMMAND_TIMEOUT);
    for fence in [Fence::Script, Fence::Connection] {
        settings.redis.fence = fence;
        let mut node = Node::start_of(&settings);
        let told = |state: &BusState| matches!(state, BusState::Down(why) if why.contains("bus.redis.fence"));
        node.until("it says what to do", told).await;
        node.stop().await;
    }
    settings.redis.fence = Fence::Off;
    let mut node = Node::start_of(&settings);
    node.up().await;
    assert_eq!(send(&node, "bob", "1").await.seq, 1);
    node.stop().await;
}
