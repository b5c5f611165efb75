//! What an operator sees and does on the admin listener, and what a page elsewhere cannot.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use meridian::settings::{ProbeKind, Secret};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::backend::Backend;
use crate::harness::browser::Browser;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Answer, Http, exchange, get};
use crate::harness::supervised::Supervised;
use crate::harness::{eventually, within};

async fn ask(admin: SocketAddr, line: &str, headers: &str) -> Answer {
    exchange(admin, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await
}

async fn post(admin: SocketAddr, path: &str) -> Answer {
    ask(admin, &format!("POST {path}"), "Content-Length: 0\r\n").await
}

async fn status(admin: SocketAddr) -> Value {
    ask(admin, "GET /status", "").await.json()
}

/// A gateway with two backends in region 1.
async fn with_two() -> (Gateway, Backend, Backend) {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", a.address);
        add_backend(settings, "1", b.address);
    })
    .await;
    (gateway, a, b)
}

#[tokio::test]
async fn the_status_says_what_runs() {
    let (gateway, a, _b) = with_two().await;
    let said = status(gateway.admin()).await;
    assert_eq!(said["service"], "meridian");
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&said["state"], &said["configuration"]["generation"]),
        (&json!("serving"), &json!(1))
    );
    assert!(said["uptime"].is_f64());
    assert_eq!(said["bus"], json!({"kind": "embedded", "state": "up"}));
    assert_eq!(said["hub"]["regions"], json!({"1": 0, "2": 0}));
    assert_eq!(said["regions"][0]["region"], "1");
    let backend = &said["regions"][0]["backends"][0];
    assert_eq!(backend["address"], a.address.to_string());
    assert_eq!((&backend["eligible"], &backend["state"]), (&json!(true), &json!("in use")));
    assert_eq!(said["regions"][1]["facts"][0], "no backends");
    // What was there before is answered as before, whatever it is called.
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(get(gateway.admin(), path, "").await.status, 200, "{path}");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_drained_backend_gets_nothing_new_until_it_is_resumed() {
    let (gateway, a, b) = with_two().await;
    let (admin, of_a) = (gateway.admin(), format!("/backends/1/{}", a.address));
    let answer = post(admin, &format!("{of_a}/drain")).await;
    assert_eq!((answer.status, &answer.json()["backend"]["draining"]), (200, &json!(true)));
    for _ in 0..6 {
        assert_eq!(get(gateway.proxy(), "/", "x-region: 1\r\n").await.text(), "b");
    }
    let backends = status(admin).await["regions"][0]["backends"].clone();
    assert_eq!(
        (&backends[0]["state"], &backends[0]["eligible"]),
        (&json!("draining"), &json!(false))
    );
    assert!(a.heads().is_empty() && b.heads().len() == 6);
    let metrics = get(admin, "/metrics", "").await.text().to_owned();
    let drained = |backend: &Backend, is: u8| {
        let address = backend.address;
        format!("meridian_proxy_backend_drained{{region=\"1\",backend=\"{address}\"}} {is}\n")
    };
    assert!(metrics.contains(&drained(&a, 1)) && metrics.contains(&drained(&b, 0)), "{metrics}");
    assert_eq!(post(admin, &format!("{of_a}/resume")).await.status, 200);
    eventually("a request at the resumed one", async || {
        get(gateway.proxy(), "/", "x-region: 1\r\n").await.text() == "a"
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn weights_are_set_and_set_back_and_mistakes_are_named() {
    let (gateway, a, _b) = with_two().await;
    let (admin, weight) = (gateway.admin(), format!("/backends/1/{}/weight", a.address));
    let set = post(admin, &format!("{weight}?value=7")).await.json()["backend"].clone();
    assert_eq!((&set["weight"], &set["weightSet"]), (&json!(7), &json!(true)));
    let facts = status(admin).await["regions"][0]["backends"][0]["facts"].to_string();
    assert!(facts.contains("weight 7 (an operator's)"), "{facts}");
    let back = post(admin, &format!("{weight}?value=default")).await.json()["backend"].clone();
    assert_eq!((&back["weight"], &back["weightSet"]), (&json!(1), &json!(false)));
    for query in ["", "?value=", "?value=-1", "?value=1001", "?value=much"] {
        let answer = post(admin, &format!("{weight}{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "weight_invalid"), "{query}");
    }
    for (path, words) in [
        ("/backends/1/127.0.0.1:1/drain".to_owned(), a.address.to_string()),
        (format!("/backends/9/{}/drain", a.address), "the regions are 1, 2".to_owned()),
    ] {
        let answer = post(admin, &path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "backend_unknown"));
        assert!(answer.text().contains(&words), "{}", answer.text());
    }
    let answer = ask(admin, &format!("GET {weight}?value=3"), "").await;
    assert_eq!(answer.status, 405, "an action is a POST");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_page_elsewhere_reaches_nothing() {
    let (gateway, a, _b) = with_two().await;
    let admin = gateway.admin();
    let drain = format!("POST /backends/1/{}/drain", a.address);
    for (headers, code) in [
        ("Origin: http://evil.test\r\nx-meridian-action: 1\r\n", "origin_forbidden"),
        ("Origin: null\r\nContent-Type: application/json\r\n", "origin_forbidden"),
        ("Sec-Fetch-Site: cross-site\r\n", "origin_forbidden"),
        ("Content-Type: application/x-www-form-urlencoded\r\n", "action_unmarked"),
        ("Content-Type: text/plain\r\n", "action_unmarked"),
        ("Origin: http://localhost\r\n", "action_unmarked"),
    ] {
        let answer = ask(admin, &drain, &format!("Content-Length: 0\r\n{headers}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, code), "{headers}");
    }
    for line in ["GET /status", "GET /", drain.as_str(), "POST /reload"] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: evil.test:9600\r\nContent-Length: 0\r\n\r\n");
        let answer = exchange(admin, &request).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "host_forbidden"), "{line}");
    }
    assert_eq!(status(admin).await["regions"][0]["backends"][0]["draining"], false);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn where_a_token_is_set_it_is_asked_for() {
    let gateway = Gateway::start(|settings| {
        settings.admin.token = Some(Secret::new("geheim"));
    })
    .await;
    let admin = gateway.admin();
    let answer = ask(admin, "GET /status", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"meridian\""));
    assert_eq!(post(admin, "/reload").await.status, 401);
    assert_eq!(ask(admin, "GET /status", "Authorization: Bearer geheim\r\n").await.status, 200);
    assert_eq!(get(admin, "/ready", "").await.status, 200, "probes have none");
    gateway.stop().await.unwrap();

    let open = Gateway::start(|settings| settings.admin.bind = [0, 0, 0, 0].into()).await;
    let admin = SocketAddr::from(([127, 0, 0, 1], open.admin().port()));
    let answer = ask(admin, "GET /status", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "token_required"));
    open.stop().await.unwrap();
}

async fn cli(admin: SocketAddr, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_meridian"))
        .args(arguments)
        .env_clear()
        .env("ADMIN_PORT", admin.port().to_string())
        .current_dir(folder.path())
        .output();
    within("the command", run).await.unwrap()
}

#[tokio::test]
async fn the_command_line_says_the_same_words() {
    let (gateway, a, _b) = with_two().await;
    let admin = gateway.admin();
    let backend = a.address.to_string();
    let json = |output: &Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let said = cli(admin, &["status"]).await;
    let words = String::from_utf8(said.stdout).unwrap();
    assert!(words.starts_with("meridian ") && words.contains(": serving\n"), "{words}");
    assert!(words.contains("region 1: the primaries serve"), "{words}");
    assert!(words.contains(&format!("  {backend}  in use  0 active, weight 1\n")), "{words}");
    let said = cli(admin, &["status", "--json"]).await;
    assert_eq!((said.status.code(), &json(&said)["service"]), (Some(0), &json!("meridian")));
    let said = cli(admin, &["drain", "1", &backend]).await;
    assert_eq!((said.status.code(), &json(&said)["backend"]["draining"]), (Some(0), &json!(true)));
    let said = cli(admin, &["resume", "1", &backend]).await;
    assert_eq!(json(&said)["backend"]["draining"], false);
    let said = cli(admin, &["weight", "1", &backend, "9"]).await;
    assert_eq!(json(&said)["backend"]["weight"], 9);
    let said = cli(admin, &["drain", "1", "nobody:1"]).await;
    assert_eq!(
        (said.status.code(), &json(&said)["error"]["code"]),
        (Some(1), &json!("backend_unknown"))
    );
    let said = cli(admin, &["reload"]).await;
    assert_eq!(said.status.code(), Some(1), "it was built without sources");
    gateway.stop().await.unwrap();
    let said = cli(admin, &["status"]).await;
    let complaint = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(complaint.contains("no answer from the admin listener at 127.0.0.1:"), "{complaint}");
}

#[tokio::test]
async fn the_page_shows_what_goes_on_and_drains_after_a_question() {
    let (gateway, a, b) = with_two().await;
    let browser = Browser::start().await;
    let tab = browser.open(&format!("http://{}/", gateway.admin())).await;
    tab.wait_for_text("#state", "Serving").await;
    assert_eq!(tab.texts(".region h3").await, ["Region 1", "Region 2"]);
    let (a, b) = (a.address.to_string(), b.address.to_string());
    assert_eq!(tab.texts(".backends .name").await, [a.as_str(), &b]);

    let drain = tab.value("document.querySelector('.backends button').click()").await;
    assert_eq!(drain, Value::Null);
    tab.wait_for_text("#question", &format!("Drain {a}?")).await;
    tab.click("Cancel").await;
    assert_eq!(status(gateway.admin()).await["regions"][0]["backends"][0]["draining"], false);
    tab.value("document.querySelector('.backends button').click()").await;
    tab.click("Yes").await;
    tab.wait_for_text(".backends li", "draining").await;
    tab.click("Resume").await;
    tab.click("Yes").await;
    tab.wait_for_text(".backends li", "in use").await;

    // Without a reload of the page: what another operator does is seen.
    post(gateway.admin(), &format!("/backends/1/{b}/weight?value=5")).await;
    tab.wait_for_text(".backends li:nth-child(2)", "weight 5 (an operator's)").await;
    tab.click("Reload configuration").await;
    tab.click("Yes").await;
    tab.wait_for_text("#problem", "ask again").await;
    assert!(
        browser
            .requests()
            .await
            .iter()
            .all(|url| url.starts_with(&format!("http://{}", gateway.admin()))
                || url.starts_with("data:")),
        "it needs nothing from elsewhere"
    );
    tab.be_phone(360).await;
    let wide = tab.value("document.documentElement.scrollWidth > innerWidth").await;
    assert_eq!(wide, false, "a phone needs no sideways scrolling");
    tab.screenshot(&std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("status.png")).await;
    browser.close().await;
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_that_is_shown_becomes_markup() {
    let gateway = Gateway::start(|settings| settings.admin.token = Some(Secret::new("k"))).await;
    let browser = Browser::start().await;
    let tab = browser.open(&format!("http://{}/status.html", gateway.admin())).await;
    tab.wait_for("the question for a token", "!document.getElementById('login').hidden").await;
    tab.fill("Token (admin.token)", "wrong").await;
    tab.click("Show status").await;
    tab.wait_for_text("#problem", "not that of admin.token").await;
    tab.fill("Token (admin.token)", "k").await;
    tab.click("Show status").await;
    tab.wait_for_text("#state", "Serving").await;
    tab.value(
        "regions([{region: '<img src=x>', facts: ['<b>x</b>'], backends: [{address: '<script>1</script>', \
         state: '<i>', eligible: true, draining: false, facts: ['<u>y</u>']}]}])",
    )
    .await;
    assert_eq!(
        tab.value(
            "document.querySelectorAll('main img, main b, main script, main i, main u').length"
        )
        .await,
        0
    );
    assert_eq!(tab.texts(".backends .name").await, ["<script>1</script>"]);
    browser.close().await;
    gateway.stop().await.unwrap();
}

/// The built binary: programs, a certificate, and a reload that is refused.
#[tokio::test]
async fn the_page_shows_programs_certificates_and_reloads() {
    let section = "command = \"node server.js\"\ninstances = 2\n[tls]\nport = 0\ndev = true\ndev_in_production = true\n";
    let gateway = Supervised::start(section).await;
    gateway.has_up(2).await;
    let browser = Browser::start().await;
    let tab = browser.open(&format!("http://{}/", gateway.admin)).await;
    tab.wait_for_text("#processes", "up for").await;
    assert_eq!(tab.texts("#processes h3").await, ["web of region 1"]);
    assert_eq!(tab.texts("#processes .name").await, ["instance 0", "instance 1"]);
    tab.wait_for(
        "two that are ready",
        "document.querySelectorAll('#processes .good').length === 2",
    )
    .await;
    let killed = gateway.pid("/").await;
    tab.wait_for_text("#processes", &format!("pid {killed}, ").replace(", ", " · ")).await;
    Supervised::signal(killed, "KILL").await;
    tab.wait_for_text("#processes", "1 restarts").await;
    tab.wait_for_text("#processes", "last end: signal KILL").await;

    assert_eq!(tab.texts("#certificates .name").await, ["dev"]);
    tab.wait_for_text("#certificates .good", "ends in ").await;
    tab.wait_for_text("#certificates .facts", "localhost").await;

    gateway.reload(&section.replace("instances = 2", "instances = 1")).await;
    tab.wait_for_text("#about", "applied at ").await;
    tab.wait_for_text("#about", "by request, in ").await;
    tab.wait_for("one instance", "document.querySelectorAll('#processes .name').length === 1")
        .await;
    let refused = gateway.answer_to(&section.replace("instances = 2", "instances = 0")).await;
    assert_eq!(refused.status, 422);
    tab.wait_for_text("#about .bad", "default.toml: regions.1.processes.web.instances: ").await;

    let picture = |name| std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    tab.screenshot(&picture("status-all.png")).await;
    tab.be_phone(360).await;
    let wide = tab.value("document.documentElement.scrollWidth > innerWidth").await;
    assert_eq!(wide, false, "a phone needs no sideways scrolling");
    tab.screenshot(&picture("status-all-phone.png")).await;
    tab.value("scrollTo(0, document.body.scrollHeight)").await;
    tab.screenshot(&picture("status-end-phone.png")).await;
    browser.close().await;
}

#[tokio::test]
async fn who_is_slow_or_many_or_long_is_bounded() {
    let gateway = Gateway::start(|settings| {
        settings.admin.max_connections = 2.try_into().unwrap();
        settings.admin.idle_timeout = Duration::from_secs(2);
    })
    .await;
    let admin = gateway.admin();
    // One that sends half a head, and one that sends nothing more: there is no room for a third …
    let mut half = Http::connect(admin).await;
    half.send("GET /health HTTP/1.1\r\nHo").await;
    let mut kept = Http::connect(admin).await;
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    kept.send(request).await;
    assert_eq!(kept.answer(request).await.status, 200);
    // … until their time is over.
    assert_eq!(get(admin, "/health", "").await.status, 200);
    assert_eq!((half.rest().await, kept.rest().await), (vec![], vec![]));
    let long = "POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n";
    let answer = exchange(admin, long).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    gateway.stop().await.unwrap();
}

/// Why a backend is out: which probe, which answer, since when; and until when, where that is known.
#[tokio::test]
async fn the_status_says_why_a_backend_is_out() {
    let ill = Backend::saying("ill").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", ill.address);
        settings.health.active = ProbeKind::Http;
        settings.health.path = "/up".to_owned();
        settings.health.expect = "204".parse().unwrap();
    })
    .await;
    let why = "a probe (GET /up) failed: status 200, which is not 204";
    let facts =
        async || status(gateway.admin()).await["regions"][0]["backends"][0]["facts"].to_string();
    eventually("the probe", async || facts().await.contains(why)).await;
    let said = facts().await;
    assert!(said.contains("\"down since 20") && said.contains("\"the last probe, at 20"), "{said}");
    let words = cli(gateway.admin(), &["status"]).await.stdout;
    let words = String::from_utf8(words).unwrap();
    assert!(words.contains("region 1: no backend is available"), "{words}");
    assert!(words.contains("  passed over  ") && words.contains(why), "{words}");
    gateway.stop().await.unwrap();
}
