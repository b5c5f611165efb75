//! The public doors: this path to the hub, that one to the proxy, a few answered here.
//!
//! Walk: `listen` accepts and drives a connection whose socket is `client_io`, by TLS after the handshake of `secured` and
//! `tls`, which may agree on HTTP/2 (`h2`); each request comes over its `wire` to
//! [`Edge::answer`] (`exchange`), is checked by `head`, and goes to an own path (`own`), to a hub (`chat`), to the API (`call`), or
//! to the proxy.
//! What comes back is an `AnswerBody` that carries the `access` record; every refusal goes through `answer`.
//!
//! Invariants: one access line an exchange; no status code is made outside `answer`; the same verdict on a region
//! for HTTP and for a WebSocket handshake.

mod access;
mod answer;
mod body;
mod call;
mod chat;
mod client_io;
mod common;
mod compress;
mod ending;
mod exchange;
mod h2;
mod head;
mod limits;
mod link;
pub mod listen;
mod messages;
mod metrics;
mod own;
mod page;
mod policy;
mod probe;
mod proxy_protocol;
mod redirect;
mod request_id;
mod secured;
mod security;
mod slow;
mod tls;
mod unparsed;
mod wire;
use std::net::SocketAddr;
use std::sync::Arc;

use self::access::AccessLog;
pub use self::body::{AnswerBody, ContentError};
pub use self::common::{Common, CommonParts};
use self::exchange::file;
use self::link::{Link, is_trusted};
use self::listen::Slots;
pub use self::policy::Policy;
use self::request_id::request_id;
pub use self::tls::{CertificateSnapshot, NextCertificates, Tls, TlsError, check as check_tls};
use crate::api::Api;
use crate::observability::{Health, Part};
use crate::proxy::Proxy;
use crate::settings::{ProxyProtocol, RegionName};

/// What stands behind one listener.
#[derive(Clone, Debug)]
enum Door {
    /// Everything, routed by region.
    Public,
    /// One region's chat, and nothing else.
    Hub(RegionName),
    /// The API, and nothing else.
    Api(Arc<Api>),
    /// To the same at this scheme and authority.
    Redirect(Arc<str>),
}

/// One listener's service, as one worker runs it.
#[derive(Debug)]
pub struct Edge {
    door: Door,
    common: Arc<Common>,
    proxy: Arc<Proxy>,
    health: Health,
    access: Arc<AccessLog>,
    /// Shared by the workers of one address.
    slots: Slots,
    /// Where connections begin with a handshake.
    tls: Option<Arc<Tls>>,
}

impl Edge {
    /// The proxy listener.
    pub fn public(
        common: Arc<Common>,
        proxy: Arc<Proxy>,
        health: Health,
        slots: Slots,
    ) -> Arc<Self> {
        Self::new(Door::Public, common, proxy, health, slots, None)
    }

    /// The proxy listener once more, by TLS.
    pub fn public_tls(
        tls: Arc<Tls>,
        common: Arc<Common>,
        proxy: Arc<Proxy>,
        health: Health,
        slots: Slots,
    ) -> Arc<Self> {
        Self::new(Door::Public, common, proxy, health, slots, Some(tls))
    }

    /// The listener of plain HTTP that sends everybody to `authority`, by TLS.
    pub fn redirect(
        authority: &str,
        common: Arc<Common>,
        proxy: Arc<Proxy>,
        health: Health,
        slots: Slots,
    ) -> Arc<Self> {
        let door = Door::Redirect(format!("https://{authority}").into());
        Self::new(door, common, proxy, health, slots, None)
    }

    /// The listener of one region's hub.
    pub fn hub(
        region: RegionName,
        common: Arc<Common>,
        proxy: Arc<Proxy>,
        health: Health,
        slots: Slots,
    ) -> Arc<Self> {
        Self::new(Door::Hub(region), common, proxy, health, slots, None)
    }

    /// The API's own listener.
    pub fn api(
        api: Arc<Api>,
        common: Arc<Common>,
        proxy: Arc<Proxy>,
        health: Health,
        slots: Slots,
    ) -> Arc<Self> {
        Self::new(Door::Api(api), common, proxy, health, slots, None)
    }

    fn new(
        door: Door,
        common: Arc<Common>,
        proxy: Arc<Proxy>,
        health: Health,
        slots: Slots,
        tls: Option<Arc<Tls>>,
    ) -> Arc<Self> {
        let access = Arc::new(AccessLog {
            drain: common.drain.clone(),
            regions: Arc::clone(&common.regions),
            part: match door {
                Door::Public | Door::Redirect(_) => Part::Proxy,
                Door::Hub(_) => Part::Hub,
                Door::Api(_) => Part::Api,
            },
            lines: common.lines.clone(),
        });
        Arc::new(Self { door, common, proxy, health, access, slots, tls })
    }

    /// Whether a connection of `peer` begins with who its client is.
    fn awaits_header(&self, peer: SocketAddr) -> bool {
        if !matches!(self.door, Door::Public | Door::Redirect(_)) {
            return false;
        }
        let policy = self.common.policy.load();
        match policy.settings.proxy_protocol {
            ProxyProtocol::Off => false,
            ProxyProtocol::Trusted => is_trusted(peer, &policy.settings.trusted_proxies),
            ProxyProtocol::Required => true,
        }
    }
}
