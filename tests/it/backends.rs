use std::collections::BTreeMap;
use std::time::Duration;

use meridian::settings::{BackendSettings, Balance, HashBy, RegionName, RegionSettings, Settings};

use crate::harness::gateway::Gateway;
use crate::harness::http::{Http, get};
use crate::harness::nginx::Nginx;
use crate::harness::{eventually, within};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three backends, `a`, `b` and `c`.
async fn three() -> [Nginx; 3] {
    [Nginx::start("a").await, Nginx::start("b").await, Nginx::start("c").await]
}

fn region(settings: &mut Settings) -> &mut RegionSettings {
    settings.regions.get_mut(&RegionName::new("1").unwrap()).unwrap()
}

/// Gives region 1 these backends, as `change` wants each of them.
fn put(settings: &mut Settings, backends: &[Nginx], change: impl Fn(usize, &mut BackendSettings)) {
    let one = |(index, nginx): (usize, &Nginx)| {
        let mut backend = BackendSettings::primary(format!("http://{}", nginx.address));
        change(index, &mut backend);
        backend
    };
    region(settings).backends = backends.iter().enumerate().map(one).collect();
}

/// Who answers `count` requests, one after the other, each of which must be answered well.
async fn split(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut split = BTreeMap::new();
    let request = "GET / HTTP/1.1\r\nHost: h\r\nX-Region: 1\r\n\r\n";
    let mut client = Http::connect(gateway.proxy()).await;
    for _ in 0..count {
        client.send(request).await;
        let answer = client.answer(request).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        *split.entry(answer.text().to_owned()).or_default() += 1;
    }
    split
}

fn of<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The value of a series of region 1, and of a backend where one is named.
async fn metric(gateway: &Gateway, name: &str, backend: Option<&Nginx>) -> i64 {
    let page = get(gateway.admin(), "/metrics", "").await;
    let backend = backend.map(|nginx| format!("backend=\"{}\"", nginx.address));
    let line = page.text().lines().find(|line| {
        line.starts_with(name)
            && line.contains("region=\"1\"")
            && backend.as_ref().is_none_or(|backend| line.contains(backend))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{}", page.text()));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Primaries are killed one by one and come back, with the exact split at every step.
#[tokio::test]
async fn primaries_die_one_by_one_and_come_back() {
    let mut nginx = three().await;
    let gateway = Gateway::start(|settings| {
        put(settings, &nginx, |index, backend| {
            backend.tier = u8::from(index == 2);
            backend.weight = if index == 0 { 2 } else { 1 };
        });
        settings.proxy.fail_timeout = Duration::from_millis(300);
        settings.backends.hold = Duration::from_millis(600);
    })
    .await;
    assert_eq!(split(&gateway, 60).await, of([("a", 40), ("b", 20)]));
    nginx[0].kill();
    // The mark is out of date after 300 ms, and the next request finds out anew; nobody notices.
    assert_eq!(split(&gateway, 60).await, of([("b", 60)]));
    nginx[1].kill();
    assert_eq!(split(&gateway, 60).await, of([("c", 60)]));
    nginx[2].kill();
    let answer = get(gateway.proxy(), "/", "X-Region: 1\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));

    nginx[2].up().await;
    within("the backup", async {
        while get(gateway.proxy(), "/", "X-Region: 1\r\n").await.status != 200 {}
    })
    .await;
    assert_eq!(split(&gateway, 20).await, of([("c", 20)]));
    nginx[0].up().await;
    nginx[1].up().await;
    let changes = metric(&gateway, "meridian_proxy_tier_changes_total", None).await;
    eventually("the primaries", async || split(&gateway, 1).await.contains_key("a")).await;
    assert_eq!(metric(&gateway, "meridian_proxy_tier_changes_total", None).await, changes + 1);
    split(&gateway, 2).await;
    assert_eq!(split(&gateway, 60).await, of([("a", 40), ("b", 20)]));
    assert_eq!(metric(&gateway, "meridian_proxy_backend_active", Some(&nginx[0])).await, 0);
    gateway.stop().await.unwrap();
}

/// A primary that comes back serves no sooner than after the hold time, and the backup until then.
#[tokio::test]
async fn a_primary_is_gone_back_to_after_the_hold_time() {
    let mut nginx = three().await;
    let gateway = Gateway::start(|settings| {
        put(settings, &nginx[..2], |index, backend| backend.tier = u8::from(index == 1));
        settings.proxy.fail_timeout = Duration::from_millis(50);
        settings.backends.hold = Duration::from_secs(2);
    })
    .await;
    assert_eq!(split(&gateway, 5).await, of([("a", 5)]));
    let lost = std::time::Instant::now();
    nginx[0].kill();
    assert_eq!(split(&gateway, 5).await, of([("b", 5)]));
    nginx[0].up().await;
    eventually("the primary", async || split(&gateway, 1).await.contains_key("a")).await;
    assert!(lost.elapsed() >= Duration::from_secs(2), "back after {:?}", lost.elapsed());
    gateway.stop().await.unwrap();
}

/// An exchange that is going on, over all its body; ends when dropped.
async fn hold(gateway: &Gateway) -> Http {
    let mut client = Http::connect(gateway.proxy()).await;
    client.send("GET /slow HTTP/1.1\r\nHost: h\r\nX-Region: 1\r\n\r\n").await;
    let head = client.read_to("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client
}

#[tokio::test]
async fn a_bound_holds_over_all_workers_and_who_waits_is_let_in() {
    let nginx = three().await;
    let gateway = Gateway::start(|settings| {
        settings.workers = 2;
        put(settings, &nginx[..2], |_, backend| backend.max_connections = 2);
        settings.backends.queue_length = 1;
        settings.backends.queue_timeout = Duration::from_secs(30);
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(hold(&gateway).await);
    }
    for backend in &nginx[..2] {
        assert_eq!(metric(&gateway, "meridian_proxy_backend_active", Some(backend)).await, 2);
    }
    // One may wait, and the next may not.
    let mut waiting = Http::connect(gateway.proxy()).await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nX-Region: 1\r\n\r\n";
    waiting.send(request).await;
    let length = async || metric(&gateway, "meridian_proxy_queue_length", None).await == 1;
    eventually("the request to wait", length).await;
    let refused = get(gateway.proxy(), "/", "X-Region: 1\r\n").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(refused.header("retry-after"), Some("5"));
    // A client leaves, and its place is taken at once.
    held.pop();
    let answer = waiting.answer(request).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(metric(&gateway, "meridian_proxy_queue_length", None).await, 0);
    assert_eq!(metric(&gateway, "meridian_proxy_queue_rejections_total", None).await, 1);
    drop(held);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let nginx = Nginx::start("a").await;
    let gateway = Gateway::start(|settings| {
        put(settings, std::slice::from_ref(&nginx), |_, backend| backend.max_connections = 1);
        settings.backends.queue_timeout = Duration::from_millis(200);
    })
    .await;
    let held = hold(&gateway).await;
    let late = get(gateway.proxy(), "/", "X-Region: 1\r\n").await;
    assert_eq!((late.status, late.code().as_str()), (503, "overloaded"));
    assert_eq!(metric(&gateway, "meridian_proxy_queue_timeouts_total", None).await, 1);
    drop(held);
    eventually("room again", async || {
        get(gateway.proxy(), "/", "X-Region: 1\r\n").await.status == 200
    })
    .await;
    assert_eq!(metric(&gateway, "meridian_proxy_queue_length", None).await, 0);
    gateway.stop().await.unwrap();
}

/// Which backend each of 60 users has.
async fn users(gateway: &Gateway) -> Vec<String> {
    let mut all = Vec::new();
    for user in 0..60 {
        let headers = format!("X-Region: 1\r\nCookie: theme=dark; sid=user-{user}\r\n");
        let answer = get(gateway.proxy(), "/", &headers).await;
        assert_eq!(answer.status, 200);
        all.push(answer.text().to_owned());
    }
    all
}

/// By a cookie; over a backend that dies, and over a gateway that starts anew.
#[tokio::test]
async fn a_user_keeps_his_backend() {
    let mut nginx = three().await;
    let start = async |nginx: &[Nginx]| {
        Gateway::start(|settings| {
            put(settings, nginx, |_, _| {});
            region(settings).balance = Balance::ConsistentHash;
            region(settings).hash_by = HashBy::Cookie("sid".to_owned());
            settings.proxy.fail_timeout = Duration::from_millis(100);
        })
        .await
    };
    let gateway = start(&nginx).await;
    let before = users(&gateway).await;
    for name in NAMES {
        let share = before.iter().filter(|own| *own == name).count();
        assert!((4..=45).contains(&share), "{name} has {share} of 60");
    }
    gateway.stop().await.unwrap();

    // Another process would choose the same, however its backends are ordered.
    nginx.rotate_left(1);
    let gateway = start(&nginx).await;
    assert_eq!(users(&gateway).await, before);
    nginx[0].kill();
    let without = users(&gateway).await;
    for (before, now) in before.iter().zip(&without) {
        assert!(if before == "b" { now != "b" } else { now == before }, "{before} became {now}");
    }
    nginx[0].up().await;
    eventually("all to be as before", async || users(&gateway).await == before).await;
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn turns_and_draws_go_by_weight() {
    let nginx = three().await;
    let weights = [5, 3, 2];
    let start = async |balance| {
        Gateway::start(|settings| {
            put(settings, &nginx, |index, backend| backend.weight = weights[index]);
            region(settings).balance = balance;
        })
        .await
    };
    let gateway = start(Balance::RoundRobin).await;
    assert_eq!(split(&gateway, 100).await, of([("a", 50), ("b", 30), ("c", 20)]));
    gateway.stop().await.unwrap();
    let gateway = start(Balance::P2cEwma).await;
    let split = split(&gateway, 300).await;
    assert_eq!(split.len(), 3, "somebody was never asked: {split:?}");
    gateway.stop().await.unwrap();
}
