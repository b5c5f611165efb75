//! The private listener: metrics, health, readiness. Never reachable through the proxy port.
//!
//! axum serves it: it is off the hot path, and bound to loopback unless the operator says otherwise.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::observability::{Health, Readiness, Registry, encode};

/// What the listener tells.
#[derive(Clone, Debug)]
pub struct Admin {
    pub health: Health,
    pub readiness: Readiness,
    pub registry: Arc<Registry>,
}

/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// After the stop, for answers under way. axum itself waits for a client that has sent half a request until
/// that one leaves.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves until `stop`, and a little longer.
///
/// # Errors
/// Where the listener cannot be registered with the runtime.
pub async fn serve(
    listener: StdListener,
    admin: Admin,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let router = Router::new()
        .route(
            "/health",
            get(async |State(admin): State<Admin>| json(StatusCode::OK, admin.health.json())),
        )
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not_found", NOT_FOUND))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "use GET")
        })
        .with_state(admin);
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

const NOT_FOUND: &str = "nothing is here; try /metrics, /health or /ready";

/// An error as everywhere: JSON, with an id.
fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let request_id = format!("{:032x}", fastrand::u128(..));
    let error = serde_json::json!({"code": code, "message": message, "requestId": request_id});
    let mut response = json(status, serde_json::json!({"error": error}).to_string());
    if let Ok(id) = request_id.parse() {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    let (ready, body) = admin.readiness.json(true);
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match encode(&admin.registry) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(target: "Admin", %error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
