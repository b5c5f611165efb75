//! What probes find out, and how they are made.

use std::sync::atomic::Ordering;

use super::clinic::{Clinic, Mood, Ward};
use super::secure::{Authority, region};
use super::*;
use crate::settings::ProbeKind;

#[tokio::test]
async fn probes_alone_take_a_backend_out_and_bring_it_back() {
    let (ill, well) = (Ward::start().await, Ward::start().await);
    let clinic = Clinic::start(&[&ill, &well], |s| s.health.active = ProbeKind::Http).await;
    clinic.state(0, "up").await;
    clinic.state(1, "up").await;
    assert_eq!(clinic.posts(10).await, BTreeMap::from([(200, 10)]));
    assert_eq!((ill.requests(), well.requests()), (5, 5));
    ill.probed(Mood::Answers(503));
    clinic.state(0, "down").await;
    let why = clinic.backend(0).health.marks[0].why.clone();
    assert_eq!(why, "a probe (GET /health) failed: status 503, which is not 200-399");
    clinic.posts(10).await;
    assert_eq!((ill.requests(), well.requests()), (5, 15));
    ill.probed(Mood::Answers(204));
    clinic.state(0, "up").await;
    clinic.posts(10).await;
    assert_eq!((ill.requests(), well.requests()), (10, 20));
    // What probes find is theirs: the exchanges that all went well did not open or close anything.
    assert_eq!(clinic.sum("proxy_backend_ejections_total"), 0);
}

#[tokio::test]
async fn a_lone_backend_that_is_down_is_not_asked() {
    let ill = Ward::start().await;
    ill.probed(Mood::Resets);
    let clinic = Clinic::start(&[&ill], |s| s.health.active = ProbeKind::Http).await;
    // The first probe decides, and no `fall` is waited for.
    clinic.state(0, "down").await;
    assert_eq!(clinic.posts(3).await, BTreeMap::from([(503, 3)]));
    assert_eq!(ill.requests(), 0);
}

#[tokio::test]
async fn a_probe_that_hangs_ends_and_is_never_two() {
    let ill = Ward::start().await;
    ill.probed(Mood::Silent);
    let clinic = Clinic::start(&[&ill], |s| {
        s.health.active = ProbeKind::Http;
        s.health.interval = Duration::from_millis(1);
        s.health.timeout = Duration::from_millis(500);
    })
    .await;
    clinic.state(0, "down").await;
    let failure = clinic.backend(0).health.probe.unwrap().failure.unwrap();
    assert_eq!(failure, "no answer within 500ms");
    let more = async {
        while ill.probes() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("more probes", more).await;
    assert_eq!(ill.waiting.1.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_probe_may_want_a_text_a_connection_or_a_handshake() {
    let ward = Ward::start().await;
    let dead: SocketAddr = dead_url().trim_start_matches("http://").parse().unwrap();
    for (kind, text, state) in [
        (ProbeKind::Http, Some("ok"), "up"),
        (ProbeKind::Http, Some("fine"), "down"),
        (ProbeKind::Tcp, None, "up"),
        // It answers a handshake with 200.
        (ProbeKind::Ws, None, "down"),
    ] {
        let clinic = Clinic::start(&[&ward], |s| {
            s.health.active = kind;
            s.health.expect_body = text.map(str::to_owned);
        })
        .await;
        clinic.state(0, state).await;
        if kind == ProbeKind::Ws {
            let failure = clinic.backend(0).health.probe.unwrap().failure.unwrap();
            assert_eq!(failure, "status 200, which is not 101");
        }
    }
    let mut gone = Ward::start().await;
    gone.address = dead;
    for kind in [ProbeKind::Http, ProbeKind::Tcp, ProbeKind::Ws] {
        let clinic = Clinic::start(&[&gone], |s| s.health.active = kind).await;
        clinic.state(0, "down").await;
        let failure = clinic.backend(0).health.probe.unwrap().failure.unwrap();
        assert!(failure.starts_with("no connection: "), "{failure}");
    }
}

#[tokio::test]
async fn a_backend_that_speaks_websocket_is_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut ward = Ward::start().await;
    ward.address = listener.local_addr().unwrap();
    let clinic = Clinic::start(&[&ward], |s| {
        s.health.active = ProbeKind::Ws;
        s.health.host = Some("shop.example".to_owned());
    })
    .await;
    let (stream, _) = within("a probe", listener.accept()).await.unwrap();
    let mut socket = within("a handshake", tokio_tungstenite::accept_async(stream)).await.unwrap();
    clinic.state(0, "up").await;
    let goodbye = within("a goodbye", futures_util::StreamExt::next(&mut socket)).await;
    assert!(goodbye.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn a_probe_goes_the_way_of_the_exchanges() {
    let authority = Authority::new();
    for (tls, http2) in [(true, false), (true, true), (false, true)] {
        let backend = Backend::start().await;
        let url = if tls { backend.https() } else { backend.url() };
        let clinic = Clinic::of(region(url, http2), |s| {
            s.tls.backends = authority.trusted().tls;
            s.health.active = ProbeKind::Http;
            s.health.host = Some("shop.example".to_owned());
            s.health.expect_body = Some("well".to_owned());
        })
        .await;
        let stream = backend.accept().await.stream;
        let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let acceptor = authority.server("127.0.0.1", &[alpn], false);
        let mut server = JoinSet::new();
        server.spawn(async move {
            if tls {
                let stream = within("a handshake", acceptor.accept(stream)).await.unwrap();
                says_well(stream, http2).await;
            } else {
                says_well(stream, http2).await;
            }
        });
        clinic.state(0, "up").await;
        within("the end of the connection", server.join_next()).await.unwrap().unwrap();
    }
}

/// Serves one connection, on which everything is well.
async fn says_well(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    http2: bool,
) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let host = request.uri().host().map(str::to_owned);
        let host = host.or_else(|| Some(request.headers()["host"].to_str().ok()?.to_owned()));
        let well = request.uri().path() == "/health" && host.as_deref() == Some("shop.example");
        let body = if well { "all is well" } else { "who?" };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
    });
    let io = TokioIo::new(stream);
    // A probe that is over says no goodbye.
    if http2 {
        let exec = hyper_util::rt::TokioExecutor::new();
        hyper::server::conn::http2::Builder::new(exec).serve_connection(io, service).await.ok();
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok();
    }
}
