//! What the gateway answers itself: health, readiness, the page, metrics; and that each can be moved or turned off.

use crate::harness::backend::Backend;
use crate::harness::eventually;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange, get};

#[tokio::test]
async fn health_on_every_listener() {
    let gateway = Gateway::start(|settings| {
        settings.demo.enabled = true;
        (settings.demo.port_a, settings.demo.port_b) = (0, 0);
    })
    .await;
    let mut listeners = vec![
        (gateway.proxy(), "proxy", None),
        (gateway.hub("1"), "ws-1", Some("1")),
        (gateway.hub("2"), "ws-2", Some("2")),
    ];
    for (service, address) in &gateway.addresses.demos {
        listeners.push((*address, service, Some(if *service == "server-a" { "1" } else { "2" })));
    }
    assert_eq!(listeners.len(), 5);
    for (address, service, region) in listeners {
        let answer = get(address, "/health", "").await;
        assert_eq!(answer.status, 200, "{service}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!(body["status"], "healthy");
        assert_eq!(body["service"], service);
        assert_eq!(body["region"].as_str(), region);
        assert!(body["uptime"].as_f64().unwrap() >= 0.0);
        humantime::parse_rfc3339(body["timestamp"].as_str().unwrap()).unwrap();
    }
    let head = exchange(gateway.proxy(), "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn the_demo_backends_say_who_they_are() {
    let gateway = Gateway::start(|settings| {
        settings.demo.enabled = true;
        (settings.demo.port_a, settings.demo.port_b) = (0, 0);
    })
    .await;
    let answer = get(gateway.proxy(), "/", "x-region: 1\r\n").await;
    assert_eq!(answer.text(), "Hello from Server A (Region 1)");
    let answer = get(gateway.proxy(), "/?region=2", "").await;
    assert_eq!(answer.text(), "Hello from Server B (Region 2)");
}

#[tokio::test]
async fn ready_says_so() {
    let gateway = Gateway::start(|_| ()).await;
    eventually("readiness", async || get(gateway.proxy(), "/ready", "").await.status == 200).await;
    let answer = get(gateway.hub("1"), "/ready", "").await;
    assert_eq!(answer.json()["status"], "ready");
    assert_eq!(get(gateway.admin(), "/ready", "").await.status, 200);
}

#[tokio::test]
async fn own_paths_can_be_moved_and_turned_off() {
    let backend = Backend::saying("mine").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        settings.proxy.health_path = "/-/alive".into();
        settings.proxy.ready_path = String::new();
        settings.proxy.ws_path = "/-/chat".into();
    })
    .await;
    assert_eq!(get(gateway.proxy(), "/-/alive", "").await.json()["service"], "proxy");
    for path in ["/health", "/ready", "/ws", "/client/"] {
        assert_eq!(get(gateway.proxy(), path, "x-region: 1\r\n").await.text(), "mine", "{path}");
    }
    let answer = get(gateway.proxy(), "/-/chat?userId=a&region=1", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "upgrade_required"));
}

#[tokio::test]
async fn the_page_is_in_the_binary() {
    let gateway = Gateway::start(|settings| settings.page.path = "/client/".into()).await;
    let page = get(gateway.proxy(), "/client/", "").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("<title>"));
    assert_eq!(get(gateway.proxy(), "/client/index.html", "").await.body, page.body);
    for (path, location) in [("/client", "/client/"), ("/client?user=a", "/client/?user=a")] {
        let redirect = get(gateway.proxy(), path, "").await;
        assert_eq!((redirect.status, redirect.header("location")), (308, Some(location)));
    }
    assert_eq!(get(gateway.proxy(), "/client/other", "").await.status, 400);
}

#[tokio::test]
async fn the_library_is_beside_the_page_and_kept_by_browsers() {
    let gateway = Gateway::start(|settings| settings.page.path = "/client/".into()).await;
    for (name, content_type) in [
        ("meridian.js", "text/javascript; charset=utf-8"),
        ("meridian.d.ts", "application/typescript; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("view.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
    ] {
        let file = get(gateway.proxy(), &format!("/client/{name}"), "").await;
        assert_eq!((file.status, file.header("content-type")), (200, Some(content_type)), "{name}");
        let path = format!("{}/client/{name}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(file.body, std::fs::read(path).unwrap(), "{name}");
        assert_eq!(file.header("cache-control"), Some("no-cache"));
        let tag = file.header("etag").unwrap();
        let asked = format!("If-None-Match: {tag}\r\n");
        let again = get(gateway.proxy(), &format!("/client/{name}"), &asked).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
        assert_eq!(again.header("etag"), Some(tag));
    }
    let library = get(gateway.proxy(), "/client/meridian.js?try=2", "").await;
    assert_eq!(library.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn metrics_are_on_admin_alone_and_count_by_region() {
    let backend = Backend::saying("ok").await;
    let gateway = Gateway::before(backend.address).await;
    for _ in 0..3 {
        get(gateway.proxy(), "/", "x-region: 1\r\n").await;
    }
    for index in 0..20 {
        get(gateway.proxy(), "/", &format!("x-region: made-up-{index}\r\n")).await;
    }
    eventually("the counts", async || {
        let text = get(gateway.admin(), "/metrics", "").await.text().to_owned();
        text.contains(r#"meridian_http_requests_total{region="1",class="2xx"} 3"#)
            && text.contains(r#"meridian_http_requests_total{region="none",class="4xx"} 20"#)
    })
    .await;
    let answer = get(gateway.admin(), "/metrics", "").await;
    assert!(!answer.text().contains("made-up"), "a client's text became a label");
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    // Through the proxy port there is no way to it.
    assert_eq!(get(gateway.proxy(), "/metrics", "").await.code(), "region_required");
    let missing = get(gateway.admin(), "/nothing", "").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "not_found"));
    assert_eq!(missing.header("x-request-id"), missing.json()["error"]["requestId"].as_str());
    let post = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let wrong = exchange(gateway.admin(), post).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn other_paths_of_a_hub_are_not_found() {
    let gateway = Gateway::start(|_| ()).await;
    let answer = get(gateway.hub("1"), "/elsewhere", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
}

/// The cap is the address's, and not each worker's.
#[tokio::test]
async fn connections_are_capped_over_all_workers() {
    let gateway = Gateway::start(|settings| {
        settings.workers = 4;
        settings.proxy.max_connections = std::num::NonZeroUsize::MIN;
    })
    .await;
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut http = Http::connect(gateway.proxy()).await;
        http.send(request).await;
        waiting.push(Box::pin(async move {
            assert_eq!(http.answer(request).await.status, 200);
            http
        }));
    }
    while !waiting.is_empty() {
        let (http, _, rest) = futures_util::future::select_all(waiting).await;
        let metrics = get(gateway.admin(), "/metrics", "").await;
        assert!(metrics.text().contains("meridian_http_connections 1\n"), "{}", metrics.text());
        drop(http);
        waiting = rest;
    }
}
