//! HTTP/2 to the client: what good clients see, what floods get, and WebSockets over it (RFC 8441).

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::harness::backend::{Backend, Step};
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    WINDOW_UPDATE, fields, frame, get,
};
use crate::harness::http::Http;
use crate::harness::tls::{Authority, client, connect, run};
use crate::harness::{eventually, http, within};
use crate::running::Process;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
const INITIAL_WINDOW_SIZE: u16 = 4;

async fn metrics(gateway: &Gateway) -> String {
    http::get(gateway.admin(), "/metrics", "").await.text().to_owned()
}

/// That somebody else is answered, on a connection of his own.
async fn others_are_served(authority: &Authority, gateway: &Gateway) {
    let mut other = Raw::connect(authority, gateway).await;
    other.request(1, &get("/health", &[])).await;
    assert_eq!(other.answer(1).await.0, 200);
}

fn url(gateway: &Gateway, target: &str) -> String {
    format!("https://localhost:{}{target}", gateway.addresses.tls.unwrap().port())
}

#[tokio::test]
async fn curl_speaks_it() {
    let backend = Backend::saying("hello").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let (ca, target) = (authority.ca(), url(&gateway, "/x?region=1"));
    let shared =
        ["-sS", "-4", "--cacert", ca.to_str().unwrap(), "-w", " %{http_version} %{http_code}"];
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let arguments = [&shared[..], &[option, "-d", "some=body", &target]].concat();
        let (good, said) = run("curl", &arguments).await;
        assert!(good && said == format!("hello {version} 200"), "{option}: {said}");
    }
    assert_eq!(backend.seen.lock().unwrap().bodies, [b"some=body", b"some=body"]);
    for head in backend.heads() {
        assert!(head.starts_with("POST /x?region=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nhost: localhost:"), "{head}");
    }
}

#[tokio::test]
async fn nghttp_and_h2load_speak_it() {
    let backend = Backend::saying("hello").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let target = url(&gateway, "/?region=1");
    let (good, said) = run("nghttp", &["-v", "--no-verify-peer", &target]).await;
    assert!(good && said.contains(":status: 200") && said.contains("hello"), "{said}");
    assert!(said.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1"), "{said}");
    let (good, said) = run("h2load", &["-n", "500", "-c", "4", "-m", "20", &target]).await;
    assert!(good && said.contains("500 succeeded, 0 failed, 0 errored"), "{said}");
    gateway.counts("http_requests_total{region=\"1\",class=\"2xx\"} 501").await;
}

/// Row 20.
#[tokio::test]
async fn a_request_becomes_one_of_the_next_hops() {
    let backend = Backend::saying("ok").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let more = [
        ("x-region", "1"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("cookie", "c=3"),
    ];
    raw.request(1, &get("/x", &more)).await;
    assert_eq!(raw.answer(1).await, (200, b"ok".to_vec()));
    assert!(backend.head().starts_with("GET /x HTTP/1.1\r\n"));
    assert_eq!(backend.header("host"), ["a.example"]);
    assert_eq!(backend.header("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(backend.header("x-forwarded-proto"), ["https"]);
    assert!(backend.header("transfer-encoding").is_empty());
}

/// Row 20, and 9113, 8.2.2: each is an error of its stream, and of nothing else.
#[tokio::test]
async fn fields_of_a_connection_end_their_stream() {
    let backend = Backend::saying("ok").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let mut stream = 1;
    for field in [
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
    ] {
        raw.request(stream, &get("/", &[("x-region", "1"), field])).await;
        let reset = raw.next_of(stream).await;
        assert_eq!((reset.kind, reset.error_code()), (RST_STREAM, PROTOCOL_ERROR), "{field:?}");
        stream += 2;
    }
    assert!(backend.heads().is_empty());
    // Another host than the authority: malformed, too, but this gateway says why.
    raw.request(stream, &get("/", &[("x-region", "1"), ("host", "b.example")])).await;
    assert_eq!(raw.answer(stream).await.0, 400);
    raw.request(stream + 2, &get("/", &[("x-region", "1"), ("host", "a.example")])).await;
    assert_eq!(raw.answer(stream + 2).await.0, 200);
}

#[tokio::test]
async fn one_connection_has_refusals_and_answers() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &get("/", &[])).await;
    let (status, body) = raw.answer(1).await;
    assert_eq!(status, 400);
    assert!(String::from_utf8(body).unwrap().contains("region_required"));
    let other =
        [(":method", "GET"), (":scheme", "https"), (":authority", "b.example"), (":path", "/")];
    raw.request(3, &fields(&other)).await;
    assert_eq!(raw.answer(3).await.0, 421);
    // A plain CONNECT has no place here.
    raw.request(5, &fields(&[(":method", "CONNECT"), (":authority", "a.example:443")])).await;
    assert_eq!(raw.answer(5).await.0, 405);
    raw.request(7, &get("/health", &[])).await;
    assert_eq!(raw.answer(7).await.0, 200);
}

/// Bodies without a length, and trailers both ways.
#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
    let backend = Backend::scripted([Step::Reply(reply.into())]).await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &get("/", &[("x-region", "1"), ("te", "trailers")])).await;
    assert_eq!(raw.next_of(1).await.status(), 200);
    let data = raw.next_of(1).await;
    assert_eq!((data.kind, data.payload.as_slice()), (DATA, &b"hello"[..]));
    let mut trailers = raw.next_of(1).await;
    if trailers.kind == DATA {
        assert!(trailers.payload.is_empty(), "{trailers:?}");
        trailers = raw.next_of(1).await;
    }
    assert_eq!((trailers.kind, trailers.flags & END_STREAM), (HEADERS, END_STREAM), "{trailers:?}");

    // A GET with a body of no stated length, which the next hop would take for none.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let block = get("/", &[("x-region", "1"), ("trailer", "x-sum")]);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &block)).await;
    raw.send(&frame(DATA, 0, 1, b"some ")).await;
    raw.send(&frame(DATA, 0, 1, b"body")).await;
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("x-sum", "9")]))).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    let head = backend.read_to("\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    let body = backend.read_to("x-sum: 9\r\n\r\n").await;
    assert!(
        body.contains("some ") && body.contains("body") && body.contains("\r\n0\r\n"),
        "{body}"
    );
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(raw.answer(1).await, (200, b"done".to_vec()));
}

/// Row 47: a stream that is half closed is the usual thing; and a connection that is, still gets its answers.
#[tokio::test]
async fn a_half_closed_stream_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    let address = listener.local_addr().unwrap();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &get("/", &[("x-region", "1")])).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    backend.read_to("\r\n\r\n").await;
    raw.send(&frame(HEADERS, END_HEADERS, 3, &get("/health", &[]))).await;
    raw.send(&frame(DATA, END_STREAM, 3, b"")).await;
    assert_eq!(raw.answer(3).await.0, 200);
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    assert_eq!(raw.answer(1).await, (200, b"late".to_vec()));
}

/// A client that gives one request up costs the backend's, and nothing else.
#[tokio::test]
async fn a_reset_cancels_its_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &get("/", &[("x-region", "1")])).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    backend.read_to("\r\n\r\n").await;
    raw.send(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())).await;
    assert!(backend.rest().await.is_empty());
    raw.request(3, &get("/health", &[])).await;
    assert_eq!(raw.answer(3).await.0, 200);
    gateway.counts("http_requests_total{region=\"1\",class=\"client_gone\"} 1").await;
}

#[tokio::test]
async fn streams_over_the_bound_are_refused() {
    let backend = Backend::scripted(std::iter::repeat_n(Step::Silence, 100)).await;
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            add_backend(settings, "1", backend.address);
            settings.tls.max_streams = std::num::NonZeroU32::new(4).unwrap();
        })
        .await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    for stream in [1, 3, 5, 7, 9] {
        raw.request(stream, &get("/", &[("x-region", "1")])).await;
    }
    let refused = raw.next().await.unwrap();
    assert_eq!(
        (refused.kind, refused.stream, refused.error_code()),
        (RST_STREAM, 9, REFUSED_STREAM)
    );
}

/// Row 45, CVE-2023-44487.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let backend = Backend::scripted(std::iter::repeat_n(Step::Silence, 100_000)).await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    // As fast as can be, and one after the other so that each has reached the service.
    for paced in [false, true] {
        let mut raw = Raw::connect(&authority, &gateway).await;
        let block = get("/", &[("x-region", "1")]);
        let flood = async {
            for stream in (1..20_000).step_by(2) {
                let mut pair = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block);
                if paced {
                    if raw.try_send(&pair).await.is_err() {
                        break;
                    }
                    pair.clear();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                pair.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
                if raw.try_send(&pair).await.is_err() {
                    break;
                }
            }
            raw.end().await
        };
        let goaway = within("the end of the flood", flood).await;
        if let Some(goaway) = goaway {
            assert_eq!(goaway.error_code(), ENHANCE_YOUR_CALM);
        }
        assert!(backend.heads().len() < 2_000, "{}", backend.heads().len());
        others_are_served(&authority, &gateway).await;
    }
    gateway.counts("meridian_http_connections 0").await;
}

/// Row 45, CVE-2024-27316: fields without an end.
#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    for piece in [fields(&[("x-filler", &"v".repeat(200))]), Vec::new()] {
        let mut raw = Raw::connect(&authority, &gateway).await;
        raw.send(&frame(HEADERS, END_STREAM, 1, &get("/health", &[]))).await;
        let flood = async {
            for _ in 0..200_000 {
                if raw.try_send(&frame(CONTINUATION, 0, 1, &piece)).await.is_err() {
                    break;
                }
            }
            raw.end().await
        };
        within("the end of the flood", flood).await;
        others_are_served(&authority, &gateway).await;
    }
}

/// Row 45, CVE-2025-8671: the client makes the server reset.
#[tokio::test]
async fn a_flood_of_made_resets_ends_the_connection() {
    let backend = Backend::scripted(std::iter::repeat_n(Step::Silence, 100_000)).await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let block = get("/", &[("x-region", "1")]);
    let flood = async {
        for stream in (1..20_000).step_by(2) {
            let mut pair = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block);
            // A window beyond all bounds is an error of the stream.
            pair.extend(frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()));
            if raw.try_send(&pair).await.is_err() {
                break;
            }
        }
        raw.end().await
    };
    if let Some(goaway) = within("the end of the flood", flood).await {
        assert_eq!(goaway.error_code(), ENHANCE_YOUR_CALM);
    }
    assert!(backend.heads().len() < 2_000, "{}", backend.heads().len());
    others_are_served(&authority, &gateway).await;
}

/// Row 45: many small fields, and few large ones.
#[tokio::test]
async fn header_bombs_are_refused_and_the_connection_lives() {
    let backend = Backend::saying("ok").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", backend.address)).await;
    // The first crumb goes into the table of the decoder, the others are one byte each.
    let crumbs = |count| {
        let mut block = get("/", &[("x-region", "1")]);
        block.extend([0x40, 6]);
        block.extend(b"cookie");
        block.push(3);
        block.extend(b"a=1");
        block.extend(std::iter::repeat_n(0xbe, count));
        block
    };
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &crumbs(10_000)).await;
    let goaway = raw.end().await.expect("a goodbye");
    assert_eq!(goaway.error_code(), ENHANCE_YOUR_CALM);
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &crumbs(1_300)).await;
    assert_eq!(raw.answer(1).await.0, 431);
    // As one field, which they are for the backend; and 90 fields beside them are not over the 100 that may be.
    let mut block = crumbs(200);
    block.extend(fields(&[("x-a", "1")]).repeat(90));
    raw.request(7, &block).await;
    assert_eq!(raw.answer(7).await.0, 200);
    assert_eq!(backend.header("cookie"), [["a=1"; 201].join("; ")]);
    let large = "v".repeat(9_000);
    let bombs: Vec<_> =
        ["x-a", "x-b", "x-c", "x-d"].iter().map(|name| (*name, large.as_str())).collect();
    let block = get("/", &[&[("x-region", "1")], &bombs[..]].concat());
    let (first, rest) = block.split_at(16_000);
    let (second, third) = rest.split_at(16_000);
    raw.send(&frame(HEADERS, END_STREAM, 9, first)).await;
    raw.send(&frame(CONTINUATION, 0, 9, second)).await;
    raw.send(&frame(CONTINUATION, END_HEADERS, 9, third)).await;
    let (status, body) = raw.answer(9).await;
    assert_eq!(status, 431);
    assert!(
        String::from_utf8(body).unwrap().contains("headers_too_large"),
        "the answer is this gateway's"
    );
    assert_eq!(backend.heads().len(), 1);
    raw.request(11, &get("/", &[("x-region", "1")])).await;
    assert_eq!(raw.answer(11).await.0, 200);
}

/// A body that stops loses its stream and no other.
#[tokio::test]
async fn a_body_that_stops_costs_its_stream() {
    let backend = Backend::saying("ok").await;
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            add_backend(settings, "1", backend.address);
            settings.proxy.body_idle_timeout = Duration::from_millis(400);
        })
        .await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.send(&frame(HEADERS, END_HEADERS, 1, &get("/", &[("x-region", "1")]))).await;
    raw.send(&frame(DATA, 0, 1, b"some")).await;
    assert_eq!(raw.answer(1).await.0, 408);
    raw.request(3, &get("/", &[("x-region", "1")])).await;
    assert_eq!(raw.answer(3).await.0, 200);
}

/// Row 45: a reader that opens no window loses its stream, and the backend its burden; others on the connection go on.
#[tokio::test]
async fn a_closed_window_costs_its_stream() {
    let body = "x".repeat(1_000_000);
    let big = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let backend = Backend::scripted([Step::Reply(big.into())]).await;
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            add_backend(settings, "1", backend.address);
            settings.proxy.body_idle_timeout = Duration::from_secs(1);
        })
        .await;
    let mut raw = Raw::with_settings(&authority, &gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    raw.request(1, &get("/", &[("x-region", "1")])).await;
    raw.request(3, &get("/health", &[])).await;
    let mut ended = Vec::new();
    let mut answered = 0;
    while ended.len() < 2 {
        let frame = raw.next().await.expect("the connection lives");
        match frame.kind {
            HEADERS => answered += 1,
            RST_STREAM => ended.push(frame.stream),
            _ => panic!("{frame:?}"),
        }
    }
    ended.sort_unstable();
    assert_eq!((ended.as_slice(), answered), (&[1, 3][..], 2));
    raw.request(5, &get("/health", &[])).await;
    raw.send(&frame(WINDOW_UPDATE, 0, 5, &1_000_u32.to_be_bytes())).await;
    assert_eq!(raw.answer(5).await.0, 200);
    eventually("the backend's connection is given back", async || {
        backend.seen.lock().unwrap().closed == 1
    })
    .await;
}

/// A client that is slow with what concerns the whole connection loses it.
#[tokio::test]
async fn slow_clients_are_closed() {
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            settings.proxy.header_timeout = Duration::from_secs(1);
            settings.proxy.keep_alive_timeout = Duration::from_secs(1);
        })
        .await;
    let mut silent = Raw::silent(&authority, &gateway).await;
    let mut idle = Raw::connect(&authority, &gateway).await;
    idle.request(1, &get("/health", &[])).await;
    assert_eq!(idle.answer(1).await.0, 200);
    let mut dripping = Raw::connect(&authority, &gateway).await;
    let drip = async {
        dripping.send(&frame(HEADERS, END_STREAM, 1, &get("/health", &[]))).await;
        // It moves all the time, and never gets there.
        while dripping.try_send(&frame(CONTINUATION, 0, 1, &fields(&[("a", "b")]))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the close of who drips", drip).await;
    silent.end().await;
    idle.end().await;
    others_are_served(&authority, &gateway).await;
}

/// Pings keep no connection that is used for nothing else.
#[tokio::test]
async fn pings_do_not_keep_a_connection() {
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            settings.proxy.header_timeout = Duration::from_secs(1);
            settings.proxy.keep_alive_timeout = Duration::from_secs(1);
        })
        .await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let pinging = async {
        while raw.try_send(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the close", pinging).await;
}

#[tokio::test]
async fn a_drain_finishes_what_has_begun() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", address)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    raw.request(1, &get("/", &[("x-region", "1")])).await;
    let (stream, _) = within("the backend's connection", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    backend.read_to("\r\n\r\n").await;
    gateway.begin_stop().await;
    let goaway = raw.next().await.unwrap();
    assert_eq!((goaway.kind, goaway.error_code()), (GOAWAY, 0));
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").await;
    assert_eq!(raw.answer(1).await, (200, b"last".to_vec()));
    raw.end().await;
    gateway.ended().await.unwrap();
}

/// Row 45: each flood again and again against the built binary, whose memory is looked at.
#[tokio::test]
async fn floods_leave_the_memory_flat() {
    let folder = tempfile::tempdir().unwrap();
    let dev_folder = format!("tls.dev_folder={}", folder.path().display());
    let arguments =
        ["--tls-dev", "--set", "tls.port=0", "--set", &dev_folder, "--set", "workers=1"];
    let mut process = Process::start(&arguments, &["CONF__LOG__ACCESS=false"]);
    let address = process.address("proxy, TLS").await;
    let ca = folder.path().join("dev-ca.pem");
    let config = Arc::new(client(&ca, &["h2"], rustls::ALL_VERSIONS));
    let connect = async || {
        Raw::over(connect(address, "localhost", Arc::clone(&config)).await.unwrap())
            .begin(&[])
            .await
    };
    let block = fields(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/?region=1"),
    ]);
    let round = async || {
        for behind in [(RST_STREAM, CANCEL), (WINDOW_UPDATE, 0x7fff_ffff)] {
            let mut raw = connect().await;
            for stream in (1..4_000).step_by(2) {
                let mut pair = frame(HEADERS, END_STREAM | END_HEADERS, stream, &block);
                pair.extend(frame(behind.0, 0, stream, &behind.1.to_be_bytes()));
                if raw.try_send(&pair).await.is_err() {
                    break;
                }
            }
            raw.end_writing().await;
            raw.end().await;
        }
        let mut raw = connect().await;
        raw.send(&frame(HEADERS, END_STREAM, 1, &block)).await;
        let piece = fields(&[("x-filler", &"v".repeat(10_000))]);
        while raw.try_send(&frame(CONTINUATION, 0, 1, &piece)).await.is_ok() {}
        // A hundred answers that nobody takes.
        let mut raw = connect().await;
        raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
        for stream in (1..200).step_by(2) {
            raw.request(stream, &block).await;
        }
    };
    round().await;
    let before = process.memory("VmRSS");
    for _ in 0..10 {
        round().await;
    }
    let after = process.memory("VmRSS");
    assert!(after < before + 16 * 1024 * 1024, "from {before} to {after} bytes");
    let mut other = connect().await;
    other.request(1, &block).await;
    assert_eq!(other.answer(1).await.0, 200);
    process.signal("TERM").await;
    assert_eq!(process.end().await.0, Some(0));
}

/// Each stream leaves a line of its own, whatever its end.
#[tokio::test]
async fn each_stream_leaves_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let dev_folder = format!("tls.dev_folder={}", folder.path().display());
    let arguments = ["--tls-dev", "--set", "tls.port=0", "--set", &dev_folder];
    let mut process = Process::start(&arguments, &["LOG_FORMAT=json"]);
    let address = process.address("proxy, TLS").await;
    let config = client(&folder.path().join("dev-ca.pem"), &["h2"], rustls::ALL_VERSIONS);
    let stream = connect(address, "localhost", Arc::new(config)).await.unwrap();
    let mut raw = Raw::over(stream).begin(&[]).await;
    let ask = |path| {
        let head = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
        ];
        fields(&head)
    };
    for (stream, path) in [(1, "/one?region=1"), (3, "/two?region=9"), (5, "/three?region=2")] {
        raw.request(stream, &ask(path)).await;
        raw.answer(stream).await;
    }
    process.signal("TERM").await;
    raw.end().await;
    let (code, said) = process.end().await;
    assert_eq!(code, Some(0), "{said}");
    for (path, status) in [("/one", 200), ("/two", 404), ("/three", 200)] {
        let is_line = |line: &&str| {
            serde_json::from_str::<serde_json::Value>(line)
                .is_ok_and(|line| line.to_string().contains(&format!("GET {path} {status}")))
        };
        assert_eq!(said.lines().filter(is_line).count(), 1, "{path}: {said}");
    }
}

#[tokio::test]
async fn without_it_there_is_http_1_1() {
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| settings.tls.http2 = false).await;
    let address = gateway.addresses.tls.unwrap();
    let stream = authority.connect(address, "a.example", &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

fn websocket(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", path),
    ];
    all.extend_from_slice(more);
    fields(&all)
}

/// A text frame as clients send it (RFC 6455, 5.2), with a mask of nothing.
fn masked(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

async fn hears(raw: &mut Raw, stream: u32, wanted: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(wanted) {
        let frame = raw.next_of(stream).await;
        assert_eq!(frame.kind, DATA, "{frame:?} after {heard}");
        heard.push_str(&String::from_utf8_lossy(&frame.payload));
    }
    heard
}

/// Row 35: two users on one connection.
#[tokio::test]
async fn a_chat_over_http_2() {
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| settings.proxy.keep_alive_timeout = Duration::from_secs(1))
        .await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    for (stream, user) in [(1, "alice"), (3, "bob")] {
        let target = format!("/ws?userId={user}&region=1");
        let block = websocket(&target, &[("sec-websocket-version", "13")]);
        raw.send(&frame(HEADERS, END_HEADERS, stream, &block)).await;
        let head = raw.next_of(stream).await;
        assert_eq!((head.status(), head.flags & END_STREAM), (200, 0), "{head:?}");
        hears(&mut raw, stream, "\"welcome\"").await;
    }
    let text = r#"{"type":"message","to":"bob","text":"hi over h2","id":"c1"}"#;
    raw.send(&frame(DATA, 0, 1, &masked(text))).await;
    hears(&mut raw, 3, "hi over h2").await;
    // A connection with sockets is not idle.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    raw.request(5, &get("/health", &[])).await;
    assert_eq!(raw.answer(5).await.0, 200);
    // One socket goes, and its user with it.
    raw.send(&frame(RST_STREAM, 0, 3, &CANCEL.to_be_bytes())).await;
    eventually("one socket is left", async || {
        metrics(&gateway).await.contains("hub_sockets{region=\"1\"} 1")
    })
    .await;
    gateway.begin_stop().await;
    hears(&mut raw, 1, "\"reconnect\"").await;
    gateway.ended().await.unwrap();
}

/// Row 35: a backend sees an ordinary handshake, and frames pass both ways.
#[tokio::test]
async fn a_tunnel_over_http_2() {
    let echo = crate::upgrade::echo().await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", echo)).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let block = websocket("/live?region=1", &[("sec-websocket-version", "13")]);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &block)).await;
    let head = raw.next_of(1).await;
    assert_eq!((head.status(), head.flags & END_STREAM), (200, 0), "{head:?}");
    raw.send(&frame(DATA, 0, 1, &masked("there and back"))).await;
    hears(&mut raw, 1, "there and back").await;
    // Beside it, requests go on.
    raw.request(3, &get("/health", &[])).await;
    assert_eq!(raw.answer(3).await.0, 200);
    // The client's goodbye is the tunnel's end.
    raw.send(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())).await;
    eventually("no tunnel is left", async || {
        metrics(&gateway).await.lines().any(|line| {
            line.contains("tunnels") && line.contains("region=\"1\"") && line.ends_with(" 0")
        })
    })
    .await;
}

/// The rules of row 34 hold for it, too.
#[tokio::test]
async fn a_handshake_over_http_2_is_judged_like_any_other() {
    let authority = Authority::new();
    let gateway = authority.gateway(|_| ()).await;
    let mut raw = Raw::connect(&authority, &gateway).await;
    let version = ("sec-websocket-version", "13");
    for (stream, path, more, status, code) in [
        (1, "/ws?region=1", vec![version], 400, "user_invalid"),
        (3, "/ws?userId=a&region=1", vec![("sec-websocket-version", "8")], 426, "upgrade_required"),
        (5, "/ws?userId=a&region=1", vec![], 426, "upgrade_required"),
        (7, "/ws?userId=a", vec![version], 400, "region_required"),
        (9, "/ws?userId=a&region=9", vec![version], 404, "region_unknown"),
        (11, "/live?region=1", vec![version], 503, "region_unavailable"),
    ] {
        raw.send(&frame(HEADERS, END_HEADERS, stream, &websocket(path, &more))).await;
        let (answered, body) = raw.answer(stream).await;
        assert_eq!(answered, status, "{path} {more:?}");
        assert!(String::from_utf8(body).unwrap().contains(code), "{path} {more:?}");
    }
    let other = [
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", "/?region=1"),
    ];
    raw.send(&frame(HEADERS, END_HEADERS, 13, &fields(&other))).await;
    assert_eq!(raw.answer(13).await.0, 501);
    raw.end_writing().await;
}
