//! Which header fields pass, which stop here, and which the gateway writes itself (RFC 9110, section 7.6; RFC 7239).

use crate::harness::backend::{Backend, Step};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{exchange, get};

/// Row 13 (RFC 9110, section 7.6.1): what `Connection` nominates is removed before ours is added.
#[tokio::test]
async fn nominated_fields_stop_here_and_ours_do_not() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let headers = "x-region: 1\r\nx-secret: s\r\nx-kept: k\r\n\
                   Connection: keep-alive, X-Region, x-forwarded-for\r\nConnection: x-secret\r\n";
    assert_eq!(get(gateway.proxy(), "/", headers).await.status, 200);
    assert_eq!(backend.header("x-region"), ["1"]);
    assert_eq!(backend.header("x-forwarded-for"), ["127.0.0.1"]);
    assert!(backend.header("x-secret").is_empty());
    assert_eq!(backend.header("x-kept"), ["k"]);
    assert!(backend.header("connection").iter().all(|value| !value.contains("secret")));
}

/// Row 14 (RFC 9110, section 5.6.1).
#[tokio::test]
async fn junk_in_connection_harms_nobody() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    for junk in ["upgrade, @@@ ,,;", "\u{fc}pgrade", "upgrade", ",", "a b c"] {
        let answer =
            get(gateway.proxy(), "/", &format!("x-region: 1\r\nConnection: {junk}\r\n")).await;
        assert!(matches!(answer.status, 200 | 400), "{junk:?} got {}", answer.status);
    }
}

/// Row 15 (RFC 9110, sections 7.6.1 and 10.1.4).
#[tokio::test]
async fn hop_by_hop_fields_stop_here_both_ways() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
                 Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTE: x\r\nConnection: x-hop\r\nx-hop: 1\r\nx-end: 2\r\n\r\nok";
    let backend = Backend::scripted([Step::Reply(reply.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let headers = "x-region: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: trailers, gzip\r\n\
                   Trailer: x-t\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eDp5\r\nx-end: 1\r\n";
    let answer = get(gateway.proxy(), "/", headers).await;
    for name in [
        "keep-alive",
        "proxy-connection",
        "trailer",
        "upgrade",
        "proxy-authorization",
        "transfer-encoding",
    ] {
        assert!(backend.header(name).is_empty(), "{name} went to the backend: {}", backend.head());
    }
    assert_eq!(backend.header("x-end"), ["1"]);
    assert_eq!(backend.header("te"), ["trailers"], "trailers are re-issued, and nothing else");
    for name in ["keep-alive", "proxy-connection", "proxy-authenticate", "upgrade", "te", "x-hop"] {
        assert_eq!(answer.header(name), None, "{name} came to the client");
    }
    assert_eq!(answer.header("x-end"), Some("2"));
}

const CLAIMS: &str = "x-region: 1\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
                      X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /e\r\n\
                      x_forwarded_for: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nx_forwarded_proto: https\r\n";

/// Row 16 (RFC 7239, section 8.1).
#[tokio::test]
async fn claims_of_strangers_are_replaced() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    assert_eq!(get(gateway.proxy(), "/", CLAIMS).await.status, 200);
    let head = backend.head();
    assert!(!head.contains("6.6.6.6") && !head.contains("evil"), "{head}");
    assert_eq!(backend.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(backend.header("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(backend.header("x-forwarded-proto"), ["http"]);
    assert_eq!(backend.header("x-forwarded-host"), ["gateway.test"]);
    assert!(backend.header("x-forwarded-prefix").is_empty());
    assert!(!head.contains('_'), "an underscore alias passed: {head}");
}

/// Row 17 (RFC 7239, sections 4 to 6).
#[tokio::test]
async fn a_trusted_hop_is_believed_as_far_as_it_goes() {
    for (claims, client, chain) in [
        (
            "X-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.0.0.2\r\n",
            "9.9.9.9",
            "6.6.6.6, 9.9.9.9, 10.0.0.2, 127.0.0.1",
        ),
        ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1", "2001:db8::1, 127.0.0.1"),
        ("X-Forwarded-For: not an address\r\n", "127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.1", "127.0.0.1"),
    ] {
        let backend = Backend::saying("ok").await;
        let gateway = Gateway::start(|settings| {
            add_backend(settings, "1", backend.address);
            settings.proxy.trusted_proxies =
                ["127.0.0.0/8", "10.0.0.0/8"].iter().map(|net| net.parse().unwrap()).collect();
        })
        .await;
        let headers = format!(
            "x-region: 1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: from-before\r\n{claims}"
        );
        let answer = get(gateway.proxy(), "/", &headers).await;
        assert_eq!(backend.header("x-real-ip"), [client], "{claims:?}");
        assert_eq!(backend.header("x-forwarded-for"), [chain], "{claims:?}");
        assert_eq!(backend.header("x-forwarded-proto"), ["https"]);
        assert_eq!(backend.header("x-request-id"), ["from-before"]);
        assert_eq!(answer.header("x-request-id"), Some("from-before"));
    }
}

#[tokio::test]
async fn every_request_has_an_id_of_ours() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    let answer = get(gateway.proxy(), "/", "x-region: 1\r\nX-Request-Id: mine\r\n").await;
    let id = answer.header("x-request-id").unwrap();
    assert_ne!(id, "mine", "a stranger's id was believed");
    assert_eq!(id.len(), 32);
    assert_eq!(backend.header("x-request-id"), [id]);
}

#[tokio::test]
async fn everything_else_passes_untouched() {
    let reply = "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: pot\r\n\r\nok";
    let backend = Backend::scripted([Step::Reply(reply.into())]).await;
    let gateway = Gateway::before(backend.address).await;
    let request = "PATCH /a%20b//../c?x=%41&y=+ HTTP/1.1\r\nHost: gateway.test\r\nx-region: 1\r\nCookie: a=1\r\nCookie: b=2\r\n\
                   Content-Length: 3\r\n\r\nabc";
    let answer = exchange(gateway.proxy(), request).await;
    assert_eq!(answer.status, 418);
    assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("server"), Some("pot"));
    assert!(
        backend.head().starts_with("PATCH /a%20b//../c?x=%41&y=+ HTTP/1.1\r\n"),
        "{}",
        backend.head()
    );
    assert_eq!(backend.header("host"), ["gateway.test"]);
    assert_eq!(backend.header("cookie").join("; "), "a=1; b=2");
}
