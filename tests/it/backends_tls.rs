//! Backends behind TLS as Node has them: HTTP/1.1, HTTP/2, and a WebSocket beside it.

use std::path::PathBuf;
use std::process::Stdio;

use futures_util::{SinkExt as _, StreamExt as _};
use meridian::settings::{BackendSettings, RegionName};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::gateway::Gateway;
use crate::harness::http::exchange;
use crate::harness::{chat, within};

/// A Node that listens, and an authority for its certificate; gone when it is dropped.
struct Node {
    _child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Node {
    /// Of HTTP/2 beside 1.1 (`h2`), or of 1.1 alone (`h1`).
    async fn start(version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "tests' authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned()];
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let files = ["ca.pem", "key.pem", "cert.pem"].map(|name| folder.path().join(name));
        for (file, text) in files.iter().zip([authority.pem(), key.serialize_pem(), cert.pem()]) {
            std::fs::write(file, text).unwrap();
        }
        let script: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "tests", "backends", "tls.mjs"].iter().collect();
        let mut child = Command::new("node")
            .arg(script)
            .args([&files[1], &files[2]])
            .arg(version)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node is missing: apt-get install nodejs");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = within("Node's port", lines.next_line()).await.unwrap().expect("a port");
        Self { _child: child, folder, port: port.parse().unwrap() }
    }

    /// A gateway whose region 1 is this backend.
    async fn before(&self, http2: bool) -> Gateway {
        Gateway::start(|settings| {
            settings.tls.backends.ca = Some(self.folder.path().join("ca.pem"));
            let url = format!("https://localhost:{}", self.port);
            let backend = BackendSettings { http2, ..BackendSettings::primary(url) };
            let region = settings.regions.get_mut(&RegionName::new("1").unwrap()).unwrap();
            region.backends.push(backend);
        })
        .await
    }
}

const POST: &str = "POST /a?b HTTP/1.1\r\nHost: shop.example\r\nx-region: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nhi\r\n0\r\n\r\n";

#[tokio::test]
async fn node_gets_the_version_that_was_chosen_or_that_it_has() {
    for (has, http2, version) in [("h1", false, "1.1"), ("h1", true, "1.1"), ("h2", true, "2.0")] {
        let node = Node::start(has).await;
        let gateway = node.before(http2).await;
        for _ in 0..2 {
            let answer = exchange(gateway.proxy(), POST).await;
            assert_eq!((answer.status, answer.text()), (200, "POST /a?b hi"), "{has} {http2}");
            assert_eq!(answer.header("x-version"), Some(version));
            assert_eq!(answer.header("x-host"), Some("shop.example"));
        }
    }
}

#[tokio::test]
async fn a_burst_shares_one_connection_of_http_2() {
    let node = Node::start("h2").await;
    let gateway = node.before(true).await;
    let answers = (0..50).map(|_| exchange(gateway.proxy(), POST));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!((answer.status, answer.header("x-sessions")), (200, Some("1")));
    }
}

#[tokio::test]
async fn a_websocket_beside_http_2_is_carried_and_closed_with_1012() {
    let node = Node::start("h2").await;
    let gateway = node.before(true).await;
    let mut socket = chat::open(gateway.proxy(), "/live?region=1", &[]).await.unwrap();
    socket.send(Message::text("hi")).await.unwrap();
    let echo = within("the echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(echo, Message::text("hi"));
    gateway.begin_stop().await;
    let Some(Ok(Message::Close(Some(close)))) = within("the close", socket.next()).await else {
        panic!("no Close with a code");
    };
    assert_eq!(u16::from(close.code), 1012);
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    gateway.ended().await.unwrap();
}
