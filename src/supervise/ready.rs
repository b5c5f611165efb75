//! Whether an instance can be sent requests: it takes a connection, or answers a GET with 200 to 399.
//!
//! A few lines instead of a client: one request on a connection of its own, of whose answer the first line counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Between the first two looks; it doubles up to the second.
const FIRST: Duration = Duration::from_millis(20);
const LAST: Duration = Duration::from_millis(100);
/// For one answer; a program that is busy with its start is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200`
const STATUS_LINE: usize = 12;

/// Ends when the program on `port` is ready; a bound of the whole is the caller's.
pub(super) async fn wait(port: u16, path: &str) {
    let mut pause = FIRST;
    while !timeout(ANSWER, is_ready(port, path)).await.is_ok_and(|ready| ready.is_some()) {
        sleep(pause).await;
        pause = (pause * 2).min(LAST);
    }
}

async fn is_ready(port: u16, path: &str) -> Option<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).await.ok()?;
    if path.is_empty() {
        return Some(());
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: meridian\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut line = [0; STATUS_LINE];
    stream.read_exact(&mut line).await.ok()?;
    is_good(&line).then_some(())
}

/// A status line of HTTP/1 (RFC 9112, 4) with a status from 200 to 399.
fn is_good(line: &[u8; STATUS_LINE]) -> bool {
    line.starts_with(b"HTTP/1.")
        && line.get(8) == Some(&b' ')
        && matches!(line.get(9), Some(b'2' | b'3'))
        && line.iter().skip(10).all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_answer_is_from_200_to_399() {
        for (line, good) in [
            (b"HTTP/1.1 200", true),
            (b"HTTP/1.0 302", true),
            (b"HTTP/1.1 404", false),
            (b"HTTP/1.1 503", false),
            (b"HTTP/1.1 2xx", false),
            (b"SSH-2.0-Open", false),
        ] {
            assert_eq!(is_good(line), good, "{}", String::from_utf8_lossy(line));
        }
    }

    #[tokio::test]
    async fn it_asks_until_the_answer_is_good() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            for status in ["503", "500", "204"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 256];
                let read = stream.read(&mut head).await.unwrap();
                assert!(head[..read].starts_with(b"GET /up HTTP/1.1\r\n"));
                let answer = format!("HTTP/1.1 {status} x\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let both = async { tokio::join!(wait(port, "/up"), serve) };
        timeout(Duration::from_mins(1), both).await.unwrap();
    }
}
