//! A whole gateway in this process, on ports of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use meridian::app::{Addresses, App, AppError, StopRequests};
use meridian::settings::{BackendSettings, HubPlace, Parts, RegionName, RegionSettings, Settings};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::http::get;
use super::{eventually, within};

pub(crate) struct Gateway {
    pub(crate) addresses: Addresses,
    stop: mpsc::Sender<()>,
    running: JoinHandle<Result<(), AppError>>,
}

/// Settings of a gateway with hubs of regions 1 and 2 on loopback, every port chosen by the system.
pub(crate) fn settings() -> Settings {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut settings = Settings { workers: 1, ..Settings::default() };
    settings.proxy.bind = loopback;
    settings.proxy.port = 0;
    settings.admin.port = 0;
    settings.api.bind = loopback;
    settings.api.port = Some(0);
    let hub = HubPlace { bind: loopback, port: Some(0), url: None };
    // Sockets that a test does not read for a while answer no ping.
    settings.hub.ping_interval = Duration::from_mins(10);
    settings.hub.pong_timeout = Duration::from_mins(9);
    settings.regions = ["1", "2"]
        .into_iter()
        .map(|name| {
            let region = RegionSettings { hub: Some(hub.clone()), ..RegionSettings::default() };
            (RegionName::new(name).unwrap(), region)
        })
        .collect::<BTreeMap<_, _>>();
    settings
}

/// Adds a backend to a region of the settings.
pub(crate) fn add_backend(settings: &mut Settings, region: &str, backend: SocketAddr) {
    settings
        .regions
        .entry(RegionName::new(region).unwrap())
        .or_default()
        .backends
        .push(BackendSettings::primary(format!("http://{backend}")));
}

impl Gateway {
    /// Starts one with the settings of [`settings`], changed as the test wants.
    pub(crate) async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let app = App::build(&settings, &Parts::all(&settings)).expect("the gateway starts");
        let addresses = app.addresses().clone();
        let (stop, stops) = mpsc::channel(2);
        let running = tokio::spawn(app.run(StopRequests::Channel(stops)));
        Self { addresses, stop, running }
    }

    /// One with a backend in region 1.
    pub(crate) async fn before(backend: SocketAddr) -> Self {
        Self::start(|settings| add_backend(settings, "1", backend)).await
    }

    pub(crate) fn proxy(&self) -> SocketAddr {
        self.addresses.proxy.expect("the proxy is started")
    }

    pub(crate) fn hub(&self, region: &str) -> SocketAddr {
        let found = self.addresses.hubs.iter().find(|(name, _)| name.as_str() == region);
        found.expect("the hub is started").1
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.addresses.api.expect("the API is started")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// Waits until the metrics have this text: what an exchange was is counted when it is over, which may be after its
    /// client has had the answer.
    pub(crate) async fn counts(&self, series: &str) {
        eventually(series, async || {
            get(self.admin(), "/metrics", "").await.text().contains(series)
        })
        .await;
    }

    /// Asks it to stop, once; it drains.
    pub(crate) async fn begin_stop(&self) {
        self.stop.send(()).await.expect("the gateway runs");
    }

    /// Asks it to stop, where nobody has yet, and awaits its end.
    pub(crate) async fn stop(self) -> Result<(), AppError> {
        self.stop.send(()).await.ok();
        self.ended().await
    }

    /// Awaits its end.
    pub(crate) async fn ended(self) -> Result<(), AppError> {
        within("the gateway's end", self.running).await.expect("the gateway does not panic")
    }
}
