//! Counts of the TLS listener: handshakes by outcome, and how long each certificate is good.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::observability::Registry;

/// Why a handshake failed: a closed set, because it labels a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Not over in time.
    Timeout,
    /// What came is no TLS: plain HTTP, as a rule.
    NotTls,
    /// A version, a cipher or a protocol (ALPN) that both sides know was not found.
    NothingInCommon,
    /// The client said that it does not like ours, as one does that does not trust the certificate.
    Refused,
    /// The client was gone.
    Left,
    /// Anything else that no handshake is made of.
    Malformed,
}

impl Failure {
    const ALL: [Self; 6] = [
        Self::Timeout,
        Self::NotTls,
        Self::NothingInCommon,
        Self::Refused,
        Self::Left,
        Self::Malformed,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NotTls => "not_tls",
            Self::NothingInCommon => "nothing_in_common",
            Self::Refused => "refused_by_client",
            Self::Left => "client_left",
            Self::Malformed => "malformed",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CertificateLabels {
    certificate: String,
}

/// Handles of the series.
#[derive(Debug)]
pub(super) struct TlsMetrics {
    failures: [Counter; Failure::ALL.len()],
    http1: Counter,
    http2: Counter,
    not_after: Family<CertificateLabels, Gauge<i64, AtomicI64>>,
    reload_failures: Family<CertificateLabels, Counter<u64, AtomicU64>>,
}

impl TlsMetrics {
    pub(super) fn new(registry: &mut Registry) -> Arc<Self> {
        let failures = Family::<CauseLabels, Counter>::default();
        let handshakes = Family::<ProtocolLabels, Counter>::default();
        let of = |protocol| handshakes.get_or_create(&ProtocolLabels { protocol }).clone();
        let metrics = Self {
            failures: Failure::ALL.map(|failure| {
                failures.get_or_create(&CauseLabels { cause: failure.as_str() }).clone()
            }),
            http1: of("http/1.1"),
            http2: of("h2"),
            not_after: Family::default(),
            reload_failures: Family::default(),
        };
        registry.register("tls_handshakes", "TLS handshakes by the protocol agreed on", handshakes);
        registry.register("tls_handshake_failures", "TLS handshakes that failed", failures);
        registry.register(
            "tls_certificate_not_after_seconds",
            "The end of each certificate, in seconds since the Unix epoch",
            metrics.not_after.clone(),
        );
        registry.register(
            "tls_certificate_reload_failures",
            "Changed files that were no good, so that the certificate before stayed",
            metrics.reload_failures.clone(),
        );
        Arc::new(metrics)
    }

    pub(super) fn failed(&self, failure: Failure) {
        let at = Failure::ALL.iter().position(|known| *known == failure);
        if let Some(counter) = at.and_then(|at| self.failures.get(at)) {
            counter.inc();
        }
    }

    pub(super) fn agreed(&self, http2: bool) {
        if http2 { &self.http2 } else { &self.http1 }.inc();
    }

    pub(super) fn certificate(&self, name: &str, not_after: i64) {
        let labels = CertificateLabels { certificate: name.to_owned() };
        self.not_after.get_or_create(&labels).set(not_after);
        // There from the start, so that its first count is seen as one.
        drop(self.reload_failures.get_or_create(&labels));
    }

    pub(super) fn not_reloaded(&self, name: &str) {
        let labels = CertificateLabels { certificate: name.to_owned() };
        self.reload_failures.get_or_create(&labels).inc();
    }

    /// The series of a certificate that is configured no more.
    pub(super) fn forget(&self, name: &str) {
        let labels = CertificateLabels { certificate: name.to_owned() };
        self.not_after.remove(&labels);
        self.reload_failures.remove(&labels);
    }
}
