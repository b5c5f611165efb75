//! Bounds on what one client takes: connections, and the time over a head or over an answer.
//!
//! Walk: `listen` takes a [`Place`] for each connection, by the client's address; its watchdog tells of a late head with
//! [`tell_of_late_head`], and asks a [`Pace`] whether the reader of an answer is too slow.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client_io::{ConnectionState, Phase, Sample};
use super::unparsed::Substitute;
use super::{Edge, is_trusted};
use crate::limits::network;
use crate::settings::ProxySettings;

/// Enough that workers rarely meet on one.
const SHARDS: u64 = 64;

/// What the answer to a late head may take: it is short, and its reader has not been sent anything else.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The time over which the rate of a reader is reckoned.
const SPAN: Duration = Duration::from_secs(10);

/// Bytes that the system may hold for a reader beyond what is on its way to him. On its own it takes megabytes, and takes
/// no more until a third of them has gone: so a slow reader would look like one that does not read at all.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// Header fields that hyper's parser takes unless it is told.
const PARSED: usize = 100;

/// The bytes in whose steps a reader is seen to move.
const STEP: u64 = 128 * 1024;

/// How often the watchdog has to look for the rate to be seen.
pub(super) const LOOK: Duration = Duration::from_millis(2_500);

/// Open connections by client's address.
#[derive(Debug)]
pub(super) struct Places {
    shards: Vec<Mutex<HashMap<IpAddr, usize>>>,
    hasher: RandomState,
}

/// One connection's place among its client's; dropped, it is free.
#[derive(Debug)]
pub(super) struct Place(Option<(Arc<Places>, IpAddr)>);

impl Places {
    pub(super) fn new() -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, hasher: RandomState::new() })
    }

    /// A place for one more connection of `peer`; `None` where he has `most` already.
    fn take(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<Place> {
        let client = network(peer);
        let mut shard = self.shard(client)?;
        let open = shard.entry(client).or_insert(0);
        if *open >= most {
            return None;
        }
        *open += 1;
        drop(shard);
        Some(Place(Some((Arc::clone(self), client))))
    }

    /// There is always one.
    fn shard(&self, client: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, usize>>> {
        let index = usize::try_from(self.hasher.hash_one(client) % SHARDS).ok()?;
        self.shards.get(index).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, client)) = self.0.take() else { return };
        let Some(mut shard) = places.shard(client) else { return };
        if let Entry::Occupied(mut open) = shard.entry(client) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

impl Edge {
    /// A place for a connection that was accepted; `None`, and the client told as cheaply as can be where the
    /// listener speaks `plain` HTTP, where he has too many.
    pub(super) fn place(&self, stream: &TcpStream, peer: SocketAddr, plain: bool) -> Option<Place> {
        let policy = self.common.policy.load();
        let settings = &policy.settings;
        bound_unsent(stream, settings);
        let most = settings.max_connections_per_client;
        // Behind a proxy that is trusted there are many.
        if most == 0 || is_trusted(peer, &settings.trusted_proxies) {
            return Some(Place(None));
        }
        let place = self.common.places.take(peer.ip(), most);
        if place.is_none() {
            self.common.metrics.turned_away.inc();
            tracing::debug!(target: "Proxy", client = %peer.ip(), "a client has too many connections");
            if plain {
                // What does not fit into an empty socket's queue is not waited for.
                let answer = Substitute::too_many_connections(settings.retry_after_seconds);
                drop(stream.try_write(&answer));
            }
        }
        place
    }
}

#[cfg(target_os = "linux")]
fn bound_unsent(stream: &TcpStream, settings: &ProxySettings) {
    if settings.min_rate == 0 {
        return;
    }
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
        // It works without: slow readers are told less well from those that stand still.
        tracing::debug!(target: "Proxy", %error, "the system's queue of a socket is not bounded");
    }
}

/// Other systems have no such option, or another one.
#[cfg(not(target_os = "linux"))]
fn bound_unsent(_stream: &TcpStream, _settings: &ProxySettings) {}

/// Has the parser take as many header fields as the settings allow; the check behind it counts fewer. As many as it
/// takes by itself need no memory of their own.
pub(super) fn bound_headers(http: &mut http1::Builder, settings: &ProxySettings) {
    let most = settings.max_headers.get();
    if most > PARSED {
        http.max_headers(most);
    }
}

/// Tells a client whose head did not come in time; ends when that is done, or he does not take it.
pub(super) async fn tell_of_late_head(state: &ConnectionState) {
    state.expire();
    // The connection is polled by the same task, and finds it so.
    tokio::task::yield_now().await;
    tokio::time::sleep(LAST_WORD).await;
}

/// How fast the reader of an answer is.
#[derive(Debug)]
pub(in crate::edge) struct Pace {
    since: Instant,
    /// What was taken by that time.
    taken: u64,
    /// The bytes in whose steps he is seen to move.
    step: u64,
}

impl Pace {
    /// Of one who is seen to move in steps of so many bytes.
    pub(in crate::edge) fn new(step: u64) -> Self {
        Self { since: Instant::now(), taken: 0, step }
    }

    /// Of the reader of a connection, who is seen by what the system takes.
    pub(super) fn of_connection() -> Self {
        Self::new(STEP)
    }

    /// Whether the reader of a connection is too slow.
    pub(super) fn is_too_slow(&mut self, sample: &Sample, min_rate: u32) -> bool {
        let keeps_waiting = sample.phase == Phase::Active && sample.write_blocked;
        self.falls_behind(keeps_waiting, sample.written, min_rate)
    }

    /// Whether he has kept us waiting for a whole span, and took less than `min_rate` bytes a second; `taken` is all that he
    /// has taken so far.
    ///
    /// He is seen to take them in steps, of which one may be outstanding.
    pub(in crate::edge) fn falls_behind(
        &mut self,
        keeps_waiting: bool,
        taken: u64,
        min_rate: u32,
    ) -> bool {
        if !keeps_waiting || min_rate == 0 {
            (self.since, self.taken) = (Instant::now(), taken);
            return false;
        }
        let rate = u64::from(min_rate);
        if self.since.elapsed() < SPAN + Duration::from_secs(self.step / rate) {
            return false;
        }
        let before = std::mem::replace(&mut self.taken, taken);
        self.since = Instant::now();
        taken.saturating_sub(before) < rate * SPAN.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_places_and_gets_them_back() {
        let places = Places::new();
        let take = |peer: &str| places.take(peer.parse().unwrap(), 2);
        let (one, _two) = (take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap());
        assert!(take("10.0.0.1").is_none());
        let other = take("10.0.0.2").unwrap();
        drop(one);
        let again = take("10.0.0.1").unwrap();
        assert!(take("10.0.0.1").is_none());
        let _network = (take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_none() && take("2001:db8:0:1::").is_some());
        drop((again, other));
        let kept: usize = places.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(kept, 2, "who has no connection is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_held_to_the_rate_over_a_span() {
        let state = ConnectionState::default();
        state.begin(false);
        let sample = |written, write_blocked| {
            let mut sample = state.sample();
            (sample.written, sample.write_blocked) = (written, write_blocked);
            sample
        };
        // Ten seconds and one step of 13 at 10,000 bytes a second.
        let mut pace = Pace::of_connection();
        let after = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        after(22).await;
        assert!(!pace.is_too_slow(&sample(0, true), 10_000), "the span is not over");
        after(1).await;
        assert!(!pace.is_too_slow(&sample(100_000, true), 10_000), "he took enough");
        after(23).await;
        assert!(pace.is_too_slow(&sample(199_999, true), 10_000), "and then too little");
        after(23).await;
        assert!(!pace.is_too_slow(&sample(199_999, false), 10_000), "he waits for us");
        after(23).await;
        assert!(!pace.is_too_slow(&sample(199_999, true), 0), "there is no such limit");
    }
}
