//! A raw HTTP/1.1 client: sends the very bytes that a test gives it, and reads answers by their framing.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// One connection.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, with its body decoded from its framing.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Answer {
    /// The value of a header; `None` where it is missing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of an error that the gateway made.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("error.code").to_owned()
    }
}

/// One request on a connection of its own, and its answer.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut http = Http::connect(address).await;
    http.send(request).await;
    http.answer(request).await
}

/// `GET path` with more header lines, each ended by CRLF.
pub(crate) async fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n{headers}\r\n")).await
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("connects");
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// A connection that is already open; also one that a test took as a backend.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Bytes that have come and were not read yet.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the connection is open");
    }

    /// The next answer to `request` (whose method says whether there is a body), 1xx answers included.
    pub(crate) async fn answer(&mut self, request: &str) -> Answer {
        let bodiless = request.starts_with("HEAD ");
        within("an answer", self.read_answer(bodiless)).await
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    async fn read_until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(at + end.len());
                let head = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8_lossy(&head).into_owned();
            }
            assert!(self.fill().await, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().await, "closed within a body");
        }
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    async fn read_answer(&mut self, bodiless: bool) -> Answer {
        let head = self.read_until(b"\r\n\r\n").await;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new(), trailers: String::new() };
        if bodiless || status < 200 || matches!(status, 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let size = self.read_until(b"\r\n").await;
                let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
                if size == 0 {
                    break;
                }
                let data = self.read_exactly(size + 2).await;
                answer.body.extend(&data[..size]);
            }
            loop {
                let line = self.read_until(b"\r\n").await;
                if line == "\r\n" {
                    break;
                }
                answer.trailers.push_str(&line);
            }
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.read_exactly(length).await;
        } else {
            while self.fill().await {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    /// Reads until the peer closes, and gives what came.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        within("the end of the connection", async { while self.fill().await {} }).await;
        std::mem::take(&mut self.buffer)
    }

    /// The next `length` bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        within("more bytes", self.read_exactly(length)).await
    }

    /// Reads until `wanted` has come.
    pub(crate) async fn read_to(&mut self, wanted: &str) -> String {
        within(wanted, self.read_until(wanted.as_bytes())).await
    }
}
