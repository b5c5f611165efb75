//! Backends that fall ill: real nginx, stopped, spoilt and brought back, and what the admin listener says of them.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use meridian::settings::{ProbeKind, Settings};

use crate::harness::eventually;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::get;

/// An nginx of one process that says its name; it is ill while the file `ill` is there.
struct Nginx {
    name: &'static str,
    address: SocketAddr,
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
        // Bound a moment ago, so that nobody else gets it now.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut nginx = Self { name, address, folder, process: None };
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
        eventually("nginx listens", || async move {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
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
        settings.health.eject = Duration::from_secs(1);
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
