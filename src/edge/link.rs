//! What all requests of a connection have in common: who is at its other end, and what he was shown.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Request};
use ipnet::IpNet;

use super::answer::Refused;
use super::head;
use super::tls::Shown;
use crate::proxy::Scheme;

/// What all requests of a connection have in common.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    /// What the client was shown, where this is TLS.
    pub(super) shown: Option<Arc<Shown>>,
}

impl Link {
    pub(super) fn scheme(&self) -> Scheme {
        if self.shown.is_some() { Scheme::Https } else { Scheme::Http }
    }

    pub(super) fn tls(&self) -> Option<&'static str> {
        self.shown.as_ref().map(|shown| shown.version)
    }

    /// The host that a request is for, where it may come over this connection.
    pub(super) fn host<B>(&self, request: &Request<B>) -> Result<HeaderValue, Refused> {
        let host = head::host(request.uri(), request.headers(), request.version())?;
        match &self.shown {
            Some(shown) if !shown.covers(&host) => Err(Refused::Misdirected),
            _ => Ok(host),
        }
    }
}

/// Whether a peer's word is taken. An IPv4 peer of a listener for both families has an IPv6 address.
pub(super) fn is_trusted(peer: SocketAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.ip().to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

#[cfg(test)]
mod tests {
    use super::is_trusted;

    #[test]
    fn an_ipv4_peer_is_the_same_on_a_listener_for_both_families() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for peer in ["10.1.2.3:1", "[::ffff:10.1.2.3]:1"] {
            assert!(is_trusted(peer.parse().unwrap(), &trusted), "{peer}");
        }
        assert!(!is_trusted("[::ffff:11.1.2.3]:1".parse().unwrap(), &trusted));
    }
}
