//! TLS at the public door: the handshake, and which certificate is shown in it.
//!
//! Walk: [`Tls::accept`] takes a new connection through its handshake, within a deadline; `certificates` finds what is shown,
//! `watch` reads the files again when they change, `dev` makes a pair for development, `x509` says what a certificate is for.
//!
//! Invariants: a failed handshake is counted by its cause and never logged above debug, because everybody can cause as many
//! as he likes; a broken pair of files replaces none that is good; nothing is resumed for another host (rustls holds that).
//!
//! Absent on purpose: early data, which can be played again; client certificates; OCSP.

mod certificates;
mod dev;
mod metrics;
mod watch;
mod x509;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::certificates::{Certificates, Pair, Place, Table};
use self::metrics::{Failure, TlsMetrics};
use crate::observability::Registry;
use crate::settings::{TlsSettings, TlsVersion};

/// By ALPN (RFC 7301).
const H2: &[u8] = b"h2";
const HTTP_11: &[u8] = b"http/1.1";
/// The type of the TLS record that begins a handshake.
const HANDSHAKE: u8 = 0x16;

/// Why there is no TLS listener. Names files and no content.
#[derive(Debug, thiserror::Error)]
#[error("tls.certificates.{certificate}: {why}")]
pub struct TlsError {
    certificate: String,
    why: String,
}

impl TlsError {
    fn of(certificate: &str, why: &dyn fmt::Display) -> Self {
        Self { certificate: certificate.to_owned(), why: why.to_string() }
    }

    /// The name of the certificate that is at fault.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What is wrong with it.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// Everything that is wrong with the files of the certificates; nothing is made or changed.
pub fn check(settings: &TlsSettings) -> Vec<TlsError> {
    let places = places(settings);
    let read =
        |place: &Place| certificates::read(place).map_err(|why| TlsError::of(&place.name, &why));
    places.iter().filter_map(|place| read(place).err()).collect()
}

/// Where the configured pairs are. One without both files was refused with the settings.
fn places(settings: &TlsSettings) -> Vec<Place> {
    let place = |(name, files): (&String, &crate::settings::CertificateSettings)| {
        Some(Place {
            name: name.as_str().into(),
            cert: files.cert.clone()?,
            key: files.key.clone()?,
        })
    };
    settings.certificates.iter().filter_map(place).collect()
}

/// Reads all pairs, the development's too where it is wanted.
fn table(settings: &TlsSettings) -> Result<Table, TlsError> {
    let mut places = places(settings);
    if settings.dev {
        let dev = dev::ensure(&settings.dev_folder());
        places.push(dev.map_err(|why| TlsError::of(TlsSettings::DEV_NAME, &why))?);
    }
    let mut pairs = Vec::with_capacity(places.len());
    for place in &places {
        let pair = certificates::read(place).map_err(|why| TlsError::of(&place.name, &why))?;
        watch::warn_of_end(&pair);
        pairs.push(Arc::new(pair));
    }
    Table::new(pairs, settings.default.as_deref())
        .ok_or_else(|| TlsError::of("*", &"there is none"))
}

/// What the workers' TLS listeners share.
pub struct Tls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
    metrics: Arc<TlsMetrics>,
    handshake_timeout: Duration,
    watch_interval: Duration,
    max_streams: u32,
    /// Where the development authority is, where there is one.
    dev_folder: Option<PathBuf>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Certificates that were read and found good, and are not shown yet.
#[derive(Debug)]
pub struct NextCertificates(Table);

/// A certificate, for a status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSnapshot {
    pub name: String,
    pub hosts: Vec<String>,
    /// RFC 3339.
    pub not_after: String,
    /// The file that it was read from.
    pub source: String,
    pub is_default: bool,
}

/// A connection whose handshake is over.
pub(super) struct Accepted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) is_http2: bool,
    pub(super) shown: Arc<Shown>,
}

/// What did not become a connection.
pub(super) enum Rejected {
    /// It is gone, or will not understand an answer.
    Silently,
    /// It begins like HTTP.
    PlainHttp(TcpStream),
}

/// What a client asked for, and what it was shown.
#[derive(Debug)]
pub(super) struct Shown {
    asked: Option<String>,
    pair: Arc<Pair>,
    /// The version of TLS.
    pub(super) version: &'static str,
}

impl Shown {
    /// Whether a request for `host` may come over this connection (RFC 9110, 7.4 and 15.5.20): the certificate that was
    /// shown is for it, or it is the very name that was asked for (then the client has made its own mind up about the
    /// certificate). One that named nobody may ask for anybody.
    pub(super) fn covers(&self, host: &HeaderValue) -> bool {
        let Some(asked) = &self.asked else { return true };
        let Ok(host) = host.to_str() else { return false };
        let host = bare(host).to_ascii_lowercase();
        host.is_empty() || *asked == host || self.pair.covers(&host)
    }
}

/// A host without its port, the brackets of an address, or the dot at the end of a whole name.
fn bare(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

impl Tls {
    /// Reads the certificates and makes the terms of the handshake.
    ///
    /// # Errors
    /// Where a pair of files is no good.
    pub fn new(settings: &TlsSettings, registry: &mut Registry) -> Result<Arc<Self>, TlsError> {
        let table = table(settings)?;
        let metrics = TlsMetrics::new(registry);
        let certificates = Certificates::new(table, Arc::clone(&metrics));
        let config = server_config(settings, Arc::clone(&certificates))
            .map_err(|error| TlsError::of("*", &error))?;
        Ok(Arc::new(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificates,
            metrics,
            handshake_timeout: settings.handshake_timeout,
            watch_interval: settings.watch_interval,
            max_streams: settings.max_streams.get(),
            dev_folder: settings.dev.then(|| settings.dev_folder()),
        }))
    }

    /// Reads the certificates of other settings; of those settings nothing else is taken over. Files are read, and nothing
    /// is shown to anybody before [`Self::replace`].
    ///
    /// # Errors
    /// Where one of them is no good.
    pub fn prepare(settings: &TlsSettings) -> Result<NextCertificates, TlsError> {
        table(settings).map(NextCertificates)
    }

    /// From now on these are shown.
    pub fn replace(&self, next: NextCertificates) {
        self.certificates.replace(next.0);
    }

    /// The certificates in use, for a status page.
    pub fn snapshot(&self) -> Vec<CertificateSnapshot> {
        let table = self.certificates.table();
        let told = |pair: &Arc<Pair>| {
            let addresses = pair.facts.addresses.iter().map(ToString::to_string);
            let seconds = u64::try_from(pair.facts.not_after).unwrap_or_default();
            let ends = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
            CertificateSnapshot {
                name: pair.place.name.to_string(),
                hosts: pair.facts.names.iter().cloned().chain(addresses).collect(),
                not_after: humantime::format_rfc3339_seconds(ends).to_string(),
                source: pair.place.cert.display().to_string(),
                is_default: *pair.place.name == *table.default_name(),
            }
        };
        table.pairs().iter().map(told).collect()
    }

    /// The file with the development authority, for whom it should be told.
    pub fn authority(&self) -> Option<PathBuf> {
        self.dev_folder.as_deref().map(dev::authority)
    }

    pub(super) fn max_streams(&self) -> u32 {
        self.max_streams
    }

    /// Takes a new connection through its handshake.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Accepted, Rejected> {
        let Ok(outcome) = timeout(self.handshake_timeout, self.handshake(stream)).await else {
            return Err(self.failed(Failure::Timeout, peer, &"the time is over"));
        };
        match outcome {
            Ok(stream) => {
                let (_, session) = stream.get_ref();
                let version = match session.protocol_version() {
                    Some(ProtocolVersion::TLSv1_3) => "1.3",
                    _ => "1.2",
                };
                let is_http2 = session.alpn_protocol() == Some(H2);
                let asked = session.server_name().map(str::to_owned);
                let pair = Arc::clone(
                    self.certificates.table().find(asked.as_deref().unwrap_or_default()),
                );
                self.metrics.agreed(is_http2);
                Ok(Accepted { stream, is_http2, shown: Arc::new(Shown { asked, pair, version }) })
            }
            Err(Broken::Plain(stream)) => {
                drop(self.failed(Failure::NotTls, peer, &"plain HTTP"));
                Err(Rejected::PlainHttp(stream))
            }
            Err(Broken::Noise) => Err(self.failed(Failure::NotTls, peer, &"no handshake")),
            Err(Broken::Io(error)) => Err(self.failed(cause(&error), peer, &error)),
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Broken> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())),
            // The first letter of a method.
            Ok(_) if first[0].is_ascii_alphabetic() => return Err(Broken::Plain(stream)),
            Ok(_) if first[0] != HANDSHAKE => return Err(Broken::Noise),
            Ok(_) => {}
            Err(error) => return Err(Broken::Io(error)),
        }
        self.acceptor.accept(stream).await.map_err(Broken::Io)
    }

    fn failed(&self, failure: Failure, peer: SocketAddr, why: &dyn fmt::Display) -> Rejected {
        self.metrics.failed(failure);
        tracing::debug!(target: "Tls", %peer, cause = failure.as_str(), "no handshake: {why}");
        Rejected::Silently
    }
}

/// Why there is no handshake.
enum Broken {
    Plain(TcpStream),
    Noise,
    Io(io::Error),
}

fn cause(error: &io::Error) -> Failure {
    use rustls::Error;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoApplicationProtocol | Error::PeerIncompatible(_)) => Failure::NothingInCommon,
        Some(Error::AlertReceived(_)) => Failure::Refused,
        Some(_) => Failure::Malformed,
        None => Failure::Left,
    }
}

fn server_config(
    settings: &TlsSettings,
    certificates: Arc<Certificates>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    // Tickets that the client keeps, so that whichever worker it comes back to knows it, and nothing is held for it here.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    let offered = if settings.http2 { &[H2, HTTP_11][..] } else { &[HTTP_11] };
    config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_without_its_port() {
        for (host, expected) in [
            ("a.example", "a.example"),
            ("a.example:443", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:443", "a.example"),
            ("[::1]:443", "::1"),
            ("[::1]", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(bare(host), expected, "{host}");
        }
    }

    #[test]
    fn a_connection_is_for_the_hosts_of_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let place = certificates::tests::write(folder.path(), "a", &["a.example", "*.a.example"]);
        let pair = Arc::new(certificates::read(&place).unwrap());
        let covers = |asked: Option<&str>, host: &'static str| {
            let (asked, pair) = (asked.map(str::to_owned), Arc::clone(&pair));
            let shown = Shown { asked, pair, version: "1.3" };
            shown.covers(&HeaderValue::from_static(host))
        };
        assert!(covers(Some("a.example"), "A.example:8443"));
        assert!(covers(Some("a.example"), "x.a.example"));
        assert!(!covers(Some("a.example"), "b.example"));
        assert!(!covers(Some("a.example"), "127.0.0.1"));
        assert!(covers(Some("unknown"), "unknown"), "the client knew what it was shown");
        assert!(!covers(Some("unknown"), "other"));
        assert!(covers(None, "b.example"), "who names nobody may ask for anybody");
    }
}
