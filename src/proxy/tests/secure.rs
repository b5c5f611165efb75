//! Backends behind TLS: whom the gateway believes, how long it waits, and that a WebSocket's rules hold there, too.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::settings::TlsBackendSettings;

/// An authority, and a certificate of it for a name.
pub(super) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
        // Of one name with what it signs, it would pass for that itself.
        authority.distinguished_name.push(DnType::CommonName, "tests' authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key for `name`, in PEM.
    fn certificate(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Settings that trust it.
    pub(super) fn trusted(&self) -> Bounds {
        let tls = TlsBackendSettings { ca: Some(self.file("ca.pem")), ..Default::default() };
        Bounds { tls, ..Bounds::default() }
    }

    /// What a server shows, and which versions of HTTP it has; `asks` clients for a certificate.
    pub(super) fn server(&self, name: &str, alpn: &[&[u8]], asks: bool) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (cert, key) = self.certificate(name);
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|one| one.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Backend {
    pub(super) fn https(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Accepts a connection and makes TLS of it.
    pub(super) async fn accept_tls(&self, acceptor: &TlsAcceptor) -> Peer<TlsStream<TcpStream>> {
        let stream = self.accept().await.stream;
        Peer::new(within("a handshake", acceptor.accept(stream)).await.unwrap())
    }
}

/// A region with one backend.
pub(super) fn region(url: String, http2: bool) -> RegionSettings {
    let backend = BackendSettings { http2, ..BackendSettings::primary(url) };
    RegionSettings { backends: vec![backend], ..RegionSettings::default() }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_backend_is_reached_by_tls_and_its_connection_kept() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[b"http/1.1"], false);
    let gateway = Gateway::of(region(backend.https(), false), authority.trusted()).await;
    let mut client = gateway.connect().await;
    client.say(GET).await;
    let mut peer = backend.accept_tls(&acceptor).await;
    assert_eq!(peer.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let head = peer.answers("once").await;
    assert!(
        head.starts_with("get /a http/1.1\r\n") && head.contains("host: shop.example"),
        "{head}"
    );
    client.gets(200, "once").await;
    client.say("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    peer.answers("twice").await;
    peer.hears("hi").await;
    client.gets(200, "twice").await;
    assert_eq!(gateway.count("proxy_upstream_connects"), 1);
}

#[tokio::test]
async fn a_certificate_must_be_of_a_trusted_authority_and_for_the_host_of_the_url() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (signer, name, verify, status) in [
        (&authority, "127.0.0.1", true, 200),
        (&authority, "127.0.0.2", true, 502),
        (&stranger, "127.0.0.1", true, 502),
        (&stranger, "elsewhere.example", false, 200),
    ] {
        let backend = Backend::start().await;
        let acceptor = signer.server(name, &[], false);
        let mut settings = authority.trusted();
        settings.tls.verify = verify;
        let gateway = Gateway::of(region(backend.https(), false), settings).await;
        let mut client = gateway.connect().await;
        client.say(GET).await;
        let stream = backend.accept().await.stream;
        let shaken = within("a handshake", acceptor.accept(stream)).await;
        if status == 200 {
            Peer::new(shaken.unwrap()).answers("fine").await;
            client.gets(200, "fine").await;
        } else {
            client.gets(502, "Tls").await;
            let counted = gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"tls\"}");
            assert_eq!(counted, 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_backend_that_asks_is_shown_a_certificate() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[], true);
    let (cert, key) = authority.certificate("gateway");
    let mut settings = authority.trusted();
    for (file, text) in [("cert.pem", cert), ("key.pem", key)] {
        std::fs::write(authority.file(file), text).unwrap();
    }
    settings.tls.cert = Some(authority.file("cert.pem"));
    settings.tls.key = Some(authority.file("key.pem"));
    let gateway = Gateway::of(region(backend.https(), false), settings).await;
    let mut client = gateway.connect().await;
    client.say(GET).await;
    let mut peer = backend.accept_tls(&acceptor).await;
    assert_eq!(peer.stream.get_ref().1.peer_certificates().map(<[_]>::len), Some(1));
    peer.answers("known").await;
    client.gets(200, "known").await;
}

#[tokio::test]
async fn a_handshake_has_its_own_time() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let mut settings = authority.trusted();
    settings.proxy.tls_timeout = Duration::from_millis(30);
    let gateway = Gateway::of(region(backend.https(), false), settings).await;
    let mut client = gateway.connect().await;
    client.say(GET).await;
    let _silent = backend.accept().await;
    client.gets(502, "TlsTimeout").await;
    let counted = gateway.count("proxy_upstream_errors_total{region=\"1\",cause=\"tls_timeout\"}");
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said_at_the_start_and_changes_nothing_later() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let regions = BTreeMap::from([(RegionName::literal("1"), region(backend.https(), false))]);
    let mut settings = authority.trusted();
    let shared =
        Shared::new(settings.clone(), &regions, None, Drain::new(), &mut Registry::default())
            .unwrap();
    let upstream = |shared: &Shared| {
        let table = shared.table();
        Arc::clone(&table.region("1").unwrap().backends.members[0].upstream)
    };
    let first = upstream(&shared);
    shared.replace(settings.clone(), &regions, None).unwrap();
    assert!(Arc::ptr_eq(&first, &upstream(&shared)), "nothing has changed");
    settings.tls.ca = Some(authority.file("none.pem"));
    let wrong = shared.replace(settings.clone(), &regions, None).unwrap_err().to_string();
    assert!(wrong.starts_with("[tls.backends] ") && wrong.contains("none.pem"), "{wrong}");
    assert!(Arc::ptr_eq(&first, &upstream(&shared)));
    // Another authority is another way to the same place.
    settings.tls.ca = Some(Authority::new().folder.keep().join("ca.pem"));
    shared.replace(settings, &regions, None).unwrap();
    assert!(!Arc::ptr_eq(&first, &upstream(&shared)));
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\n";

/// Rows 32, 33, 36 and 37, over TLS and to a backend that would rather have HTTP/2.
#[tokio::test]
async fn a_tunnel_goes_by_http_1_1_over_tls() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[b"h2", b"http/1.1"], false);
    let gateway = Gateway::of(region(backend.https(), true), authority.trusted()).await;
    let mut client = gateway.connect().await;
    client.say(ASK).await;
    let mut peer = backend.accept_tls(&acceptor).await;
    assert_eq!(peer.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    peer.head().await;
    peer.say("HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(client.gets(403, "no").await.contains("x-why: no\r\n"));

    client.say(format!("{ASK}early")).await;
    let mut peer = backend.accept_tls(&acceptor).await;
    peer.head().await;
    assert!(peer.read.is_empty(), "nothing goes on before the 101");
    peer.say(format!("{SWITCH}welcome")).await;
    client.gets(101, "welcome").await;
    peer.hears("early").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(peer.rest().await, b"");
    peer.say("last").await;
    // Gone without an end of TLS.
    drop(peer);
    assert_eq!(client.rest().await, b"last");
    gateway.idle().await;
}

#[tokio::test]
async fn a_drain_says_goodbye_over_tls() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[], false);
    let gateway = Gateway::of(region(backend.https(), false), authority.trusted()).await;
    let mut client = gateway.connect().await;
    client.say(ASK).await;
    let mut peer = backend.accept_tls(&acceptor).await;
    peer.head().await;
    peer.say(SWITCH).await;
    client.gets(101, "").await;
    gateway.drain.begin(Duration::ZERO);
    tunnels::parts(&mut client, &mut peer).await;
    gateway.idle().await;
}

#[tokio::test]
async fn a_hub_may_be_behind_tls() {
    let (authority, backend) = (Authority::new(), Backend::start().await);
    let acceptor = authority.server("127.0.0.1", &[], false);
    let hub = HubPlace { url: Some(backend.https()), ..HubPlace::default() };
    let region = RegionSettings { hub: Some(hub), ..RegionSettings::default() };
    let gateway = Gateway::of(region, authority.trusted()).await;
    let mut client = gateway.connect().await;
    client.say("GET /hub HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.accept_tls(&acceptor).await.answers("hub").await;
    client.gets(200, "hub").await;
}
