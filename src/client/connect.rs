//! One attempt to connect: TCP, TLS where the URL says so, the WebSocket handshake; all within one deadline.
//!
//! Invariant: an error says in one line what went wrong and where, for the person who typed the URL.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, DATE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::address::Address;

/// For a name, a connection, TLS and the handshake together.
const PATIENCE: Duration = Duration::from_secs(10);

const READ_BUFFER: usize = 8 * 1024;
const WRITE_BUFFER: usize = 8 * 1024;
/// The largest frame that is taken; many times what a server lets its users send.
const MAX_FRAME: usize = 64 * 1024 * 1024;

/// The longest that a server's `Retry-After` is heeded.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot reach {host}:{port}: {source}")]
    Unreachable { host: String, port: u16, source: io::Error },
    #[error("{host} does not answer within {PATIENCE:?}")]
    Silent { host: String },
    #[error("no trusted TLS with {host}: {source}")]
    Tls { host: String, source: io::Error },
    #[error("refused with {status}{}: {message}", .code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
    Refused { status: u16, code: Option<String>, message: String, retry_after: Option<Duration> },
    #[error("what answers there is no WebSocket server: {0}")]
    Handshake(WsError),
    #[error("the handshake cannot be written: {0}")]
    Request(String),
}

impl ConnectError {
    /// Whether another attempt may go better.
    pub(super) fn is_final(&self) -> bool {
        match self {
            // What a client did wrong stays wrong, but for the limits that time lifts.
            Self::Refused { status, .. } => {
                (300..500).contains(status) && !matches!(status, 408 | 425 | 429)
            }
            Self::Request(_) => true,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Tls { .. }
            | Self::Handshake(_) => false,
        }
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Bytes both ways, plain or encrypted.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A WebSocket after its handshake.
pub(super) struct Opened {
    pub(super) socket: WebSocketStream<Box<dyn Io>>,
    /// The server's clock at the handshake, to the second.
    pub(super) server_time: Option<SystemTime>,
}

/// What encrypts; made once, since the roots of the system are read from files.
///
/// # Errors
/// Where the system has no roots, or the certificates cannot be used.
pub(super) fn tls() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(
            || {
                "there are no root certificates; install them, or name a file in SSL_CERT_FILE"
                    .into()
            },
            ToString::to_string,
        );
        return Err(io::Error::other(why));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Connects to `url`, which is a handshake of `address`.
pub(super) async fn connect(
    address: Address,
    url: String,
    token: Option<String>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Opened, ConnectError> {
    let host = address.host().to_owned();
    let attempt = async {
        let request = request(&url, token.as_deref())?;
        let stream = stream(&address, tls).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let answered =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        match answered {
            Ok((socket, response)) => Ok(Opened { socket, server_time: date(&response) }),
            Err(WsError::Http(response)) => Err(refused(&response)),
            Err(error) => Err(ConnectError::Handshake(error)),
        }
    };
    tokio::time::timeout(PATIENCE, attempt).await.unwrap_or(Err(ConnectError::Silent { host }))
}

fn request(url: &str, token: Option<&str>) -> Result<Request<()>, ConnectError> {
    let mut request =
        url.into_client_request().map_err(|error| ConnectError::Request(error.to_string()))?;
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_unfit| {
            ConnectError::Request("the token does not fit into a header".into())
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

async fn stream(
    address: &Address,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Io>, ConnectError> {
    let (host, port) = (address.host(), address.port());
    let unreachable = |source| ConnectError::Unreachable { host: host.to_owned(), port, source };
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    // A chat's frames are small and waited for.
    stream.set_nodelay(true).map_err(unreachable)?;
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let untrusted = |source| ConnectError::Tls { host: host.to_owned(), source };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|invalid| untrusted(io::Error::new(io::ErrorKind::InvalidInput, invalid)))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(untrusted)?;
    Ok(Box::new(stream))
}

/// The JSON of an error of the gateway's own.
#[derive(Deserialize)]
struct Body {
    error: BodyError,
}

#[derive(Deserialize)]
struct BodyError {
    code: String,
    message: String,
    /// Those that there are, where the one that was asked for is not.
    #[serde(default)]
    regions: Vec<String>,
}

fn refused(response: &Response<Option<Vec<u8>>>) -> ConnectError {
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let (code, message) = if let Ok(Body { error }) = serde_json::from_slice(body) {
        let BodyError { code, mut message, regions } = error;
        if !regions.is_empty() {
            message.extend([" (", &regions.join(", "), ")"]);
        }
        (Some(code), message)
    } else {
        let reason = status.canonical_reason().unwrap_or("no reason given");
        (None, format!("{reason}; is this the URL of a chat socket?"))
    };
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    ConnectError::Refused { status: status.as_u16(), code, message, retry_after }
}

/// The server's clock, where it says it.
fn date<B>(response: &Response<B>) -> Option<SystemTime> {
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let text = response.headers().get(DATE)?.to_str().ok()?;
    http_date(text)
}

/// Reads an IMF-fixdate (RFC 9110, 5.6.7), as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_day_name, rest) = text.split_once(", ")?;
    let mut words = rest.strip_suffix(" GMT")?.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_server_is_read() {
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(humantime::format_rfc3339_seconds(at).to_string(), "1994-11-06T08:49:37Z");
        for text in [
            "",
            "Sun, 06 Nov 1994",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_the_gateway_said() {
        let body = br#"{"error":{"code":"draining","message":"connect again","requestId":"r"}}"#;
        let response = Response::builder().status(503).header(RETRY_AFTER, "7");
        let error = refused(&response.body(Some(body.to_vec())).unwrap());
        assert_eq!(error.to_string(), "refused with 503 draining: connect again");
        assert_eq!((error.is_final(), error.retry_after()), (false, Some(Duration::from_secs(7))));
        let body = br#"{"error":{"code":"c","message":"use one","regions":["1","eu"]}}"#;
        let error = refused(&Response::builder().status(404).body(Some(body.to_vec())).unwrap());
        assert_eq!(error.to_string(), "refused with 404 c: use one (1, eu)");
        let plain = refused(&Response::builder().status(404).body(None).unwrap());
        assert!(plain.to_string().starts_with("refused with 404: Not Found;"), "{plain}");
    }

    #[test]
    fn what_the_client_did_wrong_is_not_tried_again() {
        for (status, is_final) in [
            (400, true),
            (401, true),
            (403, true),
            (404, true),
            (429, false),
            (502, false),
            (503, false),
        ] {
            let error = refused(&Response::builder().status(status).body(None).unwrap());
            assert_eq!(error.is_final(), is_final, "{status}");
        }
    }
}
