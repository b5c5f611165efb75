//! A real nginx as a backend: on a port of its own, dead or alive as the test wants.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;
use super::port::Port;

/// A server whose answer to every path is its name; `/slow` answers with its name over and over, a little at a time, for
/// hours; below `/files/` there is what the test has put there.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    _port: Port,
    folder: TempDir,
    child: Option<Child>,
}

impl Nginx {
    /// One that answers.
    pub(crate) async fn start(name: &str) -> Self {
        let port = Port::reserve();
        let address = port.address();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("slow"), name.repeat(1_000_000)).unwrap();
        fs::write(folder.path().join("nginx.conf"), configuration(name, address)).unwrap();
        let mut nginx = Self { address, _port: port, folder, child: None };
        nginx.up().await;
        nginx
    }

    /// Puts a file below `/files/`.
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let files = self.folder.path().join("files");
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join(name), content).unwrap();
    }

    /// The folder of what was put.
    pub(crate) fn files(&self) -> std::path::PathBuf {
        self.folder.path().join("files")
    }

    /// Starts it, on the same port; ends when it answers.
    pub(crate) async fn up(&mut self) {
        let folder = self.folder.path();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(folder)
            .args(["-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("nginx is installed; scripts/test.sh does that"));
        let address = self.address;
        eventually("nginx to listen", async || TcpStream::connect(address).await.is_ok()).await;
    }

    /// `kill -9`: nothing is said to anybody.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One process, so that killing it is the end of it.
fn configuration(name: &str, address: SocketAddr) -> String {
    format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log crit;
         events {{ worker_connections 512; }}
         http {{
           access_log off; default_type text/plain; keepalive_requests 100000;
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;
           server {{
             listen {address};
             location / {{ return 200 \"{name}\"; }}
             location /files/ {{ root .; gzip_static on; }}
             location = /slow {{ root .; limit_rate 1k; }}
           }}
         }}"
    )
}
