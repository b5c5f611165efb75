//! Where the process listens.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::listeners::Listeners;
use crate::settings::RegionName;

/// Where the process listens, as bound; for the banner, and for tests that asked for port 0.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub proxy: Option<SocketAddr>,
    /// The proxy by TLS.
    pub tls: Option<SocketAddr>,
    /// Where plain HTTP is sent there.
    pub redirect: Option<SocketAddr>,
    pub hubs: Vec<(RegionName, SocketAddr)>,
    pub api: Option<SocketAddr>,
    pub demos: Vec<(&'static str, SocketAddr)>,
    pub admin: SocketAddr,
}

impl Addresses {
    pub(super) fn of(listeners: &Listeners) -> io::Result<Self> {
        let first = |listeners: &Vec<TcpListener>| {
            listeners.first().map(TcpListener::local_addr).transpose()
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
        let tls = listeners.tls.as_ref().map(first).transpose()?.flatten();
        let redirect = listeners.redirect.as_ref().map(first).transpose()?.flatten();
        let api = listeners.api.as_ref().map(first).transpose()?.flatten();
        Ok(Self { proxy, tls, redirect, hubs, api, demos, admin: listeners.admin.local_addr()? })
    }

    /// For those who read the log and not the banner.
    pub(super) fn log(&self) {
        if let Some(address) = self.proxy {
            tracing::info!(target: "App", %address, "the proxy listens");
        }
        if let Some(address) = self.tls {
            tracing::info!(target: "App", %address, "the proxy listens for TLS");
        }
        if let Some(address) = self.redirect {
            tracing::info!(target: "App", %address, "plain HTTP is redirected");
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
