//! A connection of the TLS listener, from the handshake to the protocol that was agreed on in it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::listen::{self, OpenConnection};
use super::slow::Place;
use super::tls::{Rejected, Tls};
use super::unparsed::Substitute;
use super::{Edge, Link, h2};

/// For a client that spoke plain HTTP, to take its answer.
const PARTING: Duration = Duration::from_secs(2);
/// Bytes of what it said that are read, so that closing does not reset its answer away.
const DISCARDED: usize = 16 * 1024;

/// One connection from its first byte to its last, or to its upgrade.
pub(super) async fn drive(
    edge: Arc<Edge>,
    tls: Arc<Tls>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    let _open = OpenConnection::new(&edge.common);
    let drain = edge.common.drain.clone();
    let accepted = tokio::select! {
        accepted = tls.accept(stream, peer) => accepted,
        () = drain.cutting() => return,
    };
    match accepted {
        Ok(accepted) => {
            let link = Link { peer, shown: Some(accepted.shown) };
            if accepted.is_http2 {
                // Sockets over HTTP/2 live no longer than their connection.
                h2::drive(edge, accepted.stream, link, tls.max_streams()).await;
                drop(place);
            } else {
                listen::drive_http1(edge, accepted.stream, link, place).await;
            }
        }
        Err(Rejected::PlainHttp(stream)) => {
            // Nobody is owed more than this time for it.
            drop(timeout(PARTING, answer_plainly(&edge, stream, peer.ip())).await);
        }
        Err(Rejected::Silently) => {}
    }
}

/// Tells a client that speaks plain HTTP what is spoken here.
async fn answer_plainly(edge: &Edge, mut stream: TcpStream, from: IpAddr) -> std::io::Result<()> {
    let mut discarded = [0; 1024];
    stream.readable().await?;
    for _ in 0..DISCARDED / discarded.len() {
        match stream.try_read(&mut discarded) {
            Ok(read) if read > 0 => {}
            _ => break,
        }
    }
    let answer = Substitute::plain_on_tls(&edge.access, from);
    stream.write_all(answer.bytes()).await?;
    stream.shutdown().await
}
