//! A real `redis-server` of one's own: on a free port, with its files in a temporary folder, and every way
//! to make it fail.
//!
//! Shared by the integration tests and the unit tests of the bus; [`sentinel`] and [`cluster`] are made of such
//! servers, [`tls`] gives one certificates, [`files`] takes
//! its data away. Where there is no `redis-server` the
//! test fails and says what to install: a test that skips itself proves nothing.

pub(crate) mod cluster;
mod files;
pub(crate) mod sentinel;
pub(crate) mod tls;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::port::Port;

/// How long a server may take to answer; a loaded machine is slow, a broken one is for ever.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a Sentinel reads, and writes to.
const SENTINEL_FILE: &str = "sentinel.conf";

/// A server that is gone when it is dropped.
pub(crate) struct RedisServer {
    port: Port,
    /// Another one that is kept for it: of a Cluster's bus, or for TLS.
    second_port: Option<Port>,
    folder: TempDir,
    /// A Sentinel instead of a server: it keeps what it knows in a file of its own.
    is_sentinel: bool,
    /// Arguments besides the usual ones.
    options: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// A server that answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server that answers, with more arguments, as in `["--replicaof", "127.0.0.1 6379"]`.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let mut server = Self::prepare();
        server.set_options(options);
        server.up().await;
        server
    }

    /// A server that is not started yet, with its port chosen.
    pub(crate) fn prepare() -> Self {
        Self {
            port: Port::reserve(),
            second_port: None,
            folder: TempDir::new().unwrap(),
            is_sentinel: false,
            options: Vec::new(),
            child: None,
        }
    }

    /// Keeps another port for it.
    fn reserve_second_port(&mut self) -> u16 {
        self.second_port.insert(Port::reserve()).number()
    }

    /// What it is started with from now on, besides the usual.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// A file in the server's own folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// `redis://127.0.0.1:<port>`
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Starts it, with what it had on disk, on the same port; ends when it answers.
    pub(crate) async fn up(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.child = Some(self.spawn());
        let deadline = Instant::now() + PATIENCE;
        while !self.answers().await {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("redis-server ended at once: {status}");
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// `kill -9`: nothing is said to anybody.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `SIGSTOP`: connections stay open and nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// `SIGCONT`
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new("redis-server");
        if self.is_sentinel {
            command.arg(self.file(SENTINEL_FILE)).arg("--sentinel");
        } else {
            command
                .args(["--port", &self.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
                // Every write is in the system's hands before it is answered: what was acknowledged outlives a kill.
                // Waiting for the disk, too, would let a test fail where other programs write.
                .args(["--appendonly", "yes", "--appendfsync", "no"])
                // A replica that comes needs no time to wait for others.
                .args(["--repl-diskless-sync-delay", "0"])
                .arg("--dir")
                .arg(self.folder.path())
                .args(&self.options);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start redis-server ({error}); install it: apt-get install redis-server"
                )
            })
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success(), "kill -s {name} {id}: {status}");
    }

    /// Runs one command, as in `["PUBSUB", "NUMSUB", "chat:bob"]`, and gives the bytes of the answer.
    pub(crate) async fn run(&self, words: &[&str]) -> String {
        let mut stream = self.connect(words).await.unwrap();
        let mut answer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
        let length = read.expect("redis-server does not answer").unwrap();
        answer.truncate(length);
        String::from_utf8(answer).unwrap()
    }

    /// Runs one command again and again until its answer holds `text`.
    pub(crate) async fn until(&self, words: &[&str], text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut answer = self.run(words).await;
        while !answer.contains(text) {
            assert!(Instant::now() < deadline, "{words:?} never gave {text:?}: {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = self.run(words).await;
        }
    }

    /// A plain client that listens to `channel`, as anyone outside may.
    pub(crate) async fn listener(&self, channel: &str) -> Listener {
        let stream = self.connect(&["SUBSCRIBE", channel]).await.unwrap();
        let mut listener = Listener { stream, heard: String::new() };
        listener.hears(":1\r\n").await;
        listener
    }

    /// Likewise in a Cluster, where channels belong to slots.
    pub(crate) async fn sharded_listener(&self, channel: &str) -> Listener {
        let stream = self.connect(&["SSUBSCRIBE", channel]).await.unwrap();
        let mut listener = Listener { stream, heard: String::new() };
        listener.hears(":1\r\n").await;
        listener
    }

    /// Whether it is our own child that answers, and not another server that took the port.
    async fn answers(&self) -> bool {
        let Some(child) = &self.child else { return false };
        let Ok(mut stream) = self.connect(&["INFO", "server"]).await else { return false };
        let mut answer = Vec::new();
        let told = loop {
            let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await;
            // While it loads its files it answers with an error.
            if !matches!(read, Ok(Ok(1..))) || answer.starts_with(b"-") {
                return false;
            }
            let told = String::from_utf8_lossy(&answer);
            // It stands behind the number of the process.
            if told.contains("\r\ntcp_port:") {
                break told;
            }
        };
        told.contains(&format!("\r\nprocess_id:{}\r\n", child.id()))
    }

    async fn connect(&self, words: &[&str]) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.port.address()).await?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            write!(command, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        stream.write_all(command.as_bytes()).await?;
        Ok(stream)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// A subscriber outside of the gateway.
pub(crate) struct Listener {
    stream: TcpStream,
    heard: String,
}

impl Listener {
    /// Everything that the server has sent.
    pub(crate) fn so_far(&self) -> &str {
        &self.heard
    }

    /// Waits until `text` stands in what the server sent.
    pub(crate) async fn hears(&mut self, text: &str) {
        let read = async {
            let mut buffer = [0; 4096];
            while !self.heard.contains(text) {
                let length = self.stream.read(&mut buffer).await.unwrap();
                assert!(length > 0, "redis-server closed the connection");
                self.heard += &String::from_utf8_lossy(&buffer[..length]);
            }
        };
        let heard = tokio::time::timeout(PATIENCE, read).await;
        assert!(heard.is_ok(), "waited in vain for {text:?}; heard {:?}", self.heard);
    }
}
