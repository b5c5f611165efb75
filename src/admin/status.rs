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
use crate::proxy::{BackendSnapshot, HealthSnapshot, MarkSnapshot, ProbeSnapshot, RegionSnapshot};

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
    /// Whether requests may go there, were its tier the one that serves.
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
        let fit = |tier: &u8| snapshot.backends.iter().any(|one| is_fit(one) && one.tier == *tier);
        let best = snapshot.backends.iter().filter(|one| is_fit(one)).map(|one| one.tier).min();
        // A backup goes on for `backends.hold`; where nobody has asked since a tier was lost, the next request moves on.
        let tier = Some(snapshot.tier).filter(fit).or(best);
        let mut facts = vec![match (tier, best) {
            (Some(0), _) => "the primaries serve".to_owned(),
            (Some(tier), Some(better)) if better < tier => {
                format!("tier {tier} (backup) serves, until tier {better} has proved itself")
            }
            (Some(tier), _) => format!("tier {tier} (backup) serves"),
            (None, _) if snapshot.backends.is_empty() => "no backends".to_owned(),
            (None, _) => "no backend is available".to_owned(),
        }];
        facts.push(format!("{} in flight", snapshot.in_flight));
        facts.push(format!("{} tunnels", snapshot.tunnels));
        if snapshot.waiting > 0 {
            facts.push(format!("{} wait for a backend with room", snapshot.waiting));
        }
        let RegionSnapshot { region, in_flight, tunnels, hub, backends, .. } = snapshot;
        let backends = backends.into_iter().map(|one| Backend::of(one, tier)).collect();
        Self { name: region, in_flight, tunnels, facts, backends, hub }
    }
}

/// Whether requests may go to a backend, were its tier the one that serves.
fn is_fit(backend: &BackendSnapshot) -> bool {
    !backend.draining && !backend.marked && backend.weight > 0
}

impl Backend {
    /// One of a region in which `serving` is the tier that serves.
    fn of(snapshot: BackendSnapshot, serving: Option<u8>) -> Self {
        let eligible = is_fit(&snapshot);
        let state = match (snapshot.draining, snapshot.marked) {
            (true, _) => "draining",
            (false, _) if snapshot.weight == 0 => "without weight",
            (false, true) => "passed over",
            (false, false) if serving != Some(snapshot.tier) => "standing by",
            (false, false) => "in use",
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
        facts.extend(of_health(&snapshot.health));
        Self { snapshot, eligible, state, facts }
    }
}

/// All that stands against a backend: what, why, since when, until when; and what the last probe met, where that is not
/// said with it.
fn of_health(health: &HealthSnapshot) -> Vec<String> {
    let mark = |one: &MarkSnapshot| {
        let until = one.until.as_deref().map(|until| format!(" until {}", to_the_second(until)));
        let (what, since) = (one.mark, to_the_second(&one.since));
        format!("{what} since {since}{}: {}", until.unwrap_or_default(), one.why)
    };
    let mut facts: Vec<_> = health.marks.iter().map(mark).collect();
    if let Some(ProbeSnapshot { at, failure: Some(failure), .. }) = &health.probe {
        facts.push(format!("the last probe, at {}, failed: {failure}", to_the_second(at)));
    }
    if health.state == "unknown" {
        facts.push("no probe has ended yet".to_owned());
    }
    facts
}

/// A moment in RFC 3339 without its fraction of a second.
fn to_the_second(moment: &str) -> String {
    moment.split_once('.').map_or_else(|| moment.to_owned(), |(whole, _)| format!("{whole}Z"))
}
