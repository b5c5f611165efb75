//! Listening sockets that outlive a process: a manager holds them, and one process after the other serves them.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::backend::Backend;
use crate::harness::chat::Chat;
use crate::harness::http::{Http, get};
use crate::harness::port::Port;
use crate::harness::{eventually, within};
use crate::running::Process;

/// A process that is given the socket as systemd gives it: as descriptor 3, with its own process id and a name.
fn start_on(socket: &TcpListener, name: &str, backend: SocketAddr, more: &[&str]) -> Process {
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_meridian")]);
    command.args(["--set", &format!("regions.1.backends=http://{backend}")]);
    command.args(["--set", "regions.1.hub.port=0", "--set", "regions.1.hub.bind=127.0.0.1"]);
    command.args(["--set", "regions.2.hub.port=0"]);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap())));
    let name = format!("LISTEN_FDNAMES={name}");
    let ours = [name.as_str(), "NODE_ENV=production", "CONF__WORKERS=2", "PATH=/usr/bin:/bin"];
    let variables: Vec<_> = ours.iter().chain(more).copied().collect();
    Process::spawn(command, tempfile::tempdir().unwrap(), &variables)
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// One request on a connection of its own; whatever goes wrong is told.
async fn once(address: SocketAddr) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(said)?;
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nx-region: 1\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(said)?;
    let whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello");
    if whole { Ok(()) } else { Err(answer) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_takes_the_socket_over_and_nobody_is_refused() {
    let backend = Backend::saying("hello").await;
    let (socket, address) = socket();
    let mut running = start_on(&socket, "proxy", backend.address, &[]);
    assert_eq!(running.address("proxy").await, address);

    let (done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (done, served) = (Arc::clone(&done), Arc::clone(&served));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answered = within("an answer", once(address)).await;
                    assert_eq!(answered, Ok(()), "after {served:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let served_more = async || {
        let then = served.load(Ordering::Relaxed);
        eventually("some load", async || served.load(Ordering::Relaxed) > then + 50).await;
    };
    for _ in 0..3 {
        served_more().await;
        // The next comes up beside the one before, which then drains.
        let mut next = start_on(&socket, "proxy", backend.address, &[]);
        next.address("proxy").await;
        running.signal("TERM").await;
        let (code, said) = running.end().await;
        assert_eq!(code, Some(0), "{said}");
        running = next;
    }
    // With nobody there at all, whoever comes waits in the socket's queue.
    running.signal("TERM").await;
    assert_eq!(running.end().await.0, Some(0));
    let mut last = start_on(&socket, "proxy", backend.address, &[]);
    last.address("proxy").await;
    served_more().await;
    done.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    last.signal("TERM").await;
    assert_eq!(last.end().await.0, Some(0));
}

#[tokio::test]
async fn one_that_drains_takes_nobody_new_and_finishes_whom_it_has() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (socket, address) = socket();
    let mut old = start_on(&socket, "proxy", listener.local_addr().unwrap(), &[]);
    old.address("proxy").await;
    let mut client = Http::connect(address).await;
    let request = "GET /slow HTTP/1.1\r\nHost: h\r\nx-region: 1\r\n\r\n";
    client.send(request).await;
    let (stream, _) = within("the request", listener.accept()).await.unwrap();
    let mut slow = Http::over(stream);
    slow.read_to("\r\n\r\n").await;
    let admin = old.address("admin").await;
    old.signal("TERM").await;
    eventually("the drain", async || get(admin, "/ready", "").await.status == 503).await;

    // Whoever comes now is not answered by the one that drains, who would also refuse a handshake …
    let mut later = Http::connect(address).await;
    let plain = "GET / HTTP/1.1\r\nHost: h\r\nx-region: 1\r\n\r\n";
    later.send(plain).await;
    slow.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
    let answer = client.answer(request).await;
    assert_eq!((answer.text(), answer.header("connection")), ("slow", Some("close")));
    assert_eq!(old.end().await.0, Some(0));
    // … but by the next.
    let backend = Backend::saying("hello").await;
    let mut next = start_on(&socket, "proxy", backend.address, &[]);
    next.address("proxy").await;
    let answer = later.answer(plain).await;
    assert_eq!((answer.text(), answer.header("connection")), ("hello", None));
    Chat::at(address, "/ws?userId=alice&region=1").await;
    next.signal("KILL").await;
}

#[tokio::test]
async fn a_socket_goes_to_the_listener_of_its_name() {
    let backend = Backend::saying("hello").await;
    for (name, what) in
        [("admin", "admin"), ("hub-1", "hub region 1"), ("meridian.socket", "proxy")]
    {
        let (socket, address) = socket();
        let mut process = start_on(&socket, name, backend.address, &[]);
        assert_eq!(process.address(what).await, address, "{name}");
        eventually(name, async || get(address, "/ready", "").await.status == 200).await;
        process.signal("TERM").await;
        assert_eq!(process.end().await.0, Some(0));
    }
}

#[tokio::test]
async fn the_launcher_of_systemd_hands_its_socket_over() {
    const LAUNCHER: &str = "/usr/bin/systemd-socket-activate";
    assert!(Path::new(LAUNCHER).exists(), "{LAUNCHER} is missing: apt-get install systemd");
    let backend = Backend::saying("hello").await;
    let port = Port::reserve();
    let address = port.address();
    let mut command = Command::new(LAUNCHER);
    command.args(["-l", &address.to_string(), "--fdname=proxy", "-E", "NODE_ENV=production"]);
    command.args(["-E", "ADMIN_PORT=0", "-E", "API_PORT=0", env!("CARGO_BIN_EXE_meridian")]);
    command.args(["--set", &format!("regions.1.backends=http://{}", backend.address)]);
    let mut process = Process::spawn(command, tempfile::tempdir().unwrap(), &[]);
    // It starts the gateway when somebody comes, who waits meanwhile.
    eventually("the launcher", async || TcpStream::connect(address).await.is_ok()).await;
    assert_eq!(process.address("proxy").await, address);
    assert_eq!(get(address, "/", "x-region: 1\r\n").await.text(), "hello");
    process.signal("TERM").await;
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn the_manager_is_told_how_it_goes() {
    let backend = Backend::saying("hello").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let manager = tokio::net::UnixDatagram::from_std(manager).unwrap();
    let hear = async || {
        let mut buffer = [0; 256];
        let read = within("a message", manager.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let (socket, _) = socket();
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    let more = [notify.as_str(), "WATCHDOG_USEC=200000"];
    let mut process = start_on(&socket, "proxy", backend.address, &more);
    assert_eq!(hear().await, "READY=1");
    assert_eq!(hear().await, "WATCHDOG=1");
    assert_eq!(hear().await, "WATCHDOG=1");
    process.address("admin").await;
    process.signal("HUP").await;
    let not_alive = async || loop {
        let said = hear().await;
        if said != "WATCHDOG=1" {
            return said;
        }
    };
    assert!(not_alive().await.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(not_alive().await, "READY=1");
    process.signal("TERM").await;
    assert_eq!(not_alive().await, "STOPPING=1");
    assert_eq!(process.end().await.0, Some(0));
}
