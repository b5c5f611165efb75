//! What all doors of the process share: the edition of the settings that requests go by, the parts behind the doors, and the
//! counts of what is open.
//!
//! One [`Common`] is made when the process starts; a reload replaces its policy whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use super::listen::{self, Slots};
use super::metrics::EdgeMetrics;
use super::policy::Policy;
use super::slow::Places;
use crate::api::Api;
use crate::files::MountError;
use crate::hub::Hub;
use crate::limits::Limiter;
use crate::observability::{self, Readiness, Registry};
use crate::proxy::Shared;
use crate::settings::Settings;
use crate::shutdown::Drain;

/// What all doors of the process share.
#[derive(Debug)]
pub struct Common {
    pub(super) policy: ArcSwap<Policy>,
    limiter: Limiter,
    pub(super) regions: Arc<Shared>,
    pub(super) hub: Arc<Hub>,
    pub(super) api: Option<Arc<Api>>,
    pub(super) drain: Drain,
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<EdgeMetrics>,
    /// Of all listeners.
    pub(super) places: Arc<Places>,
    /// Where access lines are written.
    pub(super) lines: observability::AccessLog,
    /// Owner of the chat sockets' tasks.
    pub(super) sockets: TaskTracker,
    /// Counts the accept loops, each until its last connection has ended.
    pub(super) doors: TaskTracker,
}

/// The parts that [`Common::new`] joins.
pub struct CommonParts<'a> {
    pub settings: &'a Settings,
    pub(crate) limiter: Limiter,
    pub proxy: Arc<Shared>,
    pub hub: Arc<Hub>,
    /// Where there is one.
    pub api: Option<Arc<Api>>,
    pub drain: Drain,
    pub readiness: Readiness,
    pub lines: observability::AccessLog,
    pub registry: &'a mut Registry,
}

impl Common {
    /// # Errors
    /// Where a folder that is to be served is not there.
    pub fn new(parts: CommonParts<'_>) -> Result<Arc<Self>, MountError> {
        let metrics = EdgeMetrics::new(parts.registry);
        let policy = Policy::new(parts.settings, &parts.limiter, None)?;
        parts.limiter.adopt(&policy.limits, None);
        let doors = TaskTracker::new();
        doors.close();
        Ok(Arc::new(Self {
            policy: ArcSwap::new(policy),
            limiter: parts.limiter,
            regions: parts.proxy,
            hub: parts.hub,
            api: parts.api,
            drain: parts.drain,
            readiness: parts.readiness,
            lines: parts.lines,
            metrics: Arc::new(metrics),
            places: Places::new(),
            sockets: TaskTracker::new(),
            doors,
        }))
    }

    /// Room for the connections of one more address.
    pub fn slots(&self) -> Slots {
        listen::slots(self.policy.load().settings.max_connections)
    }

    /// What requests that begin now go by.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// An edition of these settings, which goes on with what the limits of the present one have counted; nothing goes by it
    /// before [`Self::replace_policy`].
    ///
    /// # Errors
    /// Where a folder that is to be served is not there.
    pub fn edition(&self, settings: &Settings) -> Result<Arc<Policy>, MountError> {
        Policy::new(settings, &self.limiter, Some(&self.policy()))
    }

    /// Puts another edition in place; requests that are going on keep theirs.
    pub fn replace_policy(&self, policy: &Arc<Policy>) {
        let previous = self.policy.swap(Arc::clone(policy));
        self.limiter.adopt(&policy.limits, Some(&previous.limits));
    }

    /// Ends when every listener was told to stop, has taken what the system had accepted for it, and has no
    /// connection left.
    pub async fn doors_closed(&self) {
        self.doors.wait().await;
    }

    /// Ends when every chat socket's task has ended; new ones are still taken.
    pub async fn sockets_closed(&self) {
        self.sockets.close();
        self.sockets.wait().await;
    }
}
