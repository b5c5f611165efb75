//! How one who finds a connection useless has it replaced by its owner.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Belongs to one connection; clones are the same breaker.
#[derive(Clone, Default)]
pub(super) struct Breaker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tripped: CancellationToken,
    why: OnceLock<String>,
}

impl Breaker {
    /// Asks for a new connection; the first reason counts.
    pub(super) fn trip(&self, why: &str) {
        self.shared.why.get_or_init(|| why.to_owned());
        self.shared.tripped.cancel();
    }

    /// Waits until the connection was found useless, and says why.
    pub(super) async fn tripped(&self) -> String {
        self.shared.tripped.cancelled().await;
        self.shared.why.get().cloned().unwrap_or_default()
    }
}
