//! What an exchange has been through, written down as it goes on.
//!
//! The caller holds it, so that of an exchange that is cancelled half-way everything is known that happened until then.

use std::sync::Arc;
use std::time::Duration;

use super::region::RegionRef;
use super::trace::TraceId;

/// What an exchange has been through.
#[derive(Debug, Default)]
pub struct Report {
    /// The region whose backend answers, or was tried last.
    pub served: Option<RegionRef>,
    /// `host:port` of that backend.
    pub backend: Option<Arc<str>>,
    /// Backends that were tried.
    pub attempts: u8,
    /// From the choice of the backend until the head of its answer.
    pub first_byte: Option<Duration>,
    /// The policy by which it went to another region.
    pub why: Option<&'static str>,
    /// The trace that it belongs to.
    pub trace: Option<TraceId>,
}
