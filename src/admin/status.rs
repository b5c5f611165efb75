//! The status as one document: what runs, how each backend stands and why, and what the last reload did.
//!
//! What the parts tell of themselves is handed on as it is; what is added here are words for a person.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Admin, ConfigurationState, to_json};
use crate::bus::{Bus, BusState};
use crate::proxy::{BackendSnapshot, RegionSnapshot};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    service: &'static str,
    version: &'static str,
    pid: u32,
    /// Seconds.
    uptime: f64,
    /// `serving` or `draining`.
    state: &'static str,
    ready: bool,
    /// The checks that fail, each with its reason.
    not_ready: Vec<String>,
    /// Requests, tunnels and sockets that a stop would wait for.
    in_flight: usize,
    configuration: ConfigurationState,
    regions: Vec<Region>,
    hub: Value,
    bus: Value,
    sections: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    #[serde(rename = "region")]
    name: String,
    in_flight: i64,
    tunnels: i64,
    /// In words.
    facts: Vec<String>,
    backends: Vec<Backend>,
    hub: Option<BackendSnapshot>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    #[serde(flatten)]
    snapshot: BackendSnapshot,
    /// Whether the next request may go there.
    eligible: bool,
    /// In a word.
    state: &'static str,
    /// In words.
    facts: Vec<String>,
}

/// `GET /status`.
pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Response {
    let mut response = to_json(StatusCode::OK, &document(&admin));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn document(admin: &Admin) -> Status {
    let failing = admin.readiness.failing();
    let hub = admin.hub.snapshot();
    let regions = hub.regions.iter().map(|(name, sockets)| (name.to_string(), json!(sockets)));
    Status {
        service: "meridian",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        uptime: admin.health.uptime().as_secs_f64(),
        state: if admin.drain.is_draining() { "draining" } else { "serving" },
        ready: failing.is_empty(),
        not_ready: failing.into_iter().map(|(name, why)| format!("{name}: {why}")).collect(),
        in_flight: admin.drain.flights(),
        configuration: ConfigurationState::clone(&admin.reloads.state()),
        regions: admin.proxy.snapshot().into_iter().map(Region::of).collect(),
        hub: json!({
            "sockets": hub.sockets,
            "users": hub.users,
            "regions": regions.collect::<Map<_, _>>(),
        }),
        bus: bus(&admin.bus),
        sections: admin
            .sections
            .iter()
            .map(|section| (section.name.to_owned(), (section.tell)()))
            .collect(),
    }
}

fn bus(bus: &Bus) -> Value {
    let kind = match bus {
        Bus::Embedded(_) => "embedded",
        Bus::Redis(_) => "redis",
    };
    match &*bus.state().borrow() {
        BusState::Up => json!({"kind": kind, "state": "up"}),
        BusState::Down(why) => json!({"kind": kind, "state": "down", "why": **why}),
    }
}

impl Region {
    fn of(snapshot: RegionSnapshot) -> Self {
        let backends: Vec<_> = snapshot.backends.into_iter().map(Backend::of).collect();
        let tier = backends.iter().filter(|one| one.eligible).map(|one| one.snapshot.tier).min();
        let serves = match tier {
            Some(0) => "the primaries serve".to_owned(),
            Some(tier) => format!("tier {tier} (backup) serves"),
            None if backends.is_empty() => "no backends".to_owned(),
            None => "no backend is available".to_owned(),
        };
        let facts = vec![
            serves,
            format!("{} in flight", snapshot.in_flight),
            format!("{} tunnels", snapshot.tunnels),
        ];
        let RegionSnapshot { region, in_flight, tunnels, hub, .. } = snapshot;
        Self { name: region, in_flight, tunnels, facts, backends, hub }
    }
}

impl Backend {
    fn of(snapshot: BackendSnapshot) -> Self {
        let (eligible, state) = match (snapshot.draining, snapshot.marked) {
            (true, _) => (false, "draining"),
            (false, true) => (false, "passed over"),
            (false, false) => (true, "in use"),
        };
        let mut facts = vec![format!("{} active", snapshot.active)];
        let of_whom = if snapshot.weight_set { " (an operator's)" } else { "" };
        facts.push(format!("weight {}{of_whom}", snapshot.weight));
        if snapshot.tier > 0 {
            facts.push(format!("tier {} (backup)", snapshot.tier));
        }
        if snapshot.draining {
            facts.push("taken out by an operator".to_owned());
        }
        Self { snapshot, eligible, state, facts }
    }
}
