//! Ports that are known before anybody listens on them, and those that nobody listens on.
//!
//! Invariants: while a [`Port`] lives the system gives its number to nobody who asks for any, neither to a listener nor to an
//! outgoing connection; who connects is refused. A server that names the number may listen on it all the same, and again after
//! it was killed, since all of them set `SO_REUSEADDR` (socket(7)). Needs nothing else of the harness, so that unit tests can
//! include it by its path.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of loopback, bound and not listened on.
#[derive(Debug)]
pub(crate) struct Port(TcpSocket);

impl Port {
    pub(crate) fn reserve() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// One that somebody has reserved, or had.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn number(&self) -> u16 {
        self.address().port()
    }
}
