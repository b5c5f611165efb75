//! The connections of the private listener, each within bounds: how many there are, how long one may be of no use, and
//! what it may send.
//!
//! Walk: [`listen`] takes a connection when there is room for one more, and [`connection`] serves it until it ends, is of
//! no use for too long, or the process stops.
//!
//! Invariants: time counts only while nobody is at work for the client, so that one bound holds for a head that does not
//! come, a kept connection on which nothing is asked, and an answer that is not read; an action may take what it takes.
//! No body is read: nothing here needs one, and what is longer than a few words is refused before anybody looks.

use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::refuse;
use crate::settings::AdminSettings;

/// Bytes of a request body; actions have none.
const MAX_BODY: u64 = 64 * 1024;
/// Bytes of a request's head with its answer's beginning, which hyper holds for a connection.
const MAX_HEAD: usize = 32 * 1024;
/// After the stop, for answers under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// After a connection could not be accepted, as where no descriptor is left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves until `stop`, and a little longer.
pub(super) async fn listen(
    listener: StdListener,
    router: Router,
    settings: &AdminSettings,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let router = router.layer(from_fn(bounded));
    let room = Arc::new(Semaphore::new(settings.max_connections.get().min(Semaphore::MAX_PERMITS)));
    let (patience, connections) = (settings.idle_timeout, TaskTracker::new());
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let served = connection(stream, router.clone(), patience, stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(target: "Admin", %error, "a connection could not be accepted");
                sleep(AFTER_FAILURE).await;
            }
        }
    }
    connections.close();
    // One that is not over by then is dropped with the runtime.
    drop(timeout(LAST_ANSWERS, connections.wait()).await);
    Ok(())
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    router: Router,
    patience: Duration,
    stop: CancellationToken,
) {
    // Since when nobody has been at work for it.
    let (at_rest, mut resting) = watch::channel(Some(Instant::now()));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        at_rest.send_replace(None);
        let (mut router, at_rest) = (router.clone(), at_rest.clone());
        async move {
            let answered = router.call(request.map(Body::new)).await;
            at_rest.send_replace(Some(Instant::now()));
            answered
        }
    });
    let mut protocol = http1::Builder::new();
    protocol.max_buf_size(MAX_HEAD).header_read_timeout(None);
    let mut served = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // How it ended is the client's affair.
        _ended = &mut served => return,
        () = rested(&mut resting, patience) => return,
        () = stop.cancelled() => {}
    }
    served.as_mut().graceful_shutdown();
    drop(served.await);
}

/// Ends when nobody has been at work for so long.
async fn rested(resting: &mut watch::Receiver<Option<Instant>>, patience: Duration) {
    loop {
        let since = *resting.borrow_and_update();
        let late = async {
            match since {
                Some(since) => sleep_until(since + patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = late => return,
            changed = resting.changed() => {
                // The connection has dropped its service, and so is at its end.
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Refuses a body that says that it is too long; what does not say it is not read.
async fn bounded(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_BODY {
        let message = "no request here has a body of this length";
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    }
    next.run(request).await
}
