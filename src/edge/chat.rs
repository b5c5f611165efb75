//! From a request to a chat socket: the hub decides, the 101 (or the 200 of HTTP/2) is answered here, and the bare stream
//! is handed over, so that an idle socket of HTTP/1.1 costs no HTTP machinery.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::answer::{self, Refused};
use super::body::Content;
use super::client_io::ClientIo;
use super::{Door, Edge};
use crate::hub::{Admission, Hub};
use crate::proxy::{ForwardError, RegionRef};
use crate::settings::{RegionName, TraceMode};

impl Edge {
    /// As [`Self::chat_here`], by the public door: the client is told who serves him.
    pub(super) async fn chat_of(
        &self,
        region: &RegionRef,
        client: IpAddr,
        access: &mut Access,
        request: Request<Incoming>,
    ) -> Result<Response<Content>, Refused> {
        let mut response = self.chat_here(region.name(), client, access, request).await?;
        region.sign(response.headers_mut());
        Ok(response)
    }

    /// Admits a chat socket of `region`, which this process hosts.
    pub(super) async fn chat_here(
        &self,
        region: &RegionName,
        client: IpAddr,
        access: &mut Access,
        mut request: Request<Incoming>,
    ) -> Result<Response<Content>, Refused> {
        if matches!(self.door, Door::Hub(_)) && !matches!(request.uri().path(), "/" | "/ws") {
            return Err(Refused::NotFound);
        }
        let asks = request.headers().contains_key(UPGRADE);
        if asks && (!request.body().is_end_stream() || has_coding(&request)) {
            // It would be taken for the first frames (RFC 9110, section 7.8).
            let why = "a WebSocket handshake must not have a body";
            return Err(Refused::Forward(ForwardError::BadUpgrade(why)));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let admitted = self.common.hub.admit(region, &parts, client).await;
        let mut admission = admitted.map_err(Refused::Hub)?;
        let traced = self.common.policy.load().settings.trace != TraceMode::Off;
        admission.came_by(|| access.origin(traced.then_some(&parts.headers)));
        let response = switched(admission.accept_key());
        let hub = Arc::clone(&self.common.hub);
        self.common.sockets.spawn(hand_over(self.common.sockets.clone(), hub, admission, upgrade));
        access.upgraded();
        Ok(response)
    }
}

/// What follows is frames: a 101, or over HTTP/2 a 200 that says no more (RFC 8441, section 5).
fn switched(accept_key: Option<HeaderValue>) -> Response<Content> {
    let Some(accept_key) = accept_key else { return answer::empty(StatusCode::OK) };
    let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

fn has_coding<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(TRANSFER_ENCODING)
}

/// Bytes that the system may hold for a reader beyond what is on its way to him.
///
/// On its own it lets megabytes pile up for each one that does not read: memory that no bound of ours counts, behind
/// which a ping waits, and in which a slow reader is not noticed.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

#[cfg(target_os = "linux")]
fn bound_unsent(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
        // It works without, at that price.
        tracing::debug!(target: "Hub", %error, "the system's queue of a socket is not bounded");
    }
}

/// Other systems have no such option, or another one.
#[cfg(not(target_os = "linux"))]
fn bound_unsent(_stream: &TcpStream) {}

/// Waits until the answer is out, and gives the bare stream to the hub: of TCP, of TLS, or of HTTP/2.
async fn hand_over(sockets: TaskTracker, hub: Arc<Hub>, admission: Admission, upgrade: OnUpgrade) {
    // An error means that the client left between its request and our answer: the admission is dropped, and
    // with it the seat it was counted for.
    let Ok(upgraded) = upgrade.await else { return };
    // A task of its own each: this one's state would otherwise lie beside the session for its whole life.
    let upgraded = match upgraded.downcast::<TokioIo<ClientIo<TcpStream>>>() {
        Ok(parts) => {
            let (stream, place) = parts.io.into_inner().into_parts();
            bound_unsent(&stream);
            let session = hub.serve(admission, stream, parts.read_buf);
            // Its connection counts as one of the client's meanwhile.
            sockets.spawn(session.map(|()| drop(place)));
            return;
        }
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<ClientIo<TlsStream<TcpStream>>>>() {
        Ok(parts) => {
            let (stream, place) = parts.io.into_inner().into_parts();
            bound_unsent(stream.get_ref().0);
            let session = hub.serve(admission, stream, parts.read_buf);
            // Its connection counts as one of the client's meanwhile.
            sockets.spawn(session.map(|()| drop(place)));
        }
        // What waits for its reader is bounded by the windows of HTTP/2.
        Err(upgraded) => {
            sockets.spawn(hub.serve(admission, TokioIo::new(upgraded), Bytes::new()));
        }
    }
}
