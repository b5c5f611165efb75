//! One commanding connection: its client, the history it may answer for, and how scripts are run over it.
//!
//! Invariants: a connection whose server has forgotten the scripts, has another history, or takes no more writes is
//! over; what was asked over it fails, and is never sent again in another form. So no message overtakes one
//! that was sent before it.

use std::sync::Arc;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::LuaInterface as _;
use fred::types::{ConnectHandle, Key, Value};

use super::barrier::Barrier;
use super::breaker::Breaker;
use super::lineage::History;
use super::script::Script;
use super::server::Server;
use crate::bus::BusError;

/// Errors after which a connection is of no use, by their first word.
const FATAL: [&str; 3] = ["NOSCRIPT", "FENCED", "READONLY"];

/// The present connection.
pub(super) struct Link {
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) breaker: Breaker,
    pub(super) history: Arc<History>,
    /// Where replicas are to have a message before it is acknowledged.
    pub(super) barrier: Option<Barrier>,
}

impl Link {
    /// Runs a script by its hash; the connection knows all of them.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: Vec<Key>,
        values: Vec<Value>,
    ) -> Result<Vec<Value>, BusError> {
        let answer: Result<Value, Error> =
            self.client.evalsha(script.hash.as_str(), keys, values).await;
        answer.map(Value::into_array).map_err(|error| {
            if FATAL.iter().any(|word| error.details().starts_with(word)) {
                self.breaker.trip(error.details());
            }
            unavailable(&error)
        })
    }
}

/// What runs a connection; dropped, the connection ends, with everything in flight.
pub(super) struct Running(pub(super) ConnectHandle);

impl Running {
    /// Waits for the end, and says why.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.0).await {
            Ok(Err(error)) => error.details().to_owned(),
            Ok(Ok(())) => "the connection ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn unavailable(error: &Error) -> BusError {
    BusError::Unavailable(match error.kind() {
        ErrorKind::Timeout => Arc::from("Redis did not answer in time"),
        _ => Arc::from(error.details()),
    })
}
