//! What all workers share: the table of regions with their backends and marks, the drain, the series.
//!
//! The table is replaced whole ([`Shared::replace`]), and what it has in common with the one before is taken over;
//! nobody waits for anybody: a request that has its region keeps it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio_util::sync::CancellationToken;

use super::backends::{BackendCollector, Clock, Upstream};
use super::bounds::Bounds;
use super::error::SetupError;
use super::health;
use super::hops;
use super::metrics::{Families, RequestSeries};
use super::region::{Region, RegionRef, RegionSnapshot};
use super::table::{Plan, Table};
use super::tunnel::Tunnels;
use crate::observability::{AccessLog, Ending, Registry};
use crate::settings::{BackendSettings, RegionName, RegionSettings, TraceMode};
use crate::shutdown::Drain;

/// What all workers share: the regions, their backends and marks, the way down.
#[derive(Debug)]
pub struct Shared {
    table: ArcSwap<Table>,
    /// What the table was built of, or should have been; locked while it is replaced.
    plan: Mutex<Plan>,
    families: Families,
    none: RequestSeries,
    clock: Clock,
    /// This process in `Via`, where the settings have no name for it.
    pseudonym: String,
    pub(super) drain: Drain,
    pub(super) tunnels: Arc<Tunnels>,
    /// Where the lines of tunnels are written, if anywhere.
    pub(super) lines: OnceLock<AccessLog>,
}

impl Shared {
    /// Builds the table and registers its series.
    ///
    /// # Errors
    /// When a backend's URL cannot be read, a region has too many backends, or the default region is
    /// not in the table.
    pub fn new(
        bounds: impl Into<Bounds>,
        regions: &BTreeMap<RegionName, RegionSettings>,
        default_region: Option<&RegionName>,
        drain: Drain,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, SetupError> {
        let (families, clock) = (Families::register(registry), Clock::start());
        let pseudonym = hops::random_name();
        let plan = Plan {
            bounds: named(bounds.into(), &pseudonym),
            regions: regions.clone(),
            default_region: default_region.cloned(),
            joined: Vec::new(),
        };
        let table = Table::build(&plan, None, &families, clock)?;
        table.take_charge();
        let none = families.of_none();
        let (table, plan) = (ArcSwap::from_pointee(table), Mutex::new(plan));
        let (tunnels, lines) = (Arc::default(), OnceLock::new());
        let shared =
            Arc::new(Self { table, plan, families, none, clock, pseudonym, drain, tunnels, lines });
        registry.register_collector(Box::new(BackendCollector(Arc::downgrade(&shared))));
        Ok(shared)
    }

    /// Puts other regions and bounds in place of the present ones. What is the same stays untouched: a backend keeps
    /// its connections, counts and marks where its region, its URL and the traits of its connection are the same.
    /// Requests that are going on end as they began.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is changed then.
    pub fn replace(
        &self,
        bounds: impl Into<Bounds>,
        regions: &BTreeMap<RegionName, RegionSettings>,
        default_region: Option<&RegionName>,
    ) -> Result<(), SetupError> {
        let mut plan = self.plan();
        let joined = plan.joined.clone();
        let next = Plan {
            bounds: named(bounds.into(), &self.pseudonym),
            regions: regions.clone(),
            default_region: default_region.cloned(),
            joined: joined.into_iter().filter(|(name, _)| regions.contains_key(name)).collect(),
        };
        self.build(&next)?;
        *plan = next;
        drop(plan);
        Ok(())
    }

    /// Probes the backends and has time pass for their marks, until `stop`. One task of the process runs this.
    pub async fn watch_health(&self, stop: CancellationToken) {
        health::watch(self, stop).await;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Builds what `plan` says and puts it in place; the caller holds the lock.
    fn build(&self, plan: &Plan) -> Result<(), SetupError> {
        let previous = self.table.load_full();
        let next = Table::build(plan, Some(&previous), &self.families, self.clock)?;
        self.table.store(Arc::new(next));
        let next = self.table.load();
        next.take_charge();
        for region in &previous.regions {
            let kept = next.region(region.name.as_str());
            if kept.is_none() {
                self.families.forget(&region.name);
            }
            if let Some(kept) = kept {
                kept.forget_overrides(region);
            }
            for gone in region.upstreams().filter(|one| !kept.is_some_and(|kept| kept.has(one))) {
                gone.drain(true);
            }
        }
        Ok(())
    }

    /// Adds a backend to a region while it runs.
    ///
    /// # Errors
    /// Where the region is not there, its backends are too many, or the URL cannot be read.
    pub fn add_backend(
        self: &Arc<Self>,
        region: &RegionName,
        backend: BackendSettings,
    ) -> Result<BackendHandle, SetupError> {
        let mut plan = self.plan();
        if !plan.regions.contains_key(region) {
            return Err(SetupError::UnknownRegion(region.as_str().to_owned()));
        }
        let mut next = plan.clone();
        next.joined.push((region.clone(), backend.clone()));
        self.build(&next)?;
        *plan = next;
        drop(plan);
        let upstream = self.upstream(region, &backend.url);
        let upstream =
            upstream.ok_or_else(|| SetupError::UnknownRegion(region.as_str().to_owned()))?;
        Ok(BackendHandle { shared: Arc::clone(self), region: region.clone(), backend, upstream })
    }

    /// A backend by its URL, as it is in a region now.
    fn upstream(&self, region: &RegionName, url: &str) -> Option<Arc<Upstream>> {
        let table = self.table();
        let members = &table.region(region.as_str())?.backends.members;
        let found = members.iter().find(|member| member.upstream.identity.url == url);
        found.map(|member| Arc::clone(&member.upstream))
    }

    /// Finds a backend of a region by its address, `host:port`, as [`BackendSnapshot`](super::BackendSnapshot) has it.
    pub fn operate(&self, region: &str, address: &str) -> Option<Operated> {
        let table = self.table();
        let members = &table.region(region)?.backends.members;
        let found = members.iter().find(|member| &*member.upstream.label == address);
        found.map(|member| Operated(Arc::clone(&member.upstream)))
    }

    /// The region that is asked, and behind it those that its policy may hand a request to.
    pub(super) fn candidates(&self, asked: &Arc<Region>) -> Vec<Arc<Region>> {
        self.table().candidates(asked)
    }

    /// Whether requests' traces are looked at.
    pub fn traces(&self) -> bool {
        self.table().regions.first().is_some_and(|one| one.bounds.trace != TraceMode::Off)
    }

    /// A region as the table has it now, where that is another edition of it.
    pub(super) fn present(&self, region: &Arc<Region>) -> Option<Arc<Region>> {
        let table = self.table();
        let now = table.region(region.name.as_str())?;
        (!Arc::ptr_eq(now, region)).then(|| Arc::clone(now))
    }

    pub(super) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// The names of all regions, in order.
    pub fn region_names(&self) -> Arc<[RegionName]> {
        Arc::clone(&self.table().names)
    }

    /// The region of a name, where it is configured.
    pub fn region(&self, name: &str) -> Option<RegionRef> {
        self.table().region(name).map(|region| RegionRef(Arc::clone(region)))
    }

    /// Counts a request that was finished and named no region that exists.
    pub fn finished_without_region(&self, status: u16, took: Duration, end: Ending) {
        self.none.finished(status, took, end);
    }

    /// Has the lines of tunnels written here; the first word counts.
    pub fn record_in(&self, lines: AccessLog) {
        self.lines.get_or_init(|| lines);
    }

    /// What is going on now, for a status page.
    pub fn snapshot(&self) -> Vec<RegionSnapshot> {
        self.table().regions.iter().map(|region| region.snapshot()).collect()
    }
}

/// The bounds with a name for `Via`, where they leave it open.
fn named(mut bounds: Bounds, pseudonym: &str) -> Arc<Bounds> {
    bounds.proxy.via.get_or_insert_with(|| pseudonym.to_owned());
    Arc::new(bounds)
}

/// A backend that joined at run time; it stays until [`Self::remove`].
#[derive(Debug)]
pub struct BackendHandle {
    shared: Arc<Shared>,
    region: RegionName,
    backend: BackendSettings,
    upstream: Arc<Upstream>,
}

impl BackendHandle {
    /// Gives it nothing new from here on.
    pub fn drain(&self) {
        self.upstream.drain(true);
    }

    /// Exchanges and tunnels going on.
    pub fn active(&self) -> usize {
        self.upstream.active()
    }

    /// Takes it out of its region; what is going on ends as it began.
    pub fn remove(self) {
        let mut plan = self.shared.plan();
        plan.joined.retain(|(region, backend)| (region, backend) != (&self.region, &self.backend));
        if let Err(error) = self.shared.build(&plan) {
            // A file of TLS that cannot be read now, for one. Then it goes with the next table, and gets nothing until
            // then: its port may be another's soon.
            let backend = &*self.upstream.label;
            tracing::warn!(target: "Proxy", backend, "it left, but is still listed: {error}");
            self.upstream.drain(true);
        }
    }
}

/// A backend in an operator's hands.
#[derive(Debug)]
pub struct Operated(Arc<Upstream>);

impl Operated {
    /// Gives it nothing new from here on, or again.
    pub fn drain(&self, draining: bool) {
        self.0.drain(draining);
    }

    /// Its weight from here on; `None` is that of the settings.
    pub fn weight(&self, weight: Option<u32>) {
        self.0.override_weight(weight);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::{Proxy, RouteError};
    use super::*;
    use crate::settings::ProxySettings;

    fn build(
        regions: &[(&'static str, &[&str])],
        default: Option<&'static str>,
    ) -> Result<Arc<Shared>, SetupError> {
        let table = regions.iter().map(|(name, urls)| {
            let backends = urls.iter().map(|url| BackendSettings::primary(*url)).collect();
            (RegionName::literal(name), RegionSettings { backends, ..RegionSettings::default() })
        });
        let default = default.map(RegionName::literal);
        let (settings, mut registry) = (ProxySettings::default(), Registry::default());
        let table = table.collect();
        Shared::new(&settings, &table, default.as_ref(), Drain::new(), &mut registry)
    }

    #[test]
    fn a_request_is_routed_by_header_then_query_then_default() {
        let route = |default, header: Option<&str>, target: &str| {
            let shared = build(&[("1", &[]), ("eu", &[])], default).unwrap();
            let proxy = Proxy::new(shared);
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("x-region", header.parse().unwrap());
            }
            let found = proxy.route(&headers, &target.parse().unwrap());
            found.map(|region| region.name().as_str().to_owned())
        };
        let found = |name: &str| Ok(name.to_owned());
        assert_eq!(route(None, None, "/"), Err(RouteError::Missing));
        assert_eq!(route(Some("eu"), None, "/"), found("eu"));
        assert_eq!(route(Some("eu"), None, "/?region=1"), found("1"));
        assert_eq!(route(None, Some("eu"), "/?region=1"), found("eu"));
        let unknown = RouteError::Unknown(RegionName::literal("EU"));
        assert_eq!(route(Some("eu"), Some("EU"), "/"), Err(unknown));
        assert_eq!(route(Some("eu"), Some("e u"), "/"), Err(RouteError::Invalid));
    }

    #[test]
    fn what_cannot_be_served_is_said_at_the_start() {
        let url = build(&[("1", &["ftp://a"])], None).unwrap_err();
        let expected = "region 1: \"ftp://a\" is not a backend; write it like http://host:port or https://host:port";
        assert_eq!(url.to_string(), expected);
        let many = ["http://127.0.0.1:1"; 65];
        assert!(matches!(
            build(&[("1", &many)], None),
            Err(SetupError::TooManyBackends { limit: 64, .. })
        ));
        let default = build(&[("1", &[])], Some("2")).unwrap_err();
        assert_eq!(default, SetupError::DefaultRegion("2".to_owned()));
    }

    fn regions(table: &[(&'static str, &[&str])]) -> BTreeMap<RegionName, RegionSettings> {
        let region = |(name, urls): &(&'static str, &[&str])| {
            let backends = urls.iter().map(|url| BackendSettings::primary(*url)).collect();
            (RegionName::literal(name), RegionSettings { backends, ..RegionSettings::default() })
        };
        table.iter().map(region).collect()
    }

    #[test]
    fn what_is_the_same_is_taken_over_and_the_rest_let_go() {
        let shared =
            build(&[("1", &["http://a:1", "http://b:1"]), ("2", &["http://c:1"])], None).unwrap();
        let ids = |name: &str| -> Vec<u64> {
            let table = shared.table();
            let region = table.region(name).unwrap();
            region.upstreams().map(|upstream| upstream.id).collect()
        };
        let (one, two) = (ids("1"), ids("2"));
        let before = Arc::downgrade(&shared.table());
        let removed = shared.upstream(&RegionName::literal("1"), "http://a:1").unwrap();
        let settings = ProxySettings::default();
        let next = regions(&[("1", &["http://b:1", "http://d:1"]), ("2", &["http://c:1"])]);
        shared.replace(&settings, &next, None).unwrap();
        assert_eq!(ids("2"), two, "an unchanged region is the same");
        assert_eq!(ids("1").first(), one.get(1), "so is an unchanged backend of a changed one");
        assert!(removed.is_draining() && *removed.leaving().borrow());
        assert!(before.upgrade().is_none(), "nobody holds the table before");
        let wrong = regions(&[("1", &["ftp://x"])]);
        assert!(shared.replace(&settings, &wrong, None).is_err());
        assert_eq!(ids("2"), two, "what cannot be built replaces nothing");
    }

    #[test]
    fn a_backend_joins_and_leaves_while_it_runs() {
        let shared = build(&[("1", &["http://a:1"])], None).unwrap();
        let region = RegionName::literal("1");
        let handle = shared.add_backend(&region, BackendSettings::backup("http://b:1")).unwrap();
        let addresses = || -> Vec<_> {
            shared.snapshot()[0].backends.iter().map(|one| one.address.clone()).collect()
        };
        assert_eq!(addresses(), ["a:1", "b:1"]);
        let next = regions(&[("1", &["http://c:1"])]);
        shared.replace(&ProxySettings::default(), &next, None).unwrap();
        assert_eq!(addresses(), ["c:1", "b:1"], "a reload leaves it");
        handle.remove();
        assert_eq!(addresses(), ["c:1"]);
        let unknown =
            shared.add_backend(&RegionName::literal("9"), BackendSettings::primary("http://a:1"));
        assert_eq!(unknown.unwrap_err(), SetupError::UnknownRegion("9".to_owned()));
    }
}
