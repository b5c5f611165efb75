//! The backends among which one request has its choice, and the choice.
//!
//! A group is immutable and belongs to one table; what must outlive a reload is in its [`Upstream`]s and in
//! [`GroupState`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::balance::{self, Candidate, Tried};
use super::upstream::{Active, Clock, Identity, Upstream, millis};
use crate::proxy::error::SetupError;
use crate::proxy::metrics::RegionSeries;
use crate::settings::BackendSettings;

/// A backend as one table has it.
#[derive(Debug)]
pub(in crate::proxy) struct Member {
    pub(in crate::proxy) upstream: Arc<Upstream>,
    /// 0 are the primaries; the next is used only when nothing of the one before can be.
    pub(in crate::proxy) tier: u8,
    /// The settings' weight.
    pub(in crate::proxy) weight: u16,
    /// Exchanges at once; 0 means no bound.
    pub(in crate::proxy) max_connections: u32,
}

/// What a group's next edition takes over.
#[derive(Debug, Default)]
pub(in crate::proxy) struct GroupState {
    turns: AtomicUsize,
}

/// Why a group has no backend for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum NoBackend {
    /// None is eligible that was not tried.
    Unavailable,
}

/// The backends of one region, or its hub.
#[derive(Debug)]
pub(in crate::proxy) struct Group {
    pub(in crate::proxy) members: Box<[Member]>,
    state: Arc<GroupState>,
    clock: Clock,
    fail_timeout: Duration,
}

/// What a group is built of besides its backends.
pub(in crate::proxy) struct Ground<'a> {
    pub(in crate::proxy) region: &'a str,
    pub(in crate::proxy) series: &'a Arc<RegionSeries>,
    pub(in crate::proxy) clock: Clock,
    pub(in crate::proxy) fail_timeout: Duration,
}

impl Group {
    /// `previous` is the group of the table before this one, whose backends are taken over where they are the same.
    pub(in crate::proxy) fn new(
        backends: &[BackendSettings],
        previous: Option<&Self>,
        ground: &Ground<'_>,
    ) -> Result<Self, SetupError> {
        if backends.len() > balance::MAX_BACKENDS {
            let (region, limit) = (ground.region.to_owned(), balance::MAX_BACKENDS);
            return Err(SetupError::TooManyBackends { region, limit });
        }
        let member = |backend: &BackendSettings| {
            let identity = Identity::of(backend);
            let known = previous.and_then(|group| {
                group.members.iter().find(|member| member.upstream.identity == identity)
            });
            let upstream = match known {
                Some(member) => Arc::clone(&member.upstream),
                None => Upstream::new(ground.region, backend, ground.series, ground.clock)?,
            };
            let BackendSettings { tier, weight, max_connections, .. } = *backend;
            Ok(Member { upstream, tier, weight, max_connections })
        };
        Ok(Self {
            members: backends.iter().map(member).collect::<Result<_, _>>()?,
            state: previous.map(|group| Arc::clone(&group.state)).unwrap_or_default(),
            clock: ground.clock,
            fail_timeout: ground.fail_timeout,
        })
    }

    /// The best backend not tried yet, counted as in use; it counts as tried from here on. `key` is what requests
    /// that belong together have in common.
    #[expect(clippy::unused_async, reason = "where all are at their bound, it is waited for here")]
    pub(in crate::proxy) async fn acquire(
        &self,
        tried: &mut Tried,
        _key: Option<u64>,
    ) -> Result<Active, NoBackend> {
        self.pick(tried).ok_or(NoBackend::Unavailable)
    }

    fn pick(&self, tried: &mut Tried) -> Option<Active> {
        let index = if self.members.len() == 1 {
            // Nothing to weigh: a mark would only turn an error of its own into ours.
            (!tried.contains(0)).then_some(0)?
        } else {
            let now = self.clock.millis();
            let turn = self.state.turns.fetch_add(1, Ordering::Relaxed);
            balance::choose(self.members.len(), turn, *tried, |index| self.look(index, now))?
        };
        tried.insert(index);
        self.members.get(index).map(|member| Active::begin(&member.upstream))
    }

    fn look(&self, index: usize, now: u64) -> Candidate {
        match self.members.get(index) {
            Some(member) => member.look(now),
            None => Candidate { active: usize::MAX, backup: true, marked: true },
        }
    }

    /// Whether some backend is eligible now.
    pub(in crate::proxy) fn is_available(&self) -> bool {
        let now = self.clock.millis();
        self.members.iter().any(|member| !member.look(now).marked)
    }

    /// The backend could not be reached: pass it over for a while, where there are others.
    pub(in crate::proxy) fn mark(&self, upstream: &Upstream) {
        upstream.health.unreachable(self.clock.millis(), millis(self.fail_timeout));
    }

    /// What is known of each backend now.
    pub(in crate::proxy) fn snapshot(&self) -> Vec<BackendSnapshot> {
        let now = self.clock.millis();
        let look = |member: &Member| {
            let Candidate { active, marked, .. } = member.look(now);
            BackendSnapshot {
                address: member.upstream.label.to_string(),
                tier: member.tier,
                weight: member.weight(),
                active,
                draining: member.upstream.is_draining(),
                marked,
            }
        };
        self.members.iter().map(look).collect()
    }
}

impl Member {
    /// The weight in effect: an operator's, or the settings'.
    pub(in crate::proxy) fn weight(&self) -> u32 {
        self.upstream.weight_override().unwrap_or_else(|| u32::from(self.weight))
    }

    fn look(&self, now: u64) -> Candidate {
        Candidate {
            active: self.upstream.active(),
            backup: self.tier > 0,
            marked: self.upstream.is_draining() || !self.upstream.health.is_eligible(now),
        }
    }
}

/// One backend, for a status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackendSnapshot {
    /// `host:port`.
    pub address: String,
    pub tier: u8,
    pub weight: u32,
    /// Exchanges and tunnels going on.
    pub active: usize,
    /// An operator has taken it out.
    pub draining: bool,
    /// It is passed over at the moment.
    pub marked: bool,
}
