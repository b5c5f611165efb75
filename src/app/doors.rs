//! The listeners dealt out to the workers, with what stands behind each.

use std::net::TcpListener;
use std::sync::Arc;

use super::listeners::Listeners;
use super::worker::Worker;
use crate::api::Api;
use crate::edge::{Common, Edge, Tls, listen};
use crate::observability::Health;
use crate::proxy::{Proxy, Shared};
use crate::settings::ApiSettings;

/// Deals the listeners out: each worker gets one of every address.
pub(super) fn build_workers(
    listeners: &mut Listeners,
    workers: usize,
    (common, shared): (&Arc<Common>, &Arc<Shared>),
    (tls, redirect_host): (Option<&Arc<Tls>>, Option<&str>),
) -> Vec<Worker> {
    let mut built: Vec<Worker> =
        (0..workers).map(|_| Worker::new(Proxy::new(Arc::clone(shared)))).collect();
    let (health, slots) = (Health::new("proxy", None), common.slots());
    let is_shared = listeners.is_shared("proxy");
    deal(&mut built, listeners.proxy.take().unwrap_or_default(), is_shared, |proxy| {
        Edge::public(Arc::clone(common), proxy, health.clone(), Arc::clone(&slots))
    });
    if let (Some(tls), Some(bound)) = (tls, listeners.tls.take()) {
        let is_shared = listeners.is_shared("tls");
        deal(&mut built, bound, is_shared, |proxy| {
            let (tls, common) = (Arc::clone(tls), Arc::clone(common));
            Edge::public_tls(tls, common, proxy, health.clone(), Arc::clone(&slots))
        });
    }
    if let (Some(bound), Some(host)) = (listeners.redirect.take(), redirect_host) {
        let is_shared = listeners.is_shared("redirect");
        deal(&mut built, bound, is_shared, |proxy| {
            Edge::redirect(host, Arc::clone(common), proxy, health.clone(), Arc::clone(&slots))
        });
    }
    for (region, bound) in std::mem::take(&mut listeners.hubs) {
        let health = Health::new(&format!("ws-{region}"), Some(region.as_str()));
        let slots = common.slots();
        let is_shared = listeners.is_shared(&format!("hub-{region}"));
        deal(&mut built, bound, is_shared, |proxy| {
            let (region, common) = (region.clone(), Arc::clone(common));
            Edge::hub(region, common, proxy, health.clone(), Arc::clone(&slots))
        });
    }
    built
}

/// Gives each worker a listener of the API.
pub(super) fn open_api(
    workers: &mut [Worker],
    (bound, is_shared): (Vec<TcpListener>, bool),
    api: &Arc<Api>,
    common: &Arc<Common>,
    settings: &ApiSettings,
) {
    let (health, slots) = (Health::new("api", None), listen::slots(settings.max_connections));
    deal(workers, bound, is_shared, |proxy| {
        let (api, common) = (Arc::clone(api), Arc::clone(common));
        Edge::api(api, common, proxy, health.clone(), Arc::clone(&slots))
    });
}

/// Opens one door after the other, each at the next worker: those that are handed over may be more than the workers.
fn deal(
    workers: &mut [Worker],
    bound: Vec<TcpListener>,
    is_shared: bool,
    edge: impl Fn(Arc<Proxy>) -> Arc<Edge>,
) {
    let count = workers.len().max(1);
    for (index, listener) in bound.into_iter().enumerate() {
        if let Some(worker) = workers.get_mut(index % count) {
            let edge = edge(Arc::clone(&worker.proxy));
            worker.open(listener, edge, is_shared);
        }
    }
}
