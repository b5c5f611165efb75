//! Backends: a scripted one that answers with the very bytes a test gives it and keeps what it was sent, and one that
//! tells what it saw.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::eventually;
use super::port::Port;

/// What a scripted backend does with the next request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Answers with these bytes, and keeps the connection.
    Reply(Vec<u8>),
    /// Answers with these bytes, and closes.
    ReplyAndClose(Vec<u8>),
    /// Closes without an answer.
    Close,
    /// Answers nothing, and keeps the connection.
    Silence,
}

/// What came to a backend.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Heads of requests, with their connection's number.
    pub(crate) heads: Vec<(usize, String)>,
    /// Bodies, decoded where they were chunked is not done: as they came.
    pub(crate) bodies: Vec<Vec<u8>>,
    pub(crate) connections: usize,
    /// Connections that the gateway has closed.
    pub(crate) closed: usize,
}

/// A backend on a port of its own; gone when dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    /// So that nobody else listens there when this one is gone.
    port: Option<Port>,
    task: AbortHandle,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `200 OK` with a body.
pub(crate) fn ok(body: &str) -> Step {
    Step::Reply(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into())
}

impl Backend {
    /// Takes one step for each request, over all connections; when the script is over, `200 OK` with `ok`.
    pub(crate) async fn scripted(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::scripted_on(Port::reserve(), steps).await
    }

    /// Where another one was.
    pub(crate) async fn scripted_on(port: Port, steps: impl IntoIterator<Item = Step>) -> Self {
        let address = port.address();
        let listener = TcpListener::bind(address).await.unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut seen = shared.lock().unwrap();
                    seen.connections += 1;
                    seen.connections
                };
                connections.spawn(serve(stream, number, Arc::clone(&shared), Arc::clone(&script)));
            }
        });
        Self { address, seen, port: Some(port), task: task.abort_handle() }
    }

    /// Always `200 OK`, with this body.
    pub(crate) async fn saying(body: &'static str) -> Self {
        Self::scripted(std::iter::repeat_n(ok(body), 10_000)).await
    }

    /// Goes away: when this returns, its address refuses.
    pub(crate) async fn kill(mut self) -> Port {
        let (address, port) = (self.address, self.port.take());
        drop(self);
        eventually("the backend to be gone", || async {
            TcpStream::connect(address).await.is_err()
        })
        .await;
        port.expect("one is killed once")
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.iter().map(|(_, head)| head.clone()).collect()
    }

    /// The head of the only request so far.
    pub(crate) fn head(&self) -> String {
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.into_iter().next().unwrap()
    }

    /// Values of a header of the only request so far.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        self.head()
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

async fn serve(
    mut stream: TcpStream,
    number: usize,
    seen: Arc<Mutex<Seen>>,
    script: Arc<Mutex<VecDeque<Step>>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        seen.lock().unwrap().heads.push((number, head.clone()));
        let body = read_body(&mut stream, &mut buffer, &head).await;
        seen.lock().unwrap().bodies.push(body);
        let step = script.lock().unwrap().pop_front().unwrap_or_else(|| ok("ok"));
        let close = match step {
            Step::Reply(bytes) => stream.write_all(&bytes).await.is_err(),
            Step::ReplyAndClose(bytes) => {
                drop(stream.write_all(&bytes).await);
                true
            }
            Step::Close => true,
            Step::Silence => false,
        };
        if close {
            return;
        }
    }
    seen.lock().unwrap().closed += 1;
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(buffer).await, Ok(read) if read > 0)
}

async fn take_to(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            let rest = buffer.split_off(at + end.len());
            return Some(std::mem::replace(buffer, rest));
        }
        if !fill(stream, buffer).await {
            return None;
        }
    }
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    let head = take_to(stream, buffer, b"\r\n\r\n").await?;
    Some(String::from_utf8(head).expect("a head in ASCII"))
}

/// The body as it came, chunk framing included.
async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> Vec<u8> {
    let head = head.to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding:") {
        return take_to(stream, buffer, b"0\r\n\r\n").await.unwrap_or_default();
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0_usize);
    while buffer.len() < length {
        if !fill(stream, buffer).await {
            break;
        }
    }
    let rest = buffer.split_off(length.min(buffer.len()));
    std::mem::replace(buffer, rest)
}
