//! Every socket the process listens on, bound before anything starts: a port in use leaves nothing half started.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::error::AppError;
use super::inherited::Inherited;
use crate::demo::Sample;
use crate::edge::listen;
use crate::settings::{ApiSettings, Parts, RegionName, Settings};

/// The bound sockets; those of the edge once for each worker.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) proxy: Option<Vec<TcpListener>>,
    /// The proxy's, once more for TLS.
    pub(super) tls: Option<Vec<TcpListener>>,
    /// Plain HTTP that leads there.
    pub(super) redirect: Option<Vec<TcpListener>>,
    pub(super) hubs: Vec<(RegionName, Vec<TcpListener>)>,
    pub(super) api: Option<Vec<TcpListener>>,
    pub(super) demos: Vec<(Sample, RegionName, TcpListener)>,
    pub(super) admin: TcpListener,
    /// Names of those that a service manager holds besides: it, or the process after this one, takes who comes next.
    pub(super) shared: Vec<String>,
}

impl Listeners {
    pub(super) fn bind(
        settings: &Settings,
        parts: &Parts,
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Self, AppError> {
        let mut shared = Vec::new();
        let mut taken = |name: &str, workers| -> Result<Option<Vec<TcpListener>>, AppError> {
            let sockets = inherited.take(name, workers)?;
            if sockets.is_some() {
                shared.push(name.to_owned());
            }
            Ok(sockets)
        };
        let proxy = if parts.proxy {
            let address = SocketAddr::new(settings.proxy.bind, settings.proxy.port);
            Some(match taken("proxy", workers)? {
                Some(sockets) => sockets,
                None => many(address, workers, "the proxy", "PROXY_PORT")?,
            })
        } else {
            None
        };
        let mut beside = |name, port: Option<u16>, what: &str, variable: &str| {
            let Some(port) = port.filter(|_| parts.proxy) else { return Ok(None) };
            let address = SocketAddr::new(settings.proxy.bind, port);
            match taken(name, workers)? {
                Some(sockets) => Ok(Some(sockets)),
                None => many(address, workers, what, variable).map(Some),
            }
        };
        let tls = beside("tls", settings.tls.listens_on(), "the proxy's TLS", "PROXY_TLS_PORT")?;
        let port = settings.tls.redirect_port;
        let redirect = beside("redirect", port, "the redirect", "PROXY_REDIRECT_PORT")?;
        let mut hubs = Vec::new();
        for (name, region) in &settings.regions {
            let Some(place) = &region.hub else { continue };
            let Some(port) = place.port else { continue };
            if !parts.hubs.contains(name) {
                continue;
            }
            let address = SocketAddr::new(place.bind, port);
            let listener = format!("the hub of region {name}");
            let variable = format!("WS_SERVER_{name}_PORT");
            let sockets = match taken(&format!("hub-{name}"), workers)? {
                Some(sockets) => sockets,
                None => many(address, workers, &listener, &variable)?,
            };
            hubs.push((name.clone(), sockets));
        }
        let api = match if parts.api { taken("api", workers)? } else { None } {
            Some(sockets) => Some(sockets),
            None if parts.api => api(&settings.api, workers)?,
            None => None,
        };
        let demos = if parts.demo { demos(settings)? } else { Vec::new() };
        let address = SocketAddr::new(settings.admin.bind, settings.admin.port);
        let admin = match taken("admin", 1)?.and_then(|mut sockets| sockets.pop()) {
            Some(socket) => socket,
            None => one(address, "the admin listener", "ADMIN_PORT")?,
        };
        inherited.warn_of_the_rest();
        Ok(Self { proxy, tls, redirect, hubs, api, demos, admin, shared })
    }
}

impl Listeners {
    /// Whether the sockets of a listener are a service manager's, too.
    pub(super) fn is_shared(&self, name: &str) -> bool {
        self.shared.iter().any(|shared| shared == name)
    }
}

/// Nothing where the default port is taken: it is a common one.
fn api(settings: &ApiSettings, workers: usize) -> Result<Option<Vec<TcpListener>>, AppError> {
    let port = settings.port.unwrap_or(ApiSettings::DEFAULT_PORT);
    let address = SocketAddr::new(settings.bind, port);
    match many(address, workers, "the API", "API_PORT") {
        Err(AppError::PortInUse { .. }) if settings.port.is_none() => {
            tracing::warn!(
                target: "App",
                "port {port} is in use, so the API has no listener here; set API_PORT to give it another, or api.enabled = false"
            );
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

fn demos(settings: &Settings) -> Result<Vec<(Sample, RegionName, TcpListener)>, AppError> {
    let demo = &settings.demo;
    let samples = [
        (Sample::A, demo.port_a, &demo.region_a, "demo backend A", "HTTP_SERVER_A_PORT"),
        (Sample::B, demo.port_b, &demo.region_b, "demo backend B", "HTTP_SERVER_B_PORT"),
    ];
    let mut bound = Vec::new();
    for (sample, port, region, listener, variable) in samples {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        bound.push((sample, region.clone(), one(address, listener, variable)?));
    }
    Ok(bound)
}

fn many(
    address: SocketAddr,
    workers: usize,
    listener: &str,
    variable: &str,
) -> Result<Vec<TcpListener>, AppError> {
    listen::bind(address, workers).map_err(|source| {
        let (listener, variable) = (listener.to_owned(), variable.to_owned());
        if source.kind() == io::ErrorKind::AddrInUse {
            AppError::PortInUse { listener, address, variable }
        } else {
            AppError::Bind { listener, address, variable, source }
        }
    })
}

fn one(address: SocketAddr, listener: &str, variable: &str) -> Result<TcpListener, AppError> {
    // One worker, one socket.
    many(address, 1, listener, variable)?.pop().ok_or_else(|| AppError::Bind {
        listener: listener.to_owned(),
        address,
        variable: variable.to_owned(),
        source: io::Error::other("nothing was bound"),
    })
}
