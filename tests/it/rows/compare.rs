//! The same tables, sent to nginx and HAProxy before the same backend: `scripts/compare.sh` prints what each made of them.
//!
//! Left out are the entries about regions and bounds of this gateway. An entry counts as kept where the answer, what reached the
//! backend, and the end of the connection are what the rule asks for; the list behind the table tells of each that is not.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::case::Case;
use super::wire::Wire;
use super::{exchange, tables};
use crate::harness::backend::Backend;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::port::Port;

/// How long one that says nothing is listened to.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A gateway of another make, gone when it is dropped.
struct Peer {
    address: SocketAddr,
    _port: Port,
    child: Child,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Peer {
    async fn start(program: &str, arguments: &[&str], configuration: &str, port: Port) -> Self {
        let address = port.address();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("peer.conf"), configuration).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child =
            child.unwrap_or_else(|error| panic!("{program}: {error}; scripts/test.sh installs it"));
        let peer = Self { address, _port: port, child, _folder: folder };
        eventually(program, async || TcpStream::connect(address).await.is_ok()).await;
        peer
    }

    /// As its manual has it for WebSockets and kept connections.
    async fn nginx(backend: SocketAddr) -> Self {
        let port = Port::reserve();
        let address = port.address();
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log crit; events {{}}
             http {{
               access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
               uwsgi_temp_path uwsgi; scgi_temp_path scgi;
               map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
               upstream backend {{ server {backend} max_fails=0; keepalive 8; }}
               server {{
                 listen {address};
                 location / {{
                   proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Host $host;
                   proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
                 }}
               }}
             }}"
        );
        Self::start(
            "nginx",
            &["-p", ".", "-c", "peer.conf", "-e", "error.log"],
            &configuration,
            port,
        )
        .await
    }

    async fn haproxy(backend: SocketAddr) -> Self {
        let port = Port::reserve();
        let address = port.address();
        let configuration = format!(
            "defaults\n mode http\n timeout connect 2s\n timeout client 10s\n timeout server 10s\n timeout tunnel 10s\n\
             frontend in\n bind {address}\n default_backend out\n\
             backend out\n server one {backend}\n"
        );
        Self::start("haproxy", &["-db", "-f", "peer.conf"], &configuration, port).await
    }
}

/// Sends an entry to a gateway before the backend at `backend`.
async fn ask(case: &Case, gateway: SocketAddr, backend: SocketAddr) -> Result<(), String> {
    let backend = Backend::scripted_on(Port::at(backend), case.script.iter().cloned()).await;
    let stream = TcpStream::connect(gateway).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let outcome = exchange(case, Wire::over(stream, PATIENCE), &backend).await;
    let judged = case.judge_elsewhere(&outcome);
    backend.kill().await;
    judged
}

#[tokio::test]
#[ignore = "takes minutes, and tells more about others than about this gateway; scripts/compare.sh runs it"]
async fn the_same_rows_elsewhere() {
    let reserved = [Port::reserve(), Port::reserve(), Port::reserve()];
    let at = reserved.each_ref().map(Port::address);
    let (nginx, haproxy) = (Peer::nginx(at[1]).await, Peer::haproxy(at[2]).await);
    let ours = Gateway::before(at[0]).await;
    let gateways =
        [("Meridian", ours.proxy()), ("nginx", nginx.address), ("HAProxy", haproxy.address)];
    let mut kept: BTreeMap<u8, (usize, [usize; 3])> = BTreeMap::new();
    let mut notes = Vec::new();
    for case in tables().iter().filter(|case| !case.ours) {
        let row = kept.entry(case.row).or_default();
        row.0 += 1;
        for (index, (name, gateway)) in gateways.iter().enumerate() {
            match ask(case, *gateway, at[index]).await {
                Ok(()) => row.1[index] += 1,
                Err(why) => {
                    let why: String = why.chars().take(160).collect();
                    notes.push(format!("- row {}, {}: {name}: {why}", case.row, case.name));
                }
            }
        }
    }
    println!("| row | entries | Meridian | nginx | HAProxy |\n| --- | --- | --- | --- | --- |");
    let mut sums = (0, [0; 3]);
    for (row, (entries, [ours, nginx, haproxy])) in &kept {
        println!("| {row} | {entries} | {ours} | {nginx} | {haproxy} |");
        sums.0 += entries;
        [ours, nginx, haproxy].iter().zip(&mut sums.1).for_each(|(kept, sum)| *sum += **kept);
    }
    println!(
        "| all | {} | {} | {} | {} |\n\n{}",
        sums.0,
        sums.1[0],
        sums.1[1],
        sums.1[2],
        notes.join("\n")
    );
    assert_eq!(sums.1[0], sums.0, "this gateway must keep all of them");
}
