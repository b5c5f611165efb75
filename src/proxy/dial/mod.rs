//! New connections to backends: TCP, then TLS where the URL says https, then HTTP.
//!
//! Walk: [`tcp`] and [`Tls::handshake`] make the stream, `conns` makes HTTP of it; `sender` is the half that takes
//! requests, of either version; `http2` shares the connections of HTTP/2 among exchanges.
//!
//! Each step has its own bound and its own error: what failed is known to whoever reads a metric.

mod http2;
mod sender;
mod tls;

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

pub(super) use self::http2::{Http2, Turn};
pub(super) use self::sender::Sender;
pub use self::tls::TlsSetupError;
pub(super) use self::tls::{BackendTls, Offer, Tls};
use super::backends::Address;

/// Why there is no new connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("not accepted within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Io(std::sync::Arc<io::Error>),
    #[error("TLS: no handshake within {0:?}")]
    TlsTimeout(Duration),
    #[error("TLS: {0}")]
    Tls(std::sync::Arc<io::Error>),
    #[error("{0}")]
    Handshake(std::sync::Arc<hyper::Error>),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.into())
    }
}

impl From<hyper::Error> for ConnectError {
    fn from(error: hyper::Error) -> Self {
        Self::Handshake(error.into())
    }
}

/// Connects to a backend within `limit`, its name's addresses one after the other.
pub(super) async fn tcp(address: &Address, limit: Duration) -> Result<TcpStream, ConnectError> {
    timeout(limit, to_any(address)).await.unwrap_or(Err(ConnectError::Timeout(limit)))
}

async fn to_any(address: &Address) -> Result<TcpStream, ConnectError> {
    let stream = match address {
        Address::Ip(address) => TcpStream::connect(address).await?,
        Address::Name(host, port) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let mut connected = None;
            for address in lookup_host((&**host, *port)).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        connected = Some(stream);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            connected.ok_or(last)?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
