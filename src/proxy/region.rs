//! One region as one table has it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::backends::{BackendSnapshot, Clock, Ground, Group, Upstream};
use super::bounds::Bounds;
use super::dial::BackendTls;
use super::error::SetupError;
use super::failover::Policy;
use super::headers::{self, Marks};
use super::health::Rules;
use super::hops::Hops;
use super::metrics::{Families, RegionSeries};
use super::retry::Budget;
use crate::observability::Ending;
use crate::settings::{BackendSettings, HubPlace, RegionName, RegionSettings};

/// One region of a table. A request holds it for as long as it goes on, so that a reload changes nothing for it.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: RegionName,
    /// The name as the backend gets it.
    pub(super) header: HeaderValue,
    pub(super) backends: Arc<Group>,
    /// The region's hub, where it has one that can be reached.
    pub(super) hub: Option<Arc<Group>>,
    /// What it was built of, with the backends that joined at run time.
    pub(super) settings: RegionSettings,
    /// The bounds of its exchanges.
    pub(super) bounds: Arc<Bounds>,
    /// Who else may serve what is asked of it.
    pub(super) policy: Policy,
    /// How this gateway names itself on the way.
    hops: Hops,
    pub(super) budget: Arc<Budget>,
    pub(super) series: Arc<RegionSeries>,
}

impl Region {
    /// Builds a region, or takes over `previous` where it is the same; the backends that are the same are taken over
    /// in any case.
    pub(super) fn build(
        name: &RegionName,
        settings: RegionSettings,
        bounds: &Arc<Bounds>,
        previous: Option<&Arc<Self>>,
        (families, clock): (&Families, Clock),
        tls: Option<&Arc<BackendTls>>,
    ) -> Result<Arc<Self>, SetupError> {
        if let Some(previous) = previous
            && previous.settings == settings
            && *previous.bounds == **bounds
            && previous.upstreams().all(|one| one.has_tls(tls))
        {
            return Ok(Arc::clone(previous));
        }
        let series = previous
            .map_or_else(|| Arc::new(families.of(name)), |previous| Arc::clone(&previous.series));
        let fail_timeout = bounds.fail_timeout;
        let rules = Rules::new(&bounds.health, &settings.health, &bounds.breaker, fail_timeout);
        let (rules, of_hub) = (Arc::new(rules), Arc::new(Rules::of_hub(fail_timeout)));
        let group = |backends: &[BackendSettings], rules, previous: Option<&Arc<Group>>| {
            let ground = Ground {
                region: name.as_str(),
                series: &series,
                clock,
                families: &families.health,
                rules,
                settings: &bounds.backends,
                balance: settings.balance,
                hash_by: &settings.hash_by,
                tls,
            };
            Group::new(backends, previous.map(|group| &**group), &ground).map(Arc::new)
        };
        let known = previous.map(|region| &region.backends);
        let backends = group(&settings.backends, &rules, known)?;
        let hub = settings.hub.as_ref().and_then(hub_url);
        let known = previous.and_then(|region| region.hub.as_ref());
        let hub =
            hub.map(|url| group(&[BackendSettings::primary(url)], &of_hub, known)).transpose()?;
        Ok(Arc::new(Self {
            name: name.clone(),
            header: HeaderValue::from_str(name.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            backends,
            hub,
            policy: Policy::of(&settings),
            settings,
            hops: Hops::new(bounds.via.as_deref().unwrap_or_default(), bounds.max_hops),
            bounds: Arc::clone(bounds),
            budget: previous.map(|previous| Arc::clone(&previous.budget)).unwrap_or_default(),
            series,
        }))
    }

    /// Counts what was for this region and `other` has answered, if that is another one.
    pub(super) fn served_by(&self, other: &Self) {
        if self.name != other.name {
            self.series.served_elsewhere.inc();
        }
    }

    /// What its messages are marked with.
    pub(super) fn marks(&self) -> Marks<'_> {
        Marks { region: &self.header, hops: &self.hops, trace: self.bounds.trace }
    }

    /// The backends, and the hub.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.groups().flat_map(|group| &group.members).map(|member| &member.upstream)
    }

    /// Its backends go by its settings from here on: its table is the one in place.
    pub(super) fn take_charge(&self) {
        self.groups().for_each(|group| group.take_charge());
    }

    /// Lets sockets that are served elsewhere come home where it is well again; asked with each tick.
    pub(super) fn call_home(&self) {
        let rate = self.settings.rebalance_rate;
        self.groups().for_each(|group| group.call_home(&self.policy, rate));
    }

    fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        std::iter::once(&self.backends).chain(&self.hub)
    }

    pub(super) fn has(&self, upstream: &Arc<Upstream>) -> bool {
        self.upstreams().any(|one| Arc::ptr_eq(one, upstream))
    }

    /// Takes an operator's word back for each backend whose own settings are others than in `previous`.
    pub(super) fn forget_overrides(&self, previous: &Self) {
        let changed = self.settings.backends.iter().filter(|now| {
            previous.settings.backends.iter().any(|then| then.url == now.url && then != *now)
        });
        for backend in changed {
            let is_it = |upstream: &&Arc<Upstream>| upstream.identity.url == backend.url;
            for upstream in self.upstreams().filter(is_it) {
                upstream.drain(false);
                upstream.override_weight(None);
            }
        }
    }

    pub(super) fn snapshot(&self) -> RegionSnapshot {
        RegionSnapshot {
            region: self.name.as_str().to_owned(),
            in_flight: self.series.in_flight.get(),
            tunnels: self.series.tunnels.get(),
            tier: self.backends.tier(),
            waiting: self.backends.waiting(),
            backends: self.backends.snapshot(),
            hub: self.hub.as_ref().and_then(|hub| hub.snapshot().pop()),
        }
    }
}

/// A region as a request holds it.
#[derive(Clone)]
pub struct RegionRef(pub(super) Arc<Region>);

impl RegionRef {
    pub fn name(&self) -> &RegionName {
        &self.0.name
    }

    /// Tells the client that this region served.
    pub fn sign(&self, headers: &mut HeaderMap) {
        headers::tell_served(headers, &self.0.header);
    }

    /// Counts a request for this region that was finished: its status, how long it took, how it ended.
    pub fn finished(&self, status: u16, took: Duration, end: Ending) {
        self.0.series.requests.finished(status, took, end);
    }

    /// Counts one for this region that `other` has answered, if that is another one.
    pub fn served_by(&self, other: &Self) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            self.0.served_by(&other.0);
        }
    }
}

impl fmt::Debug for RegionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegionRef").field(&self.0.name).finish()
    }
}

/// One region, for a status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionSnapshot {
    pub region: String,
    /// Exchanges going on, tunnels among them.
    pub in_flight: i64,
    pub tunnels: i64,
    /// The tier of backends that serves.
    pub tier: u8,
    /// Requests that wait for a backend with room.
    pub waiting: usize,
    pub backends: Vec<BackendSnapshot>,
    /// The region's hub, where it is reached through the proxy.
    pub hub: Option<BackendSnapshot>,
}

/// Where a hub is reached: its URL, or the port it is bound to here.
pub(super) fn hub_url(hub: &HubPlace) -> Option<String> {
    let local = || {
        // Port 0 is chosen later, by the system: nobody can be sent there.
        let port = hub.port.filter(|port| *port != 0)?;
        Some(match hub.bind {
            bind if bind.is_unspecified() && bind.is_ipv4() => format!("http://127.0.0.1:{port}"),
            bind if bind.is_unspecified() => format!("http://[::1]:{port}"),
            IpAddr::V4(bind) => format!("http://{bind}:{port}"),
            IpAddr::V6(bind) => format!("http://[{bind}]:{port}"),
        })
    };
    hub.url.clone().or_else(local)
}
