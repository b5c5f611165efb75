//! The built binary, running: signals, exit codes, a port in use, parts started alone, log lines.

use std::net::SocketAddr;
use std::process::Stdio;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::backend::{Backend, Step};
use crate::harness::chat::{Chat, open};
use crate::harness::http::{Http, exchange, get};
use crate::harness::redis::RedisServer;
use crate::harness::{eventually, within};

/// A running gateway process, in an empty folder and with an empty environment.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

const ANY_PORTS: &[&str] = &[
    "PROXY_PORT=0",
    "ADMIN_PORT=0",
    "API_PORT=0",
    "HTTP_SERVER_A_PORT=0",
    "HTTP_SERVER_B_PORT=0",
    "WS_SERVER_1_PORT=0",
    "WS_SERVER_2_PORT=0",
];

impl Process {
    pub(crate) fn start(arguments: &[&str], variables: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
        command.args(arguments);
        Self::spawn(command, folder, variables)
    }

    /// Any command that becomes the gateway, in this folder.
    pub(crate) fn spawn(
        mut command: Command,
        folder: tempfile::TempDir,
        variables: &[&str],
    ) -> Self {
        command.env_clear().current_dir(folder.path());
        for variable in ANY_PORTS.iter().chain(variables) {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, _folder: folder }
    }

    /// The address in the line of the banner that contains `what`.
    pub(crate) async fn address(&mut self, what: &str) -> SocketAddr {
        let line = within(what, async {
            let mut line = String::new();
            while !line.contains(what) {
                line.clear();
                let read = self.stdout.read_line(&mut line).await.unwrap();
                assert!(read > 0, "the banner has no line about {what}");
            }
            line
        })
        .await;
        let after = line.split("://").nth(1).unwrap();
        let host = after.split('/').next().unwrap().trim();
        host.replace("localhost", "127.0.0.1").parse().unwrap()
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args([format!("-{name}"), pid]).status().await.unwrap();
        assert!(status.success());
    }

    /// A size from `/proc/<pid>/status`, in bytes.
    pub(crate) fn memory(&self, field: &str) -> usize {
        let pid = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Its exit code, and what it said on standard error.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let mut stderr = self.child.stderr.take().unwrap();
        let mut said = String::new();
        let (status, _) = within("the end of the process", async {
            tokio::join!(self.child.wait(), stderr.read_to_string(&mut said))
        })
        .await;
        (status.unwrap().code(), said)
    }
}

#[tokio::test]
async fn one_command_starts_everything_and_a_signal_stops_it() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(&[], &[]);
        let proxy = process.address("proxy").await;
        let page = get(proxy, "/client/", "").await;
        assert_eq!(page.status, 200);
        let hello = get(proxy, "/", "x-region: 2\r\n").await;
        assert_eq!(hello.text(), "Hello from Server B (Region 2)");
        let mut alice = Chat::at(proxy, "/ws?userId=alice&region=1").await;
        let mut bob = Chat::at(proxy, "/ws?userId=bob&region=2").await;
        alice.say("bob", "hi", "c1").await;
        assert_eq!(bob.hears_type("message").await["text"], "hi");
        process.signal(signal).await;
        assert_eq!(alice.closed().await, 1012);
        let (code, said) = process.end().await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("[INFO] [Proxy] GET / 200 - "), "{said}");
        assert!(said.contains("[INFO] [Hub] WS /ws 101 - "), "{said}");
    }
}

#[tokio::test]
async fn a_second_signal_cuts() {
    let backend = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backends = format!("regions.1.backends=[\"http://{}\"]", backend.local_addr().unwrap());
    let mut process = Process::start(
        &["--set", &backends, "--set", "regions.1.hub.port=0", "--set", "regions.2.hub.port=0"],
        &[],
    );
    let proxy = process.address("proxy").await;
    // A request that is never answered holds the drain up.
    let mut http = Http::connect(proxy).await;
    http.send("GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\n\r\n").await;
    let _unanswered = within("the backend's connection", backend.accept()).await.unwrap();
    process.signal("TERM").await;
    eventually("the drain", async || !matches!(get(proxy, "/ready", "").await.status, 200)).await;
    process.signal("TERM").await;
    let (code, said) = process.end().await;
    assert_eq!(code, Some(0));
    // The client is not to blame, and the stop was not clean.
    assert!(said.contains("[INFO] [Proxy] GET / 503 - ") && said.contains("end=cut"), "{said}");
    assert!(said.contains("stopped clean=false"), "{said}");
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_says_which_and_what_to_do() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (variable, listener) in [
        ("PROXY_PORT", "the proxy"),
        ("ADMIN_PORT", "the admin listener"),
        ("API_PORT", "the API"),
        ("WS_SERVER_2_PORT", "the hub of region 2"),
        ("HTTP_SERVER_B_PORT", "demo backend B"),
    ] {
        let process = Process::start(&[], &[&format!("{variable}={port}")]);
        let (code, said) = process.end().await;
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        for part in [variable, listener, &port.to_string()] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
    }
}

#[tokio::test]
async fn who_never_asked_for_the_api_is_not_kept_from_starting_by_its_port() {
    // Where somebody else has it already, so much the better.
    let _held = std::net::TcpListener::bind("0.0.0.0:8080");
    let mut process = Process::start(&[], &["API_PORT="]);
    let proxy = process.address("proxy").await;
    assert_eq!(get(proxy, "/health", "").await.status, 200);
    process.signal("TERM").await;
    let (code, said) = process.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("port 8080 is in use") && said.contains("API_PORT"), "{said}");
}

#[tokio::test]
async fn two_processes_do_not_share_a_port_unawares() {
    let mut first = Process::start(&[], &[]);
    let proxy = first.address("proxy").await;
    let second = Process::start(&[], &[&format!("PROXY_PORT={}", proxy.port())]);
    let (code, said) = second.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("PROXY_PORT"), "{said}");
}

#[tokio::test]
async fn parts_run_in_processes_of_their_own_over_one_redis() {
    let redis = RedisServer::start().await;
    let port = format!("REDIS_PORT={}", redis.port());
    let bus = ["REDIS_HOST=127.0.0.1", port.as_str()];
    let mut hub_1 = Process::start(&["--only", "hub-1"], &bus);
    let mut hub_2 = Process::start(&["serve", "--only", "hub-2"], &bus);
    let demo = Process::start(&["--only", "demo"], &bus);
    let (one, two) = (hub_1.address("hub region 1").await, hub_2.address("hub region 2").await);
    let urls =
        [format!("regions.1.hub.url=http://{one}"), format!("regions.2.hub.url=http://{two}")];
    let arguments = ["--only", "proxy", "--set", &urls[0], "--set", &urls[1]];
    let mut front = Process::start(&arguments, &bus);
    let proxy = front.address("proxy").await;
    for hub in [one, two] {
        eventually("the hubs", async || get(hub, "/ready", "").await.status == 200).await;
    }
    let mut alice = Chat::at(proxy, "/ws?userId=alice&region=1").await;
    let mut bob = Chat::at(proxy, "/ws?userId=bob&region=2").await;
    alice.say("bob", "across processes", "c1").await;
    assert_eq!(bob.hears_type("message").await["text"], "across processes");
    bob.say("alice", "and back", "d1").await;
    assert_eq!(alice.hears_type("message").await["text"], "and back");
    for process in [front, hub_1, hub_2, demo] {
        process.signal("TERM").await;
        let (code, said) = process.end().await;
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("[WARN] [Bus]"), "an end that was asked for is no warning: {said}");
    }
}

#[tokio::test]
async fn the_api_alone_reaches_the_hubs_of_others_and_logs_the_key_by_its_name() {
    let redis = RedisServer::start().await;
    let port = format!("REDIS_PORT={}", redis.port());
    let bus = ["REDIS_HOST=127.0.0.1", port.as_str(), "API_KEY=geheim"];
    let mut hub = Process::start(&["--only", "hub-2"], &bus);
    let mut api = Process::start(&["--only", "api"], &bus);
    let (hub_address, api_address) = (hub.address("hub region 2").await, api.address("API").await);
    for address in [hub_address, api_address] {
        eventually("readiness", async || get(address, "/ready", "").await.status == 200).await;
    }
    let mut bob = Chat::join(hub_address, "bob").await;
    let body = r#"{"from":"shop","to":"bob","text":"from afar","id":"o1"}"#;
    let request = format!(
        "POST /api/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer geheim\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(exchange(api_address, &request).await.status, 202);
    assert_eq!(bob.hears_type("message").await["text"], "from afar");
    hub.signal("TERM").await;
    drop(hub.end().await);
    api.signal("TERM").await;
    let (code, said) = api.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("[INFO] [Api] POST /api/messages 202 - "), "{said}");
    assert!(said.contains(" key=default ") && !said.contains("geheim"), "{said}");
    // On a bus of its own nobody would hear it, which is said.
    let mut deaf = Process::start(&["--only", "api"], &[]);
    deaf.address("API").await;
    deaf.signal("TERM").await;
    assert!(deaf.end().await.1.contains("no hub of this process hears"));
}

#[tokio::test]
async fn log_lines_can_be_json() {
    let mut process = Process::start(&[], &["LOG_FORMAT=json"]);
    let proxy = process.address("proxy").await;
    get(proxy, "/path?secret=1", "x-region: 1\r\n").await;
    process.signal("TERM").await;
    let (_, said) = process.end().await;
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let access = lines.iter().find(|line| line["component"] == "Proxy").expect("an access line");
    humantime::parse_rfc3339(access["timestamp"].as_str().unwrap()).unwrap();
    assert_eq!(access["level"], "INFO");
    assert_eq!(access["fields"]["region"], "1");
    assert_eq!(access["fields"]["end"], "complete");
    assert_eq!(access["fields"]["status"], 200);
    assert_eq!(access["fields"]["method"], "GET");
    assert_eq!(access["fields"]["path"], "/path");
    assert!(access["fields"]["duration_ms"].is_u64());
    assert!(access["fields"]["message"].as_str().unwrap().starts_with("GET /path 200 - "));
    assert!(!said.contains("secret"), "a query was logged");
}

/// A gibibyte up and another down: what passes through is not held.
#[tokio::test]
async fn large_bodies_pass_in_flat_memory() {
    const CHUNK: usize = 256 * 1024;
    const CHUNKS: usize = 4096;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backends = format!("regions.1.backends=[\"http://{}\"]", listener.local_addr().unwrap());
    let mut process = Process::start(
        &["--set", &backends, "--set", "regions.1.hub.port=0", "--set", "regions.2.hub.port=0"],
        &[],
    );
    let proxy = process.address("proxy").await;
    let backend = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut http = Http::over(stream);
        http.read_to("\r\n\r\n").await;
        let mut left = CHUNK * CHUNKS - http.buffered();
        let mut chunk = vec![0; CHUNK];
        while left > 0 {
            let read = http.stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "cut with {left} bytes to come");
            left -= read;
        }
        let length = CHUNK * CHUNKS;
        http.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
        for _ in 0..CHUNKS {
            http.send(&chunk).await;
        }
        http
    });
    let mut client = Http::connect(proxy).await;
    let length = CHUNK * CHUNKS;
    let head =
        format!("PUT / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nContent-Length: {length}\r\n\r\n");
    client.send(head).await;
    let mut chunk = vec![0; CHUNK];
    for _ in 0..CHUNKS {
        client.send(&chunk).await;
    }
    client.read_to("\r\n\r\n").await;
    let mut left = length - client.buffered();
    while left > 0 {
        let read = within("the body", client.stream.read(&mut chunk)).await.unwrap();
        assert!(read > 0, "cut with {left} bytes to come");
        left -= read;
    }
    backend.await.unwrap();
    let status = format!("/proc/{}/status", process.child.id().unwrap());
    let status = std::fs::read_to_string(status).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 * 1024, "the process grew to {peak} KiB");
}

/// A tunnel and a chat socket leave one line each, which says how they ended; and lines can be turned off.
#[tokio::test]
async fn each_exchange_leaves_one_line() {
    for lines in [true, false] {
        let echo = crate::upgrade::echo().await;
        let backends = format!("regions.1.backends=[\"http://{echo}\"]");
        let access = format!("log.access={lines}");
        let trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n2\r\nok\r\n0\r\nx-t: 1\r\n\r\n";
        let trailing = Backend::scripted([Step::Reply(trailers.into())]).await;
        let more = format!("regions.2.backends=[\"http://{}\"]", trailing.address);
        let arguments = [
            "--set",
            &backends,
            "--set",
            &more,
            "--set",
            "regions.1.hub.port=0",
            "--set",
            "regions.2.hub.port=0",
            "--set",
            &access,
        ];
        let mut process = Process::start(&arguments, &[]);
        let proxy = process.address("proxy").await;
        let mut socket = open(proxy, "/live?region=1", &[]).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        within("the echo", socket.next()).await.unwrap().unwrap();
        socket.close(None).await.unwrap();
        within("the close", async { while let Some(Ok(_)) = socket.next().await {} }).await;
        let mut alice = Chat::at(proxy, "/ws?userId=alice&region=1").await;
        alice.notes("alice", "note", "c1").await;
        alice.socket.close(None).await.unwrap();
        alice.closed().await;
        get(proxy, "/path", "x-region: nowhere\r\n").await;
        get(proxy, "/trailers", "x-region: 2\r\n").await;
        process.signal("TERM").await;
        let (code, said) = process.end().await;
        assert_eq!(code, Some(0), "{said}");
        let count = |part: &str| said.lines().filter(|line| line.contains(part)).count();
        for (part, ending) in [
            ("[INFO] [Proxy] GET /live 101 - ", "ended_by="),
            (
                "[INFO] [Hub] WS /ws 101 - ",
                "in=1 out=3 close=1005 ended_by=client end=client_closed",
            ),
            ("[INFO] [Proxy] GET /path 404 - ", "end=no_region"),
            ("[INFO] [Proxy] GET /trailers 200 - ", "end=complete"),
        ] {
            assert_eq!(count(part), usize::from(lines), "{part} in {said}");
            assert!(
                !lines || said.lines().any(|line| line.contains(part) && line.contains(ending)),
                "{said}"
            );
        }
    }
}
