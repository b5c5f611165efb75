//! Who the client is, as HAProxy says it; and plain HTTP that is sent on to TLS.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use meridian::settings::{ProxyProtocol, Settings, StaticSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::backend::Backend;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::haproxy::Haproxy;
use crate::harness::http::{Http, exchange, get};
use crate::harness::tls::Authority;
use crate::harness::{eventually, within};

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\nx-region: 1\r\n\r\n";

async fn gateway(backend: &Backend, mode: ProxyProtocol, trusted: &[&str]) -> Gateway {
    Gateway::start(|settings| {
        announce(settings, mode, trusted);
        add_backend(settings, "1", backend.address);
    })
    .await
}

fn announce(settings: &mut Settings, mode: ProxyProtocol, trusted: &[&str]) {
    settings.proxy.proxy_protocol = mode;
    settings.proxy.trusted_proxies = trusted.iter().map(|net| net.parse().unwrap()).collect();
}

/// A connection from another address of this machine.
async fn from(source: &str, to: SocketAddr) -> Http {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0)).unwrap();
    Http::over(socket.connect(to).await.unwrap())
}

/// Whether the gateway closes without a word.
async fn is_closed(client: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // An error is a reset: what was sent was not read.
    let _read = within("the close", client.read_to_end(&mut rest)).await;
    rest.is_empty()
}

#[tokio::test]
async fn haproxy_says_who_the_client_is_in_both_versions() {
    for option in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"] {
        let backend = Backend::saying("hello").await;
        let gateway = gateway(&backend, ProxyProtocol::Trusted, &["127.0.0.1/32"]).await;
        let haproxy = Haproxy::start(gateway.proxy(), option).await;
        let mut client = from("127.0.0.9", haproxy.address).await;
        client.send(REQUEST).await;
        assert_eq!(client.answer(REQUEST).await.text(), "hello", "{option}");
        assert_eq!(backend.header("x-forwarded-for"), ["127.0.0.9"], "{option}");
        assert_eq!(backend.header("x-real-ip"), ["127.0.0.9"], "{option}");
        client.send(REQUEST).await;
        assert_eq!(client.answer(REQUEST).await.status, 200, "the connection is kept");
    }
}

#[tokio::test]
async fn the_client_behind_haproxy_may_speak_tls() {
    let (backend, authority) = (Backend::saying("hello").await, Authority::new());
    let gateway = authority
        .gateway(|settings| {
            announce(settings, ProxyProtocol::Required, &[]);
            add_backend(settings, "1", backend.address);
        })
        .await;
    let haproxy = Haproxy::start(gateway.addresses.tls.unwrap(), "send-proxy-v2").await;
    let mut stream = authority.connect(haproxy.address, "a.example", &["http/1.1"]).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    within("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(backend.header("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn a_header_is_taken_from_those_alone_who_are_trusted() {
    let backend = Backend::saying("hello").await;
    let trusted = gateway(&backend, ProxyProtocol::Trusted, &["127.0.0.7/32"]).await;
    let said = format!("PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n{REQUEST}");
    // From somebody else it is no request …
    assert_eq!(exchange(trusted.proxy(), &said).await.status, 400);
    // … and none is needed.
    assert_eq!(exchange(trusted.proxy(), REQUEST).await.status, 200);
    assert_eq!(backend.header("x-forwarded-for"), ["127.0.0.1"]);
    let mut client = from("127.0.0.7", trusted.proxy()).await;
    client.send(&said).await;
    assert_eq!(client.answer(REQUEST).await.status, 200);
    assert!(backend.heads()[1].to_ascii_lowercase().contains("x-forwarded-for: 192.0.2.1\r\n"));
    // A trusted one must say it.
    let mut client = from("127.0.0.7", trusted.proxy()).await;
    client.send(REQUEST).await;
    assert!(is_closed(&mut client.stream).await);
    eventually("the count", async || {
        let metrics = get(trusted.admin(), "/metrics", "").await.text().to_owned();
        metrics.contains("meridian_http_proxy_headers_refused_total 1\n")
    })
    .await;
    // Hubs and the admin listener take none.
    let off = gateway(&backend, ProxyProtocol::Off, &["127.0.0.1/32"]).await;
    assert_eq!(exchange(off.proxy(), &said).await.status, 400);
    assert_eq!(get(trusted.hub("1"), "/health", "").await.status, 200);
}

#[tokio::test]
async fn where_it_is_required_nobody_else_is_served() {
    let backend = Backend::saying("hello").await;
    let gateway = gateway(&backend, ProxyProtocol::Required, &[]).await;
    for wrong in [REQUEST, "PROXY TCP4 1.1.1.1\r\n", "PROXY TCP9 1.1.1.1 1.1.1.1 1 2\r\n"] {
        let mut client = Http::connect(gateway.proxy()).await;
        client.send(wrong).await;
        assert!(is_closed(&mut client.stream).await, "{wrong}");
    }
    let local = format!("PROXY UNKNOWN\r\n{REQUEST}");
    assert_eq!(exchange(gateway.proxy(), &local).await.status, 200);
    assert_eq!(backend.header("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn plain_http_is_sent_to_the_configured_host() {
    let (backend, authority) = (Backend::saying("hello").await, Authority::new());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "the answer").unwrap();
    let gateway = authority
        .gateway(|settings| {
            settings.tls.redirect_port = Some(0);
            settings.tls.redirect_host = Some("shop.example:8443".to_owned());
            settings.security.profile = meridian::settings::SecurityProfile::Strict;
            let mount = StaticSettings {
                path: "/.well-known/acme-challenge/".to_owned(),
                folder: folder.path().to_owned(),
                ..StaticSettings::default()
            };
            settings.mounts.insert("acme".to_owned(), mount);
            add_backend(settings, "1", backend.address);
        })
        .await;
    let redirect = gateway.addresses.redirect.unwrap();
    for (request, location) in [
        ("GET /a/b?c=d&region=1 HTTP/1.1\r\nHost: evil.example\r\n\r\n", "/a/b?c=d&region=1"),
        ("GET http://evil.example/a HTTP/1.1\r\nHost: evil.example\r\n\r\n", "/a"),
        ("GET //evil.example/ HTTP/1.1\r\nHost: a\r\n\r\n", "//evil.example/"),
        ("POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "/form"),
        ("GET /none HTTP/1.0\r\n\r\n", "/none"),
    ] {
        let answer = exchange(redirect, request).await;
        assert_eq!(answer.status, 308, "{request}: {}", answer.head);
        let expected = format!("https://shop.example:8443{location}");
        assert_eq!(answer.header("location"), Some(expected.as_str()));
        assert_eq!(answer.header("strict-transport-security"), None, "{}", answer.head);
        assert!(answer.header("x-request-id").is_some());
    }
    assert_eq!(get(redirect, "/health", "").await.status, 200);
    assert_eq!(get(redirect, "/ready", "").await.status, 200);
    let challenge = get(redirect, "/.well-known/acme-challenge/token", "").await;
    assert_eq!(challenge.text(), "the answer");
    // Without a host, and with a target that OPTIONS alone may have (RFC 9112, 3.2.4).
    for bad in ["GET / HTTP/1.1\r\n\r\n", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"] {
        assert_eq!(exchange(redirect, bad).await.status, 400, "{bad}");
    }
    assert!(backend.heads().is_empty(), "nothing goes on from there");
}
