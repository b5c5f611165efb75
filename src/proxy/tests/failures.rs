//! Backends that are away, that go away, and that talk nonsense.

use super::*;

async fn one_answer(client: &mut Peer, backend: &Backend) -> Peer {
    client.say("GET /warm HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.answers("warm").await;
    client.gets(200, "warm").await;
    peer
}

#[tokio::test]
async fn a_get_on_a_connection_that_was_just_closed_is_sent_again() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    let mut kept = one_answer(&mut client, &backend).await;
    client.say("GET /again HTTP/1.1\r\nHost: a\r\nX-App: 1\r\n\r\n").await;
    let first = kept.head().await;
    drop(kept);
    let second = backend.accept().await.answers("there").await;
    assert_eq!(first, second);
    client.gets(200, "there").await;
    assert_eq!(gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"reset\"}"), 0);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_used() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    drop(one_answer(&mut client, &backend).await);
    client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut peer = backend.accept().await;
    peer.answers("there").await;
    peer.hears("hi").await;
    client.gets(200, "there").await;
}

#[tokio::test]
async fn a_post_that_may_have_been_seen_is_sent_once() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    let mut kept = one_answer(&mut client, &backend).await;
    client.say("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    kept.head().await;
    kept.hears("hi").await;
    drop(kept);
    client.gets(502, "Reset").await;
    // A second attempt would have come before this.
    client.say("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(backend.accept().await.answers("").await.starts_with("get /next "));
    assert_eq!(gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"reset\"}"), 1);
}

#[tokio::test]
async fn a_get_on_a_new_connection_is_sent_once() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.accept().await.head().await;
    client.gets(502, "Reset").await;
}

#[tokio::test]
async fn one_that_refuses_is_followed_by_the_next_and_passed_over_for_a_while() {
    let (dead, alive) = (dead_url(), Backend::start().await);
    let gateway = Gateway::start(&[&dead, &alive.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    let mut kept: Option<Peer> = None;
    for _ in 0..4 {
        client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        let peer = match &mut kept {
            Some(peer) => peer,
            none => none.insert(alive.accept().await),
        };
        peer.answers("there").await;
        peer.hears("hi").await;
        client.gets(200, "there").await;
    }
    let refused = "proxy_upstream_errors_total{region=\"1\",cause=\"connect\"}";
    assert_eq!(gateway.count(refused), 1);
    let marks: Vec<_> = gateway.shared.snapshot()[0].backends.iter().map(|b| b.marked).collect();
    assert_eq!(marks, [true, false]);
}

#[tokio::test]
async fn a_backup_serves_when_no_primary_does() {
    let (dead, backup) = (dead_url(), Backend::start().await);
    let url = format!("backup:{}", backup.url());
    let gateway = Gateway::start(&[&url, &dead], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backup.accept().await.answers("backup").await;
    client.gets(200, "backup").await;
    assert_eq!(gateway.count("proxy_upstream_connects"), 1);
}

#[tokio::test]
async fn refusal_everywhere_is_a_bad_gateway() {
    let (one, two) = (dead_url(), dead_url());
    for backends in [&[&*one][..], &[&*one, &*two]] {
        let gateway = Gateway::start(backends, |_| {}).await;
        let mut client = gateway.connect().await;
        // Marked or not: the second time all are tried again.
        for _ in 0..2 {
            client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.gets(502, "Connect").await;
        }
        let tries = i64::try_from(backends.len()).unwrap() * 2;
        let refused = "proxy_upstream_errors_total{region=\"1\",cause=\"connect\"}";
        assert_eq!(gateway.count(refused), tries);
        gateway.idle().await;
    }
}

#[tokio::test]
async fn a_name_leads_to_whichever_of_its_addresses_answers() {
    let backend = Backend::start().await;
    let named = format!("http://localhost:{}", backend.address().port());
    // Of the same name twice, the series is the sum.
    let hub = HubPlace { url: Some(named.clone()), ..HubPlace::default() };
    let region = RegionSettings { hub: Some(hub), ..region(&[&named], "strict") };
    let gateway = Gateway::with(region, |_| {}).await;
    let mut client = gateway.connect().await;
    for path in ["/", "/hub"] {
        client.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        backend.accept().await.answers("there").await;
        client.gets(200, "there").await;
    }
    let resolved = gateway.shared.snapshot()[0].backends[0].resolved.clone();
    assert!(resolved.contains(&backend.address()), "{resolved:?}");
    assert_eq!(gateway.count("proxy_name_lookups_total"), 2);
}

#[tokio::test]
async fn a_name_without_address_is_a_bad_gateway() {
    let gateway = Gateway::start(&["http://nowhere.invalid:1"], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.gets(502, "Connect").await;
}

#[tokio::test]
async fn silence_is_a_timeout_and_gives_the_connection_up() {
    let backend = Backend::start().await;
    let soon = |settings: &mut ProxySettings| {
        settings.first_byte_timeout = Duration::from_millis(200);
    };
    let gateway = Gateway::start(&[&backend.url()], soon).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let mut client = gateway.connect().await;
        client.say(request).await;
        let mut peer = backend.accept().await;
        peer.head().await;
        client.gets(502, "HeadTimeout").await;
        peer.rest().await;
    }
    gateway.idle().await;
}

#[tokio::test]
async fn nonsense_is_a_bad_gateway() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let answers = [
        ("SSH-2.0-OpenSSH\r\n\r\n", "Garbage"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Garbage"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "Garbage"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Garbage"),
        ("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "UnaskedUpgrade"),
    ];
    for (answer, verdict) in answers {
        let mut client = gateway.connect().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut peer = backend.accept().await;
        peer.head().await;
        peer.say(answer).await;
        client.gets(502, verdict).await;
        peer.rest().await;
    }
    let counted = gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"garbage\"}");
    assert_eq!(counted, 5);
    gateway.idle().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_complete() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    for framing in
        ["Content-Length: 10\r\n\r\n12345", "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"]
    {
        let mut client = gateway.connect().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut peer = backend.accept().await;
        peer.head().await;
        peer.say(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        client.head().await;
        drop(peer);
        let rest = String::from_utf8(client.rest().await).unwrap();
        assert!(rest.contains("12345") && !rest.ends_with("0\r\n\r\n"), "{rest:?}");
    }
    let counted = gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"aborted\"}");
    assert_eq!(counted, 2);
    gateway.idle().await;
}

#[tokio::test]
async fn an_answer_that_stops_is_ended() {
    let backend = Backend::start().await;
    let soon = |settings: &mut ProxySettings| {
        settings.body_idle_timeout = Duration::from_millis(50);
    };
    let gateway = Gateway::start(&[&backend.url()], soon).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await;
    client.gets(200, "12345").await;
    assert_eq!(client.rest().await, b"");
    peer.rest().await;
    let counted = gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"stalled\"}");
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn bytes_beyond_an_answer_cost_the_connection() {
    let backend = Backend::start().await;
    let gateway = Gateway::start(&[&backend.url()], |_| {}).await;
    let mut client = gateway.connect().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n").await;
    client.gets(200, "hi").await;
    assert_eq!(peer.rest().await, b"");
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.accept().await.answers("new").await;
    client.gets(200, "new").await;
}
