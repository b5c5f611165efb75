//! New connections to backends: TCP, then TLS where the URL says https, then HTTP.
//!
//! Walk: `names` knows the addresses of a name and `eyeballs` dials them; [`tcp`] and [`Tls::handshake`] make the stream, `conns` makes HTTP of it; `sender` is the half that takes
//! requests, of either version; `http2` shares the connections of HTTP/2 among exchanges.
//!
//! Each step has its own bound and its own error: what failed is known to whoever reads a metric.

mod eyeballs;
mod http2;
mod names;
mod sender;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

pub(super) use self::http2::{Http2, Turn};
pub(super) use self::names::{Lookups, Name};
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
    Io(Arc<io::Error>),
    #[error("TLS: no handshake within {0:?}")]
    TlsTimeout(Duration),
    #[error("TLS: {0}")]
    Tls(Arc<io::Error>),
    #[error("{0}")]
    Handshake(Arc<hyper::Error>),
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

/// Connects to a backend within `limit`, whichever of its name's addresses answers first; the lookup of the name is
/// within the limit, too.
pub(super) async fn tcp(address: &Address, limit: Duration) -> Result<TcpStream, ConnectError> {
    let connected = match address {
        Address::Ip(address) => timeout(limit, TcpStream::connect(address)).await,
        Address::Name(name) => {
            // Boxed: the future of an exchange should be no larger for what most never do.
            let connected = timeout(limit, Box::pin(to_any(name))).await;
            if !matches!(connected, Ok(Ok(_))) {
                name.failed();
            }
            connected
        }
    };
    let stream = connected.map_err(|_elapsed| ConnectError::Timeout(limit))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn to_any(name: &Arc<Name>) -> io::Result<TcpStream> {
    let addresses = name.addresses().await?;
    let won = eyeballs::first_of(&addresses, eyeballs::ATTEMPT_DELAY).await?;
    name.dialed(won.address, won.passed);
    Ok(won.stream)
}
