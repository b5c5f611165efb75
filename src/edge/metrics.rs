//! Counts of the public listeners; requests are counted by the region that they are for.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::observability::Registry;

/// What was ended, and the name of the code of HTTP/2 by which.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    what: &'static str,
    code: &'static str,
}

/// Handles of the series.
#[derive(Debug, Default)]
pub(super) struct EdgeMetrics {
    pub(super) connections: Gauge,
    pub(super) accept_errors: Counter,
    pub(super) unannounced: Counter,
    pub(super) turned_away: Counter,
    http2_errors: Family<CodeLabels, Counter>,
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
        registry.register(
            "http2_errors_sent",
            "Streams and connections of clients that were ended by a code of HTTP/2",
            metrics.http2_errors.clone(),
        );
        metrics
    }

    /// A stream was reset.
    pub(super) fn reset(&self, code: &'static str) {
        self.http2_errors.get_or_create(&CodeLabels { what: "stream", code }).inc();
    }

    /// A connection was ended for a fault of its client.
    pub(super) fn ended_by_goaway(&self, code: &'static str) {
        self.http2_errors.get_or_create(&CodeLabels { what: "connection", code }).inc();
    }
}
