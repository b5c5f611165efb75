//! A gateway in a process of its own, that can be killed: one hub, on a port that it keeps when it is started again.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::http::get;
use super::port::Port;
use super::{eventually, within};

/// A process that is gone when it is dropped.
pub(crate) struct Node {
    hub: Port,
    variables: Vec<(String, String)>,
    folder: TempDir,
    child: Option<Child>,
}

impl Node {
    /// Starts one on the bus at `redis`, with further variables; it need not be ready yet.
    pub(crate) fn start(redis: &str, variables: &[(&str, &str)]) -> Self {
        let ours = [("REDIS_URL", redis), ("ADMIN_PORT", "0"), ("LOG_LEVEL", "info")];
        let variables = ours.iter().chain(variables);
        let mut node = Self {
            hub: Port::reserve(),
            variables: variables.map(|(name, to)| ((*name).into(), (*to).into())).collect(),
            folder: tempfile::tempdir().unwrap(),
            child: None,
        };
        node.up();
        node
    }

    /// The address of its hub.
    pub(crate) fn hub(&self) -> SocketAddr {
        self.hub.address()
    }

    /// Starts it again, where it has ended.
    pub(crate) fn up(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().append(true).create(true).open(self.folder.path().join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_meridian"))
            .args(["--only", "hub-1"])
            .env_clear()
            .env("WS_SERVER_1_PORT", self.hub.number().to_string())
            .env("CONF__LOG__ACCESS", "false")
            .envs(self.variables.iter().map(|(name, to)| (name, to)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Waits until `/ready` of its hub answers so.
    pub(crate) async fn is_ready(&self, ready: bool) {
        eventually("readiness of a node", async || {
            // Before it listens there is nobody to ask.
            TcpStream::connect(self.hub()).await.is_ok()
                && (get(self.hub(), "/ready", "").await.status == 200) == ready
        })
        .await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// `SIGTERM`, and waits for its end.
    pub(crate) async fn terminate(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let id = child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
        assert!(status.success());
        let ended = within("the drain of a node", child.wait()).await.unwrap();
        assert!(ended.success(), "a drain ends well, not with {ended}: {}", self.log());
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
