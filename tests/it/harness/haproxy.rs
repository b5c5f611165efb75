//! A real HAProxy before the gateway, which says who the client is in the PROXY protocol.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;

/// One that hands connections on as they are.
pub(crate) struct Haproxy {
    pub(crate) address: SocketAddr,
    _folder: TempDir,
    child: Child,
}

impl Haproxy {
    /// Before `gateway`, with `option` (`send-proxy`, `send-proxy-v2`, or nothing).
    pub(crate) async fn start(gateway: SocketAddr, option: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let configuration = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen all\n bind {address}\n server gateway {gateway} {option}\n"
        );
        fs::write(&file, configuration).unwrap();
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("haproxy is installed; scripts/test.sh does that");
        eventually("haproxy to listen", async || TcpStream::connect(address).await.is_ok()).await;
        Self { address, _folder: folder, child }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
