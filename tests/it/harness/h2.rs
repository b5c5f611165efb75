//! HTTP/2, frame by frame (RFC 9113, 4.1): what a client may send, and what no good one would.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::gateway::Gateway;
use super::tls::Authority;
use super::within;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;
const HEADER_TABLE_SIZE: u16 = 1;

/// A frame that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Of a GOAWAY or a `RST_STREAM`.
    pub(crate) fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of an answer, whose fields begin with it: by its place in the static table (RFC 7541, appendix A), else
    /// as digits.
    pub(crate) fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        // The change of the table's size comes first, once.
        let at = self.payload.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
        if let index @ 0x88..=0x8e = self.payload[at] {
            return [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)];
        }
        // A literal with an indexed name, its value plain or in Huffman's code.
        let (length, text) = (self.payload[at + 1], &self.payload[at + 2..]);
        let text = &text[..usize::from(length & 0x7f)];
        if length & 0x80 == 0 {
            return std::str::from_utf8(text).unwrap().parse().unwrap();
        }
        digits(text)
    }
}

/// Three digits in the code of RFC 7541, appendix B: five bits for the first three, six for the others, from 011001 on.
fn digits(coded: &[u8]) -> u16 {
    let bits = coded.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = coded.len() * 8;
    let mut next = |length: usize, peek: bool| {
        let value = bits >> (left - length) & ((1 << length) - 1);
        if !peek {
            left -= length;
        }
        u16::try_from(value).unwrap()
    };
    (0..3).fold(0, |number, _| {
        let digit = if next(5, true) < 3 { next(5, false) } else { next(6, false) - 0b01_1001 + 3 };
        number * 10 + digit
    })
}

/// A client that does as the test says.
pub(crate) struct Raw {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

/// The fields of a request, without compression.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A length with a prefix of seven bits (RFC 7541, 5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).unwrap());
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The fields of a GET of `path`, and more.
pub(crate) fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", path),
    ];
    all.extend_from_slice(more);
    fields(&all)
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![size[1], size[2], size[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

impl Raw {
    /// A connection with the preface and empty settings sent.
    pub(crate) async fn connect(authority: &Authority, gateway: &Gateway) -> Self {
        Self::with_settings(authority, gateway, &[]).await
    }

    pub(crate) async fn with_settings(
        authority: &Authority,
        gateway: &Gateway,
        settings: &[(u16, u32)],
    ) -> Self {
        Self::silent(authority, gateway).await.begin(settings).await
    }

    /// Sends the preface and settings.
    pub(crate) async fn begin(mut self, settings: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        // No table for compression, so that every status is spelled out.
        let payload = [&HEADER_TABLE_SIZE.to_be_bytes()[..], &[0; 4], &payload].concat();
        self.send(&frame(SETTINGS, 0, 0, &payload)).await;
        self
    }

    /// A connection on which nothing is said yet.
    pub(crate) async fn silent(authority: &Authority, gateway: &Gateway) -> Self {
        let address = gateway.addresses.tls.expect("the TLS listener is started");
        Self::over(authority.connect(address, "a.example", &["h2"]).await)
    }

    /// A connection that is already open.
    pub(crate) fn over(stream: TlsStream<TcpStream>) -> Self {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (reader, writer) = tokio::io::split(stream);
        Self { reader, writer }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the connection is open");
    }

    /// Where the gateway may have closed already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// A request of these fields without a body.
    pub(crate) async fn request(&mut self, stream: u32, block: &[u8]) {
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, block)).await;
    }

    /// The next frame; nothing after the last. Settings are acknowledged and not shown, nor are their acknowledgements
    /// and window updates.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        within("a frame", async {
            loop {
                let next = self.any().await?;
                if next.kind == SETTINGS && next.flags & ACK == 0 {
                    self.try_send(&frame(SETTINGS, ACK, 0, &[])).await.ok();
                }
                // The ping of a graceful GOAWAY is answered too.
                if next.kind == PING && next.flags & ACK == 0 {
                    self.try_send(&frame(PING, ACK, 0, &next.payload)).await.ok();
                }
                if !matches!(next.kind, SETTINGS | PING | WINDOW_UPDATE) {
                    return Some(next);
                }
            }
        })
        .await
    }

    /// The next frame, whatever it is; nothing after the last.
    pub(crate) async fn any(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let size = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; size as usize];
        self.reader.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of `stream`; others are passed over.
    pub(crate) async fn next_of(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection is open");
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The status of a request's answer and its body.
    pub(crate) async fn answer(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let head = self.next_of(stream).await;
        let status = head.status();
        let mut body = Vec::new();
        let mut last = head;
        while last.flags & END_STREAM == 0 {
            last = self.next_of(stream).await;
            assert!(matches!(last.kind, DATA | HEADERS), "{last:?}");
            if last.kind == DATA {
                body.extend_from_slice(&last.payload);
            }
        }
        (status, body)
    }

    /// Reads on to the end of the connection, and gives the GOAWAY that came before it, where there was one.
    pub(crate) async fn end(&mut self) -> Option<Frame> {
        let mut goaway = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                goaway = Some(frame);
            }
        }
        goaway
    }

    pub(crate) async fn end_writing(&mut self) {
        self.writer.shutdown().await.ok();
    }
}
