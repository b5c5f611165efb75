//! The regions as one edition of the settings has them: immutable, and replaced whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::backends::{Clock, is_https};
use super::bounds::Bounds;
use super::dial::BackendTls;
use super::error::SetupError;
use super::metrics::Families;
use super::region::Region;
use crate::settings::{BackendSettings, Failover, RegionName, RegionSettings};

/// What a table is built of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) bounds: Arc<Bounds>,
    pub(super) regions: BTreeMap<RegionName, RegionSettings>,
    pub(super) default_region: Option<RegionName>,
    /// Backends that joined at run time.
    pub(super) joined: Vec<(RegionName, BackendSettings)>,
}

/// All regions.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) regions: Box<[Arc<Region>]>,
    pub(super) names: Arc<[RegionName]>,
    by_name: FxHashMap<RegionName, Arc<Region>>,
    pub(super) default: Option<Arc<Region>>,
    /// Where some backend needs it.
    tls: Option<Arc<BackendTls>>,
}

impl Plan {
    /// Whether any backend or hub is reached by TLS.
    fn needs_tls(&self) -> bool {
        let joined = self.joined.iter().map(|(_, backend)| backend);
        let mut backends = self.regions.values().flat_map(|region| &region.backends).chain(joined);
        let mut hubs = self.regions.values().filter_map(|region| region.hub.as_ref()?.url.as_ref());
        backends.any(|backend| is_https(&backend.url)) || hubs.any(|url| is_https(url))
    }
}

impl Table {
    /// Builds the table; what is the same as in `previous` is taken over.
    pub(super) fn build(
        plan: &Plan,
        previous: Option<&Self>,
        families: &Families,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let known = previous.and_then(|table| table.tls.as_ref());
        let tls =
            plan.needs_tls().then(|| BackendTls::load(&plan.bounds.tls, known)).transpose()?;
        let region = |(name, settings): (&RegionName, &RegionSettings)| {
            let mut settings = settings.clone();
            let joined = plan.joined.iter().filter(|(region, _)| region == name);
            settings.backends.extend(joined.map(|(_, backend)| backend.clone()));
            let previous = previous.and_then(|table| table.by_name.get(name));
            Region::build(name, settings, &plan.bounds, previous, (families, clock), tls.as_ref())
        };
        let regions = plan.regions.iter().map(region).collect::<Result<Box<[_]>, _>>()?;
        let by_name: FxHashMap<_, _> =
            regions.iter().map(|region| (region.name.clone(), Arc::clone(region))).collect();
        let default = match &plan.default_region {
            Some(name) => {
                let known = by_name.get(name).cloned();
                Some(known.ok_or_else(|| SetupError::DefaultRegion(name.as_str().to_owned()))?)
            }
            None => None,
        };
        let names = regions.iter().map(|region| region.name.clone()).collect();
        Ok(Self { regions, names, by_name, default, tls })
    }

    /// The backends go by this table from here on.
    pub(super) fn take_charge(&self) {
        self.regions.iter().for_each(|region| region.take_charge());
    }

    /// The region that is asked, and behind it those that its policy may hand a request to.
    pub(super) fn candidates(&self, asked: &Arc<Region>) -> Vec<Arc<Region>> {
        let failover = &asked.settings.failover;
        let others = || self.regions.iter().filter(|region| region.name != asked.name);
        let mut found = vec![Arc::clone(asked)];
        match failover {
            Failover::Strict => {}
            Failover::Ordered(names) | Failover::Spill(names) if !names.is_empty() => {
                found.extend(names.iter().filter_map(|name| self.region(name.as_str())).cloned());
            }
            Failover::Ordered(_) | Failover::Spill(_) | Failover::Any => {
                found.extend(others().cloned());
            }
        }
        found
    }

    pub(super) fn region(&self, name: &str) -> Option<&Arc<Region>> {
        self.by_name.get(name)
    }
}
