//! Reading the configuration again, and putting in place what changed.
//!
//! Walk: SIGHUP, whoever asks on the admin listener, or a file that has changed (`changes`) wakes [`Reloader::run`]; the sources are read as they were at the
//! start, [`settings::step`] says what is to be done, and each part is given its piece.
//!
//! Invariants: one reload at a time; all that ask while one is under way are answered by the next. A configuration that
//! is not valid, or that a part refuses, changes nothing. A part that can refuse comes before those that cannot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Source;
use super::changes::Changes;
use super::error::AppError;
use super::notify::Notifier;
use super::tasks::Tasks;
use crate::admin::{ReloadAsk, ReloadProblem, ReloadReport, ReloadResult, ReloadWork};
use crate::edge::{self, Common, NextCertificates, Tls};
use crate::observability::{AccessLog, Verbosity};
use crate::proxy::Shared;
use crate::settings::{self, LoadOptions, Loaded, RegionName, Settings};
use crate::supervise::Supervisor;

/// What a reload needs, before it runs.
#[derive(Debug)]
pub(super) struct Reloading {
    pub(super) proxy: Arc<Shared>,
    pub(super) supervisor: Supervisor,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) lines: AccessLog,
    pub(super) demos: Vec<(RegionName, String)>,
    pub(super) work: ReloadWork,
    pub(super) source: Option<Source>,
}

impl Reloading {
    /// Starts who reloads, where there is something to reload from.
    pub(super) fn start(
        self,
        tasks: &mut Tasks,
        stop: &CancellationToken,
        (common, grace, notifier): (&Arc<Common>, watch::Sender<Duration>, &Notifier),
    ) -> Result<(), AppError> {
        let Some(Source { options, loaded, verbosity }) = self.source else { return Ok(()) };
        let (common, demos) = (Arc::clone(common), self.demos);
        let (proxy, supervisor, tls, lines) = (self.proxy, self.supervisor, self.tls, self.lines);
        tasks.spawn("reopening", reopen(reopenings()?, lines.clone(), stop.clone()));
        let targets = Targets { proxy, supervisor, tls, lines, common, verbosity, demos, grace };
        let targets = Arc::new(targets);
        self.work.warn(loaded.warnings.iter().map(ReloadProblem::from).collect());
        let changes = Changes::of(options.clone(), loaded.environment);
        let notifier = notifier.clone();
        let work = self.work;
        let reloader = Reloader { options, running: loaded, targets, work, notifier, changes };
        tasks.spawn("reloading", reloader.run(hangups()?, stop.clone()));
        Ok(())
    }
}

/// What a reload reaches.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) proxy: Arc<Shared>,
    pub(super) supervisor: Supervisor,
    /// Where the proxy listens for it.
    pub(super) tls: Option<Arc<Tls>>,
    /// Where access lines are written.
    pub(super) lines: AccessLog,
    pub(super) common: Arc<Common>,
    /// Where this process's log was set up by it.
    pub(super) verbosity: Option<Verbosity>,
    /// Backends that the system gave their ports, so that no source can name them.
    pub(super) demos: Vec<(RegionName, String)>,
    /// How long a stop may take.
    pub(super) grace: watch::Sender<Duration>,
}

/// Reloads when it is asked to.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) options: LoadOptions,
    pub(super) running: Loaded,
    pub(super) targets: Arc<Targets>,
    pub(super) work: ReloadWork,
    pub(super) notifier: Notifier,
    /// What tells that the files have changed.
    changes: Changes,
}

/// SIGHUP, which asks for a reload; taken before anything starts, since it ends a process that does not take it.
pub(super) fn hangups() -> Result<Signal, AppError> {
    signal(SignalKind::hangup()).map_err(AppError::Signals)
}

/// SIGUSR1, which asks for the file of access lines to be opened again.
pub(super) fn reopenings() -> Result<Signal, AppError> {
    signal(SignalKind::user_defined1()).map_err(AppError::Signals)
}

/// Opens the file of access lines again when it is asked for, until `stop`.
pub(super) async fn reopen(
    mut asked: Signal,
    lines: AccessLog,
    stop: CancellationToken,
) -> Result<(), AppError> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = next(&mut asked) => lines.reopen(),
        }
    }
}

impl Reloader {
    /// Serves until `stop`.
    pub(super) async fn run(
        mut self,
        mut hangups: Signal,
        stop: CancellationToken,
    ) -> Result<(), AppError> {
        let mut waiting: Vec<ReloadAsk> = Vec::new();
        loop {
            let by = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                asked = self.work.asks.recv() => {
                    // Nobody is left who could ask only when the process ends.
                    let Some(ask) = asked else { return Ok(()) };
                    waiting.push(ask);
                    "request"
                }
                () = next(&mut hangups) => "SIGHUP",
                () = self.changes.next(&self.running.settings.reload) => "a changed file",
            };
            while let Ok(ask) = self.work.asks.try_recv() {
                waiting.push(ask);
            }
            self.notifier.reloading();
            let report = Arc::new(self.reload(by).await);
            self.notifier.ready();
            self.work.tell(&report);
            for ask in waiting.drain(..) {
                // Whoever asked may have left.
                drop(ask.send(Arc::clone(&report)));
            }
        }
    }

    async fn reload(&mut self, by: &'static str) -> ReloadReport {
        let (began, generation) = (Instant::now(), self.work.generation());
        let mut report = ReloadReport::new(by, generation);
        match self.step().await {
            Ok(step) => {
                if !step.live.is_empty() {
                    report.result = ReloadResult::Applied;
                    report.generation += 1;
                }
                tracing::info!(
                    target: "App",
                    by,
                    generation = report.generation,
                    changed = %step.live.join(","),
                    "the configuration was read again"
                );
                if !step.restart.is_empty() {
                    let keys = step.restart.join(", ");
                    tracing::warn!(target: "App", "needs a restart: {keys}");
                }
                let warnings = &step.effective.warnings;
                for new in warnings.iter().filter(|one| !self.running.warnings.contains(one)) {
                    tracing::warn!(target: "App", "{new}");
                }
                report.warnings = warnings.iter().map(ReloadProblem::from).collect();
                (report.changed, report.restart) = (step.live, step.restart);
                self.running = step.effective;
            }
            Err(problems) => {
                report.result = ReloadResult::Refused;
                for ReloadProblem { source, key, message } in &problems {
                    let colon = if key.is_empty() { "" } else { ": " };
                    tracing::error!(
                        target: "App",
                        "the configuration was not replaced: {source}: {key}{colon}{message}"
                    );
                }
                report.problems = problems;
            }
        }
        report.after(began.elapsed())
    }

    /// Reads, compares, applies.
    async fn step(&mut self) -> Result<settings::Step, Vec<ReloadProblem>> {
        let (options, environment) = (self.options.clone(), self.running.environment);
        // Files, which a network may hold. What changes between the two readings is found by the next look.
        let read = tokio::task::spawn_blocking(move || {
            (settings::fingerprint(&options, environment), settings::load(&options))
        });
        let (seen, wanted) = read.await.map_err(|error| vec![of_a_part("settings", &error)])?;
        self.changes.were_read(seen);
        let wanted = wanted.map_err(|errors| problems(&errors))?;
        let step = settings::step(&self.running, &wanted).map_err(|errors| problems(&errors))?;
        // Also where no key changed: a file that a key names may have.
        let (targets, settings) = (Arc::clone(&self.targets), step.effective.settings.clone());
        // More files: certificates, authorities, folders.
        let applied = tokio::task::spawn_blocking(move || targets.apply(settings)).await;
        applied.unwrap_or_else(|error| Err(vec![of_a_part("settings", &error)]))?;
        self.targets.supervisor.apply(&step.effective.settings).await;
        Ok(step)
    }
}

impl Targets {
    /// Gives each part its piece. All that can fail comes first: where anything does, nothing was replaced.
    fn apply(&self, mut settings: Settings) -> Result<(), Vec<ReloadProblem>> {
        for (region, url) in &self.demos {
            settings.add_backend(region, url);
        }
        let policy =
            self.common.edition(&settings).map_err(|error| vec![of_a_part("static", &error)])?;
        let certificates = self.certificates(&settings)?;
        let lines = self
            .lines
            .prepare(&settings.log, &settings.access)
            .map_err(|error| vec![of_a_part("access", &error)])?;
        self.proxy
            .replace(&settings, &settings.regions, settings.default_region.as_ref())
            .map_err(|error| vec![of_a_part("regions", &error)])?;
        if let (Some(tls), Some(certificates)) = (&self.tls, certificates) {
            tls.replace(certificates);
        }
        self.common.replace_policy(&policy);
        self.grace.send_replace(settings.shutdown.grace);
        if let Some(verbosity) = &self.verbosity {
            verbosity.set(&settings.log);
        }
        self.lines.adopt(lines);
        Ok(())
    }

    /// Those of the settings, where there is a listener that shows them; every one that is no good is told of.
    fn certificates(
        &self,
        settings: &Settings,
    ) -> Result<Option<NextCertificates>, Vec<ReloadProblem>> {
        if self.tls.is_none() {
            return Ok(None);
        }
        Tls::prepare(&settings.tls).map(Some).map_err(|first| {
            let all = edge::check_tls(&settings.tls);
            let all = if all.is_empty() { vec![first] } else { all };
            all.iter().map(|error| of_a_part("tls", error)).collect()
        })
    }
}

fn problems(errors: &settings::SettingsErrors) -> Vec<ReloadProblem> {
    errors.problems().iter().map(ReloadProblem::from).collect()
}

fn of_a_part(source: &str, error: &dyn std::fmt::Display) -> ReloadProblem {
    ReloadProblem { source: source.to_owned(), key: String::new(), message: error.to_string() }
}

async fn next(hangups: &mut Signal) {
    if hangups.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
