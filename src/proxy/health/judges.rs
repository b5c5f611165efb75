//! What happens seldom to a backend's health: the machines of one backend under one lock, the marks that they set, and
//! the words for it.

use std::fmt;
use std::time::Duration;

use super::breaker::{self, Breaker};
use super::marks::{Marks, SharedMarks};
use super::outlier::{self, Outlier, Reason};
use super::rules::Rules;
use super::series::{HealthSeries, Judge};
use super::verdict::{Turn, Verdict};
use super::window::Tally;
use crate::proxy::error::Cause;

/// What was bad about an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bad {
    Cause(Cause),
    /// The settings count this status as a failure.
    Status(u16),
    /// It took so long until the head of the answer came.
    Slow(Duration),
}

impl Bad {
    /// Whether a good head came before it.
    pub(super) fn is_of_body(self) -> bool {
        matches!(self, Self::Cause(Cause::Aborted | Cause::Stalled))
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cause(cause) => f.write_str(cause.label()),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Slow(took) => write!(f, "an answer after {took:.0?}"),
        }
    }
}

/// Why a mark is there, since when, and until when where that is known; milliseconds of the clock.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) why: String,
    pub(super) since: u64,
    pub(super) until: Option<u64>,
}

/// The last probe.
#[derive(Clone, Debug)]
pub(super) struct LastProbe {
    pub(super) at: u64,
    pub(super) took: Duration,
    pub(super) failure: Option<String>,
}

/// Marks and series of the backend that is judged.
pub(super) type Judged<'a> = (&'a SharedMarks, &'a HealthSeries);

/// Those who judge one backend, and why they did as they did.
#[derive(Debug, Default)]
pub(super) struct Judges {
    verdict: Verdict,
    outlier: Outlier,
    breaker: Breaker,
    /// What was bad about the exchange that was one too many.
    last: Option<Bad>,
    pub(super) down: Option<Note>,
    pub(super) ejected: Option<Note>,
    pub(super) open: Option<Note>,
    pub(super) unreachable: Option<Note>,
    pub(super) probe: Option<LastProbe>,
}

impl Judges {
    /// Other rules: who is not asked any more has no say.
    pub(super) fn adopt(&mut self, rules: &Rules, marks: &SharedMarks, series: &HealthSeries) {
        if rules.probe.is_none() {
            self.verdict = Verdict::default();
            (self.down, self.probe) = (None, None);
            marks.clear(Marks::DOWN);
            series.judged(Judge::Probes, true);
        }
        // What the others have done is undone by the next tick.
    }

    pub(super) fn failed_in_a_row(
        &mut self,
        now: u64,
        (run, bad): (u32, Bad),
        rules: &Rules,
        judged: Judged<'_>,
    ) {
        self.last = Some(bad);
        let change =
            rules.passive.and_then(|passive| self.outlier.failed_in_a_row(now, run, &passive));
        self.ejected(now, change, judged);
    }

    pub(super) fn tripped(
        &mut self,
        now: u64,
        (run, bad): (u32, Bad),
        rules: &Rules,
        judged: Judged<'_>,
    ) {
        self.last = Some(bad);
        let change = rules
            .breaker
            .and_then(|breaker| self.breaker.failed_in_a_row(now, run, &breaker, fastrand::f64()));
        self.moved(now, change, judged);
    }

    pub(super) fn tried(&mut self, now: u64, bad: Option<Bad>, rules: &Rules, judged: Judged<'_>) {
        self.last = bad.or(self.last);
        let change = rules
            .breaker
            .and_then(|breaker| self.breaker.tried(now, bad.is_none(), &breaker, fastrand::f64()));
        self.moved(now, change, judged);
    }

    /// Whether something has ended, so that what was counted in a row is out of date.
    pub(super) fn tick(
        &mut self,
        now: u64,
        passive: Tally,
        breaker: Tally,
        rules: &Rules,
        judged: Judged<'_>,
    ) -> bool {
        let change = self.outlier.tick(now, passive, rules.passive.as_ref());
        self.ejected(now, change, judged);
        let returned = change == Some(outlier::Change::Returned);
        let change = self.breaker.tick(now, breaker, rules.breaker.as_ref(), fastrand::f64());
        self.moved(now, change, judged);
        returned || change == Some(breaker::Change::HalfOpened)
    }

    pub(super) fn unreachable(&mut self, now: u64, cause: Cause) {
        self.unreachable = Some(Note { why: cause.label().to_owned(), since: now, until: None });
    }

    pub(super) fn awaits_probe(&self) -> bool {
        !self.verdict.was_up()
    }

    pub(super) fn is_known(&self) -> bool {
        self.verdict.is_known()
    }

    pub(super) fn probed(
        &mut self,
        now: u64,
        (result, took): (Result<(), String>, Duration),
        rules: &Rules,
        (marks, series): Judged<'_>,
    ) {
        let Some(settings) = &rules.probe else { return };
        let (rise, fall) = (settings.rise.get(), settings.fall.get());
        let first = !self.verdict.was_up();
        let turn = self.verdict.heard(result.is_ok(), rise, fall);
        let failure = result.err();
        self.probe = Some(LastProbe { at: now, took, failure: failure.clone() });
        let (region, backend) = (series.region(), series.backend());
        match turn {
            Some(Turn::Up) => {
                let needed = if first { 1 } else { rise };
                tracing::info!(target: "Proxy", region, backend, "the backend is up: {needed} probes went well");
                marks.clear(Marks::DOWN);
                self.down = None;
            }
            Some(Turn::Down) => {
                let needed = if first { 1 } else { fall };
                let failure = failure.unwrap_or_default();
                let why = if needed == 1 {
                    format!("a probe ({}) failed: {failure}", settings.asks())
                } else {
                    format!("{needed} probes ({}) failed, the last: {failure}", settings.asks())
                };
                tracing::warn!(target: "Proxy", region, backend, "the backend is down: {why}");
                marks.set(Marks::DOWN);
                self.down = Some(Note { why, since: now, until: None });
            }
            None => return,
        }
        series.judged(Judge::Probes, !self.verdict.is_down());
    }

    fn ejected(&mut self, now: u64, change: Option<outlier::Change>, (marks, series): Judged<'_>) {
        let (region, backend) = (series.region(), series.backend());
        match change {
            Some(outlier::Change::Ejected(reason, until)) => {
                let why = self.words(reason);
                let time = Duration::from_millis(until - now);
                tracing::warn!(target: "Proxy", region, backend, "ejected for {time:?}: {why}");
                marks.set(Marks::EJECTED);
                series.ejected(matches!(reason, Reason::Rate(..)));
                self.ejected = Some(Note { why, since: now, until: Some(until) });
            }
            Some(outlier::Change::Returned) => {
                tracing::info!(target: "Proxy", region, backend, "the ejection is over");
                marks.clear(Marks::EJECTED);
                self.ejected = None;
            }
            None => return,
        }
        series.judged(Judge::Passive, !self.outlier.is_out());
    }

    fn moved(&mut self, now: u64, change: Option<breaker::Change>, (marks, series): Judged<'_>) {
        let (region, backend) = (series.region(), series.backend());
        let state = match change {
            Some(breaker::Change::Opened(reason, until)) => {
                let why = self.words(reason);
                let time = Duration::from_millis(until - now);
                tracing::warn!(target: "Proxy", region, backend, "the breaker is open for {time:?}: {why}");
                marks.set(Marks::OPEN);
                marks.clear(Marks::TRIAL);
                series.opened.inc();
                self.open = Some(Note { why, since: now, until: Some(until) });
                2
            }
            Some(breaker::Change::HalfOpened) => {
                tracing::info!(target: "Proxy", region, backend, "the breaker is half-open: trials may pass");
                marks.set(Marks::TRIAL);
                marks.clear(Marks::OPEN);
                if let Some(note) = &mut self.open {
                    (note.since, note.until) = (now, None);
                }
                1
            }
            Some(breaker::Change::Closed) => {
                tracing::info!(target: "Proxy", region, backend, "the breaker is closed");
                marks.clear(Marks::OPEN);
                marks.clear(Marks::TRIAL);
                self.open = None;
                0
            }
            None => return,
        };
        series.breaker.set(state);
        series.judged(Judge::Breaker, self.breaker.is_closed());
    }

    fn words(&self, reason: Reason) -> String {
        let last = self.last.map(|last| format!(", the last: {last}")).unwrap_or_default();
        match reason {
            Reason::Consecutive(run) => format!("{run} exchanges in a row failed{last}"),
            Reason::Rate(tally, window) => {
                let window = Duration::from_millis(window);
                let (bad, total) = (tally.bad, tally.total());
                format!("{bad} of {total} exchanges within {window:?} failed")
            }
            Reason::Trial => format!("a trial failed{last}"),
        }
    }
}
