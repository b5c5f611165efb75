//! Every listener bound and every part built, in the order in which they need each other.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::App;
use super::addresses::Addresses;
use super::doors::{build_workers, open_api};
use super::error::AppError;
use super::inherited::Inherited;
use super::listeners::Listeners;
use super::notify::Notifier;
use super::reload::Reloading;
use super::worker::Worker;
use crate::admin::{Admin, Reloads, Section};
use crate::api::Api;
use crate::bus::Bus;
use crate::edge::{Common, CommonParts, Tls};
use crate::hub::Hub;
use crate::limits::Limiter;
use crate::observability::{AccessLog, AccessWriter, Health, Readiness, Registry};
use crate::proxy::Shared;
use crate::settings::{BusSettings, Parts, RegionName, Settings};
use crate::shutdown::Drain;
use crate::supervise::Supervisor;

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
