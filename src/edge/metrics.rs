//! Counts of the public listeners; requests are counted by the region that they are for.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::observability::Registry;

/// Handles of the series.
#[derive(Debug, Default)]
pub(super) struct EdgeMetrics {
    pub(super) connections: Gauge,
    pub(super) accept_errors: Counter,
    pub(super) unannounced: Counter,
    pub(super) turned_away: Counter,
}

impl EdgeMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "http_connections",
            "Open HTTP connections of clients",
            metrics.connections.clone(),
        );
        registry.register(
            "http_accept_errors",
            "Connections the system refused to hand over",
            metrics.accept_errors.clone(),
        );
        registry.register(
            "http_connections_turned_away",
            "Connections of clients that had as many as they may",
            metrics.turned_away.clone(),
        );
        registry.register(
            "http_proxy_headers_refused",
            "Connections without a good header of the PROXY protocol where one was due",
            metrics.unannounced.clone(),
        );
        metrics
    }
}
