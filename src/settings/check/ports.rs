//! Contradictions in who has which port: listeners, and the programs that are given one.

use std::net::{IpAddr, Ipv4Addr};

use super::Check;
use crate::settings::Parts;

/// What listens: its key, address and port.
type Listening = (String, IpAddr, u16);

impl Check<'_> {
    pub(super) fn listeners(&mut self, parts: &Parts) {
        let listeners = self.listening(parts);
        for (index, (key, bind, port)) in listeners.iter().enumerate() {
            for (other_key, other_bind, other_port) in listeners.iter().take(index) {
                if port == other_port && *port != 0 && overlap(*bind, *other_bind) {
                    let message = format!(
                        "port {port} is wanted by {} and by {}, on the same address",
                        self.with_source(other_key),
                        self.with_source(key)
                    );
                    self.say(&[key, other_key], message);
                }
            }
        }
        if parts.proxy {
            self.given_out(&listeners);
        }
    }

    /// Ports that are given to programs must not be those of listeners.
    fn given_out(&mut self, listeners: &[Listening]) {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (region, name, process) in self.settings.regions.iter().flat_map(|(region, of)| {
            of.processes.iter().map(move |(name, process)| (region, name, process))
        }) {
            let Some(base) = process.port_base else { continue };
            let key = format!("regions.{region}.processes.{name}.port_base");
            // One more, for the one that takes another's place.
            let (first, count) = (usize::from(base.get()), process.instances.count());
            for (other, bind, port) in listeners {
                let is_given = (first..=first + count).contains(&usize::from(*port));
                if is_given && overlap(*bind, loopback) {
                    let message = format!(
                        "port {port} is wanted by {} and by {} ({first} to {} for {count} \
                         instances and one in reserve)",
                        self.with_source(other),
                        self.with_source(&key),
                        first + count
                    );
                    self.say(&[&key, other], message);
                }
            }
        }
    }

    /// What this process listens on.
    fn listening(&self, parts: &Parts) -> Vec<Listening> {
        let settings = self.settings;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut listeners: Vec<Listening> = Vec::new();
        if parts.proxy {
            listeners.push(("proxy.port".to_owned(), settings.proxy.bind, settings.proxy.port));
        }
        if parts.proxy
            && let Some(port) = settings.tls.listens_on()
        {
            listeners.push(("tls.port".to_owned(), settings.proxy.bind, port));
        }
        if parts.proxy
            && let Some(port) = settings.tls.redirect_port
        {
            listeners.push(("tls.redirect_port".to_owned(), settings.proxy.bind, port));
        }
        for name in &parts.hubs {
            let place = settings.regions.get(name).and_then(|region| region.hub.as_ref());
            if let Some((bind, port)) = place.and_then(|place| Some((place.bind, place.port?))) {
                listeners.push((format!("regions.{name}.hub.port"), bind, port));
            }
        }
        if parts.api
            && let Some(port) = settings.api.port
        {
            listeners.push(("api.port".to_owned(), settings.api.bind, port));
        }
        if parts.demo {
            listeners.push(("demo.port_a".to_owned(), loopback, settings.demo.port_a));
            listeners.push(("demo.port_b".to_owned(), loopback, settings.demo.port_b));
        }
        listeners.push(("admin.port".to_owned(), settings.admin.bind, settings.admin.port));
        listeners
    }
}

/// Whether two listeners on one port get in each other's way.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    // The IPv6 wildcard takes IPv4 too, unless told not to, which we do not.
    let takes = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one == other || takes(one, other) || takes(other, one)
}
