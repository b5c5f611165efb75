//! The backends of each region and what is known of them: exchanges going on, and a mark where one
//! could not be reached.
//!
//! Shared by all workers, so everything that changes is an atomic. A mark is passive: set by a connect
//! that failed, cleared by one that did not, and out of date after `fail_timeout`; nothing probes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

use super::error::{Cause, SetupError};
use super::metrics::RegionSeries;
use super::select::{self, Candidate, Tried};
use crate::settings::BackendSettings;

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Ip(SocketAddr),
    /// A name, looked up for each new connection.
    Name(Box<str>, u16),
}

impl Address {
    /// Reads `http://host:port`; nothing but a slash may follow.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let plain = uri.scheme_str() == Some("http")
            && uri.path() == "/"
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        let host = authority.host();
        if !plain || host.is_empty() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(80);
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Some(literal.parse::<IpAddr>().map_or_else(
            |_| Self::Name(Box::from(host), port),
            |ip| Self::Ip(SocketAddr::new(ip, port)),
        ))
    }

    fn label(&self) -> Arc<str> {
        match self {
            Self::Ip(address) => Arc::from(address.to_string()),
            Self::Name(host, port) => Arc::from(format!("{host}:{port}")),
        }
    }
}

/// One backend.
#[derive(Debug)]
pub(super) struct Upstream {
    /// `host:port`, for log lines.
    pub(super) label: Arc<str>,
    pub(super) address: Address,
    pub(super) backup: bool,
    /// Where each worker keeps its idle connections to it.
    pub(super) slot: usize,
    pub(super) series: Arc<RegionSeries>,
    active: AtomicUsize,
    /// Milliseconds after [`Clock`]'s start until which it is passed over.
    marked_until: AtomicU64,
}

/// Counts one exchange of a backend, and of its region, until it is dropped.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) upstream: Arc<Upstream>,
}

impl Active {
    fn begin(upstream: &Arc<Upstream>) -> Self {
        upstream.active.fetch_add(1, Ordering::Relaxed);
        upstream.series.in_flight.inc();
        Self { upstream: Arc::clone(upstream) }
    }

    pub(super) fn failed(&self, cause: Cause) {
        self.upstream.series.failed(cause);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.upstream.active.fetch_sub(1, Ordering::Relaxed);
        self.upstream.series.in_flight.dec();
    }
}

/// Time as marks count it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    fn millis(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The backends among which one request has its choice.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) upstreams: Box<[Arc<Upstream>]>,
    turns: AtomicUsize,
    clock: Clock,
    fail_timeout: Duration,
}

impl Group {
    /// `slots` counts the places of idle connections handed out so far.
    pub(super) fn new(
        region: &str,
        backends: &[BackendSettings],
        series: &Arc<RegionSeries>,
        slots: &mut usize,
        clock: Clock,
        fail_timeout: Duration,
    ) -> Result<Self, SetupError> {
        if backends.len() > select::MAX_BACKENDS {
            let limit = select::MAX_BACKENDS;
            return Err(SetupError::TooManyBackends { region: region.to_owned(), limit });
        }
        let upstream = |backend: &BackendSettings| {
            let address = Address::parse(&backend.url).ok_or_else(|| SetupError::Url {
                region: region.to_owned(),
                url: backend.url.clone(),
            })?;
            let slot = *slots;
            *slots += 1;
            Ok(Arc::new(Upstream {
                label: address.label(),
                address,
                backup: backend.backup,
                slot,
                series: Arc::clone(series),
                active: AtomicUsize::new(0),
                marked_until: AtomicU64::new(0),
            }))
        };
        let upstreams = backends.iter().map(upstream).collect::<Result<_, _>>()?;
        Ok(Self { upstreams, turns: AtomicUsize::new(0), clock, fail_timeout })
    }

    /// The best backend not tried yet, counted as in use; it counts as tried from here on.
    pub(super) fn pick(&self, tried: &mut Tried) -> Option<Active> {
        let index = if self.upstreams.len() == 1 {
            // Nothing to weigh: a mark would only turn an error of its own into ours.
            (!tried.contains(0)).then_some(0)?
        } else {
            let now = self.clock.millis();
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            select::choose(self.upstreams.len(), turn, *tried, |index| self.look(index, now))?
        };
        tried.insert(index);
        self.upstreams.get(index).map(Active::begin)
    }

    fn look(&self, index: usize, now: u64) -> Candidate {
        match self.upstreams.get(index) {
            Some(upstream) => upstream.look(now),
            None => Candidate { active: usize::MAX, backup: true, marked: true },
        }
    }

    /// The backend could not be reached: pass it over for a while, where there are others.
    pub(super) fn mark(&self, upstream: &Upstream) {
        let pause = u64::try_from(self.fail_timeout.as_millis()).unwrap_or(u64::MAX);
        upstream
            .marked_until
            .store(self.clock.millis().saturating_add(pause).max(1), Ordering::Relaxed);
    }

    /// What is known of each backend now.
    pub(super) fn snapshot(&self) -> Vec<BackendSnapshot> {
        let now = self.clock.millis();
        let look = |upstream: &Arc<Upstream>| {
            let Candidate { active, backup, marked } = upstream.look(now);
            BackendSnapshot { address: upstream.label.to_string(), backup, active, marked }
        };
        self.upstreams.iter().map(look).collect()
    }
}

impl Upstream {
    fn look(&self, now: u64) -> Candidate {
        Candidate {
            active: self.active.load(Ordering::Relaxed),
            backup: self.backup,
            marked: self.marked_until.load(Ordering::Relaxed) > now,
        }
    }

    /// The backend was reached.
    pub(super) fn unmark(&self) {
        // Read first: a shared line that is only read stays in every core's cache.
        if self.marked_until.load(Ordering::Relaxed) != 0 {
            self.marked_until.store(0, Ordering::Relaxed);
        }
    }
}

/// One backend, for a status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackendSnapshot {
    /// `host:port`.
    pub address: String,
    pub backup: bool,
    /// Exchanges and tunnels going on.
    pub active: usize,
    /// Could not be reached a moment ago.
    pub marked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let ip = |text: &str| Some(Address::Ip(text.parse().unwrap()));
        assert_eq!(Address::parse("http://127.0.0.1:4001"), ip("127.0.0.1:4001"));
        assert_eq!(Address::parse("http://[::1]:4001/"), ip("[::1]:4001"));
        assert_eq!(Address::parse("http://10.0.0.1"), ip("10.0.0.1:80"));
        let name = Address::Name(Box::from("backend"), 80);
        assert_eq!(Address::parse("http://backend"), Some(name));
        for wrong in
            ["", "backend:80", "https://a:1", "http://a:1/x", "http://a:1/?q", "http://u@a:1", "/"]
        {
            assert_eq!(Address::parse(wrong), None, "{wrong:?}");
        }
    }
}
