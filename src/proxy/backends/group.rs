//! The backends among which one request has its choice, and the choice.
//!
//! Walk: [`Group::acquire`] looks at all members (`look`), finds the tier that serves, lets the way of balancing choose
//! among those of it that have room, and waits in line where none has.
//!
//! A group is immutable and belongs to one table; what must outlive a reload is in its [`Upstream`]s and in
//! [`GroupState`]. Invariants: a backend that takes nothing (weight 0, draining) is never chosen; one over its bound
//! neither; a worse tier only when nothing of a better one can be, while the better one is held back, or while it takes
//! over by and by.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderMap;

use super::balance::{self, Load, Tried, Turns, UNIT};
use super::hash::{self, KeyBy};
use super::member::{BackendSnapshot, Member, Now};
use super::metrics::Waiting;
use super::queue::{Limits, Overloaded, Queue};
use super::ramp;
use super::set::{MAX_BACKENDS, Set};
use super::tiers::{Eligible, Serving};
use super::upstream::{Active, Arrival, Clock, Identity, Upstream, millis};
use crate::proxy::dial::BackendTls;
use crate::proxy::error::{Cause, SetupError};
use crate::proxy::failover;
use crate::proxy::health::{Fit, HealthFamilies, Rules, Share, ShareWatch, Standing, Usable};
use crate::proxy::metrics::RegionSeries;
use crate::settings::{BackendSettings, BackendsSettings, Balance, HashBy};

/// Where a request stands while a tier takes over: nearest the golden section of 1,000 without a common divisor, so that
/// requests that follow each other stand far apart, and 1,000 of them everywhere once.
const STRIDE: u32 = 619;

/// What a group's next edition takes over.
#[derive(Debug, Default)]
pub(in crate::proxy) struct GroupState {
    queue: Arc<Queue>,
    serving: Serving,
    share: ShareWatch,
    points: AtomicU32,
}

/// Why a group has no backend for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum NoBackend {
    /// None is eligible that was not tried.
    Unavailable,
    /// All that are eligible are at their bound, and it could not be waited, or not any longer.
    Overloaded,
}

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Miss {
    Unavailable,
    Busy,
}

/// The backends of one region, or its hub.
#[derive(Debug)]
pub(in crate::proxy) struct Group {
    pub(in crate::proxy) members: Box<[Member]>,
    /// The best first.
    tiers: Box<[(u8, Set)]>,
    state: Arc<GroupState>,
    balance: Balance,
    /// Where requests are kept together.
    key_by: Option<KeyBy>,
    turns: Turns,
    /// Whether any member has a bound.
    bounded: bool,
    limits: Limits,
    /// Milliseconds.
    slow_start: u64,
    hold: u64,
    region: Box<str>,
    series: Arc<RegionSeries>,
    clock: Clock,
    /// How many of them may be ejected.
    share: Share,
}

/// What a group is built of besides its backends.
pub(in crate::proxy) struct Ground<'a> {
    pub(in crate::proxy) region: &'a str,
    pub(in crate::proxy) series: &'a Arc<RegionSeries>,
    pub(in crate::proxy) clock: Clock,
    pub(in crate::proxy) families: &'a HealthFamilies,
    pub(in crate::proxy) rules: &'a Arc<Rules>,
    pub(in crate::proxy) settings: &'a BackendsSettings,
    pub(in crate::proxy) balance: Balance,
    pub(in crate::proxy) hash_by: &'a HashBy,
    /// Where some backend of the table needs it.
    pub(in crate::proxy) tls: Option<&'a Arc<BackendTls>>,
}

impl Group {
    /// `previous` is the group of the table before this one, whose backends are taken over where they are the same.
    pub(in crate::proxy) fn new(
        backends: &[BackendSettings],
        previous: Option<&Self>,
        ground: &Ground<'_>,
    ) -> Result<Self, SetupError> {
        if backends.len() > MAX_BACKENDS {
            let (region, limit) = (ground.region.to_owned(), MAX_BACKENDS);
            return Err(SetupError::TooManyBackends { region, limit });
        }
        let state = previous.map(|group| Arc::clone(&group.state)).unwrap_or_default();
        let arrival = Arrival {
            series: ground.series,
            queue: &state.queue,
            clock: ground.clock,
            rules: ground.rules,
            families: ground.families,
            late: previous.is_some(),
            tls: ground.tls,
        };
        let member = |backend: &BackendSettings| {
            let identity = Identity::of(backend, ground.tls);
            let known = previous.and_then(|group| {
                group.members.iter().find(|member| member.upstream.identity == identity)
            });
            let upstream = match known {
                Some(member) => Arc::clone(&member.upstream),
                None => Upstream::new(ground.region, backend, &arrival)?,
            };
            upstream.time(ground.balance == Balance::P2cEwma);
            Ok(Member::new(upstream, backend))
        };
        let members = backends.iter().map(member).collect::<Result<Box<[_]>, SetupError>>()?;
        let weights = members.iter().map(|member| member.weight().saturating_mul(UNIT));
        let key_by = (ground.balance == Balance::ConsistentHash)
            .then(|| KeyBy::new(ground.hash_by).unwrap_or(KeyBy::Client));
        let limits =
            Limits { length: ground.settings.queue_length, timeout: ground.settings.queue_timeout };
        Ok(Self {
            tiers: tiers_of(&members),
            turns: Turns::new(weights),
            bounded: members.iter().any(|member| member.max_connections > 0),
            members,
            state,
            balance: ground.balance,
            key_by,
            limits,
            slow_start: millis(ground.settings.slow_start),
            hold: millis(ground.settings.hold),
            region: Box::from(ground.region),
            series: Arc::clone(ground.series),
            clock: ground.clock,
            share: ground.rules.share(),
        })
    }

    /// What a request has in common with those that belong to the same backend, where that counts.
    pub(in crate::proxy) fn key(&self, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
        self.key_by.as_ref().map(|by| by.of(headers, client))
    }

    /// The best backend not tried yet, counted as in use; it counts as tried from here on. `key` is what
    /// [`Self::key`] says of the request. Where all are at their bound it waits; dropping the future gives the place up.
    pub(in crate::proxy) async fn acquire(
        &self,
        tried: &mut Tried,
        key: Option<u64>,
    ) -> Result<Active, NoBackend> {
        // Whoever waits was here first.
        if !self.bounded || self.state.queue.waiting() == 0 {
            match self.pick(tried, key) {
                Ok(active) => return Ok(active),
                Err(Miss::Unavailable) => return Err(NoBackend::Unavailable),
                Err(Miss::Busy) => {}
            }
        }
        // Boxed: a request that need not wait should not be as large as one that must.
        Box::pin(self.wait(tried, key)).await
    }

    async fn wait(&self, tried: &mut Tried, key: Option<u64>) -> Result<Active, NoBackend> {
        let series = &self.series.queue;
        let look = || match self.pick(tried, key) {
            Ok(active) => Some(Ok(active)),
            Err(Miss::Unavailable) => Some(Err(NoBackend::Unavailable)),
            Err(Miss::Busy) => None,
        };
        let _waiting = Waiting::begin(series);
        self.state.queue.wait(self.limits, look).await.unwrap_or_else(|overloaded| {
            match overloaded {
                Overloaded::Full => series.rejections.inc(),
                Overloaded::TimedOut => series.timeouts.inc(),
            };
            Err(NoBackend::Overloaded)
        })
    }

    fn pick(&self, tried: &mut Tried, key: Option<u64>) -> Result<Active, Miss> {
        if let [only] = &*self.members {
            // Nothing to weigh, and a doubt would only turn an error of its own into ours.
            if tried.contains(0) || !(only.is_clear() || self.usable().is_any()) {
                return Err(Miss::Unavailable);
            }
            let active = Active::begin(&only.upstream, only.max_connections).ok_or(Miss::Busy)?;
            tried.insert(0);
            return Ok(active);
        }
        let now = Now::new(self.clock);
        let mut view = self.look(&now);
        let tier = self.tier_of_request(&view, key, &now);
        let well = view.well.any.without(tried.set());
        let candidates = if well.is_empty() {
            self.of_best(view.doubtful.without(tried.set()))
        } else {
            self.of_tier(tier, well)
        };
        if candidates.is_empty() {
            return Err(Miss::Unavailable);
        }
        loop {
            let open = candidates.without(view.full);
            let index = self.choose(open, key, &now).ok_or(Miss::Busy)?;
            let member = self.members.get(index).ok_or(Miss::Busy)?;
            if let Some(active) = Active::begin(&member.upstream, member.max_connections) {
                tried.insert(index);
                return Ok(active);
            }
            // Another worker was quicker.
            view.full.insert(index);
        }
    }

    /// What can be used, and notes since when.
    fn look(&self, now: &Now) -> View {
        let (mut view, usable) = (View::default(), self.usable());
        for (index, member) in self.members.iter().enumerate() {
            let since = &member.upstream.since;
            match usable.fit(index) {
                Fit::Eligible => {
                    view.well.any.insert(index);
                    let well = since.well(|| now.get());
                    if well.is_none_or(|well| well >= self.hold) {
                        view.well.held.insert(index);
                    }
                    if well.is_some_and(|well| well >= self.hold.max(self.slow_start)) {
                        since.settle();
                    }
                }
                Fit::Resort => {
                    view.doubtful.insert(index);
                    since.lost();
                }
                Fit::Out => since.lost(),
            }
            if member.is_full() {
                view.full.insert(index);
            }
        }
        view
    }

    fn tier_of_request(&self, view: &View, key: Option<u64>, now: &Now) -> u8 {
        let serving = &self.state.serving;
        if let Some(moved) = serving.look(&self.tiers, view.well, || now.get()) {
            self.series.queue.tier_changes.inc();
            let (region, from, to) = (&*self.region, moved.from, moved.to);
            if to > from {
                tracing::warn!(target: "Proxy", region, from, to, "nothing of tier {from} can be used: tier {to} serves");
            } else {
                tracing::info!(target: "Proxy", region, from, to, "tier {to} serves again");
            }
        }
        // By its key, a request stays where it is while the others move.
        let point = || match key {
            Some(key) => u32::try_from(hash::mix(key) % u64::from(UNIT)).unwrap_or_default(),
            None => self.state.points.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE) % UNIT,
        };
        serving.of_request(self.slow_start, || now.get(), point)
    }

    /// Those of the tier, or where it has none of them, of the best that has.
    fn of_tier(&self, tier: u8, set: Set) -> Set {
        let own = self.tiers.iter().find(|(number, _)| *number == tier);
        let own = own.map(|(_, all)| all.and(set)).filter(|own| !own.is_empty());
        own.unwrap_or_else(|| self.of_best(set))
    }

    fn of_best(&self, set: Set) -> Set {
        let mut tiers = self.tiers.iter().map(|(_, all)| all.and(set));
        tiers.find(|own| !own.is_empty()).unwrap_or(Set::EMPTY)
    }

    fn choose(&self, open: Set, key: Option<u64>, now: &Now) -> Option<usize> {
        if let Some(only) = open.only() {
            return Some(only);
        }
        let weight = |index: usize| self.members.get(index).map_or(1, |one| self.weight(one, now));
        let active = |index: usize| self.members.get(index).map_or(0, |one| one.upstream.active());
        match self.balance {
            Balance::LeastConn => {
                let load = |index| Load { active: active(index), weight: weight(index) };
                balance::least_conn(open, &self.turns, load)
            }
            Balance::RoundRobin => balance::round_robin(open, &self.turns, weight),
            Balance::P2cEwma => {
                let cost = |index: usize| {
                    let member = self.members.get(index);
                    let latency =
                        member.map(|one| one.upstream.latency.cost(active(index), now.get()));
                    latency.unwrap_or(f64::MAX)
                };
                balance::two_choices(open, |below| fastrand::u64(..below), weight, cost)
            }
            Balance::ConsistentHash => {
                let name = |index: usize| self.members.get(index).map_or(0, |one| one.name);
                hash::rendezvous(open, key.unwrap_or_default(), name, weight)
            }
        }
    }

    /// A member's weight in thousandths, less what its slow start leaves out; not 0.
    fn weight(&self, member: &Member, now: &Now) -> u32 {
        let share = if self.slow_start == 0 {
            UNIT
        } else {
            let well = member.upstream.since.well(|| now.get());
            well.map_or(UNIT, |well| ramp::share(well, self.slow_start))
        };
        member.weight().saturating_mul(share).max(1)
    }

    /// What the group can take now: of the first tier with an eligible backend, the weights of those that are; and all
    /// of the primaries.
    pub(in crate::proxy) fn standing(&self) -> failover::Standing {
        let well = Set::of_bits(self.usable().well);
        let eligible = || well.iter().filter_map(|index| self.members.get(index));
        let tier = eligible().map(|member| member.tier).min();
        let serving = eligible().filter(|member| Some(member.tier) == tier);
        let primaries = self.members.iter().filter(|member| member.tier == 0);
        failover::Standing {
            usable: serving.map(Member::weight).sum(),
            whole: primaries.map(Member::weight).sum(),
        }
    }

    /// Which of the members may be used now. Costs three loads for each where all are well.
    pub(in crate::proxy) fn usable(&self) -> Usable {
        if self.members.iter().all(Member::is_clear) {
            return Usable::all(self.members.len());
        }
        let mut standings = [(0, Standing::default()); MAX_BACKENDS];
        for (place, member) in standings.iter_mut().zip(&self.members) {
            *place = (member.tier, member.standing());
        }
        let count = self.members.len().min(standings.len());
        Usable::of(standings.get(..count).unwrap_or_default(), self.share)
    }

    /// Tells when more should be ejected than may be; asked with each tick.
    pub(in crate::proxy) fn watch_share(&self) {
        self.state.share.look(&self.region, self.usable().exceeded);
    }

    /// The backend could not be reached: pass it over for a while, where there are others.
    #[expect(clippy::unused_self, reason = "whoever calls knows the group, not who keeps marks")]
    pub(in crate::proxy) fn mark(&self, upstream: &Upstream) {
        upstream.health.unreachable(Cause::Connect);
        upstream.since.lost();
    }

    /// The tier that serves.
    pub(in crate::proxy) fn tier(&self) -> u8 {
        self.state.serving.tier()
    }

    /// How many requests wait for a backend with room.
    pub(in crate::proxy) fn waiting(&self) -> usize {
        self.state.queue.waiting()
    }

    /// What is known of each backend now.
    pub(in crate::proxy) fn snapshot(&self) -> Vec<BackendSnapshot> {
        let usable = self.usable();
        let members = self.members.iter().enumerate();
        members.map(|(index, member)| member.snapshot(usable.fit(index))).collect()
    }
}

/// The numbers of the tiers and who belongs to each, the best first.
fn tiers_of(members: &[Member]) -> Box<[(u8, Set)]> {
    let mut numbers: Vec<u8> = members.iter().map(|member| member.tier).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let of = |tier: u8| {
        let own = members.iter().enumerate().filter(|(_, member)| member.tier == tier);
        (tier, own.map(|(index, _)| index).collect())
    };
    numbers.into_iter().map(of).collect()
}

/// What one look at the members has found.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    well: Eligible,
    doubtful: Set,
    /// At their bound.
    full: Set,
}

#[cfg(test)]
mod tests;
