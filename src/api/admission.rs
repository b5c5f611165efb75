//! Who may call: a known key, within its rate.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::{Refusal, Shared};
use crate::identity::{KeyId, Keys};
use crate::rate::{Rate, SharedBudget};
use crate::settings::ApiSettings;

/// The keys, and what each has used of its rate.
#[derive(Debug)]
pub(super) struct Admission {
    keys: Keys,
    rate: Rate,
    /// Beside the keys.
    budgets: Vec<SharedBudget>,
    started: Instant,
}

impl Admission {
    pub(super) fn new(keys: Keys, settings: &ApiSettings) -> Self {
        Self {
            budgets: keys.names().map(|_| SharedBudget::default()).collect(),
            keys,
            rate: Rate::per_second(settings.requests_per_second, settings.request_burst),
            started: Instant::now(),
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    fn spend(&self, key: KeyId) -> Result<(), Refusal> {
        let Some(budget) = self.budgets.get(key.index()) else { return Ok(()) };
        budget.take(&self.rate, self.started.elapsed()).map_err(|wait| {
            // Rounded up: whoever waits so long is not refused for the same again.
            let seconds = wait.as_nanos().div_ceil(1_000_000_000);
            Refusal::RateLimited { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) }
        })
    }
}

/// Lets a request through to its handler; the response names the key, whatever became of it.
pub(super) async fn admit(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let key = match shared.admission.keys.verify(request.headers()) {
        Ok(key) => key,
        Err(why) => return Refusal::Unauthorized(why).into_response(),
    };
    request.extensions_mut().insert(key);
    let mut response = match shared.admission.spend(key) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    response.extensions_mut().insert(key);
    response
}
