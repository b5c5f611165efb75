//! The one place where parts are joined, and the life of the process.
//!
//! Walk: [`App::build`] binds every listener and builds every part; [`App::run`] serves until a signal, drains, and
//! ends when the last request and socket has, or the grace is over.
//!
//! The caller's runtime is worker 0 and carries the bus and the admin listener besides; each other worker has a
//! thread and a runtime of its own.

mod banner;
mod descriptors;
mod error;
mod listeners;
mod signals;
mod tasks;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::error::AppError;
use self::listeners::Listeners;
pub use self::signals::StopRequests;
use self::tasks::Tasks;
use self::worker::Worker;
use crate::admin::{self, Admin};
use crate::api::Api;
use crate::bus::{Bus, BusState};
use crate::demo;
use crate::edge::{Common, CommonParts, Edge, listen};
use crate::hub::Hub;
use crate::limits::Limiter;
use crate::observability::{self, Health, Readiness, Registry};
use crate::proxy::{Proxy, Shared};
use crate::settings::{ApiSettings, BusSettings, Parts, RegionName, Settings};
use crate::shutdown::Drain;

/// Of the grace, what the paced close of sockets may take; the rest is for the last close handshakes.
const CLOSING_SHARE: f64 = 0.8;
/// For connections that come in the moment in which nothing is open: to be accepted, and to say what they want.
const AFTER_IDLE: Duration = Duration::from_millis(500);
/// After the cut, for tasks to notice it.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// Where the process listens, as bound; for the banner, and for tests that asked for port 0.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub proxy: Option<SocketAddr>,
    pub hubs: Vec<(RegionName, SocketAddr)>,
    pub api: Option<SocketAddr>,
    pub demos: Vec<(&'static str, SocketAddr)>,
    pub admin: SocketAddr,
}

impl Addresses {
    /// For those who read the log and not the banner.
    fn log(&self) {
        if let Some(address) = self.proxy {
            tracing::info!(target: "App", %address, "the proxy listens");
        }
        for (region, address) in &self.hubs {
            tracing::info!(target: "App", %address, %region, "a hub listens");
        }
        if let Some(address) = self.api {
            tracing::info!(target: "App", %address, "the API listens");
        }
        for (service, address) in &self.demos {
            tracing::info!(target: "App", %address, service, "a demo backend listens");
        }
        tracing::info!(target: "App", address = %self.admin, "the admin listener listens");
    }
}

/// The whole gateway, built and bound, not yet running.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    workers: Vec<Worker>,
    common: Arc<Common>,
    hub: Arc<Hub>,
    /// Whose backends' health is watched over, where this process forwards to them.
    watched: Option<Arc<Shared>>,
    bus: Bus,
    admin: (std::net::TcpListener, Admin),
    demos: Vec<(demo::Sample, RegionName, std::net::TcpListener)>,
    readiness: Readiness,
    drain: Drain,
    grace: Duration,
}

/// Builds the gateway and runs it until a signal; for `main`.
///
/// # Errors
/// In one line, why it could not start or did not end well.
pub fn run(settings: &Settings, parts: &Parts) -> Result<(), AppError> {
    let _log = observability::install(&settings.log);
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let ended = runtime.block_on(async {
        let stops = StopRequests::of_process()?;
        let app = App::build(settings, parts)?;
        banner::print(app.addresses(), settings);
        app.addresses.log();
        warn_of_embedded(settings, parts);
        app.run(stops).await
    });
    // Dropped, it would wait for a name that is being looked up, for as long as the resolver takes.
    runtime.shutdown_background();
    ended
}

/// Says so where a part on the embedded bus would reach nobody.
fn warn_of_embedded(settings: &Settings, parts: &Parts) {
    if settings.bus.wants_redis() {
        return;
    }
    if !parts.hubs.is_empty() && *parts != Parts::all(settings) {
        tracing::warn!(
            target: "App",
            "this hub is on the embedded bus and hears no other process: set REDIS_HOST or REDIS_URL"
        );
    }
    if parts.hubs.is_empty() && parts.api && !settings.api.keys.is_empty() {
        tracing::warn!(
            target: "App",
            "no hub of this process hears what is posted to its API: set REDIS_HOST or REDIS_URL, or api.enabled=false"
        );
    }
}

impl App {
    /// Binds every listener and builds every part.
    ///
    /// # Errors
    /// Where a port is in use, or a part refuses its settings; nothing is left bound then.
    pub fn build(settings: &Settings, parts: &Parts) -> Result<Self, AppError> {
        let workers = match settings.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let mut listeners = Listeners::bind(settings, parts, workers)?;
        let mut settings = settings.clone();
        for (_, region, listener) in &listeners.demos {
            // Where the system chose their ports, the demo backends' addresses are known only now.
            let address = listener.local_addr().map_err(AppError::Runtime)?;
            settings.add_backend(region, &format!("http://{address}"));
        }
        let mut registry = Registry::with_prefix("meridian");
        let (drain, readiness) = (Drain::new(), Readiness::default());
        readiness.await_word("bus");
        readiness.report("draining", Ok(()));
        let bus = build_bus(&settings.bus, &mut registry)?;
        let hosted: Vec<_> = listeners.hubs.iter().map(|(name, _)| name.clone()).collect();
        let hub = Hub::new(&settings.hub, &hosted, bus.clone(), drain.clone(), &mut registry);
        let api = settings.api.enabled.then(|| Api::new(&settings, bus.clone(), &mut registry));
        let shared = Shared::new(
            &settings,
            &settings.regions,
            settings.default_region.as_ref(),
            drain.clone(),
            &mut registry,
        )?;
        let common = Common::new(CommonParts {
            settings: &settings,
            limiter: Limiter::new(bus.clone(), &mut registry),
            proxy: Arc::clone(&shared),
            hub: Arc::clone(&hub),
            api: api.clone(),
            drain: drain.clone(),
            readiness: readiness.clone(),
            registry: &mut registry,
        })?;
        let addresses = addresses(&listeners).map_err(AppError::Runtime)?;
        let admin = Admin {
            health: Health::new("admin", None),
            readiness: readiness.clone(),
            registry: Arc::new(registry),
        };
        let mut workers = build_workers(&mut listeners, workers, &common, &shared);
        if let (Some(api), Some(bound)) = (api, listeners.api.take()) {
            open_api(&mut workers, bound, &api, &common, &settings.api);
        }
        Ok(Self {
            addresses,
            workers,
            common,
            hub,
            watched: parts.proxy.then_some(shared),
            bus,
            admin: (listeners.admin, admin),
            demos: listeners.demos,
            readiness,
            drain,
            grace: settings.shutdown.grace,
        })
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until the first request to stop, drains, and ends; a second request cuts.
    ///
    /// # Errors
    /// Where a part failed.
    pub async fn run(self, mut stops: StopRequests) -> Result<(), AppError> {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let bus_stop = CancellationToken::new();
        let (drain, readiness, common) =
            (self.drain.clone(), self.readiness.clone(), Arc::clone(&self.common));
        let grace = self.grace;
        self.start(&mut tasks, &stop, &bus_stop)?;
        let failed = tokio::select! {
            () = stops.next() => None,
            error = tasks.first_end() => Some(error),
        };
        readiness.report("draining", Err("the process is stopping".to_owned()));
        drain.begin(grace.mul_f64(CLOSING_SHARE));
        tracing::info!(target: "App", in_flight = drain.flights(), grace = ?grace, "draining");
        let emptied = async {
            drain.idle().await;
            stop.cancel();
            // A request that came in this very moment gets its answer, too.
            drop(tokio::time::timeout(AFTER_IDLE, common.doors_closed()).await);
            drain.idle().await;
        };
        let cut = tokio::select! {
            () = emptied => None,
            () = stops.next() => Some("a second signal"),
            () = tokio::time::sleep(grace) => Some("shutdown.grace is over"),
        };
        if let Some(why) = cut {
            let open = drain.flights();
            tracing::warn!(target: "App", open, "{why}: cutting what is open");
        }
        stop.cancel();
        drain.cut();
        let closed = tokio::time::timeout(AFTER_CUT, common.sockets_closed()).await;
        // The bus goes last: the queues of the sockets were flushed through it.
        bus_stop.cancel();
        let finished = tasks.finish(AFTER_CUT).await;
        tracing::info!(target: "App", clean = cut.is_none() && closed.is_ok() && finished.is_ok(), "stopped");
        failed.map_or(finished, Err)
    }

    fn start(
        self,
        tasks: &mut Tasks,
        stop: &CancellationToken,
        bus_stop: &CancellationToken,
    ) -> Result<(), AppError> {
        let mut state = self.bus.state();
        let (readiness, stopping) = (self.readiness, stop.clone());
        tasks.spawn("the readiness of the bus", async move {
            loop {
                readiness.report(
                    "bus",
                    match &*state.borrow_and_update() {
                        BusState::Up => Ok(()),
                        BusState::Down(why) => Err(why.to_string()),
                    },
                );
                tokio::select! {
                    changed = state.changed() => if changed.is_err() { stopping.cancelled().await },
                    () = stopping.cancelled() => return Ok::<_, AppError>(()),
                }
            }
        });
        let (bus, stopped) = (self.bus, bus_stop.clone());
        tasks.spawn("the bus", async move {
            Box::pin(bus.run(stopped)).await;
            Ok::<_, AppError>(())
        });
        let (hub, stopped) = (Arc::clone(&self.hub), bus_stop.clone());
        tasks.spawn("the hub", async move {
            hub.run(stopped).await;
            Ok::<_, AppError>(())
        });
        if let Some(shared) = self.watched {
            let stopped = stop.clone();
            tasks.spawn("the health of backends", async move {
                shared.watch_health(stopped).await;
                Ok::<_, AppError>(())
            });
        }
        tasks.spawn("the admin listener", admin::serve(self.admin.0, self.admin.1, stop.clone()));
        for (sample, region, listener) in self.demos {
            let served = demo::serve(listener, sample, region.to_string(), stop.clone());
            tasks.spawn(sample.service(), served);
        }
        for (index, worker) in self.workers.into_iter().enumerate() {
            let name = format!("worker {index}");
            if index == 0 {
                tasks.spawn(name, worker.run(stop.clone()));
            } else {
                let ended = worker.run_on_thread(index, stop.clone()).map_err(AppError::Runtime)?;
                tasks.spawn(name, ended);
            }
        }
        Ok(())
    }
}

fn build_bus(settings: &BusSettings, registry: &mut Registry) -> Result<Bus, AppError> {
    if settings.wants_redis() {
        Ok(Bus::redis(settings, registry)?)
    } else {
        Ok(Bus::embedded(&settings.inbox, registry))
    }
}

fn addresses(listeners: &Listeners) -> std::io::Result<Addresses> {
    let first = |listeners: &Vec<std::net::TcpListener>| {
        listeners.first().map(std::net::TcpListener::local_addr).transpose()
    };
    let mut hubs = Vec::new();
    for (name, bound) in &listeners.hubs {
        if let Some(address) = first(bound)? {
            hubs.push((name.clone(), address));
        }
    }
    let mut demos = Vec::new();
    for (sample, _, listener) in &listeners.demos {
        demos.push((sample.service(), listener.local_addr()?));
    }
    let proxy = listeners.proxy.as_ref().map(first).transpose()?.flatten();
    let api = listeners.api.as_ref().map(first).transpose()?.flatten();
    Ok(Addresses { proxy, hubs, api, demos, admin: listeners.admin.local_addr()? })
}

/// Deals the listeners out: each worker gets one of every address.
fn build_workers(
    listeners: &mut Listeners,
    workers: usize,
    common: &Arc<Common>,
    shared: &Arc<Shared>,
) -> Vec<Worker> {
    let mut built: Vec<Worker> = (0..workers)
        .map(|_| Worker { doors: Vec::new(), proxy: Proxy::new(Arc::clone(shared)) })
        .collect();
    let (health, slots) = (Health::new("proxy", None), common.slots());
    for (worker, listener) in built.iter_mut().zip(listeners.proxy.take().into_iter().flatten()) {
        let proxy = Arc::clone(&worker.proxy);
        let edge = Edge::public(Arc::clone(common), proxy, health.clone(), Arc::clone(&slots));
        worker.doors.push((listener, edge));
    }
    for (region, bound) in std::mem::take(&mut listeners.hubs) {
        let health = Health::new(&format!("ws-{region}"), Some(region.as_str()));
        let slots = common.slots();
        for (worker, listener) in built.iter_mut().zip(bound) {
            let proxy = Arc::clone(&worker.proxy);
            let (region, common) = (region.clone(), Arc::clone(common));
            let edge = Edge::hub(region, common, proxy, health.clone(), Arc::clone(&slots));
            worker.doors.push((listener, edge));
        }
    }
    built
}

/// Gives each worker a listener of the API.
fn open_api(
    workers: &mut [Worker],
    bound: Vec<std::net::TcpListener>,
    api: &Arc<Api>,
    common: &Arc<Common>,
    settings: &ApiSettings,
) {
    let (health, slots) = (Health::new("api", None), listen::slots(settings.max_connections));
    for (worker, listener) in workers.iter_mut().zip(bound) {
        let proxy = Arc::clone(&worker.proxy);
        let (api, common) = (Arc::clone(api), Arc::clone(common));
        let edge = Edge::api(api, common, proxy, health.clone(), Arc::clone(&slots));
        worker.doors.push((listener, edge));
    }
}

#[cfg(test)]
mod tests;
