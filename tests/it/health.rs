//! Backends that fall ill: real nginx, stopped, spoilt and brought back, and what the admin listener says of them.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use meridian::settings::{BackendSettings, ProbeKind, RegionName, Settings, WhenExceeded};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::get;
use crate::harness::port::Port;
use crate::harness::{chat, eventually, within};

/// An nginx of one process that says its name; it is ill while the file `ill` is there.
struct Nginx {
    name: &'static str,
    address: SocketAddr,
    _port: Port,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Nginx {
    async fn start(name: &'static str) -> Self {
        let port = Port::reserve();
        let address = port.address();
        let folder = tempfile::tempdir().unwrap();
        let mut nginx = Self { name, address, _port: port, folder, process: None };
        nginx.run().await;
        nginx
    }

    async fn run(&mut self) {
        let folder = self.folder.path().display();
        let (address, name) = (self.address, self.name);
        let config = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
             events {{ worker_connections 64; }}
             http {{
               access_log off;
               client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
               fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
               server {{
                 listen {address};
                 location = /well {{ if (-f {folder}/ill) {{ return 503; }} return 200 fine; }}
                 location / {{ if (-f {folder}/ill) {{ return 503 ill; }} return 200 {name}; }}
               }}
             }}"
        );
        let file = self.folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(self.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("nginx is installed (scripts/test.sh)"));
        let address = self.address;
        eventually("nginx listens", || async move { TcpStream::connect(address).await.is_ok() })
            .await;
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    fn fall_ill(&self) {
        fs::write(self.folder.path().join("ill"), "").unwrap();
    }

    fn recover(&self) {
        fs::remove_file(self.folder.path().join("ill")).unwrap();
    }
}

/// Who answers how many of `count` requests to region 1, by status and text.
async fn answers(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let answer = get(gateway.proxy(), "/x", "x-region: 1\r\n").await;
        let text = if answer.status == 200 { answer.text().to_owned() } else { answer.code() };
        answers.push(format!("{} {text}", answer.status));
    }
    answers.sort();
    answers.dedup();
    answers
}

/// Waits until a line of the metrics of a backend ends so.
async fn metric(gateway: &Gateway, name: &str, nginx: &Nginx, label: &str, value: &str) {
    let line =
        format!("meridian_{name}{{region=\"1\",backend=\"{}\"{label}}} {value}", nginx.address);
    let admin = gateway.admin();
    eventually(&line, || {
        let line = line.clone();
        async move { get(admin, "/metrics", "").await.text().lines().any(|one| one == line) }
    })
    .await;
}

fn probing(settings: &mut Settings) {
    settings.health.active = ProbeKind::Http;
    "/well".clone_into(&mut settings.health.path);
    settings.health.expect = "200".parse().unwrap();
    settings.health.interval = Duration::from_millis(100);
    settings.health.rise = NonZeroU32::MIN;
}

#[tokio::test]
async fn probes_find_out_what_becomes_of_nginx() {
    let (mut one, two) = (Nginx::start("one").await, Nginx::start("two").await);
    let gateway = Gateway::start(|settings| {
        probing(settings);
        add_backend(settings, "1", one.address);
        add_backend(settings, "1", two.address);
    })
    .await;
    let up = ",by=\"probes\"";
    metric(&gateway, "proxy_health_probes_total", &two, ",result=\"pass\"", "1").await;
    assert_eq!(answers(&gateway, 10).await, ["200 one", "200 two"]);
    one.fall_ill();
    metric(&gateway, "proxy_backend_up", &one, up, "0").await;
    assert_eq!(answers(&gateway, 10).await, ["200 two"]);
    two.fall_ill();
    metric(&gateway, "proxy_backend_up", &two, up, "0").await;
    // Nobody is left, and nobody is asked: else nginx would have said that it is ill.
    assert_eq!(answers(&gateway, 4).await, ["503 region_unavailable"]);
    one.recover();
    metric(&gateway, "proxy_backend_up", &one, up, "1").await;
    assert_eq!(answers(&gateway, 10).await, ["200 one"]);
    one.kill();
    metric(&gateway, "proxy_backend_up", &one, up, "0").await;
    one.run().await;
    two.recover();
    metric(&gateway, "proxy_backend_up", &one, up, "1").await;
    metric(&gateway, "proxy_backend_up", &two, up, "1").await;
    assert_eq!(answers(&gateway, 10).await, ["200 one", "200 two"]);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn exchanges_find_out_that_nginx_is_ill() {
    let (one, two) = (Nginx::start("one").await, Nginx::start("two").await);
    let gateway = Gateway::start(|settings| {
        settings.health.count_statuses = "503".parse().unwrap();
        settings.health.eject = Duration::from_secs(3);
        add_backend(settings, "1", one.address);
        add_backend(settings, "1", two.address);
    })
    .await;
    one.fall_ill();
    let (ejections, reason) = ("proxy_backend_ejections_total", ",reason=\"consecutive\"");
    for _ in 0..10 {
        get(gateway.proxy(), "/x", "x-region: 1\r\n").await;
    }
    metric(&gateway, ejections, &one, reason, "1").await;
    assert_eq!(answers(&gateway, 10).await, ["200 two"]);
    one.recover();
    metric(&gateway, "proxy_backend_up", &one, ",by=\"passive\"", "1").await;
    assert_eq!(answers(&gateway, 10).await, ["200 one", "200 two"]);
    gateway.stop().await.unwrap();
}

/// A bad deploy on every backend: under `panic` they are all asked as ever, under `fail` nobody is.
#[tokio::test]
async fn a_bad_deploy_everywhere_is_served_in_a_panic_and_refused_at_once_without() {
    for when_exceeded in [WhenExceeded::Panic, WhenExceeded::Fail] {
        let (one, two) = (Nginx::start("one").await, Nginx::start("two").await);
        let gateway = Gateway::start(|settings| {
            settings.health.count_statuses = "503".parse().unwrap();
            settings.health.eject = Duration::from_hours(1);
            settings.health.eject_max = Duration::from_hours(1);
            settings.health.when_exceeded = when_exceeded;
            add_backend(settings, "1", one.address);
            add_backend(settings, "1", two.address);
        })
        .await;
        one.fall_ill();
        two.fall_ill();
        for _ in 0..20 {
            get(gateway.proxy(), "/x", "x-region: 1\r\n").await;
        }
        for nginx in [&one, &two] {
            metric(&gateway, "proxy_backend_up", nginx, ",by=\"passive\"", "0").await;
        }
        // Half of it works again, as a bad deploy may.
        one.recover();
        two.recover();
        let begun = Instant::now();
        let (asked, answers) = (requests(&gateway).await, answers(&gateway, 10).await);
        let asked = requests(&gateway).await - asked;
        if when_exceeded == WhenExceeded::Panic {
            assert_eq!((asked, answers), (10, vec!["200 one".into(), "200 two".into()]));
        } else {
            assert_eq!((asked, answers), (0, vec!["503 region_unavailable".into()]));
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
        gateway.stop().await.unwrap();
    }
}

/// Exchanges begun with any backend.
async fn requests(gateway: &Gateway) -> usize {
    let page = get(gateway.admin(), "/metrics", "").await;
    let counts = page
        .text()
        .lines()
        .filter(|line| line.starts_with("meridian_proxy_backend_requests_total"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

/// A backend that echoes on WebSockets, says its name to everybody else, and counts these.
async fn talker(name: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut begin = [0; 1_024];
                // A head is small and comes at once; a probe sends nothing of the kind.
                let seen = stream.peek(&mut begin).await.unwrap_or_default();
                if String::from_utf8_lossy(&begin[..seen]).to_lowercase().contains("websocket") {
                    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                    while let Some(Ok(message)) = socket.next().await {
                        if message.is_close() || socket.send(message).await.is_err() {
                            return;
                        }
                    }
                    return;
                }
                while let Ok(1..) = stream.read(&mut begin).await {
                    if !begin.starts_with(b"GET /well") {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

async fn echoes(socket: &mut WebSocketStream<TcpStream>) {
    socket.send(Message::text("there?")).await.unwrap();
    let heard = within("the echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(heard, Message::text("there?"));
}

async fn tier_changes(gateway: &Gateway) -> u64 {
    let page = get(gateway.admin(), "/metrics", "").await;
    let line = "meridian_proxy_tier_changes_total{region=\"1\"} ";
    page.text().lines().find_map(|one| one.strip_prefix(line)).unwrap().parse().unwrap()
}

/// A primary that comes and goes, as fast as probes see it: the backup gets nothing while another one is there, then all
/// of it, and keeps what it has when a primary serves again.
#[tokio::test]
async fn a_flapping_primary_is_no_reason_to_go_back_and_forth() {
    let hold = Duration::from_millis(800);
    let (flapping, steady) = (Nginx::start("flapping").await, Nginx::start("steady").await);
    let (backup, asked) = talker("backup").await;
    let gateway = Gateway::start(|settings| {
        probing(settings);
        settings.health.fall = NonZeroU32::MIN;
        settings.health.timeout = Duration::from_secs(30);
        settings.backends.hold = hold;
        add_backend(settings, "1", flapping.address);
        add_backend(settings, "1", steady.address);
        let region = settings.regions.get_mut(&RegionName::new("1").unwrap()).unwrap();
        region.backends.push(BackendSettings::backup(format!("http://{backup}")));
    })
    .await;
    let up = async |nginx: &Nginx, up| {
        metric(&gateway, "proxy_backend_up", nginx, ",by=\"probes\"", up).await;
    };
    metric(&gateway, "proxy_health_probes_total", &steady, ",result=\"pass\"", "1").await;
    flapping.fall_ill();
    up(&flapping, "0").await;
    assert_eq!(answers(&gateway, 5).await, ["200 steady"]);
    flapping.recover();
    up(&flapping, "1").await;
    assert_eq!(answers(&gateway, 6).await, ["200 flapping", "200 steady"]);
    assert_eq!((asked.load(Ordering::SeqCst), tier_changes(&gateway).await), (0, 0));
    flapping.fall_ill();
    steady.fall_ill();
    up(&flapping, "0").await;
    up(&steady, "0").await;
    assert_eq!(answers(&gateway, 5).await, ["200 backup"]);
    let mut socket = chat::open(gateway.proxy(), "/any?region=1", &[]).await.unwrap();
    echoes(&mut socket).await;
    let mut allowed = 1;
    for _ in 0..2 {
        let begun = Instant::now();
        flapping.recover();
        up(&flapping, "1").await;
        let while_up = answers(&gateway, 5).await;
        flapping.fall_ill();
        up(&flapping, "0").await;
        assert_eq!(answers(&gateway, 5).await, ["200 backup"]);
        if begun.elapsed() < hold {
            assert_eq!(while_up, ["200 backup"]);
        } else {
            // On a busy machine it was there for so long that it may have served.
            allowed += 2;
        }
    }
    let changes = tier_changes(&gateway).await;
    assert!(changes <= allowed, "{changes} changes, {allowed} allowed");
    let well = Instant::now();
    flapping.recover();
    eventually("the primary", async || answers(&gateway, 1).await == ["200 flapping"]).await;
    assert!(well.elapsed() >= hold, "after {:?}", well.elapsed());
    assert_eq!(tier_changes(&gateway).await, changes + 1);
    // Who has a socket on the backup keeps it.
    echoes(&mut socket).await;
    gateway.stop().await.unwrap();
}
