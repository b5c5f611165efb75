//! Alive, and ready: two questions that orchestrators ask, and their answers as JSON.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

/// Answers `GET /health` for one listener: this process is alive.
#[derive(Clone, Debug)]
pub struct Health {
    service: Arc<str>,
    region: Option<Arc<str>>,
    started: Instant,
}

#[derive(Serialize)]
struct HealthBody<'a> {
    status: &'static str,
    timestamp: String,
    uptime: f64,
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

impl Health {
    /// `service` as the contract names it: `proxy`, `server-a`, `ws-1`, …
    pub fn new(service: &str, region: Option<&str>) -> Self {
        Self { service: service.into(), region: region.map(Into::into), started: Instant::now() }
    }

    /// Since it was made.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The body of the answer, which is always a 200.
    pub fn json(&self) -> String {
        to_json(&HealthBody {
            status: "healthy",
            timestamp: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            uptime: self.started.elapsed().as_secs_f64(),
            service: &self.service,
            region: self.region.as_deref(),
        })
    }
}

/// Answers `GET /ready`: send traffic here, or not, and why.
///
/// Each check says by value how it stands; one that was never reported is failing, so a part that
/// did not start cannot look ready. Clones are the same readiness.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Check>>>,
}

/// A check's name, and how it stands.
type Check = (&'static str, Result<(), String>);

#[derive(Serialize)]
struct ReadyBody {
    status: &'static str,
    checks: Vec<CheckBody>,
}

#[derive(Serialize)]
struct CheckBody {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Readiness {
    /// Adds a check that fails until it is reported otherwise.
    pub fn await_word(&self, name: &'static str) {
        self.report(name, Err("starting".to_owned()));
    }

    /// Says how a check stands from now on.
    pub fn report(&self, name: &'static str, state: Result<(), String>) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        match checks.iter_mut().find(|(known, _)| *known == name) {
            Some(check) => check.1 = state,
            None => checks.push((name, state)),
        }
    }

    /// The failing checks with their reasons; empty means ready.
    pub fn failing(&self) -> Vec<(&'static str, String)> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks
            .iter()
            .filter_map(|(name, state)| state.as_ref().err().map(|why| (*name, why.clone())))
            .collect()
    }

    /// Whether to answer 200 (else 503), and the body: with the reasons, which may name inner addresses, where
    /// `with_reasons` says that only the operator asks.
    pub fn json(&self, with_reasons: bool) -> (bool, String) {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = checks.iter().all(|(_, state)| state.is_ok());
        let checks = checks
            .iter()
            .map(|(name, state)| CheckBody {
                name,
                ok: state.is_ok(),
                reason: state.as_ref().err().filter(|_| with_reasons).cloned(),
            })
            .collect();
        (ready, to_json(&ReadyBody { status: if ready { "ready" } else { "unavailable" }, checks }))
    }
}

/// These bodies are plain data with string keys, which `serde_json` cannot refuse.
fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_has_the_shape_of_the_contract() {
        let body: serde_json::Value =
            serde_json::from_str(&Health::new("ws-1", Some("1")).json()).unwrap();
        assert_eq!(body["status"], "healthy");
        assert_eq!(body["service"], "ws-1");
        assert_eq!(body["region"], "1");
        assert!(body["uptime"].is_f64());
        assert!(humantime::parse_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());
        let body: serde_json::Value =
            serde_json::from_str(&Health::new("proxy", None).json()).unwrap();
        assert!(body.get("region").is_none());
    }

    #[test]
    fn ready_means_that_every_check_said_so() {
        let readiness = Readiness::default();
        readiness.await_word("bus");
        readiness.report("draining", Ok(()));
        let (ready, body) = readiness.json(true);
        assert!(!ready);
        assert!(body.contains(r#"{"name":"bus","ok":false,"reason":"starting"}"#), "{body}");
        assert!(!readiness.json(false).1.contains("starting"));
        readiness.report("bus", Ok(()));
        assert!(readiness.json(false).0);
    }
}
