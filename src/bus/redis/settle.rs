//! The long-lived work on seats: the beats of this node, what follows from others' deaths, and what is still to be said.
//!
//! Walk: [`RedisBus::beat_on`] beats, and buries the silent. [`RedisBus::keep_seats`] takes errands from the book,
//! a few at a time; after an outage, and seldom without one, it goes through all users part by part and has their
//! seats said again. When told to stop it says what is left, and that this node is gone.
//!
//! Invariants: nothing is said while the bus is down, and all of it when it is up again; a pass over all users never
//! keeps those waiting who leave.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RedisBus;
use super::book::{Errand, SHARDS};
use super::seat_script::SEATS_LIFE;
use crate::bus::{BusError, BusState};

/// Errands under way at once.
const ERRANDS: usize = 32;

/// After an errand that failed though the bus is up.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two beats or burials, whatever happens.
const LEAST: Duration = Duration::from_millis(20);

/// For what is left to be said at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Without any outage, all seats are said again this often: some may have been lost that nobody noticed.
const SWEEP: Duration = Duration::from_secs(SEATS_LIFE.as_secs() / 4);

/// … a part of all users at a time.
const SWEEP_PART: Duration = Duration::from_millis(SWEEP.as_secs() * 1_000 / SHARDS as u64);

/// A pass over all users, part by part.
#[derive(Default)]
struct Pass {
    /// Parts that are not gone through, as a number up to [`SHARDS`].
    parts: std::ops::Range<usize>,
    users: std::vec::IntoIter<Arc<str>>,
}

impl Pass {
    fn begin(&mut self) {
        self.parts = 0..SHARDS;
    }
}

impl RedisBus {
    /// Beats for ever, and buries whoever does not.
    pub(super) async fn beat_on(&self) {
        let nodes = &self.seats.nodes;
        loop {
            tokio::time::sleep_until(nodes.next()).await;
            let pause = match self.beat().await {
                Ok(()) => LEAST,
                Err(BusError::Unavailable(why)) => {
                    tracing::debug!(target: "Bus", "a beat failed: {why}");
                    nodes.retry()
                }
            };
            for dead in nodes.silent() {
                if let Err(BusError::Unavailable(why)) = self.bury(dead).await {
                    tracing::debug!(target: "Bus", "a burial failed: {why}");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Says what the book has to say, until `stop`, and then what is left of it.
    pub(super) async fn keep_seats(&self, stop: &CancellationToken) {
        let (book, nodes) = (&self.seats.book, &self.seats.nodes);
        let mut state = self.state();
        let mut errands = FuturesUnordered::new();
        let mut pass = Pass::default();
        let mut pause = Instant::now();
        let mut holds_from: Option<Instant> = None;
        let mut sweep = Instant::now() + SWEEP_PART;
        let mut swept = (0..SHARDS).cycle();
        loop {
            let is_up = *state.borrow_and_update() == BusState::Up;
            if is_up && pause <= Instant::now() {
                while errands.len() < ERRANDS
                    && let Some(errand) = self.next_errand(&mut pass)
                {
                    errands.push(self.run_errand(errand));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = errands.next() => if !done {
                    pause = Instant::now() + PAUSE;
                },
                () = tokio::time::sleep_until(pause), if is_up && pause > Instant::now() => {}
                () = book.queued(), if errands.len() < ERRANDS => {}
                changed = state.changed() => match changed {
                    Ok(()) if *state.borrow() == BusState::Up => pass.begin(),
                    Ok(()) => {}
                    Err(_gone) => break,
                },
                () = nodes.changed() => {
                    let changes = nodes.changes();
                    if changes.deaths || changes.lapsed || changes.buried {
                        self.unsure();
                    }
                    if changes.buried || changes.lapsed {
                        tracing::warn!(target: "Bus", "this node was out of touch: it says its seats again");
                        pass.begin();
                        holds_from = nodes.lenient_until();
                    }
                }
                () = tokio::time::sleep_until(holds_from.unwrap_or(sweep)), if holds_from.is_some() => {
                    // Now it is known who is dead, and the limits are held to.
                    holds_from = None;
                    pass.begin();
                }
                () = tokio::time::sleep_until(sweep) => {
                    sweep = Instant::now() + SWEEP_PART;
                    for user in swept.next().into_iter().flat_map(|part| book.users_of(part)) {
                        book.again(&user);
                    }
                }
            }
        }
        drop(tokio::time::timeout(FAREWELL, self.say_farewell(errands)).await);
    }

    async fn say_farewell<F: Future<Output = bool>>(&self, mut errands: FuturesUnordered<F>) {
        while errands.next().await.is_some() {}
        let mut errands = FuturesUnordered::new();
        loop {
            while errands.len() < ERRANDS
                && let Some(errand) = self.seats.book.next()
            {
                errands.push(self.run_errand(errand));
            }
            match errands.next().await {
                Some(true) => {}
                // Whoever cannot say it leaves it to the lease.
                Some(false) => return,
                None => break,
            }
        }
        drop(self.bury(self.seats.nodes.own()).await);
    }

    /// The next of the queue; where it is empty, the pass goes on.
    fn next_errand(&self, pass: &mut Pass) -> Option<Errand> {
        let book = &self.seats.book;
        loop {
            if let Some(errand) = book.next() {
                return Some(errand);
            }
            match pass.users.next() {
                Some(user) => book.again(&user),
                None => pass.users = book.users_of(pass.parts.next()?).into_iter(),
            }
        }
    }

    /// False where it failed.
    async fn run_errand(&self, errand: Errand) -> bool {
        let settled = self.settle(&errand).await;
        match settled {
            Ok(()) => self.seats.book.done(&errand),
            Err(BusError::Unavailable(why)) => {
                tracing::debug!(target: "Bus", "seats of user={} not settled: {why}", errand.user);
                self.seats.book.failed(&errand);
                return false;
            }
        }
        true
    }
}
