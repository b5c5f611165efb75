//! The line of each exchange and socket: one whatever its end, in a file that may be put aside, lost or full.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meridian::settings::{
    AccessFormat, BackendSettings, LimitSettings, RegionName, RuleAction, RuleSettings, Settings,
    StaticSettings, TraceMode,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::{Backend, Step, ok};
use crate::harness::chat::Chat;
use crate::harness::eventually;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange, get};
use crate::harness::port::Port;

/// A file of lines.
pub(crate) struct Lines {
    folder: TempDir,
    path: PathBuf,
}

impl Lines {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        Self { folder, path }
    }

    pub(crate) fn write_here(&self, settings: &mut Settings, format: AccessFormat) {
        settings.access.file = Some(self.path.clone());
        settings.access.format = Some(format);
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// The fields of all lines.
    pub(crate) fn all(&self) -> Vec<Value> {
        let fields = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect(line);
            let mut fields = line["fields"].take();
            fields["part"] = line["component"].take();
            fields
        };
        self.text().lines().map(fields).collect()
    }

    /// Waits for the line of a path; an empty one is that of what could not be read.
    pub(crate) async fn of(&self, path: &str) -> Value {
        let found =
            || self.all().into_iter().find(|line| line["path"].as_str().unwrap_or("") == path);
        eventually(&format!("the line of {path:?}"), async || found().is_some()).await;
        found().unwrap()
    }
}

/// What a line must say; what is not named may be anything.
pub(crate) fn says(line: &Value, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(line[*name], *value, "{name} in {line}");
    }
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn short_times(settings: &mut Settings) {
    settings.proxy.header_timeout = Duration::from_secs(1);
    // Long enough for another request while one waits for it.
    settings.proxy.first_byte_timeout = Duration::from_secs(1);
    settings.proxy.body_idle_timeout = Duration::from_millis(600);
    settings.proxy.max_body_bytes = 100;
    settings.shutdown.grace = Duration::from_millis(300);
}

fn protections(settings: &mut Settings, folder: &Path) {
    let limit: LimitSettings = toml::from_str("path = '/limited'\nrate = '1/min'").unwrap();
    settings.limits.insert("login".to_owned(), limit);
    let rule = RuleSettings {
        path: "/denied".to_owned(),
        action: RuleAction::Deny,
        ..RuleSettings::default()
    };
    settings.rules.insert("secret".to_owned(), rule);
    fs::write(folder.join("file"), "a file").unwrap();
    let mount = StaticSettings {
        path: "/files/".to_owned(),
        folder: folder.to_owned(),
        ..StaticSettings::default()
    };
    settings.mounts.insert("files".to_owned(), mount);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn every_end_leaves_one_line() {
    let lines = Lines::new();
    let large = "x".repeat(64 * 1024 * 1024);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s\r\n\r\n\u{1}";
    let partial = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    let backend = Backend::scripted([
        ok("hello"),
        ok("hello"),
        Step::Close,
        Step::Reply("nonsense\r\n\r\n".into()),
        Step::Silence,
        Step::ReplyAndClose(partial.into()),
        Step::Reply(partial.into()),
        Step::Silence,
        ok(&large),
        ok(&large),
        ok("within the limit"),
        ok("elsewhere"),
        Step::ReplyAndClose(switch.into()),
        Step::Silence,
        Step::Silence,
    ])
    .await;
    let reader = Backend::saying("never").await;
    let dead = [Port::reserve(), Port::reserve()];
    let gateway = Gateway::start(|settings| {
        lines.write_here(settings, AccessFormat::Json);
        short_times(settings);
        protections(settings, lines.folder.path());
        add_backend(settings, "1", backend.address);
        add_backend(settings, "late", reader.address);
        add_backend(settings, "dead", dead[0].address());
        add_backend(settings, "poor", dead[1].address());
        let poor = settings.regions.get_mut(&RegionName::new("poor").unwrap()).unwrap();
        poor.failover = "ordered:1".parse().unwrap();
        let region = settings.regions.get_mut(&RegionName::new("1").unwrap()).unwrap();
        region.health.passive = Some(false);
        region.backends[0].max_connections = 1;
        settings.backends.queue_length = 0;
    })
    .await;
    let proxy = gateway.proxy();
    let in_1 = "x-region: 1\r\n";
    let backend_is = Value::from(backend.address.to_string());

    get(proxy, "/complete?secret=1", in_1).await;
    let line = lines.of("/complete").await;
    says(
        &line,
        &[
            ("part", "Proxy".into()),
            ("method", "GET".into()),
            ("status", 200.into()),
            ("region", "1".into()),
            ("served", "1".into()),
            ("backend", backend_is.clone()),
            ("attempts", 1.into()),
            ("bytes", 5.into()),
            ("bytes_in", 0.into()),
            ("end", "complete".into()),
            ("client", "127.0.0.1".into()),
            ("protocol", "HTTP/1.1".into()),
            ("why", Value::Null),
            ("tls", Value::Null),
        ],
    );
    assert!(line["first_byte_ms"].is_f64() && !lines.text().contains("secret"), "{line}");
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    exchange(proxy, &post("/posted", trace, "four")).await;
    let line = lines.of("/posted").await;
    says(&line, &[("bytes_in", 4.into()), ("trace_id", "0af7651916cd43dd8448eb211c80319c".into())]);

    // What the backend does.
    for (path, status, end) in [
        ("/reset", 502, "backend_reset"),
        ("/garbage", 502, "backend_garbage"),
        ("/silent", 504, "first_byte_timeout"),
    ] {
        assert_eq!(exchange(proxy, &post(path, "", "")).await.status, status, "{path}");
        let line = lines.of(path).await;
        says(&line, &[("status", status.into()), ("end", end.into()), ("attempts", 1.into())]);
    }
    for (path, end) in [("/aborted", "backend_aborted"), ("/stalled", "backend_stalled")] {
        let mut client = Http::connect(proxy).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{in_1}\r\n")).await;
        let line = lines.of(path).await;
        says(&line, &[("status", 200.into()), ("end", end.into()), ("bytes", 3.into())]);
    }

    // What the client does.
    let client = Http::connect(proxy).await;
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = client;
    client.send(format!("GET /gone HTTP/1.1\r\nHost: a\r\n{in_1}\r\n")).await;
    eventually("the request at the backend", async || backend.heads().len() == 8).await;
    drop(client);
    says(&lines.of("/gone").await, &[("status", 499.into()), ("end", "client_gone".into())]);
    let mut client = Http::connect(proxy).await;
    client.send(format!("GET /left HTTP/1.1\r\nHost: a\r\n{in_1}\r\n")).await;
    client.stream.readable().await.unwrap();
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    says(&lines.of("/left").await, &[("status", 200.into()), ("end", "client_aborted".into())]);
    let mut slow = Http::connect(proxy).await;
    slow.send(format!("GET /unread HTTP/1.1\r\nHost: a\r\n{in_1}\r\n")).await;
    says(&lines.of("/unread").await, &[("status", 200.into()), ("end", "slow_reader".into())]);
    let mut late = Http::connect(proxy).await;
    let begun = post("/late", "", "").replace("Length: 0", "Length: 10");
    late.send(begun.replace("x-region: 1", "x-region: late") + "12").await;
    assert_eq!(late.answer("POST").await.status, 408);
    says(&lines.of("/late").await, &[("end", "body_timeout".into()), ("bytes_in", 2.into())]);
    let mut late = Http::connect(proxy).await;
    late.send("GET /never HTTP/1.1\r\nHo").await;
    assert_eq!(late.answer("GET").await.status, 408);
    says(&lines.of("").await, &[("end", "head_timeout".into()), ("client", "127.0.0.1".into())]);

    // What this gateway says.
    let many = format!("{in_1}Via: {}1.1 z\r\n", "1.1 y, ".repeat(9));
    let long = format!("/long{}", "x".repeat(20_000));
    get(proxy, "/limited", in_1).await;
    for (path, headers, status, end) in [
        ("/nowhere", "", 400, "no_region"),
        ("/unknown", "x-region: xx\r\n", 404, "no_region"),
        ("/refused", "x-region: dead\r\n", 502, "connect_failed"),
        ("/empty", "x-region: 2\r\n", 503, "no_backend"),
        ("/circle", many.as_str(), 508, "loop"),
        ("/hosts", "Host: b\r\n", 400, "bad_request"),
        ("/bare", "x-region: 1\n", 400, "bad_request"),
        (long.as_str(), in_1, 414, "too_large"),
        ("/denied", in_1, 403, "denied"),
        ("/files/file", in_1, 200, "file"),
        ("/files/none", in_1, 404, "not_found"),
        ("/health", "", 200, "local"),
    ] {
        let answer = get(proxy, path, &format!("{headers}{trace}")).await;
        assert_eq!(answer.status, status, "{path}");
        let line = lines.of(path).await;
        says(&line, &[("status", status.into()), ("end", end.into())]);
        // Whoever answered: what the client was told, and was told of, is found again.
        assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"), "{path}");
        says(&line, &[("trace_id", "0af7651916cd43dd8448eb211c80319c".into())]);
    }
    assert_eq!(get(proxy, "/limited", trace).await.status, 429);
    eventually("the second line", async || {
        lines.all().iter().any(|line| {
            line["end"] == "rate_limited" && line["status"] == 429 && line["trace_id"].is_string()
        })
    })
    .await;
    let big = post("/big", "", &"x".repeat(200));
    assert_eq!(exchange(proxy, &big).await.status, 413);
    says(&lines.of("/big").await, &[("status", 413.into()), ("end", "too_large".into())]);
    assert_eq!(get(proxy, "/moved", "x-region: poor\r\n").await.text(), "elsewhere");
    says(
        &lines.of("/moved").await,
        &[
            ("region", "poor".into()),
            ("served", "1".into()),
            ("why", "ordered".into()),
            ("attempts", 2.into()),
            ("backend", backend_is),
        ],
    );

    // Sockets.
    let asked = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Version: 13\r\n";
    get(proxy, "/tunnel", &format!("{in_1}{asked}")).await;
    says(
        &lines.of("/tunnel").await,
        &[
            ("status", 101.into()),
            ("end", "backend_closed".into()),
            ("ended_by", "backend".into()),
            ("bytes", 1.into()),
            ("region", "1".into()),
        ],
    );
    drop(Chat::join(gateway.hub("1"), "bob").await);
    let line = lines.of("/").await;
    says(&line, &[("part", "Hub".into()), ("user", "bob".into()), ("status", 101.into())]);

    // The end of all.
    let mut full = Http::connect(proxy).await;
    full.send(post("/held", "", "")).await;
    eventually("the backend to be full", async || backend.heads().len() == 14).await;
    assert_eq!(get(proxy, "/line", in_1).await.status, 503);
    says(&lines.of("/line").await, &[("end", "overloaded".into())]);
    says(&lines.of("/held").await, &[("end", "first_byte_timeout".into())]);
    for series in [
        "meridian_http_ends_total{region=\"1\",end=\"complete\"} 3",
        "meridian_http_ends_total{region=\"1\",end=\"backend_closed\"} 1",
        "meridian_http_ends_total{region=\"none\",end=\"no_region\"} 2",
        "meridian_proxy_served_elsewhere_total{region=\"poor\"} 1",
        "meridian_proxy_served_elsewhere_total{region=\"1\"} 0",
    ] {
        gateway.counts(series).await;
    }
    let mut cut = Http::connect(proxy).await;
    cut.send(post("/cut", "", "")).await;
    eventually("the last request at the backend", async || backend.heads().len() == 15).await;
    drop(gateway.stop().await);
    let mut counts = BTreeMap::new();
    for line in lines.all() {
        *counts.entry(line["path"].as_str().unwrap_or("").to_owned()).or_insert(0) += 1;
    }
    for (path, count) in &counts {
        assert_eq!(*count, if path == "/limited" { 2 } else { 1 }, "{path}");
    }
    assert_eq!(counts.len(), 32, "{counts:?}");
}

#[tokio::test]
async fn where_traces_are_not_looked_at_no_line_has_one() {
    let lines = Lines::new();
    let gateway = Gateway::start(|settings| {
        lines.write_here(settings, AccessFormat::Json);
        settings.proxy.trace = TraceMode::Off;
    })
    .await;
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    get(gateway.proxy(), "/nowhere", trace).await;
    says(&lines.of("/nowhere").await, &[("status", 400.into()), ("trace_id", Value::Null)]);
}

#[tokio::test]
async fn what_is_open_when_the_process_is_cut_has_a_line() {
    let lines = Lines::new();
    let backend = Backend::scripted([Step::Silence]).await;
    let gateway = Gateway::start(|settings| {
        lines.write_here(settings, AccessFormat::Json);
        settings.shutdown.grace = Duration::from_millis(200);
        add_backend(settings, "1", backend.address);
    })
    .await;
    let mut client = Http::connect(gateway.proxy()).await;
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    eventually("the request at the backend", async || backend.heads().len() == 1).await;
    drop(gateway.stop().await);
    // Nobody is waited for: it was written when the gateway had ended.
    let all = lines.all();
    says(&all[0], &[("path", "/cut".into()), ("status", 503.into()), ("end", "cut".into())]);
    assert_eq!(all.len(), 1);
}

#[tokio::test]
async fn the_combined_format_is_what_other_programs_read() {
    let lines = Lines::new();
    let backend = Backend::saying("hello").await;
    let gateway = Gateway::start(|settings| {
        lines.write_here(settings, AccessFormat::Combined);
        settings.access.queries = true;
        settings.access.client = meridian::settings::ClientShown::Truncated;
        add_backend(settings, "1", backend.address);
    })
    .await;
    let headers = "Referer: http://a/b\r\nUser-Agent: curl \"8\"\r\n";
    get(gateway.proxy(), "/x?region=1", headers).await;
    eventually("a line", async || lines.text().ends_with('\n')).await;
    let line = lines.text();
    let (begin, rest) = line.split_once(" [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(begin, "127.0.0.0 - -");
    assert!(time.ends_with(" +0000") && time.len() == 26, "{time}");
    let expected = "\"GET /x?region=1 HTTP/1.1\" 200 5 \"http://a/b\" \"curl \\\"8\\\"\"\n";
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn no_line_is_lost_where_files_are_put_aside() {
    let lines = Lines::new();
    let backend = Backend::saying("hello").await;
    let gateway = Gateway::start(|settings| {
        lines.write_here(settings, AccessFormat::Json);
        settings.access.rotate_bytes = 4_000;
        settings.access.rotate_keep = 1_000.try_into().unwrap();
        add_backend(settings, "1", backend.address);
    })
    .await;
    let mut client = Http::connect(gateway.proxy()).await;
    for number in 0..300 {
        let request = format!("GET /{number} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n");
        client.send(&request).await;
        client.answer(&request).await;
    }
    drop(client);
    gateway.stop().await.unwrap();
    let (mut found, mut files) = (Vec::new(), 0);
    for file in fs::read_dir(lines.folder.path()).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(text.len() <= 4_000 && text.ends_with('\n'), "{text}");
        files += 1;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            found.push(
                line["fields"]["path"]
                    .as_str()
                    .unwrap()
                    .trim_start_matches('/')
                    .parse::<u32>()
                    .unwrap(),
            );
        }
    }
    found.sort_unstable();
    assert_eq!(found, (0..300).collect::<Vec<_>>());
    assert!(files > 10, "{files}");
}

#[tokio::test]
async fn a_file_that_is_gone_or_full_holds_nobody_up() {
    let lines = Lines::new();
    let backend = Backend::saying("hello").await;
    let gateway = Gateway::start(|settings| {
        lines.write_here(settings, AccessFormat::Text);
        add_backend(settings, "1", backend.address);
    })
    .await;
    let in_1 = "x-region: 1\r\n";
    get(gateway.proxy(), "/one", in_1).await;
    eventually("a line", async || lines.text().contains(" /one ")).await;
    fs::remove_file(&lines.path).unwrap();
    eventually("the file to be begun anew", async || {
        get(gateway.proxy(), "/two", in_1).await;
        lines.text().contains(" /two ")
    })
    .await;
    let full = Gateway::start(|settings| {
        settings.access.file = Some("/dev/full".into());
        add_backend(settings, "1", backend.address);
    })
    .await;
    assert_eq!(get(full.proxy(), "/", in_1).await.text(), "hello");
    eventually("the loss to be counted", async || {
        let metrics = get(full.admin(), "/metrics", "").await.text().to_owned();
        metrics.contains("meridian_access_lines_dropped_total 1\n")
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_made_up_regions_add_no_series() {
    let (backend, dead) = (Backend::saying("hello").await, Port::reserve());
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        let region = settings.regions.get_mut(&RegionName::new("1").unwrap()).unwrap();
        region.backends.push(BackendSettings::backup(format!("http://{}", dead.address())));
    })
    .await;
    let series = async || {
        let metrics = get(gateway.admin(), "/metrics", "").await.text().to_owned();
        metrics.lines().filter(|line| !line.starts_with('#')).count()
    };
    get(gateway.proxy(), "/", "x-region: made-up\r\n").await;
    let before = series().await;
    let mut client = Http::connect(gateway.proxy()).await;
    for number in 0..10_000 {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nx-region: r{number:x}\r\n\r\n");
        client.send(&request).await;
        assert_eq!(client.answer(&request).await.status, 404);
    }
    assert_eq!(series().await, before);
}
