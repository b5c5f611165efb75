//! What an operator does: reload, and take backends out, weigh them, let them back in.
//!
//! An operator's word holds until he takes it back, over reloads too, unless a reload changes that backend's settings.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::reload::ReloadResult;
use super::{Admin, refuse, to_json};
use crate::proxy::Operated;
use crate::settings::BackendSettings;

/// As in the settings.
const MAX_WEIGHT: u32 = BackendSettings::MAX_WEIGHT as u32;

/// `POST /reload`: 200 with the report, or 422 where the configuration is not valid.
pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> Response {
    match admin.reloads.ask().await {
        Some(report) if report.result == ReloadResult::Refused => {
            to_json(StatusCode::UNPROCESSABLE_ENTITY, &*report)
        }
        Some(report) => to_json(StatusCode::OK, &*report),
        None => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "reload_unavailable",
            "the process is stopping, or too many wait for a reload already; ask again",
        ),
    }
}

type Named = Path<(String, String)>;

pub(super) async fn drain(State(admin): State<Arc<Admin>>, Path(named): Named) -> Response {
    operate(&admin, &named, "drained", |backend| backend.drain(true))
}

pub(super) async fn resume(State(admin): State<Arc<Admin>>, Path(named): Named) -> Response {
    operate(&admin, &named, "resumed", |backend| backend.drain(false))
}

#[derive(Deserialize)]
pub(super) struct Weight {
    /// A number, or `default` for the settings' again.
    value: Option<String>,
}

pub(super) async fn weight(
    State(admin): State<Arc<Admin>>,
    Path(named): Named,
    Query(Weight { value }): Query<Weight>,
) -> Response {
    let weight = match value.as_deref() {
        Some("default") => None,
        Some(text) => match text.parse::<u32>() {
            Ok(weight) if weight <= MAX_WEIGHT => Some(weight),
            _ => return no_weight(),
        },
        None => return no_weight(),
    };
    operate(&admin, &named, "weighed", |backend| backend.weight(weight))
}

fn no_weight() -> Response {
    let message = "write ?value= with a whole number from 0 to 1000, or default for the settings'";
    refuse(StatusCode::BAD_REQUEST, "weight_invalid", message)
}

/// Does it, says so in the log, and answers with the backend as it is then.
fn operate(
    admin: &Admin,
    (region, backend): &(String, String),
    done: &'static str,
    act: impl FnOnce(&Operated),
) -> Response {
    let Some(found) = admin.proxy.operate(region, backend) else {
        let known = known(admin, region);
        let message = format!("no such backend; {known}");
        return refuse(StatusCode::NOT_FOUND, "backend_unknown", &message);
    };
    act(&found);
    // Both are of the configuration, or they would not have been found.
    tracing::info!(target: "Admin", %region, %backend, "a backend was {done} by an operator");
    let snapshot = admin.proxy.snapshot();
    let of_region = snapshot.iter().find(|one| one.region == *region);
    let now = of_region.and_then(|one| one.backends.iter().find(|one| one.address == *backend));
    to_json(StatusCode::OK, &json!({"region": region, "backend": now}))
}

/// The names that would have been found.
fn known(admin: &Admin, region: &str) -> String {
    let snapshot = admin.proxy.snapshot();
    if let Some(one) = snapshot.iter().find(|one| one.region == region) {
        let names: Vec<_> = one.backends.iter().map(|one| one.address.as_str()).collect();
        return format!("the backends of the region are {}", names.join(", "));
    }
    let names: Vec<_> = snapshot.iter().map(|one| one.region.as_str()).collect();
    format!("the regions are {}", names.join(", "))
}
