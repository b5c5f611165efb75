//! What a person who has just started the gateway wants to see: where to open what.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::Addresses;
use crate::settings::Settings;

/// Prints to standard output; the log has standard error for itself.
pub(super) fn print(addresses: &Addresses, settings: &Settings, authority: Option<&Path>) {
    let text = text(addresses, settings, authority);
    // Without a standard output there is nobody to tell.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// An address as one opens it from this machine.
fn open(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

fn text(addresses: &Addresses, settings: &Settings, authority: Option<&Path>) -> String {
    let mut lines = vec![format!("Meridian {}", env!("CARGO_PKG_VERSION"))];
    if let Some(proxy) = addresses.proxy.map(open) {
        lines.push(format!("  proxy          http://{proxy}"));
        if !settings.page.path.is_empty() {
            let path = &settings.page.path;
            lines.push(format!("  chat page      http://{proxy}{path}   (open it in two tabs)"));
        }
        if let Some(region) = settings.regions.keys().next() {
            lines.push(format!("  try            curl -H 'x-region: {region}' http://{proxy}/"));
        }
    }
    if let Some(tls) = addresses.tls.map(open) {
        lines.push(format!("  proxy, TLS     https://{tls}"));
        if let Some(authority) = authority.map(Path::display) {
            lines.push(format!("  its authority  {authority}   (for development; a browser has to be told to trust it)"));
            lines.push(format!("  try            curl --cacert {authority} https://{tls}/health"));
        }
    }
    for (region, address) in &addresses.hubs {
        lines.push(format!("  hub region {region}   ws://{}/ws?userId=alice", open(*address)));
    }
    if let Some(api) = addresses.api.map(open) {
        lines.push(format!("  API            http://{api}/api/docs"));
    }
    for (service, address) in &addresses.demos {
        lines.push(format!("  {service}       http://{}", open(*address)));
    }
    lines.push(format!("  admin          http://{}/metrics", open(addresses.admin)));
    let bus = if settings.bus.wants_redis() { "Redis" } else { "embedded (one process)" };
    lines.push(format!("  bus            {bus}"));
    lines.push(String::new());
    lines.join("\n")
}
