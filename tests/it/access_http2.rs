//! The ends that only TLS and HTTP/2 have: each leaves one line, also where the codec has refused what never became a request.

use std::time::Duration;

use meridian::settings::AccessFormat;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::access::{Lines, says};
use crate::harness::backend::{Backend, Step, ok};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::h2::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, fields, frame, get};
use crate::harness::http::get as ask;
use crate::harness::tls::Authority;
use crate::harness::{eventually, within};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// A gateway with little patience, whose lines are kept.
async fn gateway(authority: &Authority, backend: &Backend, lines: &Lines) -> Gateway {
    authority
        .gateway(|settings| {
            lines.write_here(settings, AccessFormat::Json);
            add_backend(settings, "1", backend.address);
            settings.proxy.header_timeout = Duration::from_secs(2);
            settings.proxy.body_idle_timeout = Duration::from_millis(800);
            settings.tls.max_streams = 4.try_into().unwrap();
        })
        .await
}

/// Waits for the line without a path that has this end.
async fn unread(lines: &Lines, end: &str) -> Value {
    let found =
        || lines.all().into_iter().find(|line| line["path"].is_null() && line["end"] == end);
    eventually(&format!("the line of {end}"), async || found().is_some()).await;
    found().unwrap()
}

#[tokio::test]
async fn each_end_of_tls_and_of_a_stream_leaves_one_line() {
    let (lines, authority) = (Lines::new(), Authority::new());
    let large = "x".repeat(200_000);
    let backend = Backend::scripted([ok("hello"), Step::Silence, ok(&large)]).await;
    let gateway = gateway(&authority, &backend, &lines).await;
    let address = gateway.addresses.tls.unwrap();

    // What TLS has.
    assert_eq!(ask(address, "/plain", "").await.status, 400);
    says(&unread(&lines, "misdirected").await, &[("status", 400.into())]);
    let mut secure = authority.connect(address, "a.example", &["http/1.1"]).await;
    secure.write_all(b"GET /other HTTP/1.1\r\nHost: b.example\r\n\r\n").await.unwrap();
    let line = lines.of("/other").await;
    says(&line, &[("status", 421.into()), ("end", "misdirected".into()), ("tls", "1.3".into())]);

    // What a stream has.
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &get("/complete?region=1", &[])).await;
    assert_eq!(raw.answer(1).await.0, 200);
    let over = [("protocol", "HTTP/2.0".into()), ("tls", "1.3".into())];
    says(&lines.of("/complete").await, &over);
    raw.request(3, &get("/given-up?region=1", &[])).await;
    eventually("the request at the backend", async || backend.heads().len() == 2).await;
    raw.send(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])).await;
    let line = lines.of("/given-up").await;
    says(&line, &[("status", 499.into()), ("end", "client_gone".into())]);
    let mut closed = Raw::with_settings(&authority, &gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    closed.request(1, &get("/unread?region=1", &[])).await;
    let line = lines.of("/unread").await;
    says(&line, &[("status", 200.into()), ("end", "slow_reader".into())]);
    raw.request(5, &get("/none", &[("x-region", "none")])).await;
    assert_eq!(raw.answer(5).await.0, 404);
    says(&lines.of("/none").await, &over);
    assert_eq!(lines.all().len(), 6, "{:?}", lines.all());
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_the_codec_refuses_leaves_one_line() {
    let (lines, authority) = (Lines::new(), Authority::new());
    let backend = Backend::scripted(vec![Step::Silence; 10]).await;
    let gateway = gateway(&authority, &backend, &lines).await;

    // Requests that never became one: the connection goes on.
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(
        1,
        &fields(&[(":method", "GET"), (":authority", "a.example"), (":scheme", "https")]),
    )
    .await;
    assert_eq!(raw.next_of(1).await.kind, RST_STREAM);
    let line = unread(&lines, "bad_request").await;
    says(
        &line,
        &[
            ("status", 400.into()),
            ("protocol", "HTTP/2.0".into()),
            ("tls", "1.3".into()),
            ("client", "127.0.0.1".into()),
        ],
    );
    let large = fields(&[("cookie", "a=1")]).repeat(1_300);
    for (stream, flags) in [(3, END_HEADERS), (5, END_HEADERS | END_STREAM)] {
        raw.send(&frame(HEADERS, flags, stream, &[get("/", &[]), large.clone()].concat())).await;
        assert_eq!(raw.answer(stream).await.0, 431);
    }
    says(&unread(&lines, "too_large").await, &[("status", 431.into())]);
    for stream in [7, 9, 11, 13, 15] {
        raw.request(stream, &get("/held?region=1", &[])).await;
    }
    assert_eq!(raw.next_of(15).await.kind, RST_STREAM);
    says(&unread(&lines, "overloaded").await, &[("status", 503.into())]);
    assert_eq!(lines.all().len(), 4, "{:?}", lines.all());

    // Connections that are ended for it.
    let mut bomb = Raw::connect(&authority, &gateway).await;
    let mut block = get("/", &[]);
    block.extend([0x40, 1, b'a', 1, b'b']);
    block.extend([0xbe; 10_000]);
    bomb.request(1, &block).await;
    bomb.end().await;
    says(&unread(&lines, "flooded").await, &[("status", 429.into())]);
    let mut broken = Raw::connect(&authority, &gateway).await;
    broken.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2, &get("/", &[]))).await;
    broken.end().await;
    let mut other = Raw::silent(&authority, &gateway).await;
    other.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    other.end().await;
    let mut stated = Raw::connect(&authority, &gateway).await;
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", "/ws"),
        ("content-length", "5"),
    ];
    stated.send(&frame(HEADERS, END_HEADERS, 1, &fields(&connect))).await;
    stated.end().await;
    eventually("three broken connections", async || {
        lines.all().iter().filter(|line| line["end"] == "protocol_error").count() == 3
    })
    .await;
    let mut late = Raw::connect(&authority, &gateway).await;
    // So that no acknowledgement of settings comes between.
    late.request(1, &get("/health", &[])).await;
    assert_eq!(late.answer(1).await.0, 200);
    late.send(&frame(HEADERS, END_STREAM, 3, &get("/never-whole", &[]))).await;
    within("the close", late.end()).await;
    says(&unread(&lines, "head_timeout").await, &[("status", 408.into())]);

    let text = ask(gateway.admin(), "/metrics", "").await.text().to_owned();
    for (what, code, count) in [
        ("stream", "refused_stream", 1),
        ("connection", "protocol_error", 2),
        ("connection", "enhance_your_calm", 1),
    ] {
        let series = format!("http2_errors_sent_total{{what=\"{what}\",code=\"{code}\"}} {count}");
        assert!(text.contains(&series), "{series} in {text}");
    }
}
