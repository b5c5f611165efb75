//! The public doors: this path to the hub, that one to the proxy, a few answered here.
//!
//! Walk: `listen` accepts and drives a connection whose socket is `client_io`, by TLS after the handshake of `secured` and
//! `tls`, which may agree on HTTP/2 (`h2`); each request comes over its `wire` to
//! [`Edge::answer`], is checked by `head`, and goes to an own path (`own`), to a hub (`chat`), to the API (`call`), or
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
mod compress;
mod ending;
mod h2;
mod head;
mod limits;
pub mod listen;
mod metrics;
mod own;
mod page;
mod pipelined;
mod policy;
mod probe;
mod proxy_protocol;
mod redirect;
mod secured;
mod security;
mod slow;
mod tls;
mod unparsed;
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio_util::task::TaskTracker;

use self::access::{Access, AccessLog};
use self::answer::{Answering, Refused, X_REQUEST_ID};
use self::body::Content;
pub use self::body::{AnswerBody, ContentError};
use self::listen::Slots;
use self::metrics::EdgeMetrics;
pub use self::policy::Policy;
use self::slow::Places;
use self::tls::Shown;
pub use self::tls::{CertificateSnapshot, NextCertificates, Tls, TlsError, check as check_tls};
use self::wire::Wire;
use crate::api::{self, Api};
use crate::files::{Mount, MountError};
use crate::hub::Hub;
use crate::limits::Limiter;
use crate::observability::{self, Health, Part, Readiness, Registry};
use crate::proxy::{Caller, Proxy, Scheme, Shared, client_address};
use crate::settings::{ProxyProtocol, RegionName, Settings};
use crate::shutdown::Drain;

const HEX: &[u8; 16] = b"0123456789abcdef";
/// The longest request id that is taken over from a trusted peer.
const MAX_REQUEST_ID: usize = 128;

/// What all doors of the process share.
#[derive(Debug)]
pub struct Common {
    policy: ArcSwap<Policy>,
    limiter: Limiter,
    regions: Arc<Shared>,
    hub: Arc<Hub>,
    api: Option<Arc<Api>>,
    drain: Drain,
    readiness: Readiness,
    metrics: Arc<EdgeMetrics>,
    /// Of all listeners.
    places: Arc<Places>,
    /// Where access lines are written.
    lines: observability::AccessLog,
    /// Owner of the chat sockets' tasks.
    sockets: TaskTracker,
    /// Counts the accept loops, each until its last connection has ended.
    doors: TaskTracker,
}

/// The parts that [`Common::new`] joins.
pub struct CommonParts<'a> {
    pub settings: &'a Settings,
    pub(crate) limiter: Limiter,
    pub proxy: Arc<Shared>,
    pub hub: Arc<Hub>,
    /// Where there is one.
    pub api: Option<Arc<Api>>,
    pub drain: Drain,
    pub readiness: Readiness,
    pub lines: observability::AccessLog,
    pub registry: &'a mut Registry,
}

impl Common {
    /// # Errors
    /// Where a folder that is to be served is not there.
    pub fn new(parts: CommonParts<'_>) -> Result<Arc<Self>, MountError> {
        let metrics = EdgeMetrics::new(parts.registry);
        let policy = Policy::new(parts.settings, &parts.limiter, None)?;
        parts.limiter.adopt(&policy.limits, None);
        let doors = TaskTracker::new();
        doors.close();
        Ok(Arc::new(Self {
            policy: ArcSwap::new(policy),
            limiter: parts.limiter,
            regions: parts.proxy,
            hub: parts.hub,
            api: parts.api,
            drain: parts.drain,
            readiness: parts.readiness,
            lines: parts.lines,
            metrics: Arc::new(metrics),
            places: Places::new(),
            sockets: TaskTracker::new(),
            doors,
        }))
    }

    /// Room for the connections of one more address.
    pub fn slots(&self) -> Slots {
        listen::slots(self.policy.load().settings.max_connections)
    }

    /// What requests that begin now go by.
    fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// An edition of these settings, which goes on with what the limits of the present one have counted; nothing goes by it
    /// before [`Self::replace_policy`].
    ///
    /// # Errors
    /// Where a folder that is to be served is not there.
    pub fn edition(&self, settings: &Settings) -> Result<Arc<Policy>, MountError> {
        Policy::new(settings, &self.limiter, Some(&self.policy()))
    }

    /// Puts another edition in place; requests that are going on keep theirs.
    pub fn replace_policy(&self, policy: &Arc<Policy>) {
        let previous = self.policy.swap(Arc::clone(policy));
        self.limiter.adopt(&policy.limits, Some(&previous.limits));
    }

    /// Ends when every listener was told to stop, has taken what the system had accepted for it, and has no
    /// connection left.
    pub async fn doors_closed(&self) {
        self.doors.wait().await;
    }

    /// Ends when every chat socket's task has ended; new ones are still taken.
    pub async fn sockets_closed(&self) {
        self.sockets.close();
        self.sockets.wait().await;
    }
}

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

/// What all requests of a connection have in common.
#[derive(Clone, Debug)]
struct Link {
    peer: SocketAddr,
    /// What the client was shown, where this is TLS.
    shown: Option<Arc<Shown>>,
}

impl Link {
    fn scheme(&self) -> Scheme {
        if self.shown.is_some() { Scheme::Https } else { Scheme::Http }
    }

    fn tls(&self) -> Option<&'static str> {
        self.shown.as_ref().map(|shown| shown.version)
    }

    /// The host that a request is for, where it may come over this connection.
    fn host<B>(&self, request: &Request<B>) -> Result<HeaderValue, Refused> {
        let host = head::host(request.uri(), request.headers(), request.version())?;
        match &self.shown {
            Some(shown) if !shown.covers(&host) => Err(Refused::Misdirected),
            _ => Ok(host),
        }
    }
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

    /// Answers one request. Never fails: what goes wrong is an answer too.
    async fn answer(
        self: Arc<Self>,
        link: Link,
        wire: Wire,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let policy = self.common.policy();
        let trusted = is_trusted(link.peer, &policy.settings.trusted_proxies);
        let request_id = request_id(request.headers(), trusted);
        let (head, connect) =
            (*request.method() == Method::HEAD, *request.method() == Method::CONNECT);
        let compression = policy.compression.as_ref().filter(|_| matches!(self.door, Door::Public));
        let coding = compression.and_then(|compression| compression.wanted(request.headers()));
        wire.begin(!request.body().is_end_stream());
        let had_fragment = wire.take_fragment();
        let has_connection_fields = wire.has_connection_fields();
        let mut access = Access::begin(
            Arc::clone(&self.access),
            wire,
            self.common.drain.in_flight(),
            &link,
            &request,
            request_id,
        );
        let result = if had_fragment {
            Err(Refused::BadRequest("the request target must not have a fragment"))
        } else {
            self.dispatch(&policy, &link, &mut access, request).await
        };
        let mut response = self.outcome(result, &policy, &mut access);
        let status = response.status();
        access.answered(status.as_u16());
        let upgraded =
            status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success());
        if matches!(self.door, Door::Public) {
            if matches!(response.body(), Content::Forwarded(_)) {
                policy.security.remove(response.headers_mut());
            }
            policy.security.add(response.headers_mut(), link.scheme());
        }
        if let Some(compression) = compression.filter(|_| !upgraded) {
            response = compression.apply(response, coding, head);
        }
        let headers = response.headers_mut();
        access.write_limits(headers);
        headers.insert(X_REQUEST_ID.clone(), access.request_id().clone());
        if !has_connection_fields {
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
        } else if self.common.drain.is_draining() && !upgraded {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // Neither has a body to be read to its end: the head is the whole answer.
        if upgraded {
            access.upgraded();
        } else if head {
            access.done();
        }
        Ok(AnswerBody::new(response, access))
    }

    /// The answer, also where it is a refusal.
    fn outcome(
        &self,
        result: Result<Response<Content>, Refused>,
        policy: &Policy,
        access: &mut Access,
    ) -> Response<Content> {
        match result {
            Ok(response) => {
                access.verdict(ending::of_answer(&response));
                response
            }
            Err(refused) => {
                access.verdict(ending::of_refusal(&refused));
                let answering = Answering {
                    request_id: access.request_id(),
                    regions: &self.common.regions.region_names(),
                    retry_after: policy.settings.retry_after_seconds,
                };
                answer::refuse(&refused, &answering)
            }
        }
    }

    async fn dispatch(
        &self,
        policy: &Policy,
        link: &Link,
        access: &mut Access,
        request: Request<Incoming>,
    ) -> Result<Response<Content>, Refused> {
        let settings = &policy.settings;
        let host = link.host(&request)?;
        head::check(&request, settings.max_target_bytes.get())?;
        head::check_size(request.headers(), settings)?;
        let (client, trusted) =
            client_address(request.headers(), link.peer.ip(), &settings.trusted_proxies);
        access.client(client);
        let max_body_bytes = self.obey(policy, client, &request)?;
        if let Some(response) = own::answer(self, &policy.own, &request) {
            return Ok(response);
        }
        if !policy.limits.is_empty() {
            let head = (request.method(), request.uri(), request.headers());
            Box::pin(self.count(policy, client, head, access)).await?;
        }
        let region = match &self.door {
            Door::Redirect(to) => return redirect::answer(policy, to, &request).await,
            Door::Hub(region) => {
                // Boxed, as what goes to the API is, so that a proxied request does not carry its state.
                return Box::pin(self.chat_here(region, client, access, request)).await;
            }
            Door::Api(api) => {
                return Box::pin(call::answer(api, api::PREFIX, access, request)).await;
            }
            Door::Public => {
                if let Some(api) = &self.common.api
                    && let Some(mount) = policy.own.mount(request.uri().path())
                {
                    return Box::pin(call::answer(api, mount, access, request)).await;
                }
                let path = request.uri().path();
                if let Some(mount) = policy.mounts.find(path).filter(|_| !policy.own.is_ws(path)) {
                    return Box::pin(file(mount, &request)).await;
                }
                self.proxy.route(request.headers(), request.uri()).map_err(Refused::Route)?
            }
        };
        access.region(region.clone());
        let caller = Caller {
            peer: link.peer.ip(),
            client,
            trusted,
            scheme: link.scheme(),
            tls: link.tls(),
            host,
            request_id: access.request_id().clone(),
            arrival: access.arrival(),
            max_body_bytes,
        };
        let response = if policy.own.is_ws(request.uri().path()) {
            if self.common.hub.hosts(region.name().as_str()) {
                return Box::pin(self.chat_of(&region, client, access, request)).await;
            }
            self.proxy.forward_to_hub(&region, &caller, request, access.report()).await
        } else {
            self.proxy.forward(&region, &caller, request, access.report()).await
        }
        .map_err(Refused::Forward)?;
        Ok(response.map(Content::Forwarded))
    }
}

/// Answers with what a mounted folder has.
async fn file(mount: &Mount, request: &Request<Incoming>) -> Result<Response<Content>, Refused> {
    let answered = mount.answer(request.method(), request.uri(), request.headers()).await;
    answered.map(|response| response.map(Content::File)).map_err(Refused::File)
}

/// Whether a peer's word is taken. An IPv4 peer of a listener for both families has an IPv6 address.
fn is_trusted(peer: SocketAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.ip().to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// The id of a request: a trusted peer's, if it is short visible ASCII, else a new one of 128 random bits.
fn request_id(headers: &HeaderMap, trusted: bool) -> HeaderValue {
    if trusted
        && let Some(given) = headers.get(&X_REQUEST_ID)
        && (1..=MAX_REQUEST_ID).contains(&given.len())
        && given.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte))
    {
        return given.clone();
    }
    let mut random = fastrand::u128(..);
    let id: [u8; 32] = std::array::from_fn(|_| {
        let digit = HEX.get((random & 15) as usize).copied().unwrap_or(b'0');
        random >>= 4;
        digit
    });
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
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
