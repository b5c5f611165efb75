//! A backend's health in words, for a status page.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::judges::{Judges, Note};
use super::marks::Marks;

/// The health of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthSnapshot {
    /// The worst that is known: `down`, `open`, `ejected`, `half-open`, `unreachable`; `unknown` where probes are on
    /// and none has ended; else `up`.
    pub state: &'static str,
    /// All that stands against it, the worst first.
    pub marks: Vec<MarkSnapshot>,
    /// The last probe, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSnapshot>,
}

/// One thing that stands against a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkSnapshot {
    pub mark: &'static str,
    pub why: String,
    /// RFC 3339.
    pub since: String,
    /// RFC 3339, where it ends by time alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// How a probe went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeSnapshot {
    /// RFC 3339.
    pub at: String,
    pub took_ms: u64,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Judges {
    /// At `now` of the clock whose milliseconds the notes have; `probed` where probes are on.
    pub(super) fn snapshot(
        &self,
        now: u64,
        marks: Marks,
        unreachable_until: u64,
        probed: bool,
    ) -> HealthSnapshot {
        let today = SystemTime::now();
        let at = |millis: u64| {
            let time = if millis >= now {
                today.checked_add(Duration::from_millis(millis - now))
            } else {
                today.checked_sub(Duration::from_millis(now - millis))
            };
            humantime::format_rfc3339_millis(time.unwrap_or(today)).to_string()
        };
        let unreachable = self.unreachable.as_ref().filter(|_| unreachable_until > now);
        let unreachable =
            unreachable.map(|note| Note { until: Some(unreachable_until), ..note.clone() });
        let half = marks.has(Marks::TRIAL);
        let noted = [
            (Marks::DOWN, "down", self.down.clone()),
            (Marks::OPEN, "open", self.open.clone().filter(|_| !half)),
            (Marks::EJECTED, "ejected", self.ejected.clone()),
            (Marks::TRIAL, "half-open", self.open.clone().filter(|_| half)),
            (Marks::UNREACHABLE, "unreachable", unreachable),
        ];
        let marks: Vec<_> = noted
            .into_iter()
            .filter(|(mark, ..)| marks.has(*mark))
            .filter_map(|(_, mark, note)| {
                let Note { why, since, until } = note?;
                Some(MarkSnapshot { mark, why, since: at(since), until: until.map(at) })
            })
            .collect();
        let unknown = probed && !self.is_known();
        let well = if unknown { "unknown" } else { "up" };
        let probe = self.probe.as_ref().map(|probe| ProbeSnapshot {
            at: at(probe.at),
            took_ms: u64::try_from(probe.took.as_millis()).unwrap_or(u64::MAX),
            failure: probe.failure.clone(),
        });
        HealthSnapshot { state: marks.first().map_or(well, |mark| mark.mark), marks, probe }
    }
}
