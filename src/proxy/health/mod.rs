//! What is known of a backend's health, and who finds it out.
//!
//! Walk: probes of our own (`watch` sends them, `probe` is one, `verdict` counts them), failures of its exchanges
//! (`outlier`), and its breaker (`breaker`) each set and clear their own mark in `marks`; an unreachable moment has one,
//! too. `state` has all that for one backend: every exchange's end goes in, and what a choice asks comes out with one
//! load. `share` says what the marks of all backends of a group mean together. `rules` are the settings.
//!
//! Invariants: what is the client's fault never comes here; a well backend costs an exchange a few relaxed atomics and no
//! lock; the machines are pure and get their time and chance from outside; each change leaves one log line with its
//! reason.
//!
//! Absent on purpose: the choice itself, and what becomes of a region without backends.

mod breaker;
mod judges;
mod marks;
mod outlier;
mod probe;
mod rules;
mod series;
mod share;
#[cfg(test)]
mod simulation;
mod snapshot;
mod state;
mod verdict;
mod watch;
mod window;

use std::time::Duration;

use http::StatusCode;

pub(super) use self::rules::Rules;
pub(super) use self::series::HealthFamilies;
pub(super) use self::share::{Fit, Standing, Usable};
pub use self::snapshot::{HealthSnapshot, MarkSnapshot, ProbeSnapshot};
pub(super) use self::state::{Health, Trial};
pub(super) use self::watch::{ShareWatch, watch};
use super::error::Cause;

/// How an exchange with a backend went.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The head of an answer came, this long after the backend was chosen.
    Answered { status: StatusCode, took: Duration },
    /// The backend's fault.
    Failed(Cause),
}
