//! The health of one backend, as all workers share it.
//!
//! Invariants: an exchange that went well, at a backend of which nothing bad is known, touches no lock and writes one
//! counter. What happens seldom (a mark comes or goes) takes the lock of `judges`, and marks change only under it, but
//! for the one of the unreachable.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::judges::{Bad, Judges};
use super::marks::{Marks, SharedMarks};
use super::rules::Rules;
use super::series::{HealthFamilies, HealthSeries};
use super::share::Standing;
use super::window::Tally;
use super::{HealthSnapshot, Outcome};
use crate::proxy::backends::Clock;
use crate::proxy::error::Cause;

/// What an exchange's end is looked at for, as bits.
const COUNTED: u8 = 1;
/// The status or the time of an answer may make a failure of it.
const JUDGED: u8 = 1 << 1;

/// The health of one backend.
#[derive(Debug)]
pub(in crate::proxy) struct Health {
    marks: SharedMarks,
    watch: AtomicU8,
    /// Failures in a row …
    run: Row,
    /// … and failures and slow answers in a row.
    slow_run: Row,
    /// Exchanges since the last tick.
    good: AtomicU32,
    slow: AtomicU32,
    bad: AtomicU32,
    /// Exchanges that a half-open breaker has let through and that are not over.
    trials: AtomicU32,
    /// When it is tried again after it could not be reached, in milliseconds.
    unreachable_until: AtomicU64,
    rules: ArcSwap<Rules>,
    judges: Mutex<Judges>,
    series: HealthSeries,
    clock: Clock,
}

/// How a backend has let an exchange begin; to be given back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Trial {
    /// As any other.
    No,
    /// As one of few, by which a half-open breaker finds out whether to close.
    Yes,
}

/// What an outcome says of the backend.
#[derive(Clone, Copy, Debug)]
enum Grade {
    Good,
    Slow(Duration),
    Bad(Bad),
}

impl Health {
    pub(in crate::proxy) fn new(
        region: &str,
        backend: &str,
        rules: &Arc<Rules>,
        (families, clock): (&HealthFamilies, Clock),
    ) -> Self {
        let health = Self {
            marks: SharedMarks::default(),
            watch: AtomicU8::new(0),
            run: Row::default(),
            slow_run: Row::default(),
            good: AtomicU32::new(0),
            slow: AtomicU32::new(0),
            bad: AtomicU32::new(0),
            trials: AtomicU32::new(0),
            unreachable_until: AtomicU64::new(0),
            rules: ArcSwap::from(Arc::clone(rules)),
            judges: Mutex::default(),
            series: families.of(region, backend),
            clock,
        };
        health.adopt(rules);
        health
    }

    /// Judges by other rules from here on.
    pub(in crate::proxy) fn adopt(&self, rules: &Arc<Rules>) {
        self.rules.store(Arc::clone(rules));
        let slow = rules.breaker.is_some_and(|breaker| breaker.slow.is_some());
        let counted = rules.passive.is_some() || rules.breaker.is_some();
        let judged = counted && (slow || !rules.statuses.is_empty());
        let watch = if counted { COUNTED } else { 0 } | if judged { JUDGED } else { 0 };
        self.watch.store(watch, Ordering::Relaxed);
        self.judges().adopt(rules, &self.marks, &self.series);
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// What stands against it; one relaxed load.
    pub(in crate::proxy) fn marks(&self) -> Marks {
        self.marks.get()
    }

    /// What its marks mean for a choice at this moment; to be asked where there are any.
    pub(in crate::proxy) fn standing(&self) -> Standing {
        let marks = self.marks();
        if marks.is_clear() {
            return Standing::default();
        }
        let full = || self.trials.load(Ordering::Relaxed) >= self.trials_at_once();
        Standing {
            out: marks.has(Marks::DOWN)
                || marks.has(Marks::OPEN)
                || (marks.has(Marks::TRIAL) && full()),
            ejected: marks.has(Marks::EJECTED),
            unreachable: marks.has(Marks::UNREACHABLE)
                && self.unreachable_until.load(Ordering::Relaxed) > self.clock.millis(),
        }
    }

    fn trials_at_once(&self) -> u32 {
        self.rules.load().breaker.map_or(u32::MAX, |breaker| breaker.trials)
    }

    /// Begins an exchange; `None` where its breaker lets no more through. Whoever got a [`Trial`] gives it back, with
    /// [`Self::outcome`] or [`Self::abandoned`].
    pub(in crate::proxy) fn admit(&self) -> Option<Trial> {
        let marks = self.marks();
        if !marks.has(Marks::TRIAL) && !marks.has(Marks::OPEN) {
            return Some(Trial::No);
        }
        if marks.has(Marks::OPEN) {
            return None;
        }
        let most = self.trials_at_once();
        let more = |trials| (trials < most).then_some(trials + 1);
        let taken = self.trials.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Trial::Yes)
    }

    /// An exchange is over of which nothing can be said: its client has left.
    pub(in crate::proxy) fn abandoned(&self, trial: Trial) {
        if trial == Trial::Yes {
            let less = |trials: u32| trials.checked_sub(1);
            // Nothing to take away is no news.
            self.trials.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
        }
    }

    /// An exchange went so.
    pub(in crate::proxy) fn outcome(&self, outcome: Outcome, trial: Trial) {
        let watch = self.watch.load(Ordering::Relaxed);
        let grade = self.grade(outcome, watch);
        if matches!(grade, Grade::Good | Grade::Slow(_)) {
            self.reached();
        } else if let Outcome::Failed(cause) = outcome
            && cause.is_unreachable()
        {
            self.unreachable(cause);
        }
        if watch & COUNTED == 0 {
            self.abandoned(trial);
            return;
        }
        match grade {
            Grade::Good => {
                self.good.fetch_add(1, Ordering::Relaxed);
                self.run.answered();
                self.slow_run.answered();
            }
            Grade::Slow(took) => {
                self.slow.fetch_add(1, Ordering::Relaxed);
                self.run.answered();
                self.count_run(Bad::Slow(took));
            }
            Grade::Bad(bad) => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                if bad.is_of_body() {
                    // Its head was taken for a good end.
                    let less = |good: u32| good.checked_sub(1);
                    self.good.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
                }
                self.count_run(bad);
            }
        }
        if trial == Trial::Yes {
            self.abandoned(trial);
            self.tried(grade);
        } else if matches!(grade, Grade::Bad(bad) if bad.is_of_body())
            && self.marks().has(Marks::TRIAL)
        {
            // Its head was taken for a trial that went well.
            self.tried(grade);
        }
    }

    /// The body of an answer has come whole. Costs two loads where none has broken off.
    pub(in crate::proxy) fn whole(&self) {
        self.run.whole();
        self.slow_run.whole();
    }

    fn grade(&self, outcome: Outcome, watch: u8) -> Grade {
        match outcome {
            Outcome::Failed(cause) => Grade::Bad(Bad::Cause(cause)),
            Outcome::Answered { .. } if watch & JUDGED == 0 => Grade::Good,
            Outcome::Answered { status, took } => {
                let rules = self.rules.load();
                let slow = rules.breaker.and_then(|breaker| breaker.slow);
                if rules.statuses.contains(status.as_u16()) {
                    Grade::Bad(Bad::Status(status.as_u16()))
                } else if slow.is_some_and(|slow| took > slow) {
                    Grade::Slow(took)
                } else {
                    Grade::Good
                }
            }
        }
    }

    /// One more in a row that was not good, and perhaps one too many.
    fn count_run(&self, bad: Bad) {
        let slow_run = self.slow_run.add(bad);
        let run = match bad {
            Bad::Slow(_) => 0,
            _ => self.run.add(bad),
        };
        let (rules, marks) = (self.rules.load(), self.marks());
        let too_many =
            |run: u32, most: Option<u32>| most.is_some_and(|most| most > 0 && run >= most);
        let now = self.clock.millis();
        let ejects = too_many(run, rules.passive.map(|passive| passive.consecutive));
        if ejects && !marks.has(Marks::EJECTED) {
            self.judges().failed_in_a_row(now, (run, bad), &rules, (&self.marks, &self.series));
            self.run.forget();
        }
        let trips = too_many(slow_run, rules.breaker.map(|breaker| breaker.consecutive));
        if trips && !marks.has(Marks::OPEN) && !marks.has(Marks::TRIAL) {
            self.judges().tripped(now, (slow_run, bad), &rules, (&self.marks, &self.series));
            self.slow_run.forget();
        }
    }

    fn tried(&self, grade: Grade) {
        let bad = match grade {
            Grade::Good => None,
            Grade::Slow(took) => Some(Bad::Slow(took)),
            Grade::Bad(bad) => Some(bad),
        };
        let (now, rules) = (self.clock.millis(), self.rules.load());
        self.judges().tried(now, bad, &rules, (&self.marks, &self.series));
        self.slow_run.forget();
    }

    /// It could not be reached: passed over for a while, where there are others.
    fn unreachable(&self, cause: Cause) {
        let now = self.clock.millis();
        let until = now.saturating_add(self.rules.load().fail_timeout);
        self.unreachable_until.store(until, Ordering::Relaxed);
        if !self.marks().has(Marks::UNREACHABLE) {
            self.judges().unreachable(now, cause);
            self.marks.set(Marks::UNREACHABLE);
        }
    }

    /// It was reached.
    pub(in crate::proxy) fn reached(&self) {
        // Read first: a shared line that is only read stays in every core's cache.
        if self.marks().has(Marks::UNREACHABLE) {
            self.marks.clear(Marks::UNREACHABLE);
        }
    }

    /// A probe has ended; `Err` says what was wrong.
    pub(super) fn probed(&self, result: Result<(), String>, took: Duration) {
        self.series.probed(result.is_ok());
        if result.is_ok() {
            self.reached();
        }
        let now = self.clock.millis();
        let mut judges = self.judges();
        // Under the lock: else a probe that was on its way while probes were turned off could leave its mark for ever.
        let rules = self.rules.load();
        judges.probed(now, (result, took), &rules, (&self.marks, &self.series));
    }

    /// Whether probes may come quicker, since none has said yet that it is up.
    pub(super) fn awaits_probe(&self) -> bool {
        self.judges().awaits_probe()
    }

    /// Time has passed: windows are looked at, and what is over ends.
    pub(super) fn tick(&self) {
        let now = self.clock.millis();
        if self.marks().has(Marks::UNREACHABLE)
            && self.unreachable_until.load(Ordering::Relaxed) <= now
        {
            self.reached();
        }
        let (good, slow, bad) = (take(&self.good), take(&self.slow), take(&self.bad));
        let passive = Tally { good: good.saturating_add(slow), bad };
        let breaker = Tally { good, bad: bad.saturating_add(slow) };
        let rules = self.rules.load();
        let ends = self.judges().tick(now, passive, breaker, &rules, (&self.marks, &self.series));
        if ends {
            self.run.forget();
            self.slow_run.forget();
        }
    }

    /// All of it, for a status page.
    pub(in crate::proxy) fn snapshot(&self) -> HealthSnapshot {
        let unreachable_until = self.unreachable_until.load(Ordering::Relaxed);
        let probed = self.rules.load().probe.is_some();
        let now = self.clock.millis();
        self.judges().snapshot(now, self.marks(), unreachable_until, probed)
    }

    fn judges(&self) -> MutexGuard<'_, Judges> {
        self.judges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What went ill in a row. The head of an answer ends a row of failures, but not one of bodies that broke off: each of
/// these came behind a head. That takes a body that came whole.
#[derive(Debug, Default)]
struct Row {
    /// Failures since the last head.
    heads: AtomicU32,
    /// Bodies that broke off since the last whole one.
    bodies: AtomicU32,
}

impl Row {
    /// One more; all of them.
    fn add(&self, bad: Bad) -> u32 {
        let (more, others) = if bad.is_of_body() {
            (&self.bodies, &self.heads)
        } else {
            (&self.heads, &self.bodies)
        };
        let more = more.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        more.saturating_add(others.load(Ordering::Relaxed))
    }

    fn answered(&self) {
        reset(&self.heads);
    }

    fn whole(&self) {
        reset(&self.bodies);
    }

    fn forget(&self) {
        reset(&self.heads);
        reset(&self.bodies);
    }
}

/// Read first: a shared line that is only read stays in every core's cache.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

fn take(counter: &AtomicU32) -> u32 {
    if counter.load(Ordering::Relaxed) == 0 { 0 } else { counter.swap(0, Ordering::Relaxed) }
}

#[cfg(test)]
mod tests;
