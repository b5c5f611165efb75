//! From backend to backend and from region to region.

use super::*;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn the_next_region_serves_and_both_sides_are_told() {
    let (dead, other) = (dead_url(), Backend::start().await);
    let regions = [("1", region(&[&dead], "ordered:2")), ("2", region(&[&other.url()], "strict"))];
    let gateway = Gateway::among(&regions, |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut peer = other.accept().await;
    let head = peer.answers("there").await;
    peer.hears("hi").await;
    assert!(head.contains("\r\nx-region: 2\r\n"), "{head}");
    assert!(head.contains("\r\nx-region-requested: 1\r\n"), "{head}");
    let answer = client.gets(200, "there").await;
    assert!(answer.contains("\r\nx-region-served: 2\r\n"), "{answer}");
    assert!(answer.contains("\r\nvia: 1.1 edge\r\n"), "{answer}");
    assert_eq!(gateway.count("proxy_failovers_total"), 1);
    // Its own region is known to be away now: it is not even tried.
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    peer.answers("again").await;
    client.gets(200, "again").await;
    assert_eq!(gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"connect\"}"), 1);
}

#[tokio::test]
async fn a_strict_border_is_not_crossed() {
    let (dead, other) = (dead_url(), Backend::start().await);
    let regions = [("1", region(&[&dead], "strict")), ("2", region(&[&other.url()], "any"))];
    let gateway = Gateway::among(&regions, |_| {}).await;
    let mut client = gateway.connect().await;
    for _ in 0..20 {
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.gets(502, "Connect").await;
    }
    // Whoever had crossed it would be heard before this one.
    client.say("GET /own HTTP/1.1\r\nHost: a\r\nx-region: 2\r\n\r\n").await;
    assert!(other.accept().await.answers("").await.starts_with("get /own "));
}

#[tokio::test]
async fn there_is_no_chain_and_a_circle_does_no_harm() {
    let (one, two, three) = (dead_url(), dead_url(), Backend::start().await);
    let regions = [
        ("1", region(&[&one], "ordered:2")),
        ("2", region(&[&two], "ordered:1,3")),
        ("3", region(&[&three.url()], "strict")),
    ];
    let gateway = Gateway::among(&regions, |_| {}).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.gets(502, "Connect").await;
    }
    client.say("GET /two HTTP/1.1\r\nHost: a\r\nx-region: 2\r\n\r\n").await;
    assert!(three.accept().await.answers("").await.starts_with("get /two "));
}

#[tokio::test]
async fn a_region_without_a_hub_has_that_of_another() {
    let hub = Backend::start().await;
    let place = HubPlace { url: Some(hub.url()), ..HubPlace::default() };
    let with_hub = RegionSettings { hub: Some(place), ..RegionSettings::default() };
    let regions = [("1", region(&[], "any")), ("2", with_hub)];
    let gateway = Gateway::among(&regions, |_| {}).await;
    let mut client = gateway.connect().await;
    client.say(format!("GET /hub?userId=a HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n")).await;
    let mut peer = hub.accept().await;
    assert!(peer.head().await.contains("x-region-requested: 1\r\n"));
    peer.say(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )
    .await;
    let head = client.gets(101, "").await;
    assert!(head.contains("\r\nx-region-served: 2\r\n"), "{head}");
    peer.say("hello").await;
    client.hears("hello").await;
}

#[tokio::test]
async fn what_may_have_been_seen_goes_to_another_backend_if_it_may() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let gateway = Gateway::start(&[&one.url(), &two.backup()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    drop(one.accept().await);
    two.accept().await.answers("two").await;
    client.gets(200, "two").await;
    assert_eq!(gateway.count("proxy_retries_total"), 1);
    // The body is held for the second one.
    client.say("PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let mut first = one.accept().await;
    first.head().await;
    first.hears("body").await;
    drop(first);
    let mut second = two.accept().await;
    second.answers("there").await;
    second.hears("body").await;
    client.gets(200, "there").await;
    // Nobody knows what a second one of these would do.
    client.say("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let mut first = one.accept().await;
    first.head().await;
    first.hears("body").await;
    drop(first);
    client.gets(502, "Reset").await;
}

#[tokio::test]
async fn it_may_cross_a_border_too_where_there_is_none_left() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let regions = [("1", region(&[&one.url()], "any")), ("2", region(&[&two.url()], "strict"))];
    let gateway = Gateway::among(&regions, |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    drop(one.accept().await);
    two.accept().await.answers("two").await;
    assert!(client.gets(200, "two").await.contains("x-region-served: 2\r\n"));
}

#[tokio::test]
async fn without_a_budget_the_first_error_stands() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let regions = [("1", region(&[&one.url(), &two.backup()], "strict"))];
    let none = |bounds: &mut Bounds| {
        bounds.retry.budget_percent = 0;
        bounds.retry.floor_per_second = 0;
    };
    let gateway = Gateway::among(&regions, none).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    drop(one.accept().await);
    client.gets(502, "Reset").await;
    assert_eq!(gateway.count("proxy_retries_refused_total"), 1);
    assert_eq!(gateway.count("proxy_retries_total"), 0);
}

#[tokio::test]
async fn turned_off_nothing_that_was_sent_is_sent_again() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let regions = [("1", region(&[&one.url(), &two.backup()], "strict"))];
    let gateway = Gateway::among(&regions, |bounds| bounds.retry.enabled = false).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    drop(one.accept().await);
    client.gets(502, "Reset").await;
}

#[tokio::test]
async fn an_answer_that_says_it_is_none_stands_where_no_other_comes() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let regions = [("1", region(&[&one.url(), &two.backup()], "strict"))];
    let gateway = Gateway::among(&regions, |bounds| bounds.retry.statuses = vec![503]).await;
    let mut client = gateway.connect().await;
    let unwell = "HTTP/1.1 503 Unwell\r\nContent-Length: 5\r\n\r\nfirst";
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut first = one.accept().await;
    first.head().await;
    first.say(unwell).await;
    two.accept().await.answers("well").await;
    client.gets(200, "well").await;
    // Not this one's.
    let mut client = gateway.connect().await;
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let mut first = one.accept().await;
    first.head().await;
    first.say(unwell).await;
    client.gets(503, "first").await;
    // The second one goes away: the first one's word stands.
    drop(two);
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.head().await;
    first.say(unwell).await;
    client.gets(503, "first").await;
}

#[tokio::test]
async fn a_handshake_that_fails_goes_to_the_next() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let gateway = Gateway::start(&[&one.url(), &two.backup()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say(format!("GET /socket HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n")).await;
    let mut first = one.accept().await;
    first.head().await;
    first.say("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n").await;
    let mut second = two.accept().await;
    second.head().await;
    second.say("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    client.gets(101, "").await;
    second.say("hello").await;
    client.hears("hello").await;
}

#[tokio::test]
async fn an_attempt_is_short_while_another_could_follow() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let regions = [("1", region(&[&one.url(), &two.backup()], "strict"))];
    let soon = |bounds: &mut Bounds| bounds.retry.try_timeout = Some(Duration::from_millis(500));
    let gateway = Gateway::among(&regions, soon).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut silent = one.accept().await;
    silent.head().await;
    two.accept().await.answers("two").await;
    client.gets(200, "two").await;
    assert!(silent.rest().await.is_empty());
    let late = "proxy_upstream_errors_total{region=\"1\",cause=\"head_timeout\"}";
    assert_eq!(gateway.count(late), 1);
}

#[tokio::test]
async fn the_whole_exchange_has_its_time() {
    let backend = Backend::start().await;
    let soon = |settings: &mut ProxySettings| {
        settings.total_timeout = Some(Duration::from_secs(1));
    };
    let gateway = Gateway::start(&[&backend.url()], soon).await;
    // Before the head.
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    client.gets(502, "TotalTimeout").await;
    assert!(peer.rest().await.is_empty());
    // After it, however lively the body is.
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n").await;
    let drip = async {
        while peer.stream.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let read = async { client.rest().await };
    let (got, ()) = within("the end of both", async { tokio::join!(read, drip) }).await;
    assert!(got.starts_with(b"HTTP/1.1 200 "));
    gateway.idle().await;
    let late = "proxy_upstream_errors_total{region=\"1\",cause=\"total_timeout\"}";
    assert_eq!(gateway.count(late), 2);
}

#[tokio::test]
async fn a_request_that_comes_back_goes_no_further() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 b, 1.1 edge\r\n\r\n").await;
    client.gets(503, "Loop").await;
    let ways = ["1.1 b"; 8].join(", ");
    client.say(format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {ways}\r\n\r\n")).await;
    client.gets(503, "Loop").await;
    client.say("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n").await;
    assert!(backend.accept().await.answers("").await.contains("max-forwards: 2\r\n"));
}
