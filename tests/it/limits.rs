//! What holds clients back: rate limits by each gateway and by all together, rules, and bounds on slow clients.

use std::time::Duration;

use meridian::settings::{LimitSettings, RuleSettings, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::harness::backend::{Backend, Step};
use crate::harness::chat::Chat;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::h2::{END_HEADERS, HEADERS, Raw, fields, frame};
use crate::harness::http::{Answer, Http, exchange, get};
use crate::harness::port::Port;
use crate::harness::redis::RedisServer;
use crate::harness::tls::Authority;
use crate::harness::{eventually, within};

fn limit(settings: &mut Settings, name: &str, text: &str) {
    let limit: LimitSettings = toml::from_str(text).unwrap();
    settings.limits.insert(name.to_owned(), limit);
}

fn rule(settings: &mut Settings, name: &str, text: &str) {
    let rule: RuleSettings = toml::from_str(text).unwrap();
    settings.rules.insert(name.to_owned(), rule);
}

/// The shipped example.
fn example(settings: &mut Settings) {
    limit(settings, "login", "path = '/login'\nmethods = ['POST']\nrate = '5/min'");
    limit(settings, "api", "path = '/api/*'\nrate = '100/min'");
}

async fn gateway(backend: &Backend, change: impl FnOnce(&mut Settings)) -> Gateway {
    let address = backend.address;
    Gateway::start(|settings| {
        add_backend(settings, "1", address);
        change(settings);
    })
    .await
}

async fn post(gateway: &Gateway, path: &str) -> Answer {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: 0\r\n\r\n");
    exchange(gateway.proxy(), &head).await
}

#[tokio::test]
async fn the_sixth_login_and_the_hundred_and_first_call_are_refused() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, example).await;
    for left in (0..5).rev() {
        let answer = post(&gateway, "/login").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-remaining"), Some(left.to_string().as_str()));
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""login";q=5;w=60"#));
    }
    for path in ["/login", "//login", "/%6Cogin", "/x/../login/"] {
        let refused = post(&gateway, path).await;
        assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"), "{path}");
        let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=12).contains(&wait), "{wait}");
        assert!(refused.header("ratelimit").unwrap().starts_with(r#""login";r=0;t="#));
        assert!(refused.header("x-request-id").is_some());
    }
    assert_eq!(backend.heads().len(), 5, "what is refused reaches no backend");
    let call = "GET /api/x HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    let mut http = Http::connect(gateway.proxy()).await;
    let began = Instant::now();
    let mut passed = 0;
    let refused = loop {
        http.send(call).await;
        let answer = http.answer(call).await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 200);
        passed += 1;
    };
    // One more is forgiven every 600 ms.
    let forgiven = began.elapsed().as_millis() / 600 + 1;
    assert!((100..=100 + forgiven).contains(&passed), "{passed}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Nothing else is counted, and says nothing of limits.
    let other = get(gateway.proxy(), "/other", "x-region: 1\r\n").await;
    assert_eq!((other.status, other.header("ratelimit")), (200, None));
    gateway.counts(r#"meridian_limited_requests_total{limit="login",outcome="refused"} 4"#).await;
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn the_client_is_whom_trusted_proxies_name_and_nobody_else() {
    let backend = Backend::saying("ok").await;
    let one_an_hour = |settings: &mut Settings| limit(settings, "all", "rate = '1/h'");
    let plain = gateway(&backend, one_an_hour).await;
    let from = |address: &str| format!("x-region: 1\r\nX-Forwarded-For: {address}\r\n");
    assert_eq!(get(plain.proxy(), "/", &from("192.0.2.1")).await.status, 200);
    assert_eq!(get(plain.proxy(), "/", &from("192.0.2.2")).await.status, 429);
    let trusting = gateway(&backend, |settings| {
        one_an_hour(settings);
        settings.proxy.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for (address, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("192.0.2.1", 429),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::2", 200),
    ] {
        let answer = get(trusting.proxy(), "/", &from(address)).await;
        assert_eq!(answer.status, status, "{address}");
    }
    plain.stop().await.unwrap();
    trusting.stop().await.unwrap();
}

#[tokio::test]
async fn handshakes_of_web_sockets_count() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, |settings| {
        limit(settings, "chat", "path = '/ws'\nkey = 'user'\nrate = '1/h'");
        limit(settings, "hub", "path = '/'\nregions = ['2']\nrate = '1/h'");
    })
    .await;
    let handshake = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    for (user, status) in [("alice", 101), ("bob", 101), ("alice", 429), ("al%69ce", 429)] {
        let answer = exchange(gateway.proxy(), &handshake(&format!("/ws?userId={user}"))).await;
        assert_eq!(answer.status, status, "{user}");
        assert_eq!(answer.header("ratelimit-limit"), Some("1"), "{user}");
    }
    // On a hub's own listener, and of one region alone.
    for (region, statuses) in [("2", [101, 429]), ("1", [101, 101])] {
        for status in statuses {
            let answer = exchange(gateway.hub(region), &handshake("/?userId=carol")).await;
            assert_eq!(answer.status, status, "region {region}");
        }
    }
    gateway.stop().await.unwrap();
}

/// A gateway with a shared limit of three an hour.
async fn sharing(redis: &RedisServer, backend: &Backend, on_error: &str) -> Gateway {
    let gateway = gateway(backend, |settings| {
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = redis.port();
        let text = format!("rate = '3/h'\nshared = true\ntimeout = '10s'\non_error = '{on_error}'");
        limit(settings, "all", &text);
    })
    .await;
    eventually("readiness", async || get(gateway.proxy(), "/ready", "").await.status == 200).await;
    gateway
}

#[tokio::test]
async fn two_gateways_share_a_limit_and_go_on_alone_without_redis() {
    let mut redis = RedisServer::start().await;
    let backend = Backend::saying("ok").await;
    let one = sharing(&redis, &backend, "allow").await;
    let two = sharing(&redis, &backend, "allow").await;
    let ask = async |gateway: &Gateway| get(gateway.proxy(), "/", "x-region: 1\r\n").await;
    for (gateway, left) in [(&one, "2"), (&two, "1"), (&one, "0")] {
        let answer = ask(gateway).await;
        assert_eq!((answer.status, answer.header("ratelimit-remaining")), (200, Some(left)));
    }
    for gateway in [&two, &one, &two] {
        assert_eq!(ask(gateway).await.status, 429);
    }
    let key = redis.run(&["KEYS", "limit:*"]).await;
    assert!(key.contains("limit:{all:127.0.0.1}"), "{key}");
    redis.kill();
    let down = async || get(two.proxy(), "/ready", "").await.status == 503;
    eventually("the loss of Redis", down).await;
    // What is known to be used up stays so; who is new is counted by each alone.
    assert_eq!(ask(&two).await.status, 429);
    let three = sharing_without(&redis, &backend, "allow").await;
    for status in [200, 200, 200, 429] {
        assert_eq!(ask(&three).await.status, status);
    }
    let strict = sharing_without(&redis, &backend, "refuse").await;
    let refused = ask(&strict).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "bus_unavailable"));
    assert!(refused.header("retry-after").is_some());
    for gateway in [one, two, three, strict] {
        gateway.stop().await.unwrap();
    }
}

/// As [`sharing`], while Redis is away.
async fn sharing_without(redis: &RedisServer, backend: &Backend, on_error: &str) -> Gateway {
    let port = redis.port();
    gateway(backend, |settings| {
        settings.bus.redis.host = Some("127.0.0.1".into());
        settings.bus.redis.port = port;
        let text = format!("rate = '3/h'\nshared = true\non_error = '{on_error}'");
        limit(settings, "all", &text);
    })
    .await
}

#[tokio::test]
async fn a_flood_of_one_key_does_not_become_one_of_redis() {
    let redis = RedisServer::start().await;
    let backend = Backend::saying("ok").await;
    let gateway = sharing(&redis, &backend, "allow").await;
    let call = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    let mut http = Http::connect(gateway.proxy()).await;
    let mut passed = 0;
    for _ in 0..500 {
        http.send(call).await;
        passed += usize::from(http.answer(call).await.status == 200);
    }
    assert_eq!(passed, 3);
    gateway.counts(r#"{limit="all",outcome="refused"} 497"#).await;
    // Each script that runs asks for the time once.
    let asked = redis.run(&["INFO", "commandstats"]).await;
    let sets = asked.lines().find_map(|line| line.strip_prefix("cmdstat_time:calls="));
    let calls: u32 = sets.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(calls < 100, "{calls} questions for 500 requests");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn rules_refuse_before_any_backend_hears_of_it() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, |settings| {
        rule(settings, "admin", "path = '/admin/*'\naction = 'deny'");
        rule(settings, "read", "path = '/read'\nmethods = ['GET']");
        rule(settings, "far", "path = '/near'\nregions = ['2']\naction = 'deny'");
        rule(settings, "health", "path = '/ready'\nfrom = ['192.0.2.0/24']");
        rule(settings, "health-others", "path = '/ready'\naction = 'deny'");
    })
    .await;
    let ask = async |path: &str| get(gateway.proxy(), path, "x-region: 1\r\n").await;
    for path in
        ["/admin", "/admin/x", "/%61dmin", "/x/../admin", "//admin", "/./%61%64min/", "/ready"]
    {
        let refused = ask(path).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden_by_rule"), "{path}");
    }
    for path in
        ["/x%2f..%2fadmin", "/x/..;/admin", "/%2561dmin", "/admin;a", "/x\\..\\admin", "/Admin"]
    {
        let refused = ask(path).await;
        assert_eq!(refused.status, 400, "{path}");
        assert_eq!(refused.code(), "path_ambiguous", "{path}");
    }
    let refused = post(&gateway, "/read").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    let far = get(gateway.proxy(), "/near", "x-region: 2\r\n").await;
    assert_eq!(far.status, 403);
    assert!(backend.heads().is_empty());
    for path in ["/read", "/near", "/administration", "/Read", "/a%2fb;c"] {
        assert_eq!(ask(path).await.status, 200, "{path}");
    }
    // A path is handed on as it came.
    assert!(backend.heads()[4].starts_with("GET /a%2fb;c HTTP/1.1"), "{:?}", backend.heads());
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_rule_bounds_the_bodies_of_its_path() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, |settings| {
        settings.proxy.max_body_bytes = 10;
        rule(settings, "small", "path = '/small'\nmax_body_bytes = 4");
        rule(settings, "large", "path = '/large'\nmax_body_bytes = 100");
    })
    .await;
    let send = async |path: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n");
        let plain = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let size = format!("{:x}", body.len());
        let chunked =
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{body}\r\n0\r\n\r\n");
        let statuses = [
            exchange(gateway.proxy(), &plain).await.status,
            exchange(gateway.proxy(), &chunked).await.status,
        ];
        assert_eq!(statuses[0], statuses[1], "{path}");
        statuses[0]
    };
    assert_eq!(send("/small", "1234").await, 200);
    assert_eq!(send("/small", "12345").await, 413);
    assert_eq!(send("/other", "12345").await, 200);
    assert_eq!(send("/other", "12345678901").await, 413);
    assert_eq!(send("/large", "12345678901").await, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_slow_head_is_told_and_a_silent_connection_closed() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, |settings| {
        settings.proxy.header_timeout = Duration::from_secs(1);
    })
    .await;
    let mut silent = Http::connect(gateway.proxy()).await;
    let mut slow = Http::connect(gateway.proxy()).await;
    let began = Instant::now();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-").await;
    let answer = slow.answer("GET /").await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.header("x-request-id").is_some());
    assert!(slow.rest().await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert!(silent.rest().await.is_empty());
    // A drip does not help, nor do requests before.
    let mut dripping = Http::connect(gateway.proxy()).await;
    let whole = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    dripping.send(whole).await;
    assert_eq!(dripping.answer(whole).await.status, 200);
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nX-Long: ".bytes().chain(std::iter::repeat(b'a')) {
            if dripping.stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
            let pause = tokio::time::timeout(Duration::from_millis(20), dripping.stream.readable());
            if pause.await.is_ok() {
                break;
            }
        }
    };
    within("the end of the drip", drip).await;
    assert_eq!(dripping.answer("GET /").await.status, 408);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn heads_have_bounds_of_their_own() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, |settings| {
        settings.proxy.max_headers = 150.try_into().unwrap();
        settings.proxy.max_header_bytes = 8_192.try_into().unwrap();
    })
    .await;
    let ask = async |more: &str| get(gateway.proxy(), "/", &format!("x-region: 1\r\n{more}")).await;
    let fields = |count: usize| "x-a: a\r\n".repeat(count);
    // With Host and x-region.
    assert_eq!(ask(&fields(148)).await.status, 200);
    let refused = ask(&fields(149)).await;
    assert_eq!((refused.status, refused.code().as_str()), (431, "headers_too_large"));
    assert_eq!(ask(&format!("x-a: {}\r\n", "a".repeat(8_000))).await.status, 200);
    assert_eq!(ask(&format!("x-a: {}\r\n", "a".repeat(8_200))).await.status, 431);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let backend = Backend::saying("ok").await;
    let gateway = gateway(&backend, |settings| settings.proxy.max_connections_per_client = 2).await;
    let call = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(call).await;
        assert_eq!(http.answer(call).await.status, 200);
        held.push(http);
    }
    let mut third = Http::connect(gateway.proxy()).await;
    let refused = third.answer("GET /").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_connections"));
    assert!(refused.header("retry-after").is_some());
    assert!(third.rest().await.is_empty());
    // Those that were there go on, and a place that is given back can be taken.
    held[0].send(call).await;
    assert_eq!(held[0].answer(call).await.status, 200);
    held.pop();
    eventually("a free place", async || {
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(call).await;
        http.answer(call).await.status == 200
    })
    .await;
    drop(Chat::join(gateway.hub("1"), "alice").await);
    gateway.stop().await.unwrap();
}

/// Chats and tunnels, over HTTP/1.1 and over HTTP/2, in the clear and by TLS.
#[tokio::test]
async fn sockets_count_as_connections_while_they_live() {
    let echo = crate::upgrade::echo().await;
    let authority = Authority::new();
    let gateway = authority
        .gateway(|settings| {
            add_backend(settings, "1", echo);
            settings.proxy.max_connections_per_client = 2;
        })
        .await;
    let (proxy, tls) = (gateway.proxy(), gateway.addresses.tls.unwrap());
    let asking = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let tunnel = format!("GET /live?region=1 HTTP/1.1\r\nHost: a.example\r\n{asking}");
    let chat = tunnel.replace("/live?", "/ws?userId=alice&");
    let is_served = async || {
        let mut http = Http::connect(proxy).await;
        let call = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        // It may be closed already.
        http.stream.write_all(call.as_bytes()).await.ok();
        http.answer(call).await.status == 200
    };
    for request in [&tunnel, &chat] {
        let mut plain = Http::connect(proxy).await;
        plain.send(request).await;
        assert!(plain.read_to("\r\n\r\n").await.starts_with("HTTP/1.1 101 "), "{request}");
        assert!(is_served().await, "there is a place left");
        let mut secure = authority.connect(tls, "a.example", &["http/1.1"]).await;
        secure.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        secure.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101", "{request}");
        assert!(!is_served().await, "both places are taken by {request}");
        drop((plain, secure));
        eventually("free places", is_served).await;
    }
    let head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", "/live?region=1"),
    ];
    let mut connections = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(&authority, &gateway).await;
        raw.send(&frame(HEADERS, END_HEADERS, 1, &fields(&head))).await;
        assert_eq!(raw.next_of(1).await.status(), 200);
        connections.push(raw);
    }
    assert!(!is_served().await, "both places are taken by tunnels over HTTP/2");
    connections.pop();
    eventually("a free place", is_served).await;
}

#[tokio::test]
async fn a_body_that_drips_and_a_reader_who_sips_are_cut() {
    let backend = Backend::scripted([Step::ReplyAndClose(big())]).await;
    let gateway = gateway(&backend, |settings| settings.proxy.min_rate = 1_000_000).await;
    let mut reader = Http::connect(gateway.proxy()).await;
    reader.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    eventually("the reader's request", async || !backend.heads().is_empty()).await;
    let mut writer = Http::connect(gateway.proxy()).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    writer.send(head).await;
    let began = Instant::now();
    let dripping = async {
        let pause = Duration::from_millis(100);
        while tokio::time::timeout(pause, writer.stream.readable()).await.is_err() {
            writer.send("1\r\na\r\n").await;
        }
        let answer = writer.answer("POST /").await;
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
        assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    };
    let sipping = async {
        let mut sip = vec![0; 1_000];
        let mut taken = 0;
        let mut every = tokio::time::interval(Duration::from_millis(10));
        // One tenth of what he should.
        while let Ok(read @ 1..) = reader.stream.read(&mut sip).await {
            taken += read;
            assert!(taken < BIG, "he got all of it");
            every.tick().await;
            if began.elapsed() >= Duration::from_secs(20) {
                // What had been sent before the cut.
                sip.resize(1 << 20, 0);
            }
        }
        assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    };
    within("the end of both", async { tokio::join!(dripping, sipping) }).await;
    gateway.stop().await.unwrap();
}

/// Bytes of an answer that no queue of the system holds.
const BIG: usize = 100_000_000;

fn big() -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BIG, b'x');
    answer
}

/// nginx with the limit that is here `rate = "5/min"`, for the comparison of bursts.
struct Nginx {
    child: std::process::Child,
    address: std::net::SocketAddr,
    _port: Port,
    _folder: tempfile::TempDir,
}

impl Nginx {
    async fn limiting(backend: &Backend) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let port = Port::reserve();
        let address = port.address();
        let conf = format!(
            "daemon off; pid nginx.pid; error_log stderr crit; events {{}}\n\
             http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;\n\
             uwsgi_temp_path u; scgi_temp_path s;\n\
             limit_req_zone $binary_remote_addr zone=login:1m rate=5r/m; limit_req_status 429;\n\
             server {{ listen {address}; location / {{ limit_req zone=login burst=4 nodelay;\n\
             proxy_pass http://{}; }} }} }}",
            backend.address
        );
        std::fs::write(folder.path().join("nginx.conf"), conf).unwrap();
        let child = std::process::Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf", "-e", "stderr"])
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start nginx ({error}); install it: apt-get install nginx")
            });
        // Before the first await: from here on, the process goes with this value.
        let nginx = Self { child, address, _port: port, _folder: folder };
        eventually("nginx", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers go with it only where it is asked.
        let id = self.child.id().to_string();
        drop(std::process::Command::new("kill").args(["-TERM", &id]).status());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn bursts_are_what_they_are_with_nginx() {
    let backend = Backend::saying("ok").await;
    let nginx = Nginx::limiting(&backend).await;
    let gateway = gateway(&backend, |settings| limit(settings, "login", "rate = '5/min'")).await;
    // nginx counts a burst beyond the first.
    for (who, address) in [("nginx", nginx.address), ("meridian", gateway.proxy())] {
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(get(address, "/login", "x-region: 1\r\n").await.status);
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429], "{who}");
    }
    // Neither counts what it refused: one more passes with both after 12 seconds, and not a second.
    let mut passed = [0, 0];
    let began = Instant::now();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let one_more = async {
        while passed != [1, 1] {
            every.tick().await;
            for (index, address) in [nginx.address, gateway.proxy()].into_iter().enumerate() {
                let status = get(address, "/login", "x-region: 1\r\n").await.status;
                passed[index] += usize::from(status == 200);
            }
        }
    };
    within("one more each", one_more).await;
    assert!(began.elapsed() >= Duration::from_secs(11), "{:?}", began.elapsed());
    gateway.stop().await.unwrap();
}
