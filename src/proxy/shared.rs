//! What all workers share: the table of regions with their backends and marks, the bounds, the drain.
//!
//! Built once from the settings; what changes afterwards are the atomics in `pool` and the metrics.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use rustc_hash::FxHashMap;

use super::error::SetupError;
use super::metrics::{Families, RegionSeries};
use super::pool::{BackendSnapshot, Clock, Group};
use crate::observability::Registry;
use crate::settings::{BackendSettings, HubPlace, ProxySettings, RegionName, RegionSettings};
use crate::shutdown::Drain;

/// A region of the table; only `Proxy::route` and [`Shared::region_id`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(usize);

impl RegionId {
    /// The place of the region among [`Shared::region_names`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One region of the table.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: RegionName,
    /// The name as the backend gets it.
    pub(super) header: HeaderValue,
    pub(super) backends: Group,
    /// The region's hub, where it has one that can be reached.
    pub(super) hub: Option<Group>,
    pub(super) series: Arc<RegionSeries>,
}

/// What all workers share: the regions, their backends and marks, the bounds, the way down.
#[derive(Debug)]
pub struct Shared {
    pub(super) settings: ProxySettings,
    regions: Box<[Region]>,
    names: Box<[RegionName]>,
    by_name: FxHashMap<RegionName, RegionId>,
    pub(super) default_region: Option<RegionId>,
    /// Backends and hubs, each with its own list of idle connections in each worker.
    pub(super) slots: usize,
    pub(super) drain: Drain,
}

impl Shared {
    /// Builds the table and registers its series.
    ///
    /// # Errors
    /// When a backend's URL cannot be read, a region has too many backends, or the default region is
    /// not in the table.
    pub fn new(
        settings: &ProxySettings,
        regions: &BTreeMap<RegionName, RegionSettings>,
        default_region: Option<&RegionName>,
        drain: Drain,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, SetupError> {
        let families = Families::register(registry);
        let clock = Clock::start();
        let mut slots = 0;
        let region = |(name, region): (&RegionName, &RegionSettings)| {
            let series = Arc::new(families.of(name));
            let mut group = |backends: &[BackendSettings]| {
                let pause = settings.fail_timeout;
                Group::new(name.as_str(), backends, &series, &mut slots, clock, pause)
            };
            let hub = region.hub.as_ref().and_then(hub_url);
            Ok(Region {
                name: name.clone(),
                header: HeaderValue::from_str(name.as_str())
                    .unwrap_or_else(|_| HeaderValue::from_static("")),
                backends: group(&region.backends)?,
                hub: hub.map(|url| group(&[BackendSettings::primary(url)])).transpose()?,
                series,
            })
        };
        let regions = regions.iter().map(region).collect::<Result<Box<[_]>, _>>()?;
        let by_name: FxHashMap<_, _> =
            regions.iter().enumerate().map(|(i, r)| (r.name.clone(), RegionId(i))).collect();
        let default_region = match default_region {
            Some(name) => Some(
                *by_name
                    .get(name)
                    .ok_or_else(|| SetupError::DefaultRegion(name.as_str().to_owned()))?,
            ),
            None => None,
        };
        Ok(Arc::new(Self {
            settings: settings.clone(),
            names: regions.iter().map(|region| region.name.clone()).collect(),
            regions,
            by_name,
            default_region,
            slots,
            drain,
        }))
    }

    /// The names of all regions, in order.
    pub fn region_names(&self) -> &[RegionName] {
        &self.names
    }

    /// The region of a name, where it is configured.
    pub fn region_id(&self, name: &str) -> Option<RegionId> {
        self.by_name.get(name).copied()
    }

    /// What is going on now, for a status page.
    pub fn snapshot(&self) -> Vec<RegionSnapshot> {
        let look = |region: &Region| RegionSnapshot {
            region: region.name.as_str().to_owned(),
            in_flight: region.series.in_flight.get(),
            tunnels: region.series.tunnels.get(),
            backends: region.backends.snapshot(),
            hub: region.hub.as_ref().and_then(|hub| hub.snapshot().pop()),
        };
        self.regions.iter().map(look).collect()
    }

    #[expect(clippy::indexing_slicing, reason = "an id is the index of an entry of this table")]
    pub(super) fn region(&self, id: RegionId) -> &Region {
        &self.regions[id.0]
    }
}

/// One region, for a status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RegionSnapshot {
    pub region: String,
    /// Exchanges going on, tunnels among them.
    pub in_flight: i64,
    pub tunnels: i64,
    pub backends: Vec<BackendSnapshot>,
    /// The region's hub, where it is reached through the proxy.
    pub hub: Option<BackendSnapshot>,
}

/// Where a hub is reached: its URL, or the port it is bound to here.
fn hub_url(hub: &HubPlace) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::{Proxy, RouteError};
    use super::*;

    fn build(
        regions: &[(&'static str, &[&str])],
        default: Option<&'static str>,
    ) -> Result<Arc<Shared>, SetupError> {
        let table = regions.iter().map(|(name, urls)| {
            let backends = urls.iter().map(|url| BackendSettings::primary(*url)).collect();
            (RegionName::literal(name), RegionSettings { backends, hub: None })
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
            found.map(|id| proxy.region(id).as_str().to_owned())
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
        let url = build(&[("1", &["https://a"])], None).unwrap_err();
        let expected = "region 1: \"https://a\" is not a backend; write it like http://host:port";
        assert_eq!(url.to_string(), expected);
        let many = ["http://127.0.0.1:1"; 65];
        assert!(matches!(
            build(&[("1", &many)], None),
            Err(SetupError::TooManyBackends { limit: 64, .. })
        ));
        let default = build(&[("1", &[])], Some("2")).unwrap_err();
        assert_eq!(default, SetupError::DefaultRegion("2".to_owned()));
    }
}
