//! A real HAProxy before the gateway, which says who the client is in the PROXY protocol.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;
use super::port::Port;

/// One that hands connections on as they are.
pub(crate) struct Haproxy {
    pub(crate) address: SocketAddr,
    _port: Port,
    _folder: TempDir,
    child: Child,
}

impl Haproxy {
    /// Before `gateway`, with `option` (`send-proxy`, `send-proxy-v2`, or nothing).
    pub(crate) async fn start(gateway: SocketAddr, option: &str) -> Self {
        let port = Port::reserve();
        let address = port.address();
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
        // Before the first await: from here on, the process goes with this value.
        let haproxy = Self { address, _port: port, _folder: folder, child };
        eventually("haproxy to listen", async || TcpStream::connect(address).await.is_ok()).await;
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
