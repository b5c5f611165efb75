//! TLS to backends: whom to trust, what to show, and which versions of HTTP to offer.
//!
//! Read once for each edition of the settings, and taken over where neither they nor their files have changed, so that
//! a reload ends no session. A backend's certificate must be good for the host of its URL, whatever `Host` a client
//! sends.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ConnectError;
use crate::settings::TlsBackendSettings;

/// Sessions that are remembered, over all backends.
const SESSIONS: usize = 1_024;

/// Why backends cannot be reached by TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsSetupError {
    #[error("{}: {why}", file.display())]
    File { file: PathBuf, why: String },
    #[error("{0}")]
    Config(String),
}

impl TlsSetupError {
    fn file(file: &Path, why: impl fmt::Display) -> Self {
        Self::File { file: file.to_owned(), why: why.to_string() }
    }
}

/// The versions of HTTP that are offered (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Offer {
    Http1,
    /// HTTP/2, and 1.1 for a backend that has only that.
    Http2,
}

/// What all TLS connections to backends have in common.
pub(in crate::proxy) struct BackendTls {
    /// Unique for as long as the process lives.
    pub(in crate::proxy) edition: u64,
    settings: TlsBackendSettings,
    files: Files,
    http1: TlsConnector,
    http2: TlsConnector,
}

static NEXT_EDITION: AtomicU64 = AtomicU64::new(1);

/// What stands in the files of the settings.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl BackendTls {
    /// What `settings` come to; `previous` where that is the same.
    pub(in crate::proxy) fn load(
        settings: &TlsBackendSettings,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, TlsSetupError> {
        let files = Files::read(settings)?;
        if let Some(previous) = previous
            && previous.settings == *settings
            && previous.files == files
        {
            return Ok(Arc::clone(previous));
        }
        let mut config = config(settings, &files)?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http2 = TlsConnector::from(Arc::new(config));
        let edition = NEXT_EDITION.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Self { edition, settings: settings.clone(), files, http1, http2 }))
    }
}

impl fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendTls").field("edition", &self.edition).finish_non_exhaustive()
    }
}

/// How one backend is reached by TLS.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Tls {
    pub(in crate::proxy) shared: Arc<BackendTls>,
    /// What its certificate must be good for.
    name: ServerName<'static>,
}

impl Tls {
    /// `host` as it stands in the URL, an IPv6 address without its brackets; `None` where no certificate can be for it.
    pub(in crate::proxy) fn to(shared: &Arc<BackendTls>, host: &str) -> Option<Self> {
        let name = ServerName::try_from(host).ok()?.to_owned();
        Some(Self { shared: Arc::clone(shared), name })
    }

    /// Makes TLS of a connection within `limit`; says whether HTTP/2 was agreed on.
    pub(in crate::proxy) async fn handshake(
        &self,
        stream: TcpStream,
        offer: Offer,
        limit: Duration,
    ) -> Result<(TlsStream<TcpStream>, bool), ConnectError> {
        let connector = match offer {
            Offer::Http1 => &self.shared.http1,
            Offer::Http2 => &self.shared.http2,
        };
        let connected = timeout(limit, connector.connect(self.name.clone(), stream)).await;
        let stream = connected
            .map_err(|_elapsed| ConnectError::TlsTimeout(limit))?
            .map_err(|error| ConnectError::Tls(error.into()))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, http2))
    }
}

impl Files {
    fn read(settings: &TlsBackendSettings) -> Result<Self, TlsSetupError> {
        let read = |file: &Option<PathBuf>| {
            let read = |file: &PathBuf| {
                std::fs::read(file).map_err(|error| TlsSetupError::file(file, error))
            };
            file.as_ref().map(read).transpose()
        };
        Ok(Self { ca: read(&settings.ca)?, cert: read(&settings.cert)?, key: read(&settings.key)? })
    }
}

fn config(settings: &TlsBackendSettings, files: &Files) -> Result<ClientConfig, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsSetupError::Config(error.to_string()))?;
    if !settings.verify {
        tracing::warn!(
            target: "Proxy",
            "tls.backends.verify is off: whoever answers in a backend's place is believed"
        );
        let verifier = Arc::new(NoVerifier(provider.signature_verification_algorithms));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        return identify(builder, settings, files);
    }
    let mut roots = RootCertStore::empty();
    // A system without any is no fault, where there is a file.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let (Some(file), Some(pem)) = (&settings.ca, &files.ca) {
        let (added, _) = roots.add_parsable_certificates(certificates(file, pem)?);
        if added == 0 {
            return Err(TlsSetupError::file(file, "it holds no certificate"));
        }
    }
    identify(builder.with_root_certificates(roots), settings, files)
}

fn identify(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    settings: &TlsBackendSettings,
    files: &Files,
) -> Result<ClientConfig, TlsSetupError> {
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert, files.cert.as_deref().unwrap_or_default())?;
    let private = PrivateKeyDer::from_pem_slice(files.key.as_deref().unwrap_or_default())
        .map_err(|why| TlsSetupError::file(key, why))?;
    builder.with_client_auth_cert(chain, private).map_err(|why| TlsSetupError::file(cert, why))
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    read.map_err(|why| TlsSetupError::file(file, why))
}

/// Takes any certificate; who shows it must have its key all the same.
#[derive(Debug)]
struct NoVerifier(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
