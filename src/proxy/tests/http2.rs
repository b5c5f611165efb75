//! Backends of HTTP/2, frame by frame.

use http_body_util::Empty;

use super::http2_clients::http2_client;
use super::secure::{Authority, region};
use super::*;

/// Frame types, flags and codes of RFC 9113.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
/// `SETTINGS_MAX_CONCURRENT_STREAMS: 1`
const ONE_STREAM: [u8; 6] = [0, 3, 0, 0, 0, 1];
/// `:status: 200` of the static table of RFC 7541.
const STATUS_200: [u8; 1] = [0x88];

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// The first words of a connection, with some settings.
    pub(super) async fn begins_http2(mut self, settings: &[u8]) -> Self {
        self.until("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        self.frame(SETTINGS, 0, 0, settings).await;
        self
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.say([&head, payload].concat()).await;
    }

    /// The stream of the next request, once all of it is here.
    pub(super) async fn request(&mut self) -> u32 {
        loop {
            let head = self.exactly(9).await;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            self.exactly(usize::try_from(length).unwrap()).await;
            let (kind, flags) = (head[3], head[4]);
            if kind == SETTINGS && flags & ACK == 0 {
                self.frame(SETTINGS, ACK, 0, &[]).await;
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            }
        }
    }

    /// Answers a stream with nothing but a 200.
    pub(super) async fn grants(&mut self, stream: u32) {
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &STATUS_200).await;
    }
}

impl Backend {
    pub(super) async fn accept_http2(&self, settings: &[u8]) -> Peer {
        self.accept().await.begins_http2(settings).await
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

async fn ok(client: &mut Peer) {
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn exchanges_share_a_connection_and_what_was_refused_untouched_is_sent_again() {
    let backend = Backend::start().await;
    let gateway = Gateway::of(region(backend.url(), true), Bounds::default()).await;
    let (mut one, mut other) = (gateway.connect().await, gateway.connect().await);
    one.say(GET).await;
    let mut peer = backend.accept_http2(&[]).await;
    let first = peer.request().await;
    other.say(GET).await;
    let second = peer.request().await;
    assert_eq!((first, second), (1, 3));
    peer.grants(second).await;
    peer.grants(first).await;
    ok(&mut one).await;
    ok(&mut other).await;
    assert_eq!(gateway.count("proxy_upstream_connects"), 1);
    // Neither is idempotent; both came to nothing.
    one.say(POST).await;
    let refused = peer.request().await;
    peer.frame(RST_STREAM, 0, refused, &REFUSED_STREAM).await;
    let again = peer.request().await;
    peer.grants(again).await;
    ok(&mut one).await;
    assert_eq!(gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"reset\"}"), 0);
}

#[tokio::test]
async fn a_connection_that_is_told_to_go_gets_nothing_new() {
    let backend = Backend::start().await;
    let gateway = Gateway::of(region(backend.url(), true), Bounds::default()).await;
    let (mut one, mut other) = (gateway.connect().await, gateway.connect().await);
    one.say(POST).await;
    let mut peer = backend.accept_http2(&[]).await;
    let first = peer.request().await;
    other.say(POST).await;
    peer.request().await;
    // The first is answered yet; the second was not looked at.
    peer.frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    let mut next = backend.accept_http2(&[]).await;
    let again = next.request().await;
    next.grants(again).await;
    ok(&mut other).await;
    peer.grants(first).await;
    ok(&mut one).await;
    one.say(GET).await;
    let third = next.request().await;
    next.grants(third).await;
    ok(&mut one).await;
    assert_eq!(gateway.count("proxy_upstream_connects"), 2);
    gateway.idle().await;
}

#[tokio::test]
async fn no_more_streams_are_opened_than_the_backend_allows() {
    let backend = Backend::start().await;
    let gateway = Gateway::of(region(backend.url(), true), Bounds::default()).await;
    let mut client = gateway.connect().await;
    client.say(GET).await;
    let mut peer = backend.accept_http2(&ONE_STREAM).await;
    let stream = peer.request().await;
    peer.grants(stream).await;
    ok(&mut client).await;
    client.say(GET).await;
    let stream = peer.request().await;
    let mut other = gateway.connect().await;
    other.say(GET).await;
    let mut second = backend.accept_http2(&ONE_STREAM).await;
    let there = second.request().await;
    second.grants(there).await;
    ok(&mut other).await;
    peer.grants(stream).await;
    ok(&mut client).await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let backend = Backend::start().await;
    let gateway = Gateway::of(region(backend.url(), true), Bounds::default()).await;
    let (mut client, _tasks) = http2_client::<Empty<Bytes>>(&gateway).await;
    let get = || Request::get("https://front.example/").body(Empty::new()).unwrap();
    let one = client.send_request(get());
    let mut peer = backend.accept_http2(&[]).await;
    let first = peer.request().await;
    let mut other = gateway.connect().await;
    other.say(GET).await;
    let second = peer.request().await;
    drop(one);
    let reset = loop {
        let head = peer.exactly(9).await;
        peer.exactly(usize::from(head[2])).await;
        if head[3] == RST_STREAM {
            break u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        }
    };
    assert_eq!(reset, first);
    peer.grants(second).await;
    ok(&mut other).await;
    gateway.idle().await;
}

#[tokio::test]
async fn a_body_that_its_client_breaks_is_not_the_backends_fault() {
    let backend = Backend::start().await;
    let mut settings = Bounds::default();
    settings.proxy.max_body_bytes = 4;
    let gateway = Gateway::of(region(backend.url(), true), settings).await;
    let mut client = gateway.connect().await;
    client
        .say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlarge\r\n")
        .await;
    let _peer = backend.accept_http2(&[]).await;
    client.gets(400, "BodyTooLarge").await;
    gateway.idle().await;
    for cause in ["reset", "aborted", "garbage"] {
        let series = format!("proxy_upstream_errors_total{{region=\"1\",cause=\"{cause}\"}}");
        assert_eq!(gateway.count(&series), 0, "{cause}");
    }
}

#[tokio::test]
async fn a_backend_that_has_only_http_1_1_gets_that_over_tls() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[b"http/1.1"], false);
    let gateway = Gateway::of(region(backend.https(), true), authority.trusted()).await;
    let mut client = gateway.connect().await;
    client.say(GET).await;
    let mut peer = backend.accept_tls(&acceptor).await;
    assert!(peer.answers("old").await.starts_with("get /a http/1.1\r\n"));
    client.gets(200, "old").await;
    // Kept, and no line to wait in for the next.
    client.say(GET).await;
    peer.head().await;
    let mut other = gateway.connect().await;
    other.say(GET).await;
    let mut second = backend.accept_tls(&acceptor).await;
    second.answers("second").await;
    other.gets(200, "second").await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst").await;
    client.gets(200, "first").await;
}

#[tokio::test]
async fn those_who_wait_for_a_dial_share_its_fate() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let mut settings = authority.trusted();
    settings.proxy.tls_timeout = Duration::from_secs(1);
    let gateway = Gateway::of(region(backend.https(), true), settings).await;
    let (mut one, mut other) = (gateway.connect().await, gateway.connect().await);
    one.say(GET).await;
    let _silent = backend.accept().await;
    other.say(GET).await;
    one.gets(502, "TlsTimeout").await;
    other.gets(502, "TlsTimeout").await;
    let dialed = timeout(Duration::from_millis(20), backend.0.accept()).await;
    assert!(dialed.is_err(), "each waiter dialed anew");
}

#[tokio::test]
async fn trailers_that_a_stream_cannot_have_do_not_break_it() {
    let backend = Backend::start().await;
    let gateway = Gateway::of(region(backend.url(), true), Bounds::default()).await;
    let mut client = gateway.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n";
    let trailers = "x-sum: 1\r\nConnection: close\r\nTransfer-Encoding: gzip\r\nTE: gzip\r\n";
    client.say(format!("{head}2\r\nhi\r\n0\r\n{trailers}\r\n")).await;
    let mut peer = backend.accept_http2(&[]).await;
    let stream = peer.request().await;
    peer.grants(stream).await;
    ok(&mut client).await;
    assert_eq!(gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"reset\"}"), 0);
}
