//! From a request to a chat socket: the hub decides, the 101 is answered here, and the plain TCP stream is
//! handed over, so that an idle socket costs no HTTP machinery.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::answer::{self, Refused};
use super::body::Content;
use super::client_io::ClientIo;
use super::{Door, Edge};
use crate::hub::{Admission, Hub};
use crate::proxy::{ForwardError, RegionRef};
use crate::settings::RegionName;

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
        let admission = admitted.map_err(Refused::Hub)?;
        let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(SEC_WEBSOCKET_ACCEPT, admission.accept_key());
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let hub = Arc::clone(&self.common.hub);
        self.common.sockets.spawn(hand_over(self.common.sockets.clone(), hub, admission, upgrade));
        access.ended(super::access::End::Upgraded);
        Ok(response)
    }
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

/// Waits until the 101 is out, and gives the bare stream to the hub.
async fn hand_over(sockets: TaskTracker, hub: Arc<Hub>, admission: Admission, upgrade: OnUpgrade) {
    // An error means that the client left between its request and our answer: the admission is dropped, and
    // with it the seat it was counted for.
    let Ok(upgraded) = upgrade.await else { return };
    // Every connection of `listen` is a `ClientIo`, so this cannot fail there.
    let Ok(parts) = upgraded.downcast::<TokioIo<ClientIo>>() else { return };
    let stream = parts.io.into_inner().into_stream();
    bound_unsent(&stream);
    // A task of its own: this one's state would otherwise lie beside the session for its whole life.
    sockets.spawn(hub.serve(admission, stream, parts.read_buf));
}
