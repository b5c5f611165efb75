//! Backends that accept WebSockets and drop them.

use super::*;
use crate::proxy::tests::tunnels::{ASK, SWITCH};

/// A backend that accepts every WebSocket and then does this with it, on and on.
async fn accepting<F: Future<Output = ()> + Send>(
    then: impl Fn(Peer) -> F + Send + 'static,
) -> (String, JoinSet<()>) {
    let backend = Backend::start().await;
    let url = backend.url();
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Ok((stream, _)) = backend.0.accept().await {
            let mut peer = Peer::new(stream);
            peer.head().await;
            peer.say(SWITCH).await;
            then(peer).await;
        }
    });
    (url, task)
}

/// Opens so many WebSockets one after the other, each until it is over, and says how many reached the second backend.
async fn visits(gateway: &Gateway, count: usize) -> u64 {
    for _ in 0..count {
        let mut client = gateway.connect().await;
        client.say(ASK).await;
        client.gets(101, "").await;
        client.rest().await;
        drop(client);
        gateway.idle().await;
    }
    gateway.shared.snapshot()[0].backends[1].requests
}

fn state(gateway: &Gateway) -> &'static str {
    gateway.shared.snapshot()[0].backends[0].health.state
}

#[tokio::test]
async fn a_backend_that_drops_what_it_accepts_is_ejected() {
    let (drops, _drops) = accepting(async |peer| drop(peer)).await;
    let (resets, _resets) = accepting(async |peer| peer.stream.set_zero_linger().unwrap()).await;
    let (fails, _fails) = accepting(async |mut peer| peer.say([0x88, 2, 3, 0xf3]).await).await;
    let (well, _well) = accepting(async |mut peer| peer.say([0x88, 2, 3, 0xe8]).await).await;
    for ill in [drops, resets, fails] {
        let gateway = Gateway::start(&[&ill, &well], |_| {}).await;
        let reached = visits(&gateway, 20).await;
        assert_eq!((state(&gateway), reached), ("ejected", 15));
        assert_eq!(
            gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"early_close\"}"),
            5
        );
    }
}

#[tokio::test]
async fn nobody_is_blamed_for_clients_that_leave_nor_for_what_is_said_in_order() {
    // 1000, 1008, 1012.
    for code in [0xe8, 0xf0, 0xf4] {
        let (closes, _task) =
            accepting(move |mut peer| async move { peer.say([0x88, 2, 3, code]).await }).await;
        let gateway = Gateway::start(&[&closes, &closes], |_| {}).await;
        visits(&gateway, 20).await;
        assert_eq!(state(&gateway), "up", "{code}");
    }
    // Nor for dropping what is no WebSocket.
    let (refuses, _task) = accepting(async |mut peer| peer.hears("irc").await).await;
    let gateway = Gateway::start(&[&refuses, &refuses], |_| {}).await;
    for _ in 0..20 {
        let mut client = gateway.connect().await;
        client.say(ASK).await;
        client.gets(101, "").await;
        client.say("irc").await;
        client.rest().await;
        drop(client);
        gateway.idle().await;
    }
    assert_eq!(state(&gateway), "up");
    let (waits, _task) = accepting(async |mut peer| drop(peer.rest().await)).await;
    let gateway = Gateway::start(&[&waits], |_| {}).await;
    for reset in [false, true].repeat(6) {
        let mut client = gateway.connect().await;
        client.say(ASK).await;
        client.gets(101, "").await;
        if reset {
            client.stream.set_zero_linger().unwrap();
        }
        drop(client);
        gateway.idle().await;
    }
    assert_eq!(state(&gateway), "up");
}

#[tokio::test]
async fn a_tunnel_that_has_lasted_is_a_good_word_and_its_end_no_bad_one() {
    let (drops, _task) = accepting(async |mut peer| {
        peer.hears("go").await;
    })
    .await;
    let gateway = Gateway::among(&[("1", region(&[&drops, &drops], "strict"))], |bounds| {
        bounds.health.early_close = Duration::from_millis(1);
    })
    .await;
    for _ in 0..10 {
        let mut client = gateway.connect().await;
        client.say(ASK).await;
        client.gets(101, "").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.say("go").await;
        client.rest().await;
        drop(client);
        gateway.idle().await;
    }
    assert_eq!(state(&gateway), "up");
}
