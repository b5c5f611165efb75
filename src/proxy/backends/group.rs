//! The backends among which one request has its choice, and the choice.
//!
//! Walk: [`Group::acquire`] has one chosen (`choice`) and waits in line where none has room; what the marks of all mean
//! together, and what of the group is left, is said here for whoever asks.
//!
//! A group is immutable and belongs to one table; what must outlive a reload is in its [`Upstream`]s and in
//! [`GroupState`]. Invariants: a backend that takes nothing (weight 0, draining) is never chosen; one over its bound
//! neither; a worse tier only when nothing of a better one can be, while the better one is held back, or while it takes
//! over by and by.

mod choice;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use http::HeaderMap;

use self::choice::Miss;
use super::balance::{Tried, Turns, UNIT};
use super::hash::KeyBy;
use super::homing::{Home, Homing, Stray};
use super::member::{BackendSnapshot, Member, Now};
use super::metrics::Waiting;
use super::queue::{Limits, Overloaded, Queue};
use super::set::{MAX_BACKENDS, Set};
use super::tiers::Serving;
use super::upstream::{Active, Arrival, Clock, Identity, Upstream, millis};
use crate::proxy::dial::BackendTls;
use crate::proxy::error::SetupError;
use crate::proxy::failover;
use crate::proxy::health::{Fit, HealthFamilies, Rules, ShareWatch, Standing, Usable};
use crate::proxy::metrics::RegionSeries;
use crate::settings::{BackendSettings, BackendsSettings, Balance, HashBy};

/// What a group's next edition takes over.
#[derive(Debug, Default)]
pub(in crate::proxy) struct GroupState {
    queue: Arc<Queue>,
    serving: Serving,
    share: ShareWatch,
    points: AtomicU32,
    homing: Arc<Homing>,
}

/// Why a group has no backend for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum NoBackend {
    /// None is eligible that was not tried.
    Unavailable,
    /// All that are eligible are at their bound, and it could not be waited, or not any longer.
    Overloaded,
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
    /// What their health is judged by, and how many of them may be ejected.
    rules: Arc<Rules>,
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
            rules: Arc::clone(ground.rules),
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
        // Whoever waits was here first; but what has nobody left to go to need not wait to hear it.
        if !self.bounded || self.state.queue.waiting() == 0 || self.is_hopeless(*tried) {
            match self.pick(tried, key) {
                Ok(active) => return Ok(active),
                Err(Miss::Unavailable) => return Err(NoBackend::Unavailable),
                Err(Miss::Busy) => {}
            }
        }
        // Boxed: a request that need not wait should not be as large as one that must.
        Box::pin(self.wait(tried, key)).await
    }

    /// Whether nobody is left for a request.
    fn is_hopeless(&self, tried: Tried) -> bool {
        let usable = self.usable();
        Set::of_bits(usable.eligible | usable.resort).without(tried.set()).is_empty()
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

    /// What the group can take now, in thousandths of a weight: of the tier that serves, those who are well, each as far as
    /// its slow start has come; and all of the primaries.
    pub(in crate::proxy) fn standing(&self) -> failover::Standing {
        let (now, usable) = (Now::new(self.clock), self.usable());
        for (index, member) in self.members.iter().enumerate() {
            if usable.fit(index) != Fit::Eligible {
                // Where all goes elsewhere, no choice is made here that would note it.
                member.upstream.since.lost();
            }
        }
        let well = self.serving(Set::of_bits(usable.well));
        let well = well.iter().filter_map(|index| self.members.get(index));
        let primaries = self.members.iter().filter(|member| member.tier == 0);
        failover::Standing {
            usable: well.map(|member| self.weight(member, &now)).sum(),
            whole: primaries.map(|member| member.weight().saturating_mul(UNIT)).sum(),
        }
    }

    /// Of those who are well, the members of the tier that serves, and of the one that it takes over from; of the best
    /// tier, where that has none.
    fn serving(&self, well: Set) -> Set {
        let (tier, from) = self.state.serving.both();
        let of = |tier: u8| {
            let tier = self.tiers.iter().find(|(number, _)| *number == tier);
            tier.map_or(Set::EMPTY, |(_, all)| all.and(well))
        };
        let serving = of(tier).or(of(from));
        if serving.is_empty() { self.of_best(well) } else { serving }
    }

    /// Which of the members may be used now. Costs three loads for each that is well.
    pub(in crate::proxy) fn usable(&self) -> Usable {
        let mut usable = Usable::default();
        for (index, member) in self.members.iter().enumerate() {
            let standing = if member.is_clear() { Standing::default() } else { member.standing() };
            if standing.ejected {
                // Only then the others of its tier have a say.
                return self.usable_with_ejections();
            }
            usable.admit_one(index, standing);
        }
        usable
    }

    fn usable_with_ejections(&self) -> Usable {
        let mut standings = [(0, Standing::default()); MAX_BACKENDS];
        for (place, member) in standings.iter_mut().zip(&self.members) {
            *place = (member.tier, member.standing());
        }
        let count = self.members.len().min(standings.len());
        Usable::of(standings.get(..count).unwrap_or_default(), self.rules.share())
    }

    /// Tells when more should be ejected than may be; asked with each tick.
    pub(in crate::proxy) fn watch_share(&self) {
        self.state.share.look(&self.region, self.usable().exceeded);
    }

    /// Has its backends judged by its rules and balanced in its way, now that its table is the one in place.
    pub(in crate::proxy) fn take_charge(&self) {
        for Member { upstream, .. } in &self.members {
            upstream.health.adopt(&self.rules);
            upstream.time(self.balance == Balance::P2cEwma);
        }
    }

    /// Those of its backends that were tried as members of another edition.
    pub(in crate::proxy) fn tried_before(&self, other: &Self, tried: Tried) -> Tried {
        let mut again = Tried::default();
        let before = |upstream: &Arc<Upstream>| {
            let members = other.members.iter().enumerate();
            members
                .filter(|(index, _)| tried.contains(*index))
                .any(|(_, one)| Arc::ptr_eq(&one.upstream, upstream))
        };
        let members = self.members.iter().enumerate();
        let known = members.filter(|(_, member)| before(&member.upstream));
        known.for_each(|(index, _)| again.insert(index));
        again
    }

    /// A socket that is for this group, and that another region serves.
    pub(in crate::proxy) fn stray_abroad(&self) -> Stray {
        Stray::new(&self.state.homing, None)
    }

    /// A socket that this backend serves; nothing where that is of the best tier.
    pub(in crate::proxy) fn stray_at(&self, upstream: &Arc<Upstream>) -> Option<Stray> {
        let own = self.members.iter().find(|member| Arc::ptr_eq(&member.upstream, upstream))?;
        let (best, _) = self.tiers.first()?;
        (own.tier > *best).then(|| Stray::new(&self.state.homing, Some(own.tier)))
    }

    /// Lets sockets that are served elsewhere come home, so many a second; asked with each tick.
    pub(in crate::proxy) fn call_home(&self, policy: &failover::Policy, rate: u32) {
        if self.state.homing.has_strays() {
            // Else only a request would find out that a better tier may serve again.
            self.note();
            let best = self.of_best(Set::of_bits(self.usable().well));
            let best = || best.iter().filter_map(|index| self.members.get(index));
            let tier = best().map(|member| member.tier).next();
            let home = Home { tier, keeps_all: policy.keeps_all(self.standing()) };
            // For want of room they would only be sent away again.
            let rate = if best().all(Member::is_full) { 0 } else { rate };
            let hold = Duration::from_millis(self.hold.saturating_add(self.slow_start));
            self.state.homing.look(home, rate, hold);
        }
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
