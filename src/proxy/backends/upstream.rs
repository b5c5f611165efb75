//! One backend: where it is, what goes on there, what is known of it.
//!
//! Shared by all workers and by every table that names it, so everything that changes is an atomic. It is the same
//! one over a reload as long as its region, its URL and the traits of its connections are.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use tokio::sync::watch;
use tokio::time::Instant;

use super::latency::{self, Latency};
use super::queue::Queue;
use super::ramp::Since;
use crate::proxy::dial::{BackendTls, Name, Tls};
use crate::proxy::error::{Cause, SetupError};
use crate::proxy::health::{Health, HealthFamilies, Outcome, Rules, Trial};
use crate::proxy::metrics::RegionSeries;
use crate::settings::BackendSettings;

/// Where a backend listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Address {
    Ip(SocketAddr),
    /// A name, looked up by whoever dials.
    Name(Arc<Name>),
}

impl Address {
    /// Reads `http://host:port` or `https://host:port`; nothing but a slash may follow.
    pub(in crate::proxy) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let default_port = match uri.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let plain = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
        let host = authority.host();
        if !plain || host.is_empty() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(default_port);
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Some(literal.parse::<IpAddr>().map_or_else(
            |_| Self::Name(Name::new(host, port)),
            |ip| Self::Ip(SocketAddr::new(ip, port)),
        ))
    }

    /// Where it is a name.
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Self::Ip(_) => None,
            Self::Name(name) => Some(name),
        }
    }

    /// What a certificate must be good for.
    fn host(&self) -> Cow<'_, str> {
        match self {
            Self::Ip(address) => Cow::Owned(address.ip().to_string()),
            Self::Name(name) => Cow::Borrowed(name.host()),
        }
    }

    fn label(&self) -> Arc<str> {
        match self {
            Self::Ip(address) => Arc::from(address.to_string()),
            Self::Name(name) => Arc::from(name.to_string()),
        }
    }
}

/// What two connections must have in common to lead to the same backend in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Identity {
    pub(in crate::proxy) url: String,
    pub(in crate::proxy) http2: bool,
    /// The edition of the settings of TLS, where the URL says https.
    tls: Option<u64>,
}

impl Identity {
    /// `tls` is that of the table, where some backend of it needs any.
    pub(in crate::proxy) fn of(backend: &BackendSettings, tls: Option<&Arc<BackendTls>>) -> Self {
        let tls = tls.filter(|_| is_https(&backend.url)).map(|tls| tls.edition);
        Self { url: backend.url.clone(), http2: backend.http2, tls }
    }
}

/// Whether a backend's URL asks for TLS.
pub(in crate::proxy) fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// One backend.
#[derive(Debug)]
pub(in crate::proxy) struct Upstream {
    /// Unique for as long as the process lives: where each worker keeps its idle connections.
    pub(in crate::proxy) id: u64,
    pub(in crate::proxy) identity: Identity,
    /// `host:port`, for log lines.
    pub(in crate::proxy) label: Arc<str>,
    pub(in crate::proxy) address: Address,
    pub(in crate::proxy) tls: Option<Tls>,
    pub(in crate::proxy) series: Arc<RegionSeries>,
    pub(in crate::proxy) health: Health,
    /// Exchanges and tunnels going on …
    active: AtomicUsize,
    /// … and all there ever were.
    requests: AtomicU64,
    /// Who waits for it and its like.
    queue: Arc<Queue>,
    /// Since when it may be used.
    pub(super) since: Since,
    pub(super) latency: Latency,
    /// Whether anybody asks for the latency.
    timed: AtomicBool,
    clock: Clock,
    /// An operator's weight and one; 0 where it is the settings'.
    weight: AtomicU32,
    /// Takes nothing new.
    draining: AtomicBool,
    /// Whether those that it has are to go elsewhere: it drains, or no table names it any more.
    leaving: watch::Sender<bool>,
}

/// How a backend comes into its group.
pub(super) struct Arrival<'a> {
    pub(super) series: &'a Arc<RegionSeries>,
    pub(super) queue: &'a Arc<Queue>,
    pub(super) clock: Clock,
    pub(super) rules: &'a Arc<Rules>,
    pub(super) families: &'a HealthFamilies,
    /// The others are there already.
    pub(super) late: bool,
    /// Where some backend of the table needs it.
    pub(super) tls: Option<&'a Arc<BackendTls>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Upstream {
    pub(super) fn new(
        region: &str,
        backend: &BackendSettings,
        arrival: &Arrival<'_>,
    ) -> Result<Arc<Self>, SetupError> {
        let clock = arrival.clock;
        let unreadable = || SetupError::Url { region: region.to_owned(), url: backend.url.clone() };
        let address = Address::parse(&backend.url).ok_or_else(unreadable)?;
        let identity = Identity::of(backend, arrival.tls);
        let tls = match arrival.tls.filter(|_| identity.tls.is_some()) {
            Some(tls) => Some(Tls::to(tls, &address.host()).ok_or_else(unreadable)?),
            None => None,
        };
        let (label, health) = (address.label(), (arrival.families, clock));
        Ok(Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            identity,
            health: Health::new(region, &label, arrival.rules, health),
            label,
            address,
            tls,
            series: Arc::clone(arrival.series),
            active: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            queue: Arc::clone(arrival.queue),
            since: if arrival.late { Since::joined(clock.millis()) } else { Since::default() },
            latency: Latency::default(),
            timed: AtomicBool::new(false),
            clock,
            weight: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            leaving: watch::Sender::new(false),
        }))
    }

    /// Whether it is reached by no TLS, or by this.
    pub(in crate::proxy) fn has_tls(&self, tls: Option<&Arc<BackendTls>>) -> bool {
        self.identity.tls.is_none() || self.identity.tls == tls.map(|tls| tls.edition)
    }

    /// Exchanges and tunnels going on.
    pub(in crate::proxy) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Exchanges and tunnels that were begun.
    pub(in crate::proxy) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts an exchange, unless there are `limit` already; 0 means no bound.
    fn enter(&self, limit: u32) -> bool {
        let limit = if limit == 0 { usize::MAX } else { limit as usize };
        // Orders as `queue` needs it. Without a bound it is one step, and with one a loop only under contention.
        let entered = if limit == usize::MAX {
            self.active.fetch_add(1, Ordering::SeqCst);
            true
        } else {
            let enter = |active: usize| (active < limit).then_some(active + 1);
            self.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok()
        };
        if entered {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// From here on latencies are kept, or not.
    pub(super) fn time(&self, timed: bool) {
        self.timed.store(timed, Ordering::Relaxed);
    }

    /// What an operator said, where he did.
    pub(in crate::proxy) fn weight_override(&self) -> Option<u32> {
        self.weight.load(Ordering::Relaxed).checked_sub(1)
    }

    /// `None` gives the settings their say back.
    pub(in crate::proxy) fn override_weight(&self, weight: Option<u32>) {
        self.weight.store(weight.map_or(0, |weight| weight.saturating_add(1)), Ordering::Relaxed);
        self.queue.ring();
    }

    pub(in crate::proxy) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes nothing new from here on, or does again.
    pub(in crate::proxy) fn drain(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
        self.leaving.send_replace(draining);
        self.queue.ring();
    }

    /// Tells whoever is there to go elsewhere; watched by tunnels.
    pub(in crate::proxy) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// What is known of it has changed: who waits may look again.
    pub(in crate::proxy) fn ring(&self) {
        self.queue.ring();
    }

    pub(super) fn outcome(&self, outcome: Outcome, trial: Trial) {
        if let Outcome::Failed(cause) = outcome
            && cause.is_unreachable()
        {
            self.since.lost();
        }
        if self.timed.load(Ordering::Relaxed) {
            let took = match outcome {
                // An error comes fast, and must not draw requests.
                Outcome::Answered { status, took } if !status.is_server_error() => took,
                Outcome::Answered { .. } | Outcome::Failed(_) => latency::PENALTY,
            };
            self.latency.observe(took, self.clock.millis());
        }
        self.health.outcome(outcome, trial);
    }
}

/// Counts one exchange of a backend, and of its region, until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Active {
    pub(in crate::proxy) upstream: Arc<Upstream>,
    /// When the backend was chosen.
    pub(in crate::proxy) since: Instant,
    /// A half-open breaker has let it through, and does not know yet how it goes.
    on_trial: AtomicBool,
}

impl Active {
    /// `None` where the backend has `limit` already, 0 meaning no bound, or where its breaker lets no more through.
    pub(super) fn begin(upstream: &Arc<Upstream>, limit: u32) -> Option<Self> {
        let trial = upstream.health.admit()?;
        if !upstream.enter(limit) {
            upstream.health.abandoned(trial);
            return None;
        }
        upstream.series.in_flight.inc();
        let on_trial = AtomicBool::new(trial == Trial::Yes);
        Some(Self { upstream: Arc::clone(upstream), since: Instant::now(), on_trial })
    }

    /// How the exchange went. An answer whose body breaks off afterwards is told of twice; what is the client's fault
    /// never.
    pub(in crate::proxy) fn outcome(&self, outcome: Outcome) {
        self.upstream.outcome(outcome, self.trial());
    }

    /// Whether it is on trial, told once.
    fn trial(&self) -> Trial {
        let on_trial = self.on_trial.load(Ordering::Relaxed);
        let on_trial = on_trial && self.on_trial.swap(false, Ordering::Relaxed);
        if on_trial { Trial::Yes } else { Trial::No }
    }

    pub(in crate::proxy) fn failed(&self, cause: Cause) {
        self.upstream.series.failed(cause);
        if cause.is_of_backend() {
            self.outcome(Outcome::Failed(cause));
        }
    }

    /// The head of an answer has come, so long after the choice.
    pub(in crate::proxy) fn answered(&self, status: http::StatusCode, took: Duration) {
        self.outcome(Outcome::Answered { status, took });
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.upstream.health.abandoned(self.trial());
        // Given back first, rung for then: see `queue`.
        self.upstream.active.fetch_sub(1, Ordering::SeqCst);
        self.upstream.series.in_flight.dec();
        self.upstream.queue.ring();
    }
}

/// Time as marks count it.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Clock(Instant);

impl Clock {
    pub(in crate::proxy) fn start() -> Self {
        Self(Instant::now())
    }

    pub(in crate::proxy) fn millis(self) -> u64 {
        millis(self.0.elapsed())
    }
}

/// As marks count it.
pub(in crate::proxy) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
        let name = Address::Name(Name::new("backend", 80));
        assert_eq!(Address::parse("http://backend"), Some(name));
        let secure = Address::Name(Name::new("backend", 443));
        assert_eq!(Address::parse("https://backend"), Some(secure));
        for wrong in
            ["", "backend:80", "ftp://a:1", "http://a:1/x", "http://a:1/?q", "http://u@a:1", "/"]
        {
            assert_eq!(Address::parse(wrong), None, "{wrong:?}");
        }
    }
}
