//! Chat sockets: who may come in, one session each, and what they are given.
//!
//! Walk: the edge asks [`Hub::admit`] before it answers 101; then it hands the socket to [`Hub::serve`],
//! which runs its [`session`] to the end. A session reads frames ([`protocol`](crate::protocol)), holds them to its budgets
//! ([`limits`]; [`share`] over all of one user), and publishes through the [`relay`]; what the bus delivers goes by
//! the [`registry`] into the [`outbox`] of every seat, and from there, in the order of the [`cursor`], to the socket.
//! How many sockets a user may have, [`seating`] asks of the bus; who is told of whose [`presence`], is kept beside.
//!
//! Invariants: a socket is counted before its handshake is answered and until it is gone; only `relay`
//! names the bus; nothing here waits or grows without a bound.
//! Absent on purpose: listeners and HTTP answers (`edge`); authentication.

mod cursor;
mod delivery;
mod ending;
mod handshake;
mod heartbeat;
mod limits;
mod metrics;
mod outbox;
mod presence;
mod registry;
mod relay;
mod seating;
mod sending;
mod session;
mod share;
#[cfg(test)]
mod tests;
mod trail;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::cursor::Cursor;
use self::handshake::Query;
pub use self::handshake::{Refusal, UserFault};
use self::limits::Rates;
use self::metrics::{Families, Metrics};
use self::outbox::Bounds;
use self::presence::Watchers;
use self::registry::{Registry, Seat};
use self::relay::{Bus, Relay, SeatHold, SeatLimit};
use self::share::{Connects, Crowd};
use crate::observability::{self, AccessLog};
use crate::protocol::outgoing::Terms;
use crate::settings::{DeliveryMode, HubSettings, RegionName};
use crate::shutdown::{Drain, Socket};

/// By how much of `hub.max_connection_age` a connection may be retired earlier.
const AGE_JITTER: f64 = 0.2;

/// Every chat socket of the process. Regions share the users: one who is connected in two has two seats.
pub struct Hub {
    regions: HashMap<RegionName, Arc<Region>>,
    registry: Arc<Registry>,
    watchers: Arc<Watchers>,
    relay: Relay,
    drain: Drain,
    sockets: AtomicUsize,
    crowd: Arc<Crowd>,
    /// What the budgets of users and regions count from.
    since: Instant,
    limits: Limits,
    allowed_origins: Vec<String>,
    /// Where the lines of sockets are written, if anywhere.
    lines: OnceLock<AccessLog>,
}

/// What every session of the process is held to.
#[derive(Clone, Copy, Debug)]
struct Limits {
    rates: Rates,
    terms: Terms,
    pong_timeout: Duration,
    delivery: DeliveryMode,
    max_connection_age: Option<Duration>,
    max_connections: usize,
    /// Sockets of one user, over all nodes.
    seats: SeatLimit,
    /// Users that one client may watch.
    max_watched: usize,
}

/// One region hosted here.
#[derive(Debug)]
struct Region {
    name: RegionName,
    sockets: AtomicUsize,
    connects: Connects,
    metrics: Metrics,
}

/// How much is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Users with at least one socket, over all regions.
    pub users: usize,
    /// Sockets over all regions.
    pub sockets: usize,
    /// Sockets of each region, by name.
    pub regions: Vec<(RegionName, usize)>,
}

/// A request that may become a socket: it is counted from now on, until it is served or dropped.
#[derive(Debug)]
pub struct Admission {
    place: Place,
    cursor: Cursor,
    accept_key: Option<HeaderValue>,
    origin: Option<Box<Origin>>,
}

/// What a socket's line says of its handshake.
#[derive(Debug)]
pub struct Origin {
    pub path: Box<str>,
    pub request_id: HeaderValue,
    pub trace_id: Option<String>,
    /// As [`observability::protocol`] has it.
    pub protocol: &'static str,
    /// The version of TLS, where it is spoken.
    pub tls: Option<&'static str>,
}

impl Admission {
    /// Has the socket's line say where it came from. Kept only where lines are written.
    pub fn came_by(&mut self, origin: impl FnOnce() -> Origin) {
        let lines = self.place.hub.lines.get();
        self.origin = lines.filter(|lines| lines.is_on()).map(|_| Box::new(origin()));
    }

    /// The value of `Sec-WebSocket-Accept` (RFC 6455, 4.2.2); nothing over HTTP/2, which has none (RFC 8441, 5).
    pub fn accept_key(&self) -> Option<HeaderValue> {
        self.accept_key.clone()
    }
}

/// One socket as the hub counts it; dropped, the seat is free.
struct Place {
    hub: Arc<Hub>,
    region: Arc<Region>,
    user: Arc<str>,
    seat: Arc<Seat>,
    /// The place on the bus; nothing while that is asked for.
    hold: Option<SeatHold>,
    _socket: Socket,
}

impl Hub {
    /// A hub for `regions`, joined to `bus`.
    pub fn new(
        settings: &HubSettings,
        regions: &[RegionName],
        bus: Bus,
        drain: Drain,
        registry: &mut observability::Registry,
    ) -> Arc<Self> {
        let families = Families::new(registry);
        let region = |name: &RegionName| {
            let metrics = families.region(name);
            let (sockets, connects) = (AtomicUsize::new(0), Connects::default());
            let region = Region { name: name.clone(), sockets, connects, metrics };
            (name.clone(), Arc::new(region))
        };
        let bounds = Bounds::new(settings);
        let (users, relay) = (Arc::new(Registry::new(bounds)), Relay::new(bus, settings));
        let watchers = Arc::new(Watchers::new(relay.clone(), bounds));
        relay.attach(users.clone(), watchers.clone());
        Arc::new(Self {
            regions: regions.iter().map(region).collect(),
            relay,
            registry: users,
            watchers,
            drain,
            sockets: AtomicUsize::new(0),
            crowd: Arc::default(),
            since: Instant::now(),
            limits: Limits::new(settings),
            allowed_origins: settings.allowed_origins.clone(),
            lines: OnceLock::new(),
        })
    }

    /// Has the lines of sockets written here; the first word counts.
    pub fn record_in(&self, lines: AccessLog) {
        self.lines.get_or_init(|| lines);
    }

    /// Whether this process is where sockets of `region` go.
    pub fn hosts(&self, region: &str) -> bool {
        self.regions.contains_key(region)
    }

    /// The long-lived work of the hub, which is to ask for those whose presence is watched; ends after `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.watchers.run(stop).await;
    }

    /// Decides on a handshake before it is answered, and counts the socket from here on. The bus is asked whether
    /// the user has a seat left on any node, for a second at most.
    ///
    /// # Errors
    /// The first reason against it. A region that is not hosted here is [`Refusal::Overloaded`].
    pub async fn admit(
        self: &Arc<Self>,
        region: &RegionName,
        request: &Parts,
        client: IpAddr,
    ) -> Result<Admission, Refusal> {
        if self.drain.is_draining() {
            return Err(Refusal::Draining);
        }
        let accept_key = handshake::upgrade(request)?;
        let query =
            Query::parse(request.uri.query().unwrap_or_default()).map_err(Refusal::UserInvalid)?;
        if !handshake::origin_allowed(&request.headers, &self.allowed_origins) {
            return Err(Refusal::OriginForbidden);
        }
        let mut place = self.place(region, &query.user, client)?;
        let asked = (&self.relay, &*self.registry, &self.limits);
        place.hold = Some(seating::seat(&place.user, &place.seat, asked).await?);
        tracing::debug!(target: "Hub", "admitted user={} region={region} client={client}", query.user);
        let cursor = match self.limits.delivery {
            DeliveryMode::ExactlyOnce => query.cursor,
            // There is nothing to resume.
            DeliveryMode::AtMostOnce => Cursor::fresh(),
        };
        Ok(Admission { place, cursor, accept_key, origin: None })
    }

    fn place(
        self: &Arc<Self>,
        region: &RegionName,
        user: &str,
        client: IpAddr,
    ) -> Result<Place, Refusal> {
        let region = self.regions.get(region).ok_or(Refusal::Overloaded)?;
        let socket = self.drain.socket();
        let open = self.sockets.fetch_add(1, Ordering::Relaxed);
        let seat = if open < self.limits.max_connections {
            self.registry
                .take_seat(user, seating::most_here(&self.limits))
                .ok_or(Refusal::TooManyConnections)
        } else {
            Err(Refusal::Overloaded)
        };
        let (user, seat) = match seat {
            Ok(seat) => seat,
            Err(refusal) => {
                self.sockets.fetch_sub(1, Ordering::Relaxed);
                return Err(refusal);
            }
        };
        seat.client.get_or_init(|| client);
        region.sockets.fetch_add(1, Ordering::Relaxed);
        region.metrics.sockets.inc();
        let hub = self.clone();
        let region = region.clone();
        let place = Place { hub, region, user, seat, hold: None, _socket: socket };
        // Last, so that nobody who is refused for another reason takes a turn from those who are not. Where it
        // fails the place is dropped, and given back so.
        let now = self.since.elapsed();
        if place.region.connects.take(&self.limits.rates, &place.user, now) {
            Ok(place)
        } else {
            Err(Refusal::Overloaded)
        }
    }

    /// The whole life of an admitted socket, whose 101 is answered. `already_read` came behind the
    /// request. Ends when the socket is gone, and soon after the drain cuts.
    pub fn serve<S>(
        self: Arc<Self>,
        admission: Admission,
        socket: S,
        already_read: Bytes,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The admission holds a hub of its own.
        drop(self);
        session::run(admission, socket, already_read)
    }

    /// How much is open now.
    pub fn snapshot(&self) -> Snapshot {
        let mut regions: Vec<_> = self
            .regions
            .values()
            .map(|region| (region.name.clone(), region.sockets.load(Ordering::Relaxed)))
            .collect();
        regions.sort();
        Snapshot {
            users: self.registry.users(),
            sockets: self.sockets.load(Ordering::Relaxed),
            regions,
        }
    }
}

impl Limits {
    fn new(settings: &HubSettings) -> Self {
        Self {
            rates: Rates::new(settings),
            terms: Terms {
                ping_interval: settings.ping_interval,
                max_text_bytes: settings.max_text_bytes.get(),
            },
            pong_timeout: settings.pong_timeout,
            delivery: settings.delivery,
            max_connection_age: settings.max_connection_age,
            max_connections: settings.max_connections.get(),
            seats: SeatLimit {
                most: settings.max_connections_per_user.get(),
                over: settings.over_limit,
            },
            max_watched: settings.max_presence_users.get(),
        }
    }

    /// When a connection that comes now has lived long enough; each at another moment, so that those who came
    /// together do not go together.
    fn retirement(&self) -> Option<Instant> {
        let age = self.max_connection_age?;
        Some(Instant::now() + age.mul_f64(1.0 - AGE_JITTER * fastrand::f64()))
    }
}

impl Place {
    /// Gives the seat up before the socket is gone: nothing more comes for it, and its user may take another.
    fn vacate(&mut self) {
        self.hub.registry.leave(&self.user, &self.seat);
        self.hold = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vacate();
        self.hub.sockets.fetch_sub(1, Ordering::Relaxed);
        self.region.sockets.fetch_sub(1, Ordering::Relaxed);
        self.region.metrics.sockets.dec();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place(user {}, region {})", self.user, self.region.name)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}
