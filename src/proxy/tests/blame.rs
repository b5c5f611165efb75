//! What counts against a backend, and what does not, where it is not plain at first sight.

use super::*;
use crate::settings::HealthSettings;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A gateway that ejects a backend at so many failures in a row, and by no rate.
async fn strict_judge(
    backends: &[&str],
    consecutive: u32,
    change: impl FnOnce(&mut Bounds),
) -> Gateway {
    let health = HealthSettings {
        passive: true,
        consecutive,
        failure_percent: 0,
        ..HealthSettings::default()
    };
    let mut bounds = Bounds { health, ..Bounds::default() };
    change(&mut bounds);
    Gateway::of(region(backends, "strict"), bounds).await
}

fn state(gateway: &Gateway) -> &'static str {
    gateway.shared.snapshot()[0].backends[0].health.state
}

#[tokio::test]
async fn a_reader_that_takes_too_long_does_not_eject_the_backend() {
    let backend = Backend::start().await;
    let limit = Duration::from_millis(700);
    let bounds = |bounds: &mut Bounds| bounds.proxy.total_timeout = Some(limit);
    let gateway = strict_judge(&[&backend.url()], 1, bounds).await;
    let mut client = gateway.connect().await;
    client.say(GET).await;
    let mut peer = backend.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
    client.head().await;
    // The backend has more at any time; the client takes nothing until the time is over.
    let piece = vec![b'x'; 1 << 20];
    let full = timeout(limit * 2, async { while peer.stream.write_all(&piece).await.is_ok() {} });
    assert!(full.await.is_err(), "the backend waits for the client");
    assert!(client.rest().await.len() < 100_000_000);
    gateway.idle().await;
    assert_eq!(
        gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"total_timeout\"}"),
        1
    );
    assert_eq!(state(&gateway), "up");
}

#[tokio::test]
async fn an_answer_that_is_none_after_all_is_not_taken_for_a_good_one_first() {
    let both = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let switch = "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    for answer in [
        format!("HTTP/1.1 200 OK\r\n{both}"),
        format!("HTTP/1.1 101 Switching Protocols\r\n{switch}"),
    ] {
        let backend = Backend::start().await;
        let gateway = strict_judge(&[&backend.url()], 3, |_| {}).await;
        for round in 0..3 {
            assert_eq!(state(&gateway), "up", "after {round}");
            let mut client = gateway.connect().await;
            client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
            let mut peer = backend.accept().await;
            peer.head().await;
            peer.say(&answer).await;
            assert!(client.head().await.starts_with("http/1.1 502 "));
        }
        assert_eq!(state(&gateway), "ejected", "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_takes_too_long_to_be_held_is_the_clients_fault() {
    let backend = Backend::start().await;
    let bounds =
        |bounds: &mut Bounds| bounds.proxy.total_timeout = Some(Duration::from_millis(200));
    let gateway = strict_judge(&[&backend.url()], 1, bounds).await;
    let mut client = gateway.connect().await;
    client.say("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo").await;
    client.gets(400, "BodyStalled").await;
    assert_eq!(
        gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"total_timeout\"}"),
        0
    );
}

#[tokio::test]
async fn a_backend_that_breaks_its_answers_off_is_ejected() {
    for framing in [
        "Content-Length: 10\r\n\r\n12345",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nx\r\n",
    ] {
        let backend = Backend::start().await;
        let gateway = strict_judge(&[&backend.url()], 3, |_| {}).await;
        let ask = async || {
            let mut client = gateway.connect().await;
            client.say(GET).await;
            let mut peer = backend.accept().await;
            peer.head().await;
            (client, peer)
        };
        let breaks_off = async || {
            let (mut client, mut peer) = ask().await;
            peer.say(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
            client.head().await;
            drop(peer);
            client.rest().await;
            gateway.idle().await;
        };
        breaks_off().await;
        breaks_off().await;
        let (mut client, mut peer) = ask().await;
        peer.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi").await;
        client.gets(200, "hi").await;
        gateway.idle().await;
        breaks_off().await;
        breaks_off().await;
        assert_eq!(state(&gateway), "up", "a whole answer ends the row: {framing}");
        breaks_off().await;
        assert_eq!(state(&gateway), "ejected", "{framing}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_an_answer_does_not_eject_the_backend() {
    let backend = Backend::start().await;
    let gateway = strict_judge(&[&backend.url()], 1, |_| {}).await;
    for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let mut client = gateway.connect().await;
        client.say(request).await;
        let mut peer = backend.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await;
        client.gets(200, "12345").await;
        if request == GET {
            drop(client);
            // Found out by the next write.
            within("the end", async { while peer.stream.write_all(b"x").await.is_ok() {} }).await;
        } else {
            // What breaks off the answer then is the client's nonsense.
            client.say("nonsense\r\n").await;
            client.rest().await;
            peer.rest().await;
        }
        gateway.idle().await;
        assert_eq!(state(&gateway), "up", "{request}");
    }
}
