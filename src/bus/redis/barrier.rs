//! Waits until replicas have what was stored, for many publishes at once.
//!
//! Walk: a publish that Redis has answered [`passes`](Barrier::pass) the next barrier. One barrier is a write of its own
//! and `WAIT`, on a connection beside the commanding one, since `WAIT` stops the connection that it is sent on. It
//! covers everything that the server has executed before it, repeats included.
//!
//! Invariants: a barrier covers only those who came before it began; both connections are made to the same process,
//! which must still have the settled history after the wait; where too few replicas answer in time, all who wait
//! are refused: their messages are stored, and a repeat of each waits again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::{Notify, watch};

use super::breaker::Breaker;
use super::lineage::History;
use super::names;
use crate::bus::BusError;

/// How long the key of a barrier stays, in milliseconds; it is of no use once the barrier is passed.
const KEY_LIFE_MS: i64 = 60_000;

/// The barriers of one connection.
pub(super) struct Barrier {
    client: Client,
    /// Replicas that must have it.
    replicas: u32,
    /// How long they may take, which is less than any command may.
    wait: Duration,
    key: String,
    history: Arc<History>,
    /// Of the commanding connection, which is of no use where the history is another one.
    breaker: Breaker,
    begun: AtomicU64,
    asked: Notify,
    passed: watch::Sender<Passed>,
}

/// How the last barrier ended.
#[derive(Clone, Debug)]
struct Passed {
    number: u64,
    outcome: Result<(), Arc<str>>,
}

impl Barrier {
    pub(super) fn new(
        client: Client,
        (replicas, patience): (u32, Duration),
        tag: &str,
        history: Arc<History>,
        breaker: Breaker,
    ) -> Self {
        Self {
            client,
            replicas,
            wait: patience / 2,
            key: names::barrier(tag),
            history,
            breaker,
            begun: AtomicU64::new(0),
            asked: Notify::new(),
            passed: watch::Sender::new(Passed { number: 0, outcome: Ok(()) }),
        }
    }

    /// Waits until enough replicas have all that the server has answered so far.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] where they do not have it in time, or the connection ends meanwhile.
    pub(super) async fn pass(&self) -> Result<(), BusError> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut passed = self.passed.subscribe();
        self.asked.notify_one();
        // One may be under way that does not count for us; each takes less than `wait` and an answer's time.
        let turn = passed.wait_for(|passed| passed.number > begun);
        let outcome = match tokio::time::timeout(self.wait * 4, turn).await {
            Ok(Ok(passed)) => passed.outcome.clone(),
            _ => Err(Arc::from("replicas did not answer in time")),
        };
        outcome.map_err(BusError::Unavailable)
    }

    /// Serves those who ask, one barrier after the other, for as long as the connection stands.
    pub(super) async fn run(&self) {
        loop {
            self.asked.notified().await;
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let outcome = match self.once().await {
                Ok(outcome) => outcome,
                Err(error) => Err(Arc::from(error.details())),
            };
            self.passed.send_replace(Passed { number, outcome });
        }
    }

    /// The connection is over: whoever waits, or comes later, is told so.
    pub(super) fn end(&self, why: &str) {
        self.passed.send_replace(Passed { number: u64::MAX, outcome: Err(Arc::from(why)) });
    }

    async fn once(&self) -> Result<Result<(), Arc<str>>, Error> {
        let ms = i64::try_from(self.wait.as_millis()).unwrap_or(i64::MAX).max(1);
        let write = ["PX".into(), Value::Integer(KEY_LIFE_MS)];
        let set = [Value::from(self.key.as_str()), "".into()].into_iter().chain(write).collect();
        let wait = vec![Value::Integer(self.replicas.into()), Value::Integer(ms)];
        let steps = self.client.pipeline();
        steps.custom::<(), _>(command("SET"), set).await?;
        steps.custom::<(), _>(command("WAIT"), wait).await?;
        let fenced = !self.history.replid.is_empty();
        if fenced {
            steps.custom::<(), _>(command("INFO"), vec!["replication"]).await?;
        }
        let answers: Vec<Value> = steps.all().await?;
        let reached = answers.get(1).and_then(Value::as_u64).unwrap_or_default();
        let info = answers.get(2).and_then(Value::as_string).unwrap_or_default();
        Ok(if reached < self.replicas.into() {
            Err(format!("only {reached} of {} replicas have it", self.replicas).into())
        } else if fenced && !info.contains(&format!("master_replid:{}", self.history.replid)) {
            let why = "the server has another history by now";
            self.breaker.trip(why);
            Err(why.into())
        } else {
            Ok(())
        })
    }
}

fn command(verb: &'static str) -> CustomCommand {
    CustomCommand::new_static(verb, ClusterHash::FirstKey, false)
}
