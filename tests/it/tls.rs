//! TLS as clients and operators meet it: handshakes, which certificate is shown, and what becomes of changed files.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::backend::Backend;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, get};
use crate::harness::tls::{Authority, connect, read, run, shown};
use crate::harness::{eventually, within};

fn tls(gateway: &Gateway) -> SocketAddr {
    gateway.addresses.tls.expect("the TLS listener is started")
}

/// One request on an open connection, and the head of its answer.
async fn ask(stream: &mut TlsStream<TcpStream>, target: &str, host: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    within("an answer", async {
        while !answer.contains("\r\n\r\n") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    })
    .await;
    answer
}

async fn metrics(gateway: &Gateway) -> String {
    get(gateway.admin(), "/metrics", "").await.text().to_owned()
}

#[tokio::test]
async fn the_same_door_by_tls() {
    let backend = Backend::saying("hello").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut stream = authority.connect(tls(&gateway), "a.example", &["http/1.1"]).await;
    for _ in 0..2 {
        let answer = ask(&mut stream, "/x?region=1", "a.example").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }
    let head = backend.heads().swap_remove(1).to_ascii_lowercase();
    assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
    assert!(head.contains("\r\nhost: a.example\r\n"), "{head}");
    let health = ask(&mut stream, "/health", "a.example").await;
    assert!(health.contains("\"service\":\"proxy\""), "{health}");
    // The plain port says http.
    get(gateway.proxy(), "/", "x-region: 1\r\n").await;
    let head = backend.heads().swap_remove(2).to_ascii_lowercase();
    assert!(head.contains("\r\nx-forwarded-proto: http\r\n"), "{head}");
}

/// By rustls, and by openssl, which still knows older ones.
#[tokio::test]
async fn versions_below_the_least_are_refused() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    let strict =
        authority.gateway(|s| s.tls.min_version = meridian::settings::TlsVersion::V1_3).await;
    for (version, is_spoken, is_spoken_strictly) in
        [(&rustls::version::TLS13, true, true), (&rustls::version::TLS12, true, false)]
    {
        let config = Arc::new(authority.client_of(&[], &[version]));
        let tried = connect(tls(&gateway), "a.example", Arc::clone(&config)).await;
        assert_eq!(tried.is_ok(), is_spoken);
        assert_eq!(connect(tls(&strict), "a.example", config).await.is_ok(), is_spoken_strictly);
    }
    let address = tls(&gateway).to_string();
    for (option, is_spoken) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let cipher = "DEFAULT@SECLEVEL=0";
        let arguments = ["s_client", "-connect", &address, option, "-cipher", cipher];
        let (_, said) = run("openssl", &arguments).await;
        let is_agreed = !said.contains("Cipher is (NONE)") && !said.contains("no peer certificate");
        assert_eq!(is_agreed, is_spoken, "{option}: {said}");
    }
    gateway.counts("handshake_failures_total{cause=\"nothing_in_common\"} 1").await;
}

#[tokio::test]
async fn the_name_that_is_asked_for_picks_the_certificate() {
    let authority = Authority::new();
    let b = authority.sign("b", &["b.example", "*.b.example"]);
    let (b_file, a_file) = (b.cert.clone().unwrap(), authority.folder.path().join("a.pem"));
    let gateway = authority
        .gateway(|settings| drop(settings.tls.certificates.insert("b".into(), b.clone())))
        .await;
    let (a_cert, b_cert) = (read(&a_file), read(&b_file));
    for (host, expected) in [
        ("a.example", &a_cert),
        ("x.a.example", &a_cert),
        ("b.example", &b_cert),
        ("x.b.example", &b_cert),
        ("B.EXAMPLE", &b_cert),
        ("127.0.0.1", &a_cert), // an address is never named: the default
    ] {
        let stream = authority.connect(tls(&gateway), host, &[]).await;
        assert_eq!(shown(&stream), *expected, "{host}");
    }
    // One that nothing is for is shown the default, which its client does not take.
    let config = Arc::new(authority.client(&[]));
    let error = connect(tls(&gateway), "c.example", config).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    eventually("the client's refusal in the counts", async || {
        metrics(&gateway).await.contains("handshake_failures_total{cause=\"refused_by_client\"} 1")
    })
    .await;
}

/// Row 49.
#[tokio::test]
async fn a_connection_for_one_host_is_not_used_for_another() {
    let authority = Authority::new();
    let b = authority.sign("b", &["b.example"]);
    let gateway = authority
        .gateway(|settings| drop(settings.tls.certificates.insert("b".into(), b.clone())))
        .await;
    let mut stream = authority.connect(tls(&gateway), "a.example", &[]).await;
    let refused = ask(&mut stream, "/health", "b.example").await;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    assert!(refused.contains("\"code\":\"misdirected\""), "{refused}");
    // The connection is good for what it was opened for.
    for host in ["a.example", "A.example.:443", "shop.a.example", "127.0.0.1:8443", "localhost"] {
        let answer = ask(&mut stream, "/health", host).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    // Who named nobody may ask for anybody.
    let mut unnamed = authority.connect(tls(&gateway), "127.0.0.1", &[]).await;
    assert!(ask(&mut unnamed, "/health", "b.example").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn plain_http_is_told_what_is_spoken() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    let answer = get(tls(&gateway), "/health", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "tls_required"));
    assert_eq!(answer.header("x-request-id"), answer.json()["error"]["requestId"].as_str());
    // Noise is closed upon.
    let mut noise = Http::connect(tls(&gateway)).await;
    noise.send([0; 10]).await;
    assert!(noise.rest().await.is_empty());
    gateway.counts("handshake_failures_total{cause=\"not_tls\"} 2").await;
    gateway.counts("meridian_http_connections 0").await;
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let authority = Authority::new();
    let gateway = authority.gateway(|s| s.tls.handshake_timeout = Duration::from_millis(500)).await;
    let mut silent = Http::connect(tls(&gateway)).await;
    let mut halting = Http::connect(tls(&gateway)).await;
    halting.send([0x16, 3, 1]).await;
    assert!(silent.rest().await.is_empty());
    assert!(halting.rest().await.is_empty());
    gateway.counts("handshake_failures_total{cause=\"timeout\"} 2").await;
}

/// Slow clients are found below TLS as they are without.
#[tokio::test]
async fn a_slow_head_is_closed() {
    let authority = Authority::new();
    let gateway =
        authority.gateway(|settings| settings.proxy.header_timeout = Duration::from_secs(1)).await;
    for (begun, answer) in [("", ""), ("GET / HTTP/1.1\r\n", "HTTP/1.1 408 ")] {
        let mut stream = authority.connect(tls(&gateway), "a.example", &["http/1.1"]).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Whether with a goodbye of TLS or without does not matter.
        within("the close", stream.read_to_end(&mut rest)).await.ok();
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.starts_with(answer) && rest.is_empty() == answer.is_empty(), "{rest}");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_is_known() {
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| settings.workers = 3).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(authority.client_of(&[], &[version]));
        let mut kinds = Vec::new();
        // Whichever worker it comes to.
        for _ in 0..8 {
            let mut stream =
                connect(tls(&gateway), "a.example", Arc::clone(&config)).await.unwrap();
            // With the answer come the tickets.
            ask(&mut stream, "/health", "a.example").await;
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
    }
}

#[tokio::test]
async fn changed_files_are_shown_without_a_restart() {
    let authority = Authority::new();
    let gateway = authority.gateway(|s| s.tls.watch_interval = Duration::from_millis(20)).await;
    let mut old = authority.connect(tls(&gateway), "a.example", &[]).await;
    let first = shown(&old);
    authority.sign("a", &["a.example"]);
    let now = async || shown(&authority.connect(tls(&gateway), "a.example", &[]).await);
    eventually("the new certificate", async || now().await != first).await;
    let second = now().await;
    // Who is connected already stays.
    assert!(ask(&mut old, "/health", "a.example").await.starts_with("HTTP/1.1 200"));
    std::fs::write(authority.folder.path().join("a.key"), "nonsense").unwrap();
    eventually("the count of what was no good", async || {
        metrics(&gateway).await.contains("reload_failures_total{certificate=\"a\"} 1")
    })
    .await;
    assert_eq!(now().await, second);
    let text = metrics(&gateway).await;
    assert!(text.contains("certificate_not_after_seconds{certificate=\"a\"} "), "{text}");
}

#[tokio::test]
async fn a_websocket_comes_through_tls() {
    let echo = crate::upgrade::echo().await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", echo)).await;
    let open = async |target: &str| {
        let stream = authority.connect(tls(&gateway), "a.example", &["http/1.1"]).await;
        let url = format!("wss://a.example{target}");
        tokio_tungstenite::client_async(url, stream).await.unwrap().0
    };
    let mut chat = open("/ws?userId=alice&region=1").await;
    let welcome = within("the welcome", chat.next()).await.unwrap().unwrap();
    assert!(welcome.to_text().unwrap().contains("\"welcome\""), "{welcome}");
    let mut tunnel = open("/live?region=1").await;
    for size in [0, 200, 100_000] {
        let message = Message::binary(vec![7; size]);
        tunnel.send(message.clone()).await.unwrap();
        assert_eq!(within("the echo", tunnel.next()).await.unwrap().unwrap(), message);
    }
    gateway.begin_stop().await;
    within("the goodbye", async {
        while let Some(Ok(message)) = chat.next().await {
            if let Message::Close(Some(close)) = message {
                assert_eq!(u16::from(close.code), 1012);
                return;
            }
        }
        panic!("no close frame");
    })
    .await;
    drop((chat, tunnel));
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn a_development_certificate_is_made_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        Gateway::start(|settings| {
            (settings.tls.port, settings.tls.dev) = (Some(0), true);
            settings.tls.dev_folder = Some(folder.path().to_owned());
        })
    };
    let ca = folder.path().join("dev-ca.pem");
    let mut authorities = Vec::new();
    for _ in 0..2 {
        let gateway = start().await;
        authorities.push(std::fs::read(&ca).unwrap());
        let port = tls(&gateway).port();
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("https://{host}:{port}/health");
            let arguments =
                ["-sS", "-4", "--cacert", ca.to_str().unwrap(), "-w", "%{http_version}", &url];
            let (good, said) = run("curl", &arguments).await;
            assert!(good && said.contains("healthy") && said.ends_with('2'), "{said}");
        }
        gateway.stop().await.unwrap();
    }
    assert_eq!(authorities[0], authorities[1], "a browser's trust lasts");
}
