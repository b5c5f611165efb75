//! HTTP/2 to the client (RFC 9113): the same service as for HTTP/1.1, many requests at a time.
//!
//! Walk: [`drive`] runs a connection that has agreed on `h2`; `io` watches its socket, `streams` its requests. What floods
//! can do is bounded by the codec (header lists, resets that it did not ask for, frames that it must answer) with the
//! numbers below, and by [`Streams`] (requests that are given up).
//!
//! Invariants: every stream leaves one access line: by the service, or by `register` where the codec has turned it away (a
//! malformed head, fields over the limit); so does a connection that is ended for a fault of its client; a slow client costs
//! its own stream, or its own connection, and nothing else.
//!
//! Absent on purpose: HTTP/2 without TLS, server push, priorities.

mod io;
mod register;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use self::io::WatchedIo;
use self::register::Register;
pub(super) use self::streams::StreamWire;
use self::streams::{Owner, Streams};
use super::slow::LOOK;
use super::wire::Wire;
use super::{Edge, Link};

/// Bytes of one request's fields over what `head` allows of names and values alone, since RFC 9113, 6.5.2 counts 32 more for
/// each field: so a request of few large fields gets this gateway's answer and not the codec's bare 431.
const FIELDS_EXTRA: u32 = 16 * 1024;
/// Streams that the client has reset before the service has seen them.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that the codec has had to reset for faults of the client (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 100;
/// Bytes of answers that wait in the codec for the client's window, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes of request bodies that a client may send unasked: for a stream, and for all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// One connection from its preface to its last stream.
pub(super) async fn drive(edge: Arc<Edge>, stream: TlsStream<TcpStream>, link: Link, max: u32) {
    let streams = Arc::new(Streams::default());
    let fields = edge.common.policy.load().settings.max_header_bytes.get();
    let fields = u32::try_from(fields).unwrap_or(u32::MAX).saturating_add(FIELDS_EXTRA);
    let register = Arc::new(Register::new(&edge, &link));
    let tell = {
        let register = Arc::clone(&register);
        move |refusal| register.tell(refusal)
    };
    let io = TokioIo::new(WatchedIo::new(stream, Arc::clone(&streams), tell));
    let service = {
        let (edge, streams) = (Arc::clone(&edge), Arc::clone(&streams));
        service_fn(move |request| {
            let wire = Wire::Http2(streams.begin());
            Arc::clone(&edge).answer(link.clone(), wire, request)
        })
    };
    let connection = bounded(&streams, max, fields).serve_connection(io, service);
    let mut connection = Box::pin(connection);
    let drain = &edge.common.drain;
    let mut watched = std::pin::pin!(watch(&edge, &streams));
    let mut flooded = std::pin::pin!(streams.flooded());
    let mut asked_to_end = false;
    loop {
        tokio::select! {
            biased;
            // An error is the client's: it broke the protocol or left.
            ended = connection.as_mut() => {
                if ended.is_ok() && !asked_to_end && streams.has_unseen() {
                    register.given_up();
                }
                break;
            }
            late = &mut watched => {
                if late {
                    register.head_is_late();
                }
                break;
            }
            () = &mut flooded => {
                tracing::debug!(target: "Proxy", "a client that gave up too many requests is closed");
                register.flooded();
                break;
            }
            // GOAWAY: what has begun is finished, and nothing more begins.
            () = drain.draining(), if !asked_to_end => {
                asked_to_end = true;
                streams.drain(drain.in_flight());
                connection.as_mut().graceful_shutdown();
            }
            () = drain.cutting(), if asked_to_end => break,
        }
    }
    // With it every stream ends, and so do their tasks.
    drop(connection);
    streams.closed().await;
}

/// The codec with its bounds: so many streams at a time, and so many bytes of one request's fields.
fn bounded(streams: &Arc<Streams>, max: u32, fields: u32) -> http2::Builder<Owner> {
    let mut http = http2::Builder::new(Owner(Arc::clone(streams)));
    http.max_concurrent_streams(max)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(fields)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_connect_protocol();
    http
}

/// Ends when the client is too slow with anything that concerns the whole connection; what concerns one stream ends that.
/// True, where it is the head of a request.
async fn watch(edge: &Edge, streams: &Streams) -> bool {
    let limits = || {
        let settings = &edge.common.policy.load().settings;
        (settings.header_timeout, settings.body_idle_timeout, settings.keep_alive_timeout)
    };
    let (header, body, _) = limits();
    let tick = (header.min(body) / 4).min(LOOK);
    let (mut seen, mut since) = (streams.sample(), Instant::now());
    let (mut head, mut head_since) = (None, Instant::now());
    loop {
        tokio::time::sleep(tick).await;
        let (header, body, keep_alive) = limits();
        let min_rate = edge.common.policy.load().settings.min_rate;
        streams.end_slow(looks(body, tick), min_rate);
        let coming = streams.head();
        if coming != head {
            (head, head_since) = (coming, Instant::now());
        } else if head.is_some() && head_since.elapsed() >= header {
            return true;
        }
        let sample = streams.sample();
        if sample != seen {
            (seen, since) = (sample, Instant::now());
            continue;
        }
        let limit = match sample {
            _ if !sample.has_read => Some(header),
            _ if sample.open == 0 => Some(keep_alive),
            _ if sample.write_blocked => Some(body),
            _ => None,
        };
        if limit.is_some_and(|limit| since.elapsed() >= limit) {
            if sample.write_blocked {
                streams.give_up();
            }
            return false;
        }
    }
}

/// How many ticks make up `limit`.
fn looks(limit: Duration, tick: Duration) -> u32 {
    let looks = limit.as_nanos() / tick.as_nanos().max(1);
    u32::try_from(looks).unwrap_or(u32::MAX)
}
