//! TLS as a client: an authority of the tests' own, certificates that it signs, and connections that trust it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meridian::settings::{CertificateSettings, Settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::gateway::Gateway;
use super::within;

/// An authority, and the folder with all that it signs.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "tests' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for `names` into the files called `name`; each time another one.
    pub(crate) fn sign(&self, name: &str, names: &[&str]) -> CertificateSettings {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let [cert_file, key_file] =
            ["pem", "key"].map(|end| self.folder.path().join(format!("{name}.{end}")));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        CertificateSettings { cert: Some(cert_file), key: Some(key_file) }
    }

    /// A gateway with a certificate `a` for `a.example`, `*.a.example`, `localhost` and `127.0.0.1`, changed as the test wants.
    pub(crate) async fn gateway(&self, change: impl FnOnce(&mut Settings)) -> Gateway {
        let files = self.sign("a", &["a.example", "*.a.example", "localhost", "127.0.0.1"]);
        Gateway::start(|settings| {
            settings.tls.port = Some(0);
            settings.tls.certificates.insert("a".into(), files);
            change(settings);
        })
        .await
    }

    /// A client that trusts this authority, and offers `protocols`.
    pub(crate) fn client(&self, protocols: &[&str]) -> ClientConfig {
        self.client_of(protocols, rustls::ALL_VERSIONS)
    }

    pub(crate) fn client_of(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        client(&self.ca(), protocols, versions)
    }

    /// A connection to `address` that asks for `host`, and offers `protocols`.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        host: &str,
        protocols: &[&str],
    ) -> TlsStream<TcpStream> {
        let config = self.client(protocols);
        connect(address, host, Arc::new(config)).await.expect("a handshake")
    }
}

/// A client that trusts the authority in the file `ca`.
pub(crate) fn client(
    ca: &Path,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A connection to `address` that asks for `host`.
pub(crate) async fn connect(
    address: SocketAddr,
    host: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = within("a connection", TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    within("a handshake", TlsConnector::from(config).connect(name, stream)).await
}

/// The certificate that the server has shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The first certificate in a file.
pub(crate) fn read(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// A program of the system: its exit, and what it said on either stream. Its input ends at once.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = within(program, command.output()).await.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); scripts/test.sh installs it")
    });
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), said.concat())
}
