//! Compressed answers, and the headers of the security profiles, as clients get them.

use std::io::Read as _;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::harness::backend::Backend;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Http, exchange};

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nAccept-Encoding: gzip\r\n\r\n";

#[tokio::test]
async fn a_streamed_answer_is_handed_on_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", address);
        settings.compression.enabled = true;
    })
    .await;
    let mut client = Http::connect(gateway.proxy()).await;
    client.send(ASK).await;
    let (mut backend, _) = listener.accept().await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n";
    backend.write_all(head.as_bytes()).await.unwrap();
    let head = client.read_to("\r\n\r\n").await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    // The first line can be read before the second is written.
    let mut coded = Vec::new();
    let mut read = String::new();
    while read != "first\n" {
        coded.extend(chunk(&mut client).await);
        read.clear();
        let mut decoder = flate2::read::MultiGzDecoder::new(&*coded);
        let mut text = [0; 64];
        while let Ok(count @ 1..) = decoder.read(&mut text) {
            read.push_str(std::str::from_utf8(&text[..count]).unwrap());
        }
    }
    backend.write_all(b"7\r\nsecond\n\r\n0\r\n\r\n").await.unwrap();
    loop {
        let more = chunk(&mut client).await;
        if more.is_empty() {
            break;
        }
        coded.extend(more);
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*coded).read_to_string(&mut text).unwrap();
    assert_eq!(text, "first\nsecond\n");
}

/// One chunk of an answer; empty at its end.
async fn chunk(client: &mut Http) -> Vec<u8> {
    let size = client.read_to("\r\n").await;
    let size = usize::from_str_radix(size.trim(), 16).unwrap();
    let mut bytes = client.exactly(size + 2).await;
    bytes.truncate(size);
    bytes
}

#[tokio::test]
async fn off_unless_it_is_turned_on() {
    let backend = Backend::saying("plain").await;
    let gateway = Gateway::before(backend.address).await;
    let answer = exchange(gateway.proxy(), ASK).await;
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None));
    assert_eq!(backend.header("accept-encoding"), ["gzip"], "the backend may compress by itself");
}

#[tokio::test]
async fn a_profile_is_on_every_answer_and_leaves_the_backends_word() {
    let backend = Backend::saying("page").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        settings.security.profile = meridian::settings::SecurityProfile::Web;
        settings.security.hsts = Some(std::time::Duration::from_mins(1));
        settings.security.remove_headers =
            ["content-type", "x-request-id"].map(str::to_owned).into();
    })
    .await;
    let own = exchange(gateway.proxy(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(own.header("content-type"), Some("application/json"), "no backend's");
    assert!(own.header("x-request-id").is_some());
    for request in
        [ASK, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        let answer = exchange(gateway.proxy(), request).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{request}");
        assert_eq!(answer.header("strict-transport-security"), None, "not over plain HTTP");
    }
}
