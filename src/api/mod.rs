//! The gateway's own HTTP API, for backends: publish messages, ask who is online.
//!
//! Walk: `edge` calls [`Api::answer`] with a request and where the API is mounted; the router finds the handler;
//! `admission` asks for the key and holds it to its rate; `intake` reads the body, within bounds; [`messages`] and
//! [`presence`] do the work; [`document`] has the description and the page. What is refused is a [`Refusal`].
//!
//! Invariants: no status of a refusal is chosen here (that is `edge`'s); a body is read only for a caller who is known;
//! nothing waits, is held or is in flight without a bound; what is published is what a hub would publish.
//! Absent on purpose: listeners, access lines, request ids (`edge`); the rules of a message (`protocol`).

mod admission;
mod document;
mod error;
mod intake;
mod messages;
mod metrics;
mod presence;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::ALLOW;
use http::uri::PathAndQuery;
use http::{Request, Uri};
use tower_service::Service as _;

use self::admission::Admission;
pub use self::error::{Fault, Refusal};
use self::intake::{Intake, Parcel};
use self::messages::Publisher;
use self::metrics::Metrics;
use crate::bus::Bus;
use crate::identity::{KeyId, Keys};
use crate::observability::Registry;
use crate::settings::Settings;

/// Where the API's own listener has it.
pub const PREFIX: &str = "/api";

/// The API; one for all listeners of the process.
#[derive(Debug)]
pub struct Api {
    router: Router,
    shared: Arc<Shared>,
}

/// What the handlers share.
#[derive(Debug)]
struct Shared {
    bus: Bus,
    admission: Admission,
    intake: Intake,
    publisher: Publisher,
    metrics: Metrics,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// The name of the key that was shown.
    pub key: Option<Arc<str>>,
    pub outcome: Result<http::Response<Bytes>, Refusal>,
}

/// Where the API was asked: the prefix of its paths.
#[derive(Clone, Debug)]
struct Prefix(Arc<str>);

impl Api {
    pub fn new(settings: &Settings, bus: Bus, registry: &mut Registry) -> Arc<Self> {
        let keys = Keys::new(&settings.api.keys);
        let metrics = Metrics::new(keys.names().map(AsRef::as_ref), registry);
        let shared = Arc::new(Shared {
            admission: Admission::new(keys, &settings.api),
            intake: Intake::new(&settings.api),
            publisher: Publisher::new(settings, bus.clone()),
            bus,
            metrics,
        });
        Arc::new(Self { router: router(&shared), shared })
    }

    /// Answers one request whose path is `prefix`, or begins with it and a slash. Never fails: what goes wrong is an
    /// outcome too.
    pub async fn answer<B>(&self, prefix: &str, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let Some(uri) = below(&head.uri, prefix) else {
            return Answer { key: None, outcome: Err(Refusal::NotFound) };
        };
        head.uri = uri;
        // The body stays outside, so that one that no handler wanted can still be taken from the client.
        let parcel = Parcel::new(Body::new(body), &head.headers);
        head.extensions.insert(parcel.clone());
        head.extensions.insert(Prefix(Arc::from(prefix)));
        let called = self.router.clone().call(Request::from_parts(head, Body::empty()));
        let response = match called.await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let answer = self.finish(response).await;
        self.shared.intake.discard(parcel).await;
        answer
    }

    /// The name of the API key that a request shows, where it is one.
    pub fn caller(&self, headers: &http::HeaderMap) -> Option<&Arc<str>> {
        let keys = self.shared.admission.keys();
        keys.verify(headers).ok().and_then(|key| keys.name(key))
    }

    /// Takes a refusal out of the response it was carried in, and counts.
    async fn finish(&self, mut response: Response) -> Answer {
        let key = response.extensions_mut().remove::<KeyId>();
        let refusal = response.extensions_mut().remove::<Refusal>();
        self.shared.metrics.request(key, refusal.as_ref());
        let outcome = match refusal {
            // The router knows which methods there are.
            Some(Refusal::MethodNotAllowed(_)) => {
                Err(Refusal::MethodNotAllowed(response.headers().get(ALLOW).cloned()))
            }
            Some(refusal) => Err(refusal),
            None => {
                let (head, body) = response.into_parts();
                // Every handler has its whole answer in memory.
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
                Ok(http::Response::from_parts(head, body))
            }
        };
        let key = key.and_then(|key| self.shared.admission.keys().name(key).cloned());
        Answer { key, outcome }
    }
}

fn router(shared: &Arc<Shared>) -> Router {
    let for_callers = Router::new()
        .route("/messages", post(messages::publish))
        .route("/presence", get(presence::ask))
        .route_layer(from_fn_with_state(Arc::clone(shared), admission::admit));
    Router::new()
        .route("/openapi.json", get(document::description))
        .route("/docs", get(async || document::page()))
        .merge(for_callers)
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed(None))
        .with_state(Arc::clone(shared))
}

/// `uri` without the prefix of its path; `None` where the path is not below it.
fn below(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(prefix)?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    let path = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    Some(Uri::from(path.ok()?))
}
