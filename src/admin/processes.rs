//! What an operator does with supervised processes: restart, stop, start, scale.
//!
//! The answer comes when it is done, or cannot be; what was asked for goes on where the caller does not wait.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::{Admin, refuse, to_json};
use crate::supervise::ActionError;

type Named = Path<(String, String)>;

pub(super) async fn restart(State(admin): State<Arc<Admin>>, Path(named): Named) -> Response {
    let done = admin.supervisor.restart(&named.0, &named.1).await;
    answer(&admin, &named, "restarted", done)
}

pub(super) async fn stop(State(admin): State<Arc<Admin>>, Path(named): Named) -> Response {
    let done = admin.supervisor.stop_process(&named.0, &named.1).await;
    answer(&admin, &named, "stopped", done)
}

pub(super) async fn start(State(admin): State<Arc<Admin>>, Path(named): Named) -> Response {
    let done = admin.supervisor.start_process(&named.0, &named.1).await;
    answer(&admin, &named, "started", done)
}

#[derive(Deserialize)]
pub(super) struct Scale {
    count: Option<String>,
}

pub(super) async fn scale(
    State(admin): State<Arc<Admin>>,
    Path(named): Named,
    Query(Scale { count }): Query<Scale>,
) -> Response {
    let Some(count) = count.and_then(|text| text.parse().ok()) else {
        let message = "write ?count= with the number of instances";
        return refuse(StatusCode::BAD_REQUEST, "count_invalid", message);
    };
    let done = admin.supervisor.scale(&named.0, &named.1, count).await;
    answer(&admin, &named, "scaled", done)
}

/// Says so in the log, and answers with the process as it is then.
fn answer(
    admin: &Admin,
    (region, process): &(String, String),
    done: &'static str,
    outcome: Result<(), ActionError>,
) -> Response {
    let (status, code) = match &outcome {
        Ok(()) => {
            // Both are of the configuration, or they would not have been found.
            tracing::info!(target: "Admin", %region, %process, "a process was {done} by an operator");
            let snapshot = admin.supervisor.snapshot();
            let now = snapshot.iter().find(|one| one.region == *region && one.process == *process);
            return to_json(StatusCode::OK, &now);
        }
        Err(ActionError::Unknown { .. }) => (StatusCode::NOT_FOUND, "process_unknown"),
        Err(ActionError::TooMany) => (StatusCode::BAD_REQUEST, "count_invalid"),
        Err(ActionError::Failed(_)) => (StatusCode::SERVICE_UNAVAILABLE, "process_not_ready"),
        Err(ActionError::Gone) => (StatusCode::SERVICE_UNAVAILABLE, "process_gone"),
    };
    let message = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    refuse(status, code, &message)
}
