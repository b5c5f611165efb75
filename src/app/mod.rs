//! The one place where parts are joined, and the life of the process.
//!
//! Walk: [`App::build`] (`build`) binds every listener and builds every part; [`App::run`] (`life`) serves until a signal,
//! drains, and ends when the last request and socket has, or the grace is over; `reload` puts changed settings in place
//! meanwhile.
//!
//! The caller's runtime is worker 0 and carries the bus and the admin listener besides; each other worker has a
//! thread and a runtime of its own.

mod addresses;
mod banner;
mod build;
mod changes;
mod descriptors;
mod doors;
mod error;
mod inherited;
mod life;
mod listeners;
mod notify;
mod reload;
mod signals;
mod tasks;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use self::addresses::Addresses;
pub use self::error::AppError;
pub use self::inherited::Inherited;
use self::notify::Notifier;
use self::reload::Reloading;
pub use self::signals::StopRequests;
use self::worker::Worker;
use crate::admin::Admin;
use crate::bus::Bus;
use crate::demo;
use crate::edge::{self, Common, Tls};
use crate::hub::Hub;
use crate::observability::{self, AccessWriter, Readiness, Verbosity};
use crate::proxy::Shared;
use crate::settings::{LoadOptions, Loaded, Parts, RegionName, Settings};
use crate::shutdown::Drain;
use crate::supervise::Supervision;

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
        for warning in &loaded.warnings {
            tracing::warn!(target: "App", "{warning}");
        }
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
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Lets it reload from where its settings are from; without this it refuses to.
    pub fn reload_from(&mut self, source: Source) {
        self.reloading.source = Some(source);
    }
}

#[cfg(test)]
mod tests;
