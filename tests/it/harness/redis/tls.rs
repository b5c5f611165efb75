//! A server that speaks TLS, with an authority of its own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::RedisServer;

/// The files of one authority: its certificate, and one for the server and one for a client that it signed.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A server that listens for TLS; the plain port of [`RedisServer`] stays, for the test itself.
pub(crate) struct TlsServer {
    pub(crate) server: RedisServer,
    pub(crate) files: Certificates,
    port: u16,
}

impl TlsServer {
    /// A server that answers; `asks_clients` for a certificate, where that is wanted.
    pub(crate) async fn start(asks_clients: bool) -> Self {
        let mut server = RedisServer::prepare();
        let files = certificates(&server);
        let port = server.reserve_second_port();
        let [ca, cert, key] =
            [&files.ca, &files.cert, &files.key].map(|file| file.to_str().unwrap().to_owned());
        server.set_options(&[
            "--tls-port",
            &port.to_string(),
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            if asks_clients { "yes" } else { "no" },
        ]);
        server.up().await;
        Self { server, files, port }
    }

    /// `rediss://localhost:<port>`
    pub(crate) fn url(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }
}

/// An authority, and one certificate of it that is good on both sides, in the server's folder.
fn certificates(server: &RedisServer) -> Certificates {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    // Of one name with what it signs, it would pass for that itself.
    authority.distinguished_name.push(DnType::CommonName, "tests' authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| server.file(name));
    for (file, text) in files.iter().zip([authority.pem(), cert.pem(), key.serialize_pem()]) {
        std::fs::write(file, text).unwrap();
    }
    let [ca, cert, key] = files;
    Certificates { ca, cert, key }
}
