//! The built binary with programs that it supervises: what it says, what runs below it, and a load on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::http::{Answer, exchange, get};
use super::{eventually, within};

/// Answers with its process id and instance; ends well when told to. `/slow` takes a while, `/grow` takes memory.
pub(crate) const NODE: &str = r"
const http = require('http');
let up = process.env.LATE ? false : true;
setTimeout(() => { up = true; }, Number(process.env.LATE || 0));
const kept = [];
const server = http.createServer((request, response) => {
  const answer = () => response.end(JSON.stringify({
    pid: process.pid, instance: process.env.MERIDIAN_INSTANCE, region: process.env.MERIDIAN_REGION,
    secret: process.env.API_KEY, own: process.env.OWN, up,
  }));
  if (request.url === '/grow') kept.push(Buffer.alloc(200e6, 1));
  if (request.url === '/up') { response.statusCode = up ? 204 : 503; return response.end(); }
  request.resume();
  request.on('end', () => request.url === '/slow' ? setTimeout(answer, 700) : answer());
});
server.listen(process.env.PORT, process.env.HOST, () => console.log('listening'));
process.on('SIGTERM', () => { console.error('told to stop'); server.close(() => process.exit(0)); });
";

/// The same in Python, as far as it goes; a child of it leaves its session.
pub(crate) const PYTHON: &str = r"
import http.server, json, os, subprocess
subprocess.Popen(['sh', '-c', '(setsid sleep 600 &) ; sleep 600'])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({'pid': os.getpid()}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

/// A gateway that supervises; killed when it is dropped.
pub(crate) struct Supervised {
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) child: Child,
    folder: TempDir,
    marker: String,
}

impl Supervised {
    /// Starts one with the process `web` in region 1, which is the default, and waits until it listens; `toml` is the
    /// body of the process's section, `server.js` and `server.py` stand in its folder.
    pub(crate) async fn start(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("config")).unwrap();
        configure(&folder, toml);
        std::fs::write(path("server.js"), NODE).unwrap();
        std::fs::write(path("server.py"), PYTHON).unwrap();
        let marker = format!("SUPERVISED={:032x}", fastrand::u128(..));
        let log = File::options().append(true).create(true).open(path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_meridian"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .env("NODE_ENV", "production")
            .env("API_KEY", "nobody-gets-this")
            .env("SUPERVISED", marker.trim_start_matches("SUPERVISED="))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut started = Self { proxy: nowhere, admin: nowhere, child, folder, marker };
        started.proxy = started.address("the proxy listens").await;
        started.admin = started.address("the admin listener listens").await;
        started
    }

    /// Writes another body of the process's section, and has it read.
    pub(crate) async fn reload(&self, toml: &str) {
        let answer = self.answer_to(toml).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The same, whatever is answered.
    pub(crate) async fn answer_to(&self, toml: &str) -> Answer {
        configure(&self.folder, toml);
        let request = "POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        exchange(self.admin, request).await
    }

    async fn address(&self, line: &str) -> SocketAddr {
        self.says(line).await;
        let log = self.log();
        let line = log.lines().find(|said| said.contains(line)).unwrap();
        line.split("address=").nth(1).unwrap().trim().parse().unwrap()
    }

    /// All that it has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until a line of the log has `text` in it.
    pub(crate) async fn says(&self, text: &str) {
        eventually(text, async || self.log().contains(text)).await;
    }

    /// Waits until `/ready` answers so.
    pub(crate) async fn is_ready(&self) {
        eventually("readiness", async || get(self.admin, "/ready", "").await.status == 200).await;
    }

    /// Waits until so many instances are ready.
    pub(crate) async fn has_up(&self, count: usize) {
        let wanted = format!("meridian_process_up{{region=\"1\",process=\"web\"}} {count}\n");
        eventually(&wanted, async || self.metrics().await.contains(&wanted)).await;
    }

    pub(crate) async fn metrics(&self) -> String {
        get(self.admin, "/metrics", "").await.text().to_owned()
    }

    /// The process that answers `GET path`.
    pub(crate) async fn pid(&self, path: &str) -> i64 {
        let answer = get(self.proxy, path, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["pid"].as_i64().unwrap()
    }

    /// The processes that answer `GET /`, once so many have.
    pub(crate) async fn pids(&self, count: usize) -> BTreeSet<i64> {
        let mut pids = BTreeSet::new();
        within("an answer of each instance", async {
            while pids.len() < count {
                pids.insert(self.pid("/").await);
            }
        })
        .await;
        pids
    }

    /// What runs with this gateway's mark in its environment, without itself: ids and command lines.
    pub(crate) fn below(&self) -> Vec<(i64, String)> {
        let own = self.child.id().map(i64::from);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i64>() else { continue };
            // What ends meanwhile is not there.
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let marked =
                environment.split(|byte| *byte == 0).any(|one| one == self.marker.as_bytes());
            if marked && Some(pid) != own {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Sends a signal to a process, by its number or name.
    pub(crate) async fn signal(pid: i64, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().await;
        assert!(status.unwrap().success(), "kill -{signal} {pid}");
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn terminate(&mut self) -> std::process::ExitStatus {
        Self::signal(i64::from(self.child.id().unwrap()), "TERM").await;
        within("the end of the gateway", self.child.wait()).await.unwrap()
    }

    /// Waits until nothing of it is left.
    pub(crate) async fn leaves_nothing(&self) {
        eventually("the end of all that it has started", async || self.below().is_empty()).await;
    }

    /// Begins a load of `clients`, each with one request (`POST` and a body, which nobody may send again by himself) at a
    /// time on a connection of its own.
    pub(crate) fn load(&self, clients: usize) -> Load {
        self.load_of(clients, "POST / HTTP/1.1\r\nContent-Length: 4\r\n", "body")
    }

    /// The same with requests that may be sent again.
    pub(crate) fn load_of_gets(&self, clients: usize) -> Load {
        self.load_of(clients, "GET / HTTP/1.1\r\n", "")
    }

    fn load_of(&self, clients: usize, head: &'static str, body: &'static str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(client(self.proxy, (head, body), Arc::clone(&stop)));
        }
        Load { stop, tasks }
    }
}

fn configure(folder: &TempDir, toml: &str) {
    let configuration = format!(
        "default_region = \"1\"\n[proxy]\nbind = \"127.0.0.1\"\nport = 0\n[admin]\nport = 0\n\
         [api]\nenabled = false\n[log]\naccess = false\n[regions.1.processes.web]\n{toml}\n"
    );
    std::fs::write(folder.path().join("config/default.toml"), configuration).unwrap();
}

/// Requests that go on until [`Load::finish`].
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<(usize, Vec<String>)>,
}

impl Load {
    /// How many went well, and what the others were answered.
    pub(crate) async fn finish(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut good, mut bad) = (0, Vec::new());
        while let Some(client) = within("the end of a load", self.tasks.join_next()).await {
            let (more, failed) = client.unwrap();
            good += more;
            bad.extend(failed);
        }
        (good, bad)
    }
}

async fn client(
    proxy: SocketAddr,
    request: (&str, &str),
    stop: Arc<AtomicBool>,
) -> (usize, Vec<String>) {
    let (mut good, mut bad) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match within("an answer under load", exchanged(proxy, request)).await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => good += 1,
            Ok(answer) => bad.push(answer),
            Err(error) => bad.push(error.to_string()),
        }
    }
    (good, bad)
}

async fn exchanged(proxy: SocketAddr, (head, body): (&str, &str)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("{head}Host: gateway.test\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
