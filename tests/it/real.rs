//! Real programs on both sides: nginx, Node and Python as backends; curl, nghttp2's tools and openssl as clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange, get};
use crate::harness::nginx::Nginx;
use crate::harness::tls::{Authority, run};
use crate::harness::{chat, within};

/// A program of tests/backends, gone when it is dropped.
struct Program {
    address: SocketAddr,
    _child: Child,
}

impl Program {
    async fn start(program: &str, script: &str) -> Self {
        let path: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "tests", "backends", script].iter().collect();
        let mut child = Command::new(program)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; scripts/test.sh installs it"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = within(program, lines.next_line()).await.unwrap().expect("a port");
        Self { address: ([127, 0, 0, 1], port.parse().unwrap()).into(), _child: child }
    }
}

fn asked(method: &str, target: &str, lines: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\nx-region: 1\r\n{lines}\r\n{body}")
}

#[tokio::test]
async fn node_gets_what_was_sent_and_its_answers_arrive() {
    let node = Program::start("node", "plain.mjs").await;
    let gateway = Gateway::before(node.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    let mut ports = Vec::new();
    let chunks = "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n";
    for (request, said) in [
        (asked("GET", "/a?b=%20", "", ""), "GET /a?b=%20 none 0 e3b0c44298fc1c14"),
        (asked("POST", "/", "Content-Length: 5\r\n", "abcde"), "POST / 5 5 36bbe50ed96841d1"),
        (
            asked("PUT", "/", "Transfer-Encoding: chunked\r\n", chunks),
            "PUT / chunked 5 36bbe50ed96841d1",
        ),
        (asked("DELETE", "/x", "", ""), "DELETE /x none 0 "),
        (asked("GET", "/early", "", ""), "GET /early none 0 "),
    ] {
        http.send(&request).await;
        let answer = http.answer(&request).await;
        assert!(answer.text().starts_with(said), "{}", answer.text());
        ports.push(answer.header("x-port").unwrap().to_owned());
    }
    assert!(ports.iter().all(|port| *port == ports[0]), "one connection for all: {ports:?}");
    let head = asked("HEAD", "/", "", "");
    http.send(&head).await;
    assert_eq!(http.answer(&head).await.status, 200);
    let trailers = asked("GET", "/trailers", "TE: trailers\r\n", "");
    http.send(&trailers).await;
    assert_eq!(http.answer(&trailers).await.trailers, "x-sum: 42\r\n");
    let large = asked("GET", "/large?size=8000001", "", "");
    http.send(&large).await;
    assert_eq!(http.answer(&large).await.body.len(), 8_000_001);
}

#[tokio::test]
async fn python_is_served_and_talks_by_websocket() {
    let python = Program::start("python3", "plain.py").await;
    let gateway = Gateway::before(python.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    for (request, said) in [
        (asked("GET", "/a", "", ""), "GET /a 0"),
        (asked("POST", "/b", "Content-Length: 2\r\n", "hi"), "POST /b 2"),
        (asked("PUT", "/c", "Transfer-Encoding: chunked\r\n", chunks), "PUT /c 3"),
        (asked("GET", "/old", "", ""), "until the end"),
        (asked("GET", "/again", "", ""), "GET /again 0"),
    ] {
        http.send(&request).await;
        assert_eq!(http.answer(&request).await.text(), said);
    }
    let mut socket = chat::open(gateway.proxy(), "/live?region=1", &[]).await.unwrap();
    for text in ["", "one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        let heard = within("the echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(heard, Message::text(text));
    }
    socket.close(None).await.unwrap();
    within("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[tokio::test]
async fn files_of_nginx_come_whole_in_part_and_not_at_all() {
    let nginx = Nginx::start("one").await;
    nginx.put("data", &(0..100_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>());
    let gateway = Gateway::before(nginx.address).await;
    let asks = |lines: &str| asked("GET", "/files/data", lines, "");
    let whole = exchange(gateway.proxy(), &asks("")).await;
    assert_eq!((whole.status, whole.body.len()), (200, 400_000));
    let etag = whole.header("etag").expect("a tag").to_owned();
    let part = exchange(gateway.proxy(), &asks("Range: bytes=4-11\r\n")).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &[0, 0, 0, 1, 0, 0, 0, 2][..]));
    assert_eq!(part.header("content-range"), Some("bytes 4-11/400000"));
    let parts = exchange(gateway.proxy(), &asks("Range: bytes=0-1,8-9\r\n")).await;
    assert_eq!(parts.status, 206);
    assert!(parts.header("content-type").unwrap().starts_with("multipart/byteranges"));
    let beyond = exchange(gateway.proxy(), &asks("Range: bytes=500000-\r\n")).await;
    assert_eq!(beyond.status, 416);
    let mut http = Http::connect(gateway.proxy()).await;
    let known = asks(&format!("If-None-Match: {etag}\r\n"));
    http.send(&known).await;
    assert_eq!(http.answer(&known).await.status, 304);
    let head = asked("HEAD", "/files/data", "", "");
    http.send(&head).await;
    let answer = http.answer(&head).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("400000")));
    http.send(&known).await;
    assert_eq!(http.answer(&known).await.status, 304, "the connection was kept");
}

/// 2,000 requests by HTTP/2 and 2,000 by HTTP/1.1 to three nginx, one of which dies in between.
#[tokio::test]
async fn load_on_several_nginx_loses_nothing() {
    let (one, two) = (Nginx::start("one").await, Nginx::start("two").await);
    let mut three = Nginx::start("three").await;
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            for nginx in [&one, &two, &three] {
                add_backend(settings, "1", nginx.address);
            }
        })
        .await;
    let tls = gateway.addresses.tls.unwrap().port();
    let url = format!("https://localhost:{tls}/?region=1");
    for version in ["--warm-up-time=0", "--h1"] {
        let (good, said) =
            run("h2load", &["-n", "2000", "-c", "8", "-m", "10", version, &url]).await;
        assert!(good && said.contains("2000 succeeded, 0 failed, 0 errored"), "{version}: {said}");
        three.kill();
    }
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..10 {
        names.insert(get(gateway.proxy(), "/", "x-region: 1\r\n").await.text().to_owned());
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["one", "two"]);
}

#[tokio::test]
async fn curl_sends_and_fetches_by_either_version() {
    let node = Program::start("node", "plain.mjs").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", node.address)).await;
    let upload = authority.folder.path().join("upload");
    std::fs::write(&upload, vec![0; 3_000_000]).unwrap();
    let (ca, file) = (authority.ca(), upload.display().to_string());
    let shared = ["-sS", "-4", "--cacert", ca.to_str().unwrap(), "-H", "x-region: 1"];
    let secure = format!("https://localhost:{}", gateway.addresses.tls.unwrap().port());
    let plain = format!("http://{}", gateway.proxy());
    for (base, version) in [(&secure, "--http2"), (&secure, "--http1.1"), (&plain, "--http1.1")] {
        let fetch = async |more: &[&str], target: &str| {
            let url = format!("{base}{target}");
            let (good, said) =
                run("curl", &[&shared[..], &[version], more, &[&url]].concat()).await;
            assert!(good, "{version} {target}: {said}");
            said
        };
        // Over a megabyte, curl waits for a 100.
        let said = fetch(&["-T", &file], "/up").await;
        assert!(said.starts_with("PUT /up 3000000 3000000 "), "{said}");
        let said = fetch(
            &["-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary", "hello"],
            "/c",
        )
        .await;
        assert!(said.contains(" 5 2cf24dba5fb0a30e"), "{said}");
        let said =
            fetch(&["-o", "/dev/null", "-w", "%{size_download}"], "/large?size=3000000").await;
        assert_eq!(said, "3000000");
        let said = fetch(&["-I"], "/").await.to_ascii_lowercase();
        assert!(said.contains(" 200") && said.contains("x-region-served: 1"), "{said}");
    }
}

#[tokio::test]
async fn nghttp_sends_a_body_and_asks_for_many() {
    let node = Program::start("node", "plain.mjs").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", node.address)).await;
    let base = format!("https://localhost:{}", gateway.addresses.tls.unwrap().port());
    let body = authority.folder.path().join("body");
    std::fs::write(&body, "hello").unwrap();
    let data = format!("--data={}", body.display());
    let url = format!("{base}/up?region=1");
    let (good, said) = run("nghttp", &["--no-verify-peer", &data, "-H:method: PUT", &url]).await;
    assert!(good && said.contains("PUT /up?region=1 5 5 2cf24dba5fb0a30e"), "{said}");
    let (a, b) = (format!("{base}/a?region=1"), format!("{base}/b?region=1"));
    let (good, said) = run("nghttp", &["--no-verify-peer", &a, &b, "-m", "5"]).await;
    assert!(
        good && said.matches("GET /a?").count() == 5 && said.matches("GET /b?").count() == 5,
        "{said}"
    );
}

/// By hand, through openssl: HTTP/1.1 over TLS of each version.
#[tokio::test]
async fn openssl_carries_a_request() {
    let node = Program::start("node", "plain.mjs").await;
    let authority = Authority::new();
    let gateway = authority.gateway(|settings| add_backend(settings, "1", node.address)).await;
    let (port, ca) = (gateway.addresses.tls.unwrap().port(), authority.ca());
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-servername",
                "a.example",
                version,
            ])
            .args(["-alpn", "http/1.1", "-connect", &format!("127.0.0.1:{port}"), "-CAfile"])
            .arg(&ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is missing; scripts/test.sh installs it");
        let request =
            "GET /by-hand HTTP/1.1\r\nHost: a.example\r\nx-region: 1\r\nConnection: close\r\n\r\n";
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).await.unwrap();
        let (mut stdout, mut said) = (child.stdout.take().unwrap(), String::new());
        within("the answer", stdout.read_to_string(&mut said)).await.unwrap();
        assert!(
            said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("GET /by-hand none"),
            "{version}: {said}"
        );
    }
}
