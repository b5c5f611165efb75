//! Outages as operators fear them: primaries that go one by one under each policy, and a region that fails wholly.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian::settings::{BackendSettings, ProbeKind, RegionName, RegionSettings, Settings};
use tokio::task::JoinSet;

use crate::harness::backend::{Backend, Step};
use crate::harness::eventually;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, get};
use crate::harness::nginx::Nginx;

const POLICIES: [(&str, &str); 4] =
    [("strict", "strict"), ("ordered", "ordered:9"), ("spill", "spill:9"), ("any", "any")];

/// By whom a backend is found out: probes alone, exchanges alone, both.
const JUDGES: [(&str, ProbeKind, bool); 3] = [
    ("probes", ProbeKind::Tcp, false),
    ("passive", ProbeKind::Off, true),
    ("both", ProbeKind::Tcp, true),
];

/// Regions, one for each policy and judge, all with these backends; and region 9, which stands in.
fn regions(settings: &mut Settings, primaries: &[Nginx]) {
    for (policy, failover) in POLICIES {
        for (judge, active, passive) in JUDGES {
            let url = |nginx: &Nginx| BackendSettings::primary(format!("http://{}", nginx.address));
            let mut region = RegionSettings {
                backends: primaries.iter().map(url).collect(),
                failover: failover.parse().unwrap(),
                ..RegionSettings::default()
            };
            (region.health.active, region.health.passive) = (Some(active), Some(passive));
            let name = RegionName::new(&format!("{policy}-{judge}")).unwrap();
            settings.regions.insert(name, region);
        }
    }
    settings.health.interval = Duration::from_millis(100);
    // What is slow on a busy machine is not down.
    settings.health.timeout = Duration::from_secs(30);
    // What could not be reached stays so for the whole test.
    settings.proxy.fail_timeout = Duration::from_hours(1);
}

/// Statuses and texts of so many requests for a region, and how often each came.
async fn ask(gateway: &Gateway, region: &str, count: usize) -> BTreeMap<(u16, String), usize> {
    let mut http = Http::connect(gateway.proxy()).await;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nx-region: {region}\r\n\r\n");
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        http.send(&request).await;
        let answer = http.answer(&request).await;
        let failed = answer.status != 200;
        let text = if failed { answer.code() } else { answer.text().to_owned() };
        assert!(!failed || answer.header("retry-after").is_some() == (answer.status == 503));
        *answers.entry((answer.status, text)).or_default() += 1;
    }
    answers
}

/// Lets every region find out that a backend is gone.
async fn noticed(gateway: &Gateway, gone: &Nginx) {
    let gone = format!("backend=\"{}\",by=\"probes\"}} 0", gone.address);
    let probed = POLICIES.len() * 2;
    eventually("every probe to fail", async || {
        let page = get(gateway.admin(), "/metrics", "").await;
        let up = page.text().lines().filter(|line| line.starts_with("meridian_proxy_backend_up"));
        up.filter(|line| line.ends_with(&gone)).count() == probed
    })
    .await;
    for (policy, _) in POLICIES {
        ask(gateway, &format!("{policy}-passive"), 20).await;
    }
}

#[tokio::test]
async fn primaries_go_one_by_one_under_each_policy_however_they_are_found_out() {
    let mut primaries =
        vec![Nginx::start("a").await, Nginx::start("b").await, Nginx::start("c").await];
    let other = Backend::saying("other").await;
    let gateway = Gateway::start(|settings| {
        regions(settings, &primaries);
        add_backend(settings, "9", other.address);
    })
    .await;
    // Of 50, those that a region with so many of three primaries keeps: 1.4 times its healthy share.
    for kept in [50_usize, 47, 23, 0] {
        let nobody = primaries.is_empty();
        for (policy, _) in POLICIES {
            for (judge, ..) in JUDGES {
                let region = format!("{policy}-{judge}");
                let count = if policy == "spill" { 50 } else { 12 };
                let mut answers = ask(&gateway, &region, count).await;
                if policy == "strict" && nobody {
                    // Where nobody is left but one who may be back, it is tried, and its error told.
                    let expected = if judge == "passive" {
                        (502, "bad_gateway".to_owned())
                    } else {
                        (503, "region_unavailable".to_owned())
                    };
                    assert_eq!(answers, BTreeMap::from([(expected, count)]), "{region}");
                    continue;
                }
                let moved = answers.remove(&(200, "other".to_owned())).unwrap_or_default();
                let own: usize = answers.values().sum();
                assert!(answers.keys().all(|(status, _)| *status == 200), "{region}: {answers:?}");
                assert_eq!(own + moved, count);
                match policy {
                    "spill" => assert!(own.abs_diff(kept) <= 3, "{region} keeps {own}, not {kept}"),
                    "strict" => assert_eq!(moved, 0, "{region}"),
                    _ => assert_eq!(moved, if nobody { count } else { 0 }, "{region}"),
                }
                assert_eq!(answers.len(), if own == 0 { 0 } else { primaries.len() }, "{region}");
            }
        }
        if let Some(mut next) = primaries.pop() {
            next.kill();
            noticed(&gateway, &next).await;
        }
    }
    let crossed = other.heads().into_iter().filter(|head| head.contains("strict"));
    assert_eq!(crossed.collect::<Vec<_>>(), [""; 0], "beyond a strict border");
    gateway.stop().await.unwrap();
}

/// Each backend takes each request and answers none.
#[tokio::test]
async fn a_region_that_fails_under_load_is_asked_a_fifth_more_and_no_backend_twice() {
    const CLIENTS: usize = 10;
    const EACH: usize = 60;
    let failing = || Backend::scripted(std::iter::repeat_n(Step::Close, 10_000));
    let (one, two, other) = (failing().await, failing().await, failing().await);
    let floor = 2;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", one.address);
        add_backend(settings, "1", two.address);
        add_backend(settings, "2", other.address);
        let own = RegionName::new("1").unwrap();
        settings.regions.get_mut(&own).unwrap().failover = "any".parse().unwrap();
        settings.retry.floor_per_second = floor;
    })
    .await;
    let (proxy, begun) = (gateway.proxy(), Instant::now());
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(async move {
            let mut http = Http::connect(proxy).await;
            for number in 0..EACH {
                let request =
                    format!("GET /{client}/{number} HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n");
                http.send(&request).await;
                assert!(matches!(http.answer(&request).await.status, 502 | 503));
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let mut attempts = 0;
    for backend in [&one, &two, &other] {
        let mut targets = BTreeMap::<String, usize>::new();
        for head in backend.heads() {
            attempts += 1;
            *targets.entry(head.lines().next().unwrap().to_owned()).or_default() += 1;
        }
        let twice: Vec<_> = targets.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "asked again: {twice:?}");
    }
    // The floor is for each second, and for each of the ten that the budget looks back on at the begin; and where the
    // machine stalls, its reckoning from a few notes is less than exact.
    let seconds = begun.elapsed().as_secs() + 11;
    let most = CLIENTS * EACH * 5 / 4 + usize::try_from(u64::from(floor) * seconds).unwrap();
    assert!(attempts <= most, "{attempts} attempts for {} requests", CLIENTS * EACH);
    gateway.stop().await.unwrap();
}
