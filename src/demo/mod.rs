//! The sample backends of development: two small HTTP servers, so that one command shows routing at work.

use std::net::TcpListener as StdListener;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::observability::Health;

/// One sample backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    A,
    B,
}

impl Sample {
    /// Its name in `/health`.
    pub fn service(self) -> &'static str {
        match self {
            Self::A => "server-a",
            Self::B => "server-b",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::A => 'A',
            Self::B => 'B',
        }
    }
}

/// After the stop, for answers under way. axum itself waits for a client that has sent half a request until
/// that one leaves.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves one sample backend until `stop`, and a little longer.
///
/// # Errors
/// Where the listener cannot be registered with the runtime.
pub async fn serve(
    listener: StdListener,
    sample: Sample,
    region: String,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let health = Health::new(sample.service(), Some(&region));
    let hello = format!("Hello from Server {} (Region {region})", sample.letter());
    let router = Router::new()
        .route(
            "/health",
            get(async move || {
                ([(CONTENT_TYPE, "application/json")], health.json()).into_response()
            }),
        )
        .fallback(async move || hello.clone());
    let served =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = served.into_future() => served,
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => Ok(()),
    }
}
