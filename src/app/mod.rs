//! The one place where parts are joined, and the life of the process.
//!
//! Walk: [`App::build`] binds every listener and builds every part; [`App::run`] serves until a signal, drains, and
//! ends when the last request and socket has, or the grace is over.
//!
//! The caller's runtime is worker 0 and carries the bus and the admin listener besides; each other worker has a
//! thread and a runtime of its own.

mod addresses;
mod banner;
mod descriptors;
mod doors;
mod error;
mod inherited;
mod listeners;
mod notify;
mod reload;
mod signals;
mod tasks;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::addresses::Addresses;
use self::doors::{build_workers, open_api};
pub use self::error::AppError;
pub use self::inherited::Inherited;
use self::listeners::Listeners;
use self::notify::Notifier;
use self::reload::{Reloader, Targets};
pub use self::signals::StopRequests;
use self::tasks::Tasks;
use self::worker::Worker;
use crate::admin::{self, Admin, ReloadWork, Reloads, Section};
use crate::api::Api;
use crate::bus::{Bus, BusState};
use crate::demo;
use crate::edge::{self, Common, CommonParts, Tls};
use crate::hub::Hub;
use crate::limits::Limiter;
use crate::observability::{self, AccessLog, AccessWriter, Health, Readiness, Registry, Verbosity};
use crate::proxy::Shared;
use crate::settings::{BusSettings, LoadOptions, Loaded, Parts, RegionName, Settings};
use crate::shutdown::Drain;
use crate::supervise::{Supervision, Supervisor};

/// Of the grace, what the paced close of sockets may take; the rest is for the last close handshakes.
const CLOSING_SHARE: f64 = 0.8;
/// For connections that come in the moment in which nothing is open: to be accepted, and to say what they want.
const AFTER_IDLE: Duration = Duration::from_millis(500);
/// For supervised processes to end, where the grace is over.
const FOR_PROCESSES: Duration = Duration::from_secs(1);
/// After the cut, for tasks to notice it.
const AFTER_CUT: Duration = Duration::from_secs(2);

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
    /// Where the proxy listens for it.
    tls: Option<Arc<Tls>>,
    admin: (std::net::TcpListener, Admin),
    demos: Vec<(demo::Sample, RegionName, std::net::TcpListener)>,
    readiness: Readiness,
    supervision: Supervision,
    drain: Drain,
    grace: watch::Sender<Duration>,
    /// Writes access lines until the last thing has ended.
    access: Option<AccessWriter>,
    reloading: Reloading,
    notifier: Notifier,
}

/// What a reload needs, before it runs.
#[derive(Debug)]
struct Reloading {
    proxy: Arc<Shared>,
    supervisor: Supervisor,
    tls: Option<Arc<Tls>>,
    lines: AccessLog,
    demos: Vec<(RegionName, String)>,
    work: ReloadWork,
    source: Option<Source>,
}

/// Where the settings are from, so that they can be read again.
#[derive(Debug)]
pub struct Source {
    pub options: LoadOptions,
    /// What they said at the start.
    pub loaded: Loaded,
    /// What changes how much is logged.
    pub verbosity: Option<Verbosity>,
}

/// Builds the gateway and runs it until a signal; for `main`.
///
/// # Errors
/// In one line, why it could not start or did not end well.
pub fn run(options: LoadOptions, loaded: Loaded) -> Result<(), AppError> {
    let manager = options.service_manager();
    // Before the first thread: it changes the environment.
    let inherited = Inherited::take_from(&manager)?;
    let log = observability::install(&loaded.settings.log);
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let ended = runtime.block_on(async {
        let stops = StopRequests::of_process()?;
        let mut app = App::build_on(inherited, &loaded.settings, &loaded.parts)?;
        let authority = app.tls.as_ref().and_then(|tls| tls.authority());
        banner::print(app.addresses(), &loaded.settings, authority.as_deref());
        app.addresses.log();
        warn_of_embedded(&loaded.settings, &loaded.parts);
        app.notifier = Notifier::new(&manager);
        app.reload_from(Source { options, loaded, verbosity: Some(log.verbosity()) });
        app.run(stops).await
    });
    // Dropped, it would wait for a name that is being looked up, for as long as the resolver takes.
    runtime.shutdown_background();
    ended
}

/// Everything that is wrong with files that the settings name, for who only asks: (key, what is wrong).
pub fn check(settings: &Settings, parts: &Parts) -> Vec<(String, String)> {
    if !parts.proxy {
        return Vec::new();
    }
    let wrong = edge::check_tls(&settings.tls);
    let say = |error: edge::TlsError| {
        (format!("tls.certificates.{}", error.certificate()), error.why().to_owned())
    };
    wrong.into_iter().map(say).collect()
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
        Self::build_on(Inherited::default(), settings, parts)
    }

    /// The same on sockets that were handed over, where there are some for a listener.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_on(
        mut inherited: Inherited,
        settings: &Settings,
        parts: &Parts,
    ) -> Result<Self, AppError> {
        let workers = worker_count(settings);
        let mut listeners = Listeners::bind(settings, parts, workers, &mut inherited)?;
        let (settings, demos) = with_demos(settings, &listeners).map_err(AppError::Runtime)?;
        let mut registry = Registry::with_prefix("meridian");
        let (drain, readiness) = (Drain::new(), starting());
        let (access, lines) = start_lines(&settings, &mut registry)?;
        let bus = build_bus(&settings.bus, &mut registry)?;
        let hub = build_hub(&settings, &listeners, (&bus, &drain), &mut registry);
        let api = settings.api.enabled.then(|| Api::new(&settings, bus.clone(), &mut registry));
        hub.record_in(lines.clone());
        let shared = build_proxy(&settings, &drain, &lines, &mut registry)?;
        let tls = build_tls(&settings, &listeners, &mut registry)?;
        let common = Common::new(CommonParts {
            settings: &settings,
            lines: lines.clone(),
            limiter: Limiter::new(bus.clone(), &mut registry),
            proxy: Arc::clone(&shared),
            hub: Arc::clone(&hub),
            api: api.clone(),
            drain: drain.clone(),
            readiness: readiness.clone(),
            registry: &mut registry,
        })?;
        let addresses = Addresses::of(&listeners).map_err(AppError::Runtime)?;
        let (reloads, work) = Reloads::new(&mut registry);
        let (supervisor, supervision) =
            Supervisor::new(&settings, parts, &shared, readiness.clone(), &mut registry);
        let parts_told = (&shared, &hub, &bus, &supervisor, tls.as_ref());
        let state = (&readiness, &drain);
        let admin = build_admin(&settings, registry, reloads, state, parts_told);
        let (joint, doors) = ((&common, &shared), (tls.as_ref(), api.as_ref()));
        let workers = open_doors(&mut listeners, workers, &settings, joint, doors);
        Ok(Self {
            addresses,
            workers,
            common,
            hub,
            watched: parts.proxy.then(|| Arc::clone(&shared)),
            bus,
            tls: tls.clone(),
            admin: (listeners.admin, admin),
            demos: listeners.demos,
            readiness,
            supervision,
            drain,
            grace: watch::Sender::new(settings.shutdown.grace),
            reloading: Reloading {
                proxy: shared,
                supervisor,
                tls,
                lines,
                demos,
                work,
                source: None,
            },
            access: Some(access),
            notifier: Notifier::default(),
        })
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Lets it reload from where its settings are from; without this it refuses to.
    pub fn reload_from(&mut self, source: Source) {
        self.reloading.source = Some(source);
    }

    /// Serves until the first request to stop, drains, and ends; a second request cuts.
    ///
    /// # Errors
    /// Where a part failed.
    pub async fn run(mut self, mut stops: StopRequests) -> Result<(), AppError> {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let bus_stop = CancellationToken::new();
        let (drain, readiness, common) =
            (self.drain.clone(), self.readiness.clone(), Arc::clone(&self.common));
        let (grace, notifier) = (self.grace.subscribe(), self.notifier.clone());
        let supervisor = self.reloading.supervisor.clone();
        let access = self.access.take();
        self.start(&mut tasks, &stop, &bus_stop)?;
        notifier.ready();
        let failed = tokio::select! {
            () = stops.next() => None,
            error = tasks.first_end() => Some(error),
        };
        notifier.stopping();
        let grace = *grace.borrow();
        readiness.report("draining", Err("the process is stopping".to_owned()));
        let began = Instant::now();
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
        // Nobody asks the processes for anything any more; where the grace was used up, they are given the least.
        let left =
            if cut.is_none() { grace.saturating_sub(began.elapsed()) } else { Duration::ZERO };
        supervisor.stop(left.max(FOR_PROCESSES)).await;
        // The bus goes last: the queues of the sockets were flushed through it.
        bus_stop.cancel();
        let finished = tasks.finish(AFTER_CUT).await;
        // With the last exchange its line.
        drop(access);
        tracing::info!(target: "App", clean = cut.is_none() && closed.is_ok() && finished.is_ok(), "stopped");
        failed.map_or(finished, Err)
    }

    fn start(
        self,
        tasks: &mut Tasks,
        stop: &CancellationToken,
        bus_stop: &CancellationToken,
    ) -> Result<(), AppError> {
        tasks.run("the readiness of the bus", tell_of_bus(&self.bus, self.readiness, stop.clone()));
        let (bus, stopped) = (self.bus, bus_stop.clone());
        tasks.run("the bus", async move { Box::pin(bus.run(stopped)).await });
        let (hub, stopped) = (Arc::clone(&self.hub), bus_stop.clone());
        tasks.run("the hub", async move { hub.run(stopped).await });
        tasks.run("the supervisor", self.supervision.run());
        if let Some(shared) = self.watched {
            let stopped = stop.clone();
            tasks.run("the health of backends", async move { shared.watch_health(stopped).await });
        }
        self.reloading.start(tasks, stop, (&self.common, self.grace, &self.notifier))?;
        tasks.run("the watchdog", self.notifier.keep_alive(stop.clone()));
        if let Some(tls) = self.tls {
            tasks.run("the certificates", tls.watch(stop.clone()));
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

/// Readiness follows the bus, until `stop`.
fn tell_of_bus(
    bus: &Bus,
    readiness: Readiness,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let mut state = bus.state();
    async move {
        loop {
            let word = match &*state.borrow_and_update() {
                BusState::Up => Ok(()),
                BusState::Down(why) => Err(why.to_string()),
            };
            readiness.report("bus", word);
            tokio::select! {
                changed = state.changed() => if changed.is_err() { stop.cancelled().await },
                () = stop.cancelled() => return,
            }
        }
    }
}

/// The admin listener's service, with all that it tells of.
fn build_admin(
    settings: &Settings,
    registry: Registry,
    reloads: Reloads,
    (readiness, drain): (&Readiness, &Drain),
    (proxy, hub, bus, supervisor, tls): (
        &Arc<Shared>,
        &Arc<Hub>,
        &Bus,
        &Supervisor,
        Option<&Arc<Tls>>,
    ),
) -> Admin {
    Admin {
        health: Health::new("admin", None),
        readiness: readiness.clone(),
        registry: Arc::new(registry),
        settings: settings.admin.clone(),
        proxy: Arc::clone(proxy),
        hub: Arc::clone(hub),
        bus: bus.clone(),
        drain: drain.clone(),
        reloads,
        supervisor: supervisor.clone(),
        sections: sections(supervisor, tls),
    }
}

/// The hub of the regions that have a listener here.
fn build_hub(
    settings: &Settings,
    listeners: &Listeners,
    (bus, drain): (&Bus, &Drain),
    registry: &mut Registry,
) -> Arc<Hub> {
    let hosted: Vec<_> = listeners.hubs.iter().map(|(name, _)| name.clone()).collect();
    Hub::new(&settings.hub, &hosted, bus.clone(), drain.clone(), registry)
}

/// Starts the writer of access lines.
fn start_lines(
    settings: &Settings,
    registry: &mut Registry,
) -> Result<(AccessWriter, AccessLog), AppError> {
    let writer = AccessWriter::start(registry).map_err(AppError::Runtime)?;
    let lines = writer.log();
    lines.set(&settings.log, &settings.access)?;
    Ok((writer, lines))
}

/// The workers with all their doors.
fn open_doors(
    listeners: &mut Listeners,
    workers: usize,
    settings: &Settings,
    (common, shared): (&Arc<Common>, &Arc<Shared>),
    (tls, api): (Option<&Arc<Tls>>, Option<&Arc<Api>>),
) -> Vec<Worker> {
    let secured = (tls, settings.tls.redirect_host.as_deref());
    let mut workers = build_workers(listeners, workers, (common, shared), secured);
    if let (Some(api), Some(bound)) = (api, listeners.api.take()) {
        let bound = (bound, listeners.is_shared("api"));
        open_api(&mut workers, bound, api, common, &settings.api);
    }
    workers
}

/// Not ready before the bus is.
fn starting() -> Readiness {
    let readiness = Readiness::default();
    readiness.await_word("bus");
    readiness.report("draining", Ok(()));
    readiness
}

fn worker_count(settings: &Settings) -> usize {
    match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

/// The settings with the demo backends in their regions, and those: where the system chose their ports, their addresses
/// are known only once they are bound.
fn with_demos(
    settings: &Settings,
    listeners: &Listeners,
) -> io::Result<(Settings, Vec<(RegionName, String)>)> {
    let (mut settings, mut demos) = (settings.clone(), Vec::new());
    for (_, region, listener) in &listeners.demos {
        let url = format!("http://{}", listener.local_addr()?);
        settings.add_backend(region, &url);
        demos.push((region.clone(), url));
    }
    Ok((settings, demos))
}

impl Reloading {
    /// Starts who reloads, where there is something to reload from.
    fn start(
        self,
        tasks: &mut Tasks,
        stop: &CancellationToken,
        (common, grace, notifier): (&Arc<Common>, watch::Sender<Duration>, &Notifier),
    ) -> Result<(), AppError> {
        let Some(Source { options, loaded, verbosity }) = self.source else { return Ok(()) };
        let (common, demos) = (Arc::clone(common), self.demos);
        let (proxy, supervisor, tls, lines) = (self.proxy, self.supervisor, self.tls, self.lines);
        tasks
            .spawn("reopening", reload::reopen(reload::reopenings()?, lines.clone(), stop.clone()));
        let targets = Targets { proxy, supervisor, tls, lines, common, verbosity, demos, grace };
        let targets = Arc::new(targets);
        let notifier = notifier.clone();
        let reloader = Reloader { options, running: loaded, targets, work: self.work, notifier };
        tasks.spawn("reloading", reloader.run(reload::hangups()?, stop.clone()));
        Ok(())
    }
}

/// What other parts have to say in the status: of the supervised processes, and of the certificates.
fn sections(supervisor: &Supervisor, tls: Option<&Arc<Tls>>) -> Vec<Section> {
    let supervisor = supervisor.clone();
    let processes: Arc<dyn Fn() -> serde_json::Value + Send + Sync> =
        Arc::new(move || serde_json::json!(supervisor.snapshot()));
    let mut sections = vec![Section { name: "processes", tell: processes }];
    if let Some(tls) = tls.map(Arc::clone) {
        let tell = Arc::new(move || serde_json::json!(tls.snapshot()));
        sections.push(Section { name: "certificates", tell });
    }
    sections
}

fn build_proxy(
    settings: &Settings,
    drain: &Drain,
    lines: &AccessLog,
    registry: &mut Registry,
) -> Result<Arc<Shared>, AppError> {
    let (regions, default) = (&settings.regions, settings.default_region.as_ref());
    let shared = Shared::new(settings, regions, default, drain.clone(), registry)?;
    shared.record_in(lines.clone());
    Ok(shared)
}

/// Where there is a listener for it.
fn build_tls(
    settings: &Settings,
    listeners: &Listeners,
    registry: &mut Registry,
) -> Result<Option<Arc<Tls>>, AppError> {
    Ok(listeners.tls.as_ref().map(|_| Tls::new(&settings.tls, registry)).transpose()?)
}

fn build_bus(settings: &BusSettings, registry: &mut Registry) -> Result<Bus, AppError> {
    if settings.wants_redis() {
        Ok(Bus::redis(settings, registry)?)
    } else {
        Ok(Bus::embedded(&settings.inbox, registry))
    }
}

#[cfg(test)]
mod tests;
