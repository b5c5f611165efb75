//! Which region serves, how often it is tried, and within which time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meridian::settings::{HubPlace, RegionName, Settings};
use tokio::io::AsyncWriteExt as _;

use crate::harness::backend::{Backend, Step, ok};
use crate::harness::chat::Chat;
use crate::harness::eventually;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, get};
use crate::harness::port::Port;

/// As many requests as a split takes to come out exactly.
const CYCLE: usize = 1_000;

fn policy(settings: &mut Settings, region: &str, failover: &str) {
    let region = RegionName::new(region).unwrap();
    settings.regions.entry(region).or_default().failover = failover.parse().unwrap();
}

/// Region 1 with `own` backends, and region 2 with two.
struct Stage {
    gateway: Gateway,
    own: Vec<Backend>,
    other: Vec<Backend>,
}

impl Stage {
    async fn set(own: usize, failover: &str) -> Self {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for _ in 0..own {
            ours.push(Backend::scripted([]).await);
        }
        for _ in 0..2 {
            others.push(Backend::scripted([]).await);
        }
        let gateway = Gateway::start(|settings| {
            for (region, backends) in [("1", &ours), ("2", &others)] {
                for backend in backends {
                    add_backend(settings, region, backend.address);
                }
            }
            policy(settings, "1", failover);
            // What is known to be away stays so for the whole test.
            settings.proxy.fail_timeout = Duration::from_hours(1);
        })
        .await;
        Self { gateway, own: ours, other: others }
    }

    /// Requests that each region's backends have seen.
    fn seen(&self) -> (usize, usize) {
        let count = |backends: &[Backend]| backends.iter().map(|b| b.heads().len()).sum();
        (count(&self.own), count(&self.other))
    }

    /// Statuses of so many requests for region 1, and the regions that say that they served.
    async fn ask(&self, count: usize) -> Vec<(u16, String)> {
        let mut http = Http::connect(self.gateway.proxy()).await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
        let mut answers = Vec::new();
        for _ in 0..count {
            http.send(request).await;
            let answer = http.answer(request).await;
            let served = answer.header("x-region-served").unwrap_or("-").to_owned();
            answers.push((answer.status, served));
        }
        answers
    }

    /// How a cycle of requests is split between the regions, all of them answered.
    async fn split(&self) -> (usize, usize) {
        let before = self.seen();
        let answers = self.ask(CYCLE).await;
        assert!(answers.iter().all(|(status, _)| *status == 200));
        let after = self.seen();
        let split = (after.0 - before.0, after.1 - before.1);
        let told = answers.iter().filter(|(_, served)| served == "2").count();
        assert_eq!(told, split.1, "the client is told who served");
        split
    }

    /// Takes one of region 1 away, and lets the gateway find that out.
    async fn kill_one(&mut self) {
        self.own.pop().expect("one is left").kill().await;
        self.ask(20).await;
    }
}

#[tokio::test]
async fn a_share_spills_over_as_primaries_go_one_by_one() {
    let mut stage = Stage::set(4, "spill").await;
    for expected in [(1_000, 0), (1_000, 0), (700, 300), (350, 650), (0, 1_000)] {
        assert_eq!(stage.split().await, expected, "{} of 4 are left", stage.own.len());
        if !stage.own.is_empty() {
            stage.kill_one().await;
        }
    }
}

#[tokio::test]
async fn the_named_region_serves_when_the_last_primary_is_gone() {
    for failover in ["ordered:2", "any"] {
        let mut stage = Stage::set(3, failover).await;
        while !stage.own.is_empty() {
            assert_eq!(stage.split().await, (1_000, 0), "{failover}");
            stage.kill_one().await;
        }
        assert_eq!(stage.split().await, (0, 1_000), "{failover}");
    }
}

#[tokio::test]
async fn no_request_crosses_a_strict_border() {
    let mut stage = Stage::set(2, "strict").await;
    while !stage.own.is_empty() {
        assert_eq!(stage.split().await, (1_000, 0));
        stage.kill_one().await;
    }
    for (status, served) in stage.ask(200).await {
        assert!(matches!(status, 502 | 503), "{status}");
        assert_eq!(served, "-");
    }
    assert_eq!(stage.seen().1, 0);
}

#[tokio::test]
async fn a_region_that_comes_back_serves_again() {
    let (own, other) = (Backend::saying("own").await, Backend::saying("other").await);
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", own.address);
        add_backend(settings, "2", other.address);
        policy(settings, "1", "ordered:2");
        settings.proxy.fail_timeout = Duration::from_millis(200);
    })
    .await;
    let ask = || async { get(gateway.proxy(), "/", "x-region: 1\r\n").await };
    assert_eq!(ask().await.text(), "own");
    let port = own.kill().await;
    assert_eq!(ask().await.text(), "other");
    let _back = Backend::scripted_on(port, std::iter::repeat_n(ok("own"), 1_000)).await;
    eventually("the way back", || async { ask().await.text() == "own" }).await;
}

#[tokio::test]
async fn a_region_that_fails_wholly_is_asked_a_fifth_more() {
    let failing = std::iter::repeat_n(Step::Close, 10_000);
    let (one, two) = (Backend::scripted(failing.clone()).await, Backend::scripted(failing).await);
    let other = Backend::scripted(std::iter::repeat_n(Step::Close, 10_000)).await;
    let gateway = Gateway::start(|settings| {
        for backend in [&one, &two] {
            add_backend(settings, "1", backend.address);
        }
        add_backend(settings, "2", other.address);
        policy(settings, "1", "any");
        settings.retry.floor_per_second = 0;
    })
    .await;
    let requests = 2_000;
    let mut http = Http::connect(gateway.proxy()).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n";
    for _ in 0..requests {
        http.send(request).await;
        assert_eq!(http.answer(request).await.status, 502);
    }
    let attempts = [&one, &two, &other].map(|backend| backend.heads().len()).iter().sum::<usize>();
    // A fifth, and what the reckoning of a window from a few notes adds where the machine stalls.
    assert!(attempts <= requests * 5 / 4, "{attempts} for {requests}");
    assert!(attempts > requests * 11 / 10, "{attempts}: the budget is there to be used");
}

/// Two gateways that take each other for the backend of region 1.
async fn circle(via: Option<&str>) -> (Gateway, Gateway) {
    let reserved = (Port::reserve(), Port::reserve());
    let ports = (reserved.0.number(), reserved.1.number());
    let start = |port: u16, next: u16| {
        let via = via.map(str::to_owned);
        Gateway::start(move |settings| {
            settings.proxy.port = port;
            settings.proxy.via = via;
            add_backend(settings, "1", SocketAddr::from(([127, 0, 0, 1], next)));
        })
    };
    (start(ports.0, ports.1).await, start(ports.1, ports.0).await)
}

#[tokio::test]
async fn a_circle_of_gateways_is_found() {
    for via in [None, Some("")] {
        let (one, _two) = circle(via).await;
        let answer = get(one.proxy(), "/", "x-region: 1\r\n").await;
        assert_eq!((answer.status, answer.code().as_str()), (508, "loop_detected"), "{via:?}");
        assert_eq!(answer.header("retry-after"), None);
        // Named, the second gateway's answer has come by one hop; nameless, nobody is seen.
        assert_eq!(answer.header("via").is_some(), via.is_none());
        // Once around, or until eight gateways were passed.
        let count = if via.is_none() { 2 } else { 5 };
        let series = format!("http_requests_total{{region=\"1\",class=\"5xx\"}} {count}\n");
        one.counts(&series).await;
    }
}

#[tokio::test]
async fn what_asks_to_go_no_further_is_answered_here() {
    let backend = Backend::saying("there").await;
    let gateway = Gateway::before(backend.address).await;
    let mut http = Http::connect(gateway.proxy()).await;
    for (method, left, status) in [("OPTIONS", "0", 204), ("OPTIONS", "1", 200), ("GET", "0", 200)]
    {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nMax-Forwards: {left}\r\n\r\n"
        );
        http.send(&request).await;
        assert_eq!(http.answer(&request).await.status, status, "{method} {left}");
    }
    assert_eq!(backend.heads().len(), 2);
    assert!(backend.heads()[0].to_ascii_lowercase().contains("max-forwards: 0\r\n"));
}

#[tokio::test]
async fn a_user_without_his_hub_talks_at_another() {
    let hubs = Gateway::start(|_| ()).await;
    let gateway = Gateway::start(|settings| {
        let place = |address: SocketAddr| {
            let url = Some(format!("http://{address}"));
            Some(HubPlace { port: None, url, ..HubPlace::default() })
        };
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        for (name, hub) in [("1", nobody), ("2", hubs.hub("2"))] {
            settings.regions.get_mut(name).unwrap().hub = place(hub);
        }
        policy(settings, "1", "ordered:2");
    })
    .await;
    let mut alice = Chat::at(gateway.proxy(), "/ws?userId=alice&region=1").await;
    let mut bob = Chat::at(gateway.proxy(), "/ws?userId=bob&region=2").await;
    assert_eq!(alice.welcome["userId"], "alice");
    assert_eq!(alice.welcome["region"], "2", "the hub that serves tells its own region");
    bob.say("alice", "hi", "b1").await;
    assert_eq!(alice.hears().await["text"], "hi");
}

#[tokio::test]
async fn every_timeout_is_told_as_what_it_was() {
    let silent = Backend::scripted(std::iter::repeat_n(Step::Silence, 10)).await;
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
    let stalling = Backend::scripted(std::iter::repeat_n(Step::Reply(half), 10)).await;
    let short = Duration::from_millis(150);
    for (name, change) in [
        (
            "head_timeout",
            Box::new(move |settings: &mut Settings| {
                settings.proxy.first_byte_timeout = short;
            }) as Box<dyn Fn(&mut Settings)>,
        ),
        (
            "stalled",
            Box::new(move |settings: &mut Settings| {
                settings.proxy.body_idle_timeout = short;
            }),
        ),
        (
            "total_timeout",
            Box::new(move |settings: &mut Settings| {
                settings.proxy.total_timeout = Some(short);
            }),
        ),
    ] {
        let gateway = Gateway::start(|settings| {
            add_backend(settings, "1", silent.address);
            add_backend(settings, "2", stalling.address);
            change(settings);
        })
        .await;
        let begun = Instant::now();
        if name != "stalled" {
            let answer = get(gateway.proxy(), "/", "x-region: 1\r\n").await;
            assert_eq!((answer.status, answer.code().as_str()), (504, "gateway_timeout"), "{name}");
        }
        if name != "head_timeout" {
            let mut http = Http::connect(gateway.proxy()).await;
            http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 2\r\n\r\n").await;
            let got = String::from_utf8(http.rest().await).unwrap();
            assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("half"), "{got}");
        }
        assert!(begun.elapsed() >= short, "{name}");
        let cause = format!("cause=\"{name}\"");
        eventually(&cause, async || {
            get(gateway.admin(), "/metrics", "").await.text().lines().any(|line| {
                line.starts_with("meridian_proxy_upstream_errors_total")
                    && line.contains(&cause)
                    && !line.ends_with(" 0")
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_left_is_found_out_and_one_that_is_done_is_not() {
    const WAIT: Duration = Duration::from_secs(6);
    let late = || Backend::scripted([Step::Silence]);
    let (left, done) = (late().await, late().await);
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", left.address);
        add_backend(settings, "2", done.address);
        settings.proxy.first_byte_timeout = WAIT;
    })
    .await;
    let mut leaving = Http::connect(gateway.proxy()).await;
    leaving.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    eventually("the request", || async { left.heads().len() == 1 }).await;
    drop(leaving);
    let begun = Instant::now();
    let mut ended = Http::connect(gateway.proxy()).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 2\r\n\r\n";
    ended.send(request).await;
    ended.stream.shutdown().await.unwrap();
    eventually("the backend to be told", || async { left.seen.lock().unwrap().closed == 1 }).await;
    assert!(begun.elapsed() < WAIT, "{:?}", begun.elapsed());
    eventually("the count", async || {
        get(gateway.admin(), "/metrics", "").await.text().lines().any(|line| {
            line.contains("region=\"1\"") && line.contains("client_gone") && line.ends_with(" 1")
        })
    })
    .await;
    // The other one has interim answers before its own.
    assert_eq!(ended.answer(request).await.status, 100);
    assert_eq!(ended.answer(request).await.status, 100);
    assert_eq!(ended.answer(request).await.status, 504);
}
