//! The API for backends, as they meet it: one message, batches, presence, and where it is mounted.

use std::net::SocketAddr;

use meridian::settings::{ApiKey, DeliveryMode, Settings};
use serde_json::{Value, json};

use crate::harness::backend::Backend;
use crate::harness::chat::Chat;
use crate::harness::eventually;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Answer, exchange, get};
use crate::harness::redis::RedisServer;

const KEY: &str = "a-key-of-the-tests";
pub(crate) const AUTHORIZATION: &str = "Authorization: Bearer a-key-of-the-tests\r\n";

pub(crate) fn with_key(settings: &mut Settings) {
    settings.api.keys.insert("shop".into(), ApiKey::new(KEY));
}

pub(crate) async fn gateway() -> Gateway {
    Gateway::start(with_key).await
}

pub(crate) fn request(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )
}

pub(crate) async fn post_text(api: SocketAddr, body: &str) -> Answer {
    exchange(api, &request("/api/messages", AUTHORIZATION, body)).await
}

pub(crate) async fn post(api: SocketAddr, body: &Value) -> Answer {
    post_text(api, &body.to_string()).await
}

pub(crate) fn message(id: &str, text: &str) -> Value {
    json!({"from": "shop", "to": "bob", "id": id, "text": text})
}

pub(crate) async fn ready(gateway: &Gateway) {
    eventually("readiness", async || get(gateway.api(), "/ready", "").await.status == 200).await;
}

#[tokio::test]
async fn a_message_is_acknowledged_and_arrives_in_both_regions() {
    let gateway = gateway().await;
    let mut bobs =
        [Chat::join(gateway.hub("1"), "bob").await, Chat::join(gateway.hub("2"), "bob").await];
    let body = r#"{"from":"shop","to":"bob","id":"o1","text":"a\u0062","data":{"n":1.50,"k":[ ]}}"#;
    let answer = post_text(gateway.api(), body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-request-id").unwrap().len(), 32);
    let ack = answer.json();
    let fields: Vec<_> = ack.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["duplicate", "id", "seq", "ts", "type"]);
    assert_eq!(
        (&ack["type"], &ack["id"], &ack["seq"], &ack["duplicate"]),
        (&json!("ack"), &json!("o1"), &json!(1), &json!(false))
    );
    for bob in &mut bobs {
        let heard = bob.hears_type("message").await;
        assert_eq!(
            heard,
            json!({"type": "message", "id": "o1", "from": "shop", "to": "bob", "text": "ab",
                "data": {"n": 1.5, "k": []}, "region": "1", "seq": 1, "ts": ack["ts"]})
        );
    }
    // The same again is acknowledged again, and delivered no second time.
    let again = post_text(gateway.api(), body).await.json();
    assert_eq!(
        (&again["duplicate"], &again["seq"], &again["ts"]),
        (&json!(true), &json!(1), &ack["ts"])
    );
    let next = json!({"from": "shop", "to": "bob", "data": null, "region": "2"});
    let next = post(gateway.api(), &next).await.json();
    assert_eq!(next["id"].as_str().unwrap().len(), 22, "an id is made up");
    for bob in &mut bobs {
        let heard = bob.hears_type("message").await;
        assert_eq!((&heard["id"], &heard["region"]), (&next["id"], &json!("2")));
    }
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_message_in_its_order() {
    let gateway = gateway().await;
    let mut bob = Chat::join(gateway.hub("2"), "bob").await;
    let batch = json!([
        message("c1", "one"),
        message("c1", "one"),
        {"from": "shop", "to": "{bob}", "id": "c2", "text": "x"},
        7,
        {"from": "shop", "to": "bob", "id": "c 3", "text": "x"},
        {"from": "shop", "to": "bob", "id": "c4", "text": "x", "region": "mars"},
        {"from": "shop", "to": "bob", "id": "c5", "text": "x".repeat(16_385)},
        {"from": "shop", "to": "bob", "id": "c6"},
        message("c7", "two"),
    ]);
    let answer = post(gateway.api(), &batch).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let results = answer.json()["results"].as_array().unwrap().clone();
    let told: Vec<_> = results
        .iter()
        .map(|result| match &result["error"] {
            Value::Null => (result["id"].clone(), result["duplicate"].to_string()),
            error => {
                assert!(error.get("retryable").is_none(), "{error}");
                assert!(!error["message"].as_str().unwrap().is_empty());
                (error["id"].clone(), error["code"].as_str().unwrap().to_owned())
            }
        })
        .collect();
    let expected = [
        (json!("c1"), "false"),
        (json!("c1"), "true"),
        (json!("c2"), "user_invalid"),
        (json!(null), "bad_frame"),
        (json!(null), "id_invalid"),
        (json!("c4"), "region_unknown"),
        (json!("c5"), "text_too_long"),
        (json!("c6"), "text_empty"),
        (json!("c7"), "false"),
    ];
    assert_eq!(told, expected.map(|(id, what)| (id, what.to_owned())));
    assert_eq!(bob.hears_type("message").await["text"], "one");
    assert_eq!(bob.hears_type("message").await["text"], "two");
}

/// A thousand messages from two senders, in one body, over this gateway's bus.
async fn a_full_batch_keeps_its_order(gateway: &Gateway) {
    let mut bob = Chat::join(gateway.hub("1"), "bob").await;
    let messages: Vec<_> = (0..1_000)
        .map(|index| {
            let from = if index % 3 == 0 { "shop" } else { "bank" };
            json!({"from": from, "to": "bob", "id": format!("c{index}"), "text": format!("{index}")})
        })
        .collect();
    let batch = json!({"messages": messages});
    for is_repeat in [false, true] {
        let answer = post(gateway.api(), &batch).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let results = answer.json()["results"].as_array().unwrap().clone();
        assert_eq!(results.len(), 1_000);
        for (index, result) in results.iter().enumerate() {
            assert_eq!(
                (&result["seq"], &result["duplicate"]),
                (&json!(index + 1), &json!(is_repeat)),
                "{result}"
            );
        }
    }
    for index in 0..1_000 {
        let heard = bob.hears_type("message").await;
        assert_eq!((&heard["text"], &heard["seq"]), (&json!(index.to_string()), &json!(index + 1)));
    }
    let mut over = messages;
    over.push(message("c1000", "x"));
    let answer = post(gateway.api(), &json!(over)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "batch_too_large"));
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("1000"));
}

#[tokio::test]
async fn a_full_batch_on_the_embedded_bus() {
    a_full_batch_keeps_its_order(&gateway().await).await;
}

async fn on_redis(redis: &RedisServer) -> Gateway {
    let gateway = Gateway::start(|settings| {
        with_key(settings);
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = redis.port();
    })
    .await;
    ready(&gateway).await;
    gateway
}

#[tokio::test]
async fn a_full_batch_over_redis() {
    let redis = RedisServer::start().await;
    a_full_batch_keeps_its_order(&on_redis(&redis).await).await;
}

#[tokio::test]
async fn while_the_bus_is_away_posts_are_refused_and_may_be_repeated() {
    let mut redis = RedisServer::start().await;
    let gateway = on_redis(&redis).await;
    redis.kill();
    eventually("the loss", async || get(gateway.api(), "/ready", "").await.status == 503).await;
    let answer = post(gateway.api(), &message("c1", "x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "bus_unavailable"));
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((5..=10).contains(&wait), "{wait}");
    let error = &answer.json()["error"];
    assert_eq!((&error["id"], &error["retryable"]), (&json!("c1"), &json!(true)));
    // A batch of which nothing was taken is no success; each message has its id all the same.
    let batch = json!([message("c1", "x"), 7, {"from": "shop", "to": "bob", "text": "x"}]);
    let answer = post(gateway.api(), &json!([message("c1", "x"), message("c2", "y")])).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "bus_unavailable"));
    assert_eq!(answer.json()["results"][1]["error"]["id"], "c2");
    // What can never be taken is told beside what can.
    let answer = post(gateway.api(), &batch).await;
    assert_eq!(answer.status, 202);
    let results = &answer.json()["results"];
    assert_eq!(results[0]["error"]["retryable"], true);
    assert_eq!(results[1]["error"]["code"], "bad_frame");
    redis.up().await;
    ready(&gateway).await;
    let ack = post(gateway.api(), &message("c1", "x")).await.json();
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn presence_is_told_for_one_and_for_many() {
    presence_is_told(&gateway().await).await;
}

async fn presence_is_told(gateway: &Gateway) {
    let ask = async |query: &str| {
        get(gateway.api(), &format!("/api/presence?{query}"), AUTHORIZATION).await
    };
    let answer = ask("user=bob").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"userId": "bob", "online": false, "lastSeen": null,
            "users": [{"userId": "bob", "online": false, "lastSeen": null}]})
    );
    let bob = Chat::join(gateway.hub("2"), "bob").await;
    eventually("bob online", async || ask("user=bob").await.json()["online"] == true).await;
    drop(bob);
    eventually("bob offline", async || ask("user=bob").await.json()["online"] == false).await;
    let seen = ask("user=bob").await.json()["lastSeen"].clone();
    humantime::parse_rfc3339(seen.as_str().unwrap()).unwrap();
    let many = ask("user=bob&user=a%2Fb").await.json();
    assert_eq!(many["users"][1]["userId"], "a/b");
    assert!(many.get("userId").is_none());
    for query in ["", "user=", "user=a%20b", "name=bob"] {
        let answer = ask(query).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "user_invalid"), "{query}");
    }
}

#[tokio::test]
async fn the_proxy_port_leaves_the_api_of_backends_alone_unless_it_is_told_otherwise() {
    let backend = Backend::saying("mine").await;
    let plain = Gateway::start(|settings| {
        with_key(settings);
        add_backend(settings, "1", backend.address);
    })
    .await;
    let region = format!("x-region: 1\r\n{AUTHORIZATION}");
    let body = message("c1", "x").to_string();
    let answer = exchange(plain.proxy(), &request("/api/messages", &region, &body)).await;
    assert_eq!(answer.text(), "mine");
    assert_eq!(get(plain.proxy(), "/api/docs", &region).await.text(), "mine");
    let mounted = Gateway::start(|settings| {
        with_key(settings);
        add_backend(settings, "1", backend.address);
        settings.api.mount = "/gateway".into();
    })
    .await;
    let answer =
        exchange(mounted.proxy(), &request("/gateway/messages", AUTHORIZATION, &body)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let described = get(mounted.proxy(), "/gateway/openapi.json", "").await.json();
    assert_eq!(described["servers"][0]["url"], "/gateway");
    for path in ["/api/messages", "/gateways", "/"] {
        assert_eq!(get(mounted.proxy(), path, &region).await.text(), "mine", "{path}");
    }
    assert_eq!(get(mounted.proxy(), "/gateway/nothing", "").await.status, 404);
    // The listener of its own is where it always is.
    assert_eq!(get(mounted.api(), "/api/docs", "").await.status, 200);
    let off = Gateway::start(|settings| settings.api.enabled = false).await;
    assert_eq!(off.addresses.api, None);
}

#[tokio::test]
async fn its_listener_has_health_lines_and_counts_of_its_own() {
    let gateway = gateway().await;
    ready(&gateway).await;
    let health = get(gateway.api(), "/health", "").await.json();
    assert_eq!((&health["service"], health.get("region")), (&json!("api"), None));
    post(gateway.api(), &message("c1", "x")).await;
    post(gateway.api(), &json!([message("c1", "x"), 7])).await;
    exchange(gateway.api(), &request("/api/messages", "", "{}")).await;
    eventually("the counts", async || {
        let text = get(gateway.admin(), "/metrics", "").await.text().to_owned();
        [
            r#"meridian_api_requests_total{key="shop",outcome="answered"} 2"#,
            r#"meridian_api_requests_total{key="",outcome="refused"} 1"#,
            r#"meridian_api_messages_total{key="shop",result="published"} 1"#,
            r#"meridian_api_messages_total{key="shop",result="duplicate"} 1"#,
            r#"meridian_api_messages_total{key="shop",result="refused"} 1"#,
        ]
        .iter()
        .all(|line| text.contains(line))
    })
    .await;
}

#[tokio::test]
async fn where_hubs_store_nothing_it_stores_nothing() {
    let gateway = Gateway::start(|settings| {
        with_key(settings);
        settings.hub.delivery = DeliveryMode::AtMostOnce;
    })
    .await;
    let mut bob = Chat::join(gateway.hub("1"), "bob").await;
    for _ in 0..2 {
        let ack = post(gateway.api(), &message("c1", "x")).await.json();
        assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(0), &json!(false)));
        assert_eq!(bob.hears_type("message").await["seq"], 0);
    }
}
