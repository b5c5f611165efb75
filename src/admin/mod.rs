//! The private listener: metrics, health, readiness; the status and its page; reload, and what an operator may do.
//! Never reachable through the proxy port.
//!
//! Walk: [`serve`] builds the router, and `listen` bounds who may speak to it; `guard` says who may ask; `status` composes the document, `actions` change marks of
//! backends, `reload` hands the wish on to `app`, `page` holds the files.
//!
//! Invariants: metrics, health and readiness are answered to everybody who reaches the listener, as probes need; all else
//! passes `guard`; whoever acts leaves a line in the log.
//!
//! axum routes it: it is off the hot path, and bound to loopback unless the operator says otherwise.

mod actions;
mod guard;
mod listen;
mod page;
mod processes;
mod reload;
mod status;

use std::fmt;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::guard::ACTION;
use self::guard::{Gate, Refusal};
pub use self::reload::{
    ConfigurationState, ReloadAsk, ReloadProblem, ReloadReport, ReloadResult, ReloadWork, Reloads,
};
use crate::bus::Bus;
use crate::hub::Hub;
use crate::observability::{Health, Readiness, Registry, encode};
use crate::proxy::Shared;
use crate::settings::AdminSettings;
use crate::shutdown::Drain;
use crate::supervise::Supervisor;

/// What the listener tells, and acts on.
#[derive(Debug)]
pub struct Admin {
    pub health: Health,
    pub readiness: Readiness,
    pub registry: Arc<Registry>,
    pub settings: AdminSettings,
    pub proxy: Arc<Shared>,
    pub hub: Arc<Hub>,
    pub bus: Bus,
    pub drain: Drain,
    pub reloads: Reloads,
    pub supervisor: Supervisor,
    /// What other parts have to say, each under its name.
    pub sections: Vec<Section>,
}

/// A part's own piece of the status.
#[derive(Clone)]
pub struct Section {
    pub name: &'static str,
    pub tell: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const NOT_FOUND: &str = "nothing is here; try /, /status, /metrics, /health or /ready";

/// Serves until `stop`, and a little longer.
///
/// # Errors
/// Where the listener cannot be registered with the runtime.
pub async fn serve(
    listener: StdListener,
    admin: Admin,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let gate = Arc::new(Gate::new(&admin.settings, listener.local_addr()?));
    let settings = admin.settings.clone();
    let router = router(Arc::new(admin), &gate);
    listen::listen(listener, router, &settings, stop).await
}

fn router(admin: Arc<Admin>, gate: &Arc<Gate>) -> Router {
    let guarded = |rule: fn(&Gate, &Request) -> Result<(), Refusal>| {
        from_fn_with_state((Arc::clone(gate), rule), guard)
    };
    let page = Router::new()
        .route("/", get(page::html))
        .route("/status.html", get(page::html))
        .route("/status.css", get(page::css))
        .route("/status.js", get(page::script))
        .route_layer(guarded(|gate, request| gate.page(request.headers())));
    let status = Router::new()
        .route("/status", get(status::status))
        .route_layer(guarded(|gate, request| gate.status(request.headers())));
    let actions = Router::new()
        .route("/reload", post(actions::reload))
        .route("/backends/{region}/{backend}/drain", post(actions::drain))
        .route("/backends/{region}/{backend}/resume", post(actions::resume))
        .route("/backends/{region}/{backend}/weight", post(actions::weight))
        .route("/processes/{region}/{process}/restart", post(processes::restart))
        .route("/processes/{region}/{process}/stop", post(processes::stop))
        .route("/processes/{region}/{process}/start", post(processes::start))
        .route("/processes/{region}/{process}/scale", post(processes::scale))
        .route_layer(guarded(|gate, request| gate.action(request.headers())));
    Router::new()
        .route(
            "/health",
            get(async |State(admin): State<Arc<Admin>>| json(StatusCode::OK, admin.health.json())),
        )
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(page)
        .merge(status)
        .merge(actions)
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not_found", NOT_FOUND))
        .method_not_allowed_fallback(async |request: Request| {
            let told = if request.method() == "POST" {
                "use GET"
            } else {
                "use GET, or POST for an action"
            };
            refuse(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", told)
        })
        .with_state(admin)
}

type Rule = fn(&Gate, &Request) -> Result<(), Refusal>;

async fn guard(
    State((gate, rule)): State<(Arc<Gate>, Rule)>,
    request: Request,
    next: Next,
) -> Response {
    let Err(refusal) = rule(&gate, &request) else { return next.run(request).await };
    let (code, message) = refusal.words();
    if !refusal.is_unauthorized() {
        return refuse(StatusCode::FORBIDDEN, code, message);
    }
    let mut response = refuse(StatusCode::UNAUTHORIZED, code, message);
    let bearer = HeaderValue::from_static("Bearer realm=\"meridian\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    response
}

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

/// Plain data with texts for keys, which cannot be refused.
fn to_json(status: StatusCode, body: &impl Serialize) -> Response {
    json(status, serde_json::to_string(body).unwrap_or_default())
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let (ready, body) = admin.readiness.json(true);
    json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match encode(&admin.registry) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(target: "Admin", %error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
