//! Chat as its users meet it: through the proxy and on the hubs, in one region and across two.

use serde_json::json;

use crate::harness::chat::{self, Chat};
use crate::harness::gateway::Gateway;
use crate::harness::http::get;

#[tokio::test]
async fn two_users_in_two_regions_talk_both_ways() {
    let gateway = Gateway::start(|_| ()).await;
    let mut alice = Chat::at(gateway.proxy(), "/ws?userId=alice&region=1").await;
    let mut bob = Chat::at(gateway.proxy(), "/ws?userId=bob&region=2").await;
    assert_eq!(alice.welcome["region"], "1");
    assert_eq!(alice.welcome["userId"], "alice");
    assert_eq!(alice.welcome["pingIntervalMs"], 600_000);
    assert_eq!(alice.welcome["maxTextBytes"], 16_384);
    assert_eq!(alice.welcome["seq"], 0);
    let ack = alice.say("bob", "hi \u{1f600}", "c1").await;
    assert_eq!(
        (&ack["id"], &ack["seq"], &ack["duplicate"]),
        (&json!("c1"), &json!(1), &json!(false))
    );
    let heard = bob.hears_type("message").await;
    assert_eq!(heard["ts"], ack["ts"]);
    humantime::parse_rfc3339(ack["ts"].as_str().unwrap()).unwrap();
    for (field, value) in
        [("id", "c1"), ("from", "alice"), ("to", "bob"), ("text", "hi \u{1f600}"), ("region", "1")]
    {
        assert_eq!(heard[field], value);
    }
    assert_eq!(heard["seq"], 1);
    bob.say("alice", "hi back", "d1").await;
    assert_eq!(alice.hears_type("message").await["text"], "hi back");
}

#[tokio::test]
async fn the_header_names_the_region_of_a_socket_too() {
    let gateway = Gateway::start(|_| ()).await;
    let headers = [("x-region", "2")];
    let socket = chat::open(gateway.proxy(), "/ws?userId=alice&region=1", &headers).await.unwrap();
    let mut alice = Chat { socket, welcome: json!(null) };
    assert_eq!(alice.hears_type("welcome").await["region"], "2");
}

#[tokio::test]
async fn refusals_of_the_handshake() {
    let gateway = Gateway::start(|settings| {
        settings.hub.allowed_origins = vec!["https://chat.example".into()];
        settings.hub.max_connections_per_user = std::num::NonZeroUsize::MIN;
    })
    .await;
    let hub = gateway.hub("1");
    for (target, headers, status, code) in [
        ("/", &[][..], 400, "user_invalid"),
        ("/?userId=", &[], 400, "user_invalid"),
        ("/?userId=a%20b", &[], 400, "user_invalid"),
        ("/?userId=a%7Bb", &[], 400, "user_invalid"),
        ("/?userId=%C3%A9", &[], 400, "user_invalid"),
        ("/?userId=a", &[("origin", "https://evil.example")], 403, "origin_forbidden"),
        ("/?userId=a", &[("sec-websocket-version", "8")], 426, "upgrade_required"),
    ] {
        for (address, target) in [
            (hub, target.to_owned()),
            (hub, target.replacen('/', "/ws", 1)),
            (
                gateway.proxy(),
                format!("{}&region=1", target.replacen('/', "/ws?", 1).replace("??", "?")),
            ),
        ] {
            let refused = chat::open(address, &target, headers).await.expect_err(&target);
            assert_eq!((refused.status, refused.code.as_str()), (status, code), "{target}");
        }
    }
    let old = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = get(hub, "/?userId=a", old).await;
    // RFC 9110, 15.5.22.
    assert_eq!((refused.status, refused.header("upgrade")), (426, Some("websocket")));
    let long = "a".repeat(129);
    let refused = chat::open(hub, &format!("/?userId={long}"), &[]).await.unwrap_err();
    assert_eq!(refused.code, "user_invalid");
    let plain = get(hub, "/?userId=a", "").await;
    assert_eq!((plain.status, plain.code().as_str()), (400, "upgrade_required"));
    let first = Chat::at(hub, "/?userId=solo").await;
    let refused = chat::open(hub, "/ws?userId=solo", &[]).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (429, "too_many_connections"));
    drop(first);
    let allowed = [("origin", "https://chat.example")];
    assert!(chat::open(hub, "/?userId=b", &allowed).await.is_ok());
}

#[tokio::test]
async fn a_repeat_is_acknowledged_again_and_delivered_once() {
    let gateway = Gateway::start(|_| ()).await;
    let mut alice = Chat::join(gateway.hub("1"), "alice").await;
    let mut bob = Chat::join(gateway.hub("2"), "bob").await;
    let first = alice.say("bob", "once", "c1").await;
    let again = alice.say("bob", "once", "c1").await;
    assert_eq!(again["duplicate"], true);
    assert_eq!((&again["seq"], &again["ts"]), (&first["seq"], &first["ts"]));
    alice.say("bob", "next", "c2").await;
    assert_eq!(bob.hears_type("message").await["text"], "once");
    assert_eq!(bob.hears_type("message").await["text"], "next");
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_what_it_missed() {
    let gateway = Gateway::start(|_| ()).await;
    let mut alice = Chat::join(gateway.hub("1"), "alice").await;
    let mut bob = Chat::join(gateway.hub("2"), "bob").await;
    let epoch = bob.epoch();
    alice.say("bob", "one", "c1").await;
    let seen = bob.hears_type("message").await["seq"].as_u64().unwrap();
    drop(bob);
    alice.say("bob", "two", "c2").await;
    alice.say("bob", "three", "c3").await;
    // On the other hub: a position belongs to the user, not to the place.
    let mut bob = Chat::resume(gateway.hub("1"), "bob", seen, &epoch).await;
    assert_eq!((&bob.welcome["resumed"], &bob.welcome["seq"]), (&json!(true), &json!(seen)));
    assert_eq!(bob.hears_type("message").await["text"], "two");
    assert_eq!(bob.hears_type("message").await["text"], "three");
    alice.say("bob", "four", "c4").await;
    assert_eq!(bob.hears_type("message").await["text"], "four");
    // Of another history: nothing can be promised, and everything kept follows.
    let mut bob = Chat::resume(gateway.hub("1"), "bob", 2, "another").await;
    assert_eq!(bob.welcome["resumed"], false);
    for text in ["one", "two", "three", "four"] {
        assert_eq!(bob.hears_type("message").await["text"], text);
    }
}

#[tokio::test]
async fn every_connection_of_a_user_hears_each_message_once() {
    let gateway = Gateway::start(|_| ()).await;
    let mut alice = Chat::join(gateway.hub("1"), "alice").await;
    let mut bobs = vec![
        Chat::join(gateway.hub("1"), "bob").await,
        Chat::join(gateway.hub("2"), "bob").await,
        Chat::at(gateway.proxy(), "/ws?userId=bob&region=1").await,
    ];
    for index in 0..20 {
        alice.say("bob", &format!("{index}"), &format!("c{index}")).await;
    }
    for bob in &mut bobs {
        for index in 0..20 {
            let heard = bob.hears_type("message").await;
            assert_eq!(
                (&heard["text"], &heard["seq"]),
                (&json!(index.to_string()), &json!(index + 1))
            );
        }
    }
}
