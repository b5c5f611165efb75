//! A raw client over whatever carries bytes, that bears every answer: broken ones, and none.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An answer as it was read off the wire.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) trailers: String,
    /// It ended as its framing says.
    pub(super) complete: bool,
    length: usize,
}

/// One connection, plain or not.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    ended: bool,
    /// How long an answer, or the end, is waited for.
    patience: Duration,
}

impl Wire {
    pub(super) fn over(stream: impl Stream + 'static, patience: Duration) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new(), ended: false, patience }
    }

    /// Sends what the peer takes; one that has closed has its reasons.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
        drop(self.stream.flush().await);
    }

    /// The next final answer, to a request of `method`; `None` where the connection ends without one, or nothing comes.
    pub(super) async fn reply(&mut self, bodiless: bool) -> Option<Reply> {
        loop {
            if let Some(reply) = parse(&self.buffer, bodiless, self.ended) {
                self.buffer.drain(..reply.length);
                if reply.status >= 200 || reply.status == 101 {
                    return Some(reply);
                }
                continue;
            }
            if self.ended || !self.fill().await {
                return parse(&self.buffer, bodiless, true).inspect(|reply| {
                    self.buffer.drain(..reply.length);
                });
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let read = timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await;
        self.ended |= matches!(read, Ok(Ok(0) | Err(_)));
        matches!(read, Ok(Ok(1..)))
    }

    /// Reads to the end; gives what came, and whether the connection is still open after the time there was.
    pub(super) async fn rest(&mut self) -> (Vec<u8>, bool) {
        while self.fill().await {}
        (std::mem::take(&mut self.buffer), !self.ended)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted).map(|at| at + wanted.len())
}

/// The answer at the start of `bytes`, where all of it is there, or nothing more will come.
fn parse(bytes: &[u8], bodiless: bool, ended: bool) -> Option<Reply> {
    let body_at = find(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..body_at]).into_owned();
    let status = head.split(' ').nth(1)?.trim().parse().ok()?;
    let field = |wanted: &str| {
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim().to_owned())
    };
    let (body, trailers, length, complete) =
        if bodiless || status < 200 || matches!(status, 204 | 304) {
            (Vec::new(), String::new(), body_at, true)
        } else if field("transfer-encoding").is_some() {
            let (body, trailers, used, complete) = chunks(&bytes[body_at..]);
            (body, trailers, body_at + used, complete)
        } else if let Some(length) =
            field("content-length").and_then(|length| length.parse::<usize>().ok())
        {
            let end = (body_at + length).min(bytes.len());
            (bytes[body_at..end].to_vec(), String::new(), end, end == body_at + length)
        } else {
            (bytes[body_at..].to_vec(), String::new(), bytes.len(), ended)
        };
    (complete || ended).then_some(Reply { status, head, body, trailers, complete, length })
}

/// The chunks at the start of `bytes`: the body, the trailers, how much that was, and whether it is all.
fn chunks(bytes: &[u8]) -> (Vec<u8>, String, usize, bool) {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(line) = find(&bytes[at..], b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[at..at + line]).trim().to_owned();
        let Ok(size) = usize::from_str_radix(&size, 16) else { break };
        if size == 0 {
            let rest = &bytes[at + line..];
            if rest.starts_with(b"\r\n") {
                return (body, String::new(), at + line + 2, true);
            }
            let Some(end) = find(rest, b"\r\n\r\n") else { break };
            let trailers = String::from_utf8_lossy(&rest[..end - 2]).into_owned();
            return (body, trailers, at + line + end, true);
        }
        let Some(data) = bytes.get(at + line..at + line + size) else { break };
        body.extend_from_slice(data);
        at += line + size + 2;
        if at > bytes.len() {
            break;
        }
    }
    (body, String::new(), bytes.len(), false)
}
