//! Asking for a reload, and what came of it.
//!
//! Whoever asks gets the report of a reload that began after the question; who does the work is joined in `app`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::observability::Registry;
use crate::settings::Problem;

/// Questions that wait while a reload is under way; one reload answers all of them.
const WAITING: usize = 64;

/// What a reload did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadReport {
    pub result: ReloadResult,
    /// Counts the configurations that were in effect, from 1.
    pub generation: u64,
    /// When it was, in RFC 3339.
    pub at: String,
    /// What asked for it.
    pub by: &'static str,
    pub took_ms: u64,
    /// Keys that are in effect with other values now.
    pub changed: Vec<String>,
    /// Keys whose new values wait for a restart.
    pub restart: Vec<String>,
    /// What need not be wrong, but looks like it; of the configuration that is in effect.
    pub warnings: Vec<ReloadProblem>,
    /// Why nothing was changed, as `meridian check` says it.
    pub problems: Vec<ReloadProblem>,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// Something changed.
    Applied,
    /// Nothing was to be changed now.
    Unchanged,
    /// The configuration is not valid, and the one before goes on.
    Refused,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadProblem {
    pub source: String,
    pub key: String,
    pub message: String,
}

impl From<&Problem> for ReloadProblem {
    fn from(problem: &Problem) -> Self {
        let Problem { source, key, message } = problem.clone();
        Self { source, key, message }
    }
}

impl ReloadReport {
    /// One of now, about nothing yet.
    pub fn new(by: &'static str, generation: u64) -> Self {
        Self {
            result: ReloadResult::Unchanged,
            generation,
            at: now(),
            by,
            took_ms: 0,
            changed: Vec::new(),
            restart: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Says how long it took.
    #[must_use]
    pub fn after(mut self, took: Duration) -> Self {
        self.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self
    }
}

/// How the configuration stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationState {
    pub generation: u64,
    /// Since when this one is in effect.
    pub since: String,
    /// Keys whose values in the sources wait for a restart, as the last reload found them.
    pub restart: Vec<String>,
    /// What of the configuration in effect has none, or may be a mistake.
    pub warnings: Vec<ReloadProblem>,
    /// The last reload, where there was one.
    pub last_reload: Option<ReloadReport>,
    /// The last that was refused, while none has gone well after it.
    pub failure: Option<ReloadReport>,
}

impl ConfigurationState {
    /// Of a process that has just started.
    pub fn of_the_start() -> Self {
        Self {
            generation: 1,
            since: now(),
            restart: Vec::new(),
            warnings: Vec::new(),
            last_reload: None,
            failure: None,
        }
    }

    /// After one more reload.
    #[must_use]
    pub fn with(&self, report: &ReloadReport) -> Self {
        let refused = report.result == ReloadResult::Refused;
        Self {
            generation: report.generation,
            since: match report.result {
                ReloadResult::Applied => report.at.clone(),
                ReloadResult::Unchanged | ReloadResult::Refused => self.since.clone(),
            },
            restart: if refused { self.restart.clone() } else { report.restart.clone() },
            warnings: if refused { self.warnings.clone() } else { report.warnings.clone() },
            last_reload: Some(report.clone()),
            failure: refused.then(|| report.clone()),
        }
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// One question, and where its answer goes.
pub type ReloadAsk = oneshot::Sender<Arc<ReloadReport>>;

/// Asks for reloads; clones ask the same.
#[derive(Clone, Debug)]
pub struct Reloads {
    asks: mpsc::Sender<ReloadAsk>,
    state: watch::Receiver<Arc<ConfigurationState>>,
}

/// The other end: who reloads.
#[derive(Debug)]
pub struct ReloadWork {
    pub asks: mpsc::Receiver<ReloadAsk>,
    state: watch::Sender<Arc<ConfigurationState>>,
    series: Series,
}

impl ReloadWork {
    /// The configurations so far.
    pub fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    /// What looks like a mistake in the configuration of the start.
    pub fn warn(&self, warnings: Vec<ReloadProblem>) {
        self.state.send_modify(|state| {
            *state = Arc::new(ConfigurationState { warnings, ..ConfigurationState::clone(state) });
        });
    }

    /// Counts and remembers what a reload did.
    pub fn tell(&self, report: &ReloadReport) {
        self.series.count(report);
        self.state.send_modify(|state| *state = Arc::new(state.with(report)));
    }
}

#[derive(Debug)]
struct Series {
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
    generation: Gauge,
    refused: Gauge,
}

impl Series {
    fn register(registry: &mut Registry) -> Self {
        let series = Self {
            reloads: Family::default(),
            generation: Gauge::default(),
            refused: Gauge::default(),
        };
        registry.register(
            "configuration_reloads",
            "Reloads, by how they went",
            series.reloads.clone(),
        );
        let generation = series.generation.clone();
        registry.register(
            "configuration_generation",
            "Configurations that were in effect",
            generation,
        );
        registry.register(
            "configuration_refused",
            "1 while the last reload was refused, and the configuration before goes on",
            series.refused.clone(),
        );
        series.generation.set(1);
        for result in [ReloadResult::Applied, ReloadResult::Unchanged, ReloadResult::Refused] {
            drop(series.reloads.get_or_create(&[("result", result.as_str())]));
        }
        series
    }

    fn count(&self, report: &ReloadReport) {
        self.reloads.get_or_create(&[("result", report.result.as_str())]).inc();
        self.generation.set(i64::try_from(report.generation).unwrap_or(i64::MAX));
        self.refused.set((report.result == ReloadResult::Refused).into());
    }
}

impl ReloadResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

impl Reloads {
    pub fn new(registry: &mut Registry) -> (Self, ReloadWork) {
        let series = Series::register(registry);
        let (asks, asked) = mpsc::channel(WAITING);
        let (told, state) = watch::channel(Arc::new(ConfigurationState::of_the_start()));
        (Self { asks, state }, ReloadWork { asks: asked, state: told, series })
    }

    /// Reloads, or takes part in the next reload; `None` while the process stops, and where too many wait already.
    pub async fn ask(&self) -> Option<Arc<ReloadReport>> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(answer).ok()?;
        answered.await.ok()
    }

    pub fn state(&self) -> Arc<ConfigurationState> {
        Arc::clone(&self.state.borrow())
    }
}
