//! The metrics registry, and its text for Prometheus.

pub use prometheus_client::registry::Registry;

/// Everything registered, as OpenMetrics text.
///
/// # Errors
/// Only where formatting into a `String` fails, which it does not.
pub fn encode(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::with_capacity(16 * 1024);
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}
