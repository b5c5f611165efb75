//! A backend as one table has it: what the settings say of it here, and whether it may be used now.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use super::hash;
use super::upstream::{Clock, Upstream};
use crate::proxy::dial::Name;
use crate::proxy::health::{Fit, HealthSnapshot, Standing};
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
    /// What stands for it where requests are kept together.
    pub(super) name: u64,
}

impl Member {
    pub(super) fn new(upstream: Arc<Upstream>, settings: &BackendSettings) -> Self {
        let BackendSettings { tier, weight, max_connections, .. } = *settings;
        let name = hash::digest(upstream.label.as_bytes());
        Self { upstream, tier, weight, max_connections, name }
    }

    /// The weight in effect: an operator's, or the settings'.
    pub(in crate::proxy) fn weight(&self) -> u32 {
        self.upstream.weight_override().unwrap_or_else(|| u32::from(self.weight))
    }

    /// Whether it takes nothing new.
    pub(super) fn is_out(&self) -> bool {
        self.upstream.is_draining() || self.weight() == 0
    }

    /// Whether nothing at all stands against it.
    pub(super) fn is_clear(&self) -> bool {
        self.upstream.health.marks().is_clear() && !self.is_out()
    }

    /// What stands against it.
    pub(super) fn standing(&self) -> Standing {
        let standing = self.upstream.health.standing();
        Standing { out: standing.out || self.is_out(), ..standing }
    }

    /// Whether it is at its bound.
    pub(super) fn is_full(&self) -> bool {
        self.max_connections > 0 && self.upstream.active() >= self.max_connections as usize
    }

    pub(super) fn snapshot(&self, fit: Fit) -> BackendSnapshot {
        let known = self.upstream.address.name().map(Name::found);
        BackendSnapshot {
            address: self.upstream.label.to_string(),
            resolved: known.unwrap_or_default(),
            tier: self.tier,
            weight: self.weight(),
            weight_set: self.upstream.weight_override().is_some(),
            max_connections: self.max_connections,
            active: self.upstream.active(),
            requests: self.upstream.requests(),
            draining: self.upstream.is_draining(),
            marked: fit != Fit::Eligible,
            health: self.upstream.health.snapshot(),
        }
    }
}

/// The time of one choice: the clock is read once, and only where something is not as ever.
pub(super) struct Now {
    clock: Clock,
    read: Cell<Option<u64>>,
}

impl Now {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, read: Cell::new(None) }
    }

    /// Milliseconds after the clock's start.
    pub(super) fn get(&self) -> u64 {
        self.read.get().unwrap_or_else(|| {
            let now = self.clock.millis();
            self.read.set(Some(now));
            now
        })
    }
}

/// One backend, for a status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSnapshot {
    /// `host:port`.
    pub address: String,
    /// Where that is a name: the addresses that it was found to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolved: Vec<SocketAddr>,
    pub tier: u8,
    pub weight: u32,
    /// The weight is an operator's.
    pub weight_set: bool,
    /// Exchanges and tunnels at once; 0 means no bound.
    pub max_connections: u32,
    /// Exchanges and tunnels going on.
    pub active: usize,
    /// All there ever were.
    pub requests: u64,
    /// An operator has taken it out.
    pub draining: bool,
    /// It is passed over at the moment.
    pub marked: bool,
    pub health: HealthSnapshot,
}
