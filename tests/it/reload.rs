//! Another configuration without a restart: what changes does, the rest does not notice.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::backend::Backend;
use crate::harness::chat::{Chat, open};
use crate::harness::gateway::Gateway;
use crate::harness::http::{Answer, Http, exchange, get};
use crate::harness::{eventually, within};
use crate::running::Process;

/// The built binary with a folder of settings of its own.
struct Configured {
    process: Process,
    folder: tempfile::TempDir,
    proxy: SocketAddr,
    admin: SocketAddr,
}

fn write(folder: &Path, text: &str) {
    // As an editor does it: the file is whole at every moment.
    std::fs::write(folder.join("next"), text).unwrap();
    std::fs::rename(folder.join("next"), folder.join("default.toml")).unwrap();
}

impl Configured {
    async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), text);
        let config = folder.path().to_str().unwrap().to_owned();
        let variables = ["NODE_ENV=production", "CONF__WORKERS=2"];
        // The ports of hubs are the file's.
        let mut process = Process::start(&["--config", &config], &variables);
        let (proxy, admin) = (process.address("proxy").await, process.address("admin").await);
        Self { process, folder, proxy, admin }
    }

    fn say(&self, text: &str) {
        write(self.folder.path(), text);
    }

    async fn reload(&self) -> Answer {
        exchange(self.admin, &post("/reload")).await
    }

    async fn status(&self) -> Value {
        get_as_operator(self.admin, "/status").await.json()
    }
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
}

async fn get_as_operator(admin: SocketAddr, path: &str) -> Answer {
    exchange(admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
}

/// Both hubs of the built-in variables, and these backends.
fn regions(one: &[SocketAddr], two: &[SocketAddr]) -> String {
    let list = |backends: &[SocketAddr]| {
        let urls: Vec<_> = backends.iter().map(|one| format!("\"http://{one}\"")).collect();
        urls.join(", ")
    };
    format!(
        "[regions.1]\nbackends = [{}]\nhub.bind = \"127.0.0.1\"\n[regions.2]\nbackends = [{}]\nhub.bind = \"127.0.0.1\"\n",
        list(one),
        list(two)
    )
}

#[tokio::test]
async fn another_backend_serves_after_a_request_and_after_a_signal() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let gateway = Configured::start(&regions(&[a.address], &[])).await;
    let hears = async || get(gateway.proxy, "/", "x-region: 1\r\n").await.text().to_owned();
    assert_eq!(hears().await, "a");

    gateway.say(&regions(&[b.address], &[]));
    let answer = gateway.reload().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = answer.json();
    assert_eq!(report["result"], "applied");
    assert_eq!(report["generation"], 2);
    assert_eq!(report["changed"], json!(["regions.1.backends"]));
    assert_eq!(report["restart"], json!([]));
    assert_eq!(hears().await, "b");

    gateway.say(&regions(&[a.address], &[]));
    gateway.process.signal("HUP").await;
    // Requests may be served by what is new a moment before it is told of.
    let generation = async || gateway.status().await["configuration"]["generation"] == 3;
    eventually("the reload", generation).await;
    assert_eq!(hears().await, "a");
    let configuration = gateway.status().await["configuration"].clone();
    assert_eq!(configuration["lastReload"]["by"], "SIGHUP");

    let again = gateway.reload().await.json();
    assert_eq!((&again["result"], &again["generation"]), (&json!("unchanged"), &json!(3)));
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await.0, Some(0));
}

#[tokio::test]
async fn what_is_not_valid_changes_nothing_and_says_why() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let gateway = Configured::start(&regions(&[a.address], &[])).await;
    let hears = async || get(gateway.proxy, "/", "x-region: 1\r\n").await.text().to_owned();
    let valid = regions(&[b.address], &[]);
    for (wrong, words) in [
        ("[proxy]\nconnect_timeout = \"soon\"\nmax_conections = 1\n", "is not a duration"),
        ("[[[", "it is not TOML"),
        ("[proxy]\nready_path = \"/health\"\n", "/health"),
    ] {
        gateway.say(&format!("{valid}{wrong}"));
        let answer = gateway.reload().await;
        assert_eq!(answer.status, 422, "{answer:?}");
        let report = answer.json();
        assert_eq!(report["result"], "refused");
        let said = report["problems"].to_string();
        assert!(said.contains(words) && said.contains("default.toml"), "{said}");
        assert_eq!(hears().await, "a", "nothing of it is applied, what is right neither");
    }
    gateway.say(&format!("default_region = \"9\"\n{valid}"));
    let problems = gateway.reload().await.json()["problems"].clone();
    assert_eq!(problems[0]["key"], "default_region");
    let failure = gateway.status().await["configuration"]["failure"].clone();
    assert_eq!(failure["problems"], problems, "the status remembers");

    gateway.say(&valid);
    assert_eq!(gateway.reload().await.status, 200);
    assert_eq!(hears().await, "b");
    assert_eq!(gateway.status().await["configuration"]["failure"], Value::Null);
    let metrics = get(gateway.admin, "/metrics", "").await.text().to_owned();
    for line in [
        "meridian_configuration_reloads_total{result=\"refused\"} 4",
        "meridian_configuration_generation 2",
        "meridian_configuration_refused 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    gateway.process.signal("TERM").await;
    let (code, said) = gateway.process.end().await;
    assert_eq!(code, Some(0));
    assert!(said.contains("the configuration was not replaced: "), "{said}");
    assert!(said.contains("max_conections: unknown key"), "every problem is said: {said}");
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_what_does_not_is_done() {
    let a = Backend::saying("a").await;
    let plain = regions(&[a.address], &[]);
    let gateway = Configured::start(&plain).await;
    gateway.say(&format!(
        "{plain}[proxy]\nhealth_path = \"/alive\"\n[hub]\nping_interval = \"11s\"\n[log]\nlevel = \"debug\"\n"
    ));
    let report = gateway.reload().await.json();
    assert_eq!(report["changed"], json!(["log.level", "proxy.health_path"]));
    assert_eq!(report["restart"], json!(["hub.ping_interval"]));
    assert_eq!(get(gateway.proxy, "/alive", "").await.json()["status"], "healthy");
    assert_eq!(get(gateway.proxy, "/health", "x-region: 1\r\n").await.text(), "a");
    let again = gateway.reload().await.json();
    assert_eq!(again["restart"], json!(["hub.ping_interval"]), "as long as it waits");
    assert_eq!(gateway.status().await["configuration"]["restart"], json!(["hub.ping_interval"]));

    gateway.say(&format!("{plain}[log]\nlevel = \"error\"\n"));
    gateway.reload().await;
    get(gateway.proxy, "/quiet", "x-region: 1\r\n").await;
    gateway.process.signal("TERM").await;
    let (_, said) = gateway.process.end().await;
    assert!(said.contains("needs a restart: hub.ping_interval"), "{said}");
    assert!(said.contains("GET /alive 200") && !said.contains("GET /quiet"), "{said}");
}

#[tokio::test]
async fn a_region_comes_and_goes() {
    let a = Backend::saying("a").await;
    let plain = regions(&[a.address], &[]);
    let gateway = Configured::start(&plain).await;
    let ask = async || get(gateway.proxy, "/", "x-region: new\r\n").await;
    assert_eq!(ask().await.code(), "region_unknown");
    gateway.say(&format!("{plain}[regions.new]\nbackends = [\"http://{}\"]\n", a.address));
    gateway.reload().await;
    assert_eq!(ask().await.text(), "a");
    let metrics = async || get(gateway.admin, "/metrics", "").await.text().to_owned();
    assert!(metrics().await.contains("region=\"new\""));
    gateway.say(&plain);
    gateway.reload().await;
    assert_eq!(ask().await.code(), "region_unknown");
    assert!(!metrics().await.contains("region=\"new\""), "its series went with it");
}

#[tokio::test]
async fn many_who_ask_at_once_are_all_answered() {
    let a = Backend::saying("a").await;
    let gateway = Configured::start(&regions(&[a.address], &[])).await;
    gateway.say(&regions(&[a.address], &[a.address]));
    let asked = (0..40).map(|_| gateway.reload());
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.json()["generation"] == 2));
}

#[tokio::test]
async fn a_gateway_without_sources_refuses() {
    let gateway = Gateway::start(|_| {}).await;
    let answer = exchange(gateway.admin(), &post("/reload")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "reload_unavailable"));
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_open_at_a_removed_backend_is_finished() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap();
    let b = Backend::saying("b").await;
    let gateway = Configured::start(&regions(&[slow], &[])).await;
    let mut client = Http::connect(gateway.proxy).await;
    client.send("GET /slow HTTP/1.1\r\nHost: h\r\nx-region: 1\r\n\r\n").await;
    let (stream, _) = within("the request", listener.accept()).await.unwrap();
    let mut backend = Http::over(stream);
    backend.read_to("\r\n\r\n").await;
    gateway.say(&regions(&[b.address], &[]));
    assert_eq!(gateway.reload().await.json()["result"], "applied");
    assert_eq!(get(gateway.proxy, "/", "x-region: 1\r\n").await.text(), "b");
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
    assert_eq!(client.answer("GET").await.text(), "slow");
}

#[tokio::test]
async fn an_operators_word_outlives_a_reload_unless_it_is_about_that_backend() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let edition = |weight: u16, timeout: &str| {
        let (a, b) = (a.address, b.address);
        format!(
            "[regions.1]\nbackends = [{{ url = \"http://{a}\", weight = {weight} }}, \"http://{b}\"]\n\
             hub.bind = \"127.0.0.1\"\n[regions.2]\nhub.bind = \"127.0.0.1\"\n\
             [proxy]\nconnect_timeout = \"{timeout}\"\n"
        )
    };
    let gateway = Configured::start(&edition(1, "5s")).await;
    let backend = async || gateway.status().await["regions"][0]["backends"][0].clone();
    let path = format!("/backends/1/{}", a.address);
    exchange(gateway.admin, &post(&format!("{path}/drain"))).await;
    exchange(gateway.admin, &post(&format!("{path}/weight?value=9"))).await;
    gateway.say(&edition(1, "6s"));
    assert_eq!(gateway.reload().await.json()["changed"], json!(["proxy.connect_timeout"]));
    let now = backend().await;
    assert_eq!((&now["draining"], &now["weight"]), (&json!(true), &json!(9)), "{now}");
    gateway.say(&edition(3, "6s"));
    gateway.reload().await;
    let now = backend().await;
    assert_eq!((&now["draining"], &now["weight"]), (&json!(false), &json!(3)), "{now}");
}

#[tokio::test]
async fn backends_whose_ports_the_system_chose_stay() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "[log]\nlevel = \"info\"\n");
    let config = folder.path().to_str().unwrap().to_owned();
    let mut process = Process::start(&["--config", &config], &[]);
    let (proxy, admin) = (process.address("proxy").await, process.address("admin").await);
    write(folder.path(), "[proxy]\nconnect_timeout = \"4s\"\n");
    let report = exchange(admin, &post("/reload")).await.json();
    assert_eq!(report["changed"], json!(["proxy.connect_timeout"]), "{report}");
    let hello = get(proxy, "/", "x-region: 2\r\n").await;
    assert_eq!(hello.text(), "Hello from Server B (Region 2)");
}

/// Resident bytes once what was freed is given back, as far as it is.
fn resident(gateway: &Configured) -> usize {
    gateway.process.memory("VmRSS:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_survive_a_thousand_reloads_in_flat_memory() {
    const RELOADS: usize = 1_000;
    let echo = echo().await;
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let editions = [regions(&[echo], &[a.address]), regions(&[echo], &[a.address, b.address])];
    let gateway = Arc::new(Configured::start(&editions[0]).await);
    let mut chat = Chat::at(gateway.proxy, "/ws?userId=alice&region=1").await;
    let mut tunnel = open(gateway.proxy, "/echo?region=1", &[]).await.unwrap();
    let mut kept = Http::connect(gateway.proxy).await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nx-region: 2\r\n\r\n";

    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (done, served, proxy) = (Arc::clone(&done), Arc::clone(&served), gateway.proxy);
        tokio::spawn(async move {
            let mut client = Http::connect(proxy).await;
            while !done.load(Ordering::Relaxed) {
                client.send(request).await;
                assert_eq!(client.answer(request).await.status, 200);
                assert_eq!(get(proxy, "/", "x-region: 2\r\n").await.status, 200);
                served.fetch_add(2, Ordering::Relaxed);
                // Some, all the time, and not all that there can be: the reloads are what is to be seen.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let mut operator = Http::connect(gateway.admin).await;
    let mut settled = 0;
    for number in 1..=RELOADS {
        gateway.say(&editions[number % 2]);
        operator.send(post("/reload")).await;
        let report = operator.answer("POST").await.json();
        assert_eq!(report["result"], "applied", "{report}");
        // Often enough to be kept, and to answer the hub's pings, however slow the machine is.
        if number % 10 == 0 {
            chat.notes("alice", "hi", &format!("c{number}")).await;
            tunnel.send(Message::text(number.to_string())).await.unwrap();
            let back = within("the echo", tunnel.next()).await.unwrap().unwrap();
            assert_eq!(back, Message::text(number.to_string()));
            kept.send(request).await;
            assert_eq!(kept.answer(request).await.status, 200);
        }
        if number == RELOADS / 4 {
            settled = resident(&gateway);
        }
    }
    done.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert!(served.load(Ordering::Relaxed) > 100, "there was load");
    let grown = resident(&gateway).saturating_sub(settled);
    assert!(grown < 4 * 1024 * 1024, "{grown} bytes more than after a quarter of the reloads");
    assert_eq!(gateway.status().await["configuration"]["generation"], RELOADS + 1);
}

/// A backend whose WebSockets say what they hear, and which answers everything else with 200.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary())
                        && socket.send(message).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Lines of the file that is named, and what a signal and a reload make of it.
#[tokio::test]
async fn access_lines_go_where_a_signal_and_a_reload_say() {
    let backend = Backend::saying("a").await;
    let logs = tempfile::tempdir().unwrap();
    let path = |name: &str| logs.path().join(name);
    let text = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let writing = |file: &Path, rest: &str| {
        let regions = regions(&[backend.address], &[]);
        format!("{regions}[access]\nfile = \"{}\"\n{rest}\n", file.display())
    };
    let gateway = Configured::start(&writing(&path("a"), "format = \"json\"")).await;
    let ask = async |target: &str| {
        assert_eq!(get(gateway.proxy, target, "x-region: 1\r\n").await.text(), "a");
    };
    ask("/one").await;
    eventually("the first line", async || text("a").contains("\"path\":\"/one\"")).await;
    std::fs::rename(path("a"), path("a.old")).unwrap();
    gateway.process.signal("USR1").await;
    // Before there is another line.
    eventually("the file to be begun anew", async || path("a").exists()).await;
    ask("/two").await;
    eventually("the second line", async || text("a").contains("\"path\":\"/two\"")).await;
    assert!(!text("a.old").contains("/two"), "{}", text("a.old"));

    gateway.say(&writing(&path("b"), "format = \"combined\"\nqueries = true"));
    let report = gateway.reload().await.json();
    assert_eq!(report["changed"], json!(["access.file", "access.format", "access.queries"]));
    ask("/three?x=1").await;
    eventually("the third line", async || text("b").contains("\"GET /three?x=1 HTTP/1.1\" 200 1 "))
        .await;
    assert!(!text("a").contains("/three"));

    gateway.say(&writing(&path("nowhere/c"), ""));
    assert_eq!(gateway.reload().await.status, 422);
    ask("/four").await;
    eventually("the fourth line", async || text("b").contains("GET /four HTTP/1.1")).await;
    gateway.say(&format!("{}[log]\naccess = false\n", regions(&[backend.address], &[])));
    assert_eq!(gateway.reload().await.json()["result"], "applied");
    ask("/five").await;
    gateway.process.signal("TERM").await;
    let (code, said) = gateway.process.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!text("b").contains("/five") && !said.contains("GET /five"), "{said}");
}

/// As Kubernetes swaps a `ConfigMap`, and as an editor saves.
#[tokio::test]
async fn changed_files_are_read_by_themselves_where_that_is_wanted() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let folder = tempfile::tempdir().unwrap();
    let mounted = |version: &str, text: &str| {
        std::fs::create_dir(folder.path().join(version)).unwrap();
        std::fs::write(folder.path().join(version).join("default.toml"), text).unwrap();
        let next = folder.path().join("next");
        std::os::unix::fs::symlink(version, &next).unwrap();
        std::fs::rename(next, folder.path().join("..data")).unwrap();
    };
    let watching = |rest: &str| format!("{rest}[reload]\nwatch_interval = \"50ms\"\n");
    mounted("..1", &watching(&regions(&[a.address], &[])));
    std::os::unix::fs::symlink("..data/default.toml", folder.path().join("default.toml")).unwrap();
    let arguments = ["--watch", "--config", folder.path().to_str().unwrap()];
    let mut process = Process::start(&arguments, &["NODE_ENV=production", "CONF__WORKERS=1"]);
    let (proxy, admin) = (process.address("proxy").await, process.address("admin").await);
    let hears = async || get(proxy, "/", "x-region: 1\r\n").await.text().to_owned();
    assert_eq!(hears().await, "a");

    mounted("..2", &watching(&regions(&[b.address], &[])));
    eventually("the other backend", async || hears().await == "b").await;
    let configuration =
        async || get_as_operator(admin, "/status").await.json()["configuration"].clone();
    eventually("the report", async || configuration().await["generation"] == 2).await;
    assert_eq!(configuration().await["lastReload"]["by"], "a changed file");

    mounted("..3", &watching("[proxy]\nconnect_timeout = \"soon\"\n"));
    eventually("the refusal", async || configuration().await["failure"].is_object()).await;
    let failure = configuration().await["failure"].clone();
    assert_eq!(failure["problems"][0]["key"], "proxy.connect_timeout");
    assert_eq!(hears().await, "b");
    // It is told of once, however often it is looked at: the next report is of what comes next.
    mounted("..4", &watching(&regions(&[a.address], &[])));
    eventually("the first backend", async || hears().await == "a").await;
    eventually("the report", async || configuration().await["generation"] == 3).await;
    let metrics = get(admin, "/metrics", "").await.text().to_owned();
    assert!(metrics.contains("configuration_reloads_total{result=\"refused\"} 1\n"), "{metrics}");
    process.signal("TERM").await;
    let (code, said) = process.end().await;
    assert_eq!(code, Some(0), "{said}");
}
