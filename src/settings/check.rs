//! Contradictions: what two values can get wrong that are each good alone.

mod health;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::problem::{Problem, Provenance};
use super::{
    Balance, BusKind, Environment, HashBy, Parts, RedisMode, RegionName, RegionSettings,
    RuleAction, Settings, TlsSettings, failover, urls,
};

/// A client's frame of the longest text: every character may be escaped to six bytes, and the other fields.
const FRAME_FACTOR: usize = 6;
const FRAME_EXTRA: usize = 4 * 1024;

/// A shorter lease would take every hiccup for a death.
const LEAST_LEASE: Duration = Duration::from_secs(1);

/// Values that cannot stand together.
#[derive(Debug)]
pub(super) struct Contradiction {
    /// All keys that take part; the most telling one first.
    pub(super) keys: Vec<String>,
    message: String,
}

impl Contradiction {
    /// As a problem of that key which was said last: the others stood before it.
    pub(super) fn into_problem(self, provenance: &Provenance) -> Problem {
        let rank = |key: &String| provenance.of(key).rank();
        let most = self.keys.iter().map(rank).max().unwrap_or_default();
        let key = self.keys.into_iter().find(|key| rank(key) == most).unwrap_or_default();
        Problem::new(provenance.of(&key), key.clone(), self.message)
    }
}

/// Everything that contradicts itself in these settings, for a process that runs `parts`.
pub(super) fn contradictions(
    settings: &Settings,
    parts: &Parts,
    provenance: &Provenance,
) -> Vec<Contradiction> {
    let mut check = Check { settings, provenance, found: Vec::new() };
    check.regions();
    check.failover();
    check.processes();
    check.demo();
    check.listeners(parts);
    check.tls();
    check.own_paths();
    check.tls_backends();
    check.health();
    check.mounts();
    check.limits();
    check.rules();
    check.hub();
    check.api();
    check.bus();
    check.found
}

struct Check<'a> {
    settings: &'a Settings,
    provenance: &'a Provenance,
    found: Vec<Contradiction>,
}

impl Check<'_> {
    fn say(&mut self, keys: &[&str], message: String) {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        self.found.push(Contradiction { keys, message });
    }

    /// `key (source)`, for the other side of a contradiction.
    fn with_source(&self, key: &str) -> String {
        format!("{key} ({})", self.provenance.of(key))
    }

    fn known_regions(&self) -> String {
        let names: Vec<&str> = self.settings.regions.keys().map(RegionName::as_str).collect();
        if names.is_empty() { "none is configured".to_owned() } else { names.join(", ") }
    }

    fn regions(&mut self) {
        let settings = self.settings;
        if settings.regions.is_empty() {
            self.say(&["regions"], "there is no region; add one, as [regions.1]".to_owned());
        }
        if let Some(region) = &settings.default_region
            && !settings.regions.contains_key(region)
        {
            let message = format!(
                "region `{region}` is not configured; the regions are {}",
                self.known_regions()
            );
            self.say(&["default_region"], message);
        }
        let demo = &settings.demo;
        for (name, region) in &settings.regions {
            let has_demo = demo.enabled && (demo.region_a == *name || demo.region_b == *name);
            let key = format!("regions.{name}");
            let (backends, hub) = (format!("{key}.backends"), format!("{key}.hub"));
            let (port, url) = (format!("{hub}.port"), format!("{hub}.url"));
            let keys = [backends.as_str(), &key, &hub, &port, &url];
            if region.backends.is_empty()
                && region.hub.is_none()
                && region.processes.is_empty()
                && !has_demo
            {
                self.say(
                    &keys,
                    "the region has neither backends nor a hub; give it one".to_owned(),
                );
            }
            self.backends(&key, region);
            if let Some(place) = &region.hub
                && place.port.is_none()
                && place.url.is_none()
            {
                let message = "the hub has neither port (it is hosted here) nor url (elsewhere)";
                self.say(&[&hub, &format!("{hub}.bind"), &port, &url], message.to_owned());
            }
        }
    }

    fn failover(&mut self) {
        for (keys, message) in failover::contradictions(&self.settings.regions) {
            self.found.push(Contradiction { keys, message });
        }
    }

    fn backends(&mut self, key: &str, region: &RegionSettings) {
        let backends = format!("{key}.backends");
        for (index, backend) in region.backends.iter().enumerate() {
            if region.backends.iter().take(index).any(|other| other.url == backend.url) {
                let url = urls::mask_password(&backend.url);
                self.say(
                    &[&backends],
                    format!("{url:?} stands twice in the list; give it a weight instead"),
                );
            }
        }
        if region.hash_by != HashBy::Client && region.balance != Balance::ConsistentHash {
            let message = "hash_by has no use without balance = \"consistent_hash\"";
            self.say(&[&format!("{key}.hash_by"), &format!("{key}.balance")], message.to_owned());
        }
    }

    fn demo(&mut self) {
        let demo = &self.settings.demo;
        if !demo.enabled {
            return;
        }
        for (key, region) in [("demo.region_a", &demo.region_a), ("demo.region_b", &demo.region_b)]
        {
            if !self.settings.regions.contains_key(region) {
                let message = format!(
                    "region `{region}` is not configured, but {} is on; the regions are {}",
                    self.with_source("demo.enabled"),
                    self.known_regions()
                );
                self.say(&[key, "demo.enabled"], message);
            }
        }
    }

    fn listeners(&mut self, parts: &Parts) {
        let settings = self.settings;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut listeners: Vec<(String, IpAddr, u16)> = Vec::new();
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
    }

    fn own_paths(&mut self) {
        let settings = self.settings;
        let paths = [
            ("proxy.health_path", &settings.proxy.health_path),
            ("proxy.ready_path", &settings.proxy.ready_path),
            ("proxy.ws_path", &settings.proxy.ws_path),
            ("page.path", &settings.page.path),
            ("api.mount", &settings.api.mount),
        ];
        for (index, (key, path)) in paths.iter().enumerate() {
            for (other_key, other) in paths.iter().take(index) {
                let within = match *key {
                    "page.path" => other.starts_with(path.as_str()),
                    "api.mount" => is_below(other, path) || is_below(path, other),
                    _ => false,
                };
                if !path.is_empty() && (path == other || within) {
                    let message = format!(
                        "the path {path:?} is wanted by {} and by {}; each needs its own",
                        self.with_source(other_key),
                        self.with_source(key)
                    );
                    self.say(&[key, other_key], message);
                }
            }
        }
    }

    fn tls_backends(&mut self) {
        let tls = &self.settings.tls.backends;
        if tls.cert.is_some() != tls.key.is_some() {
            let message = "a certificate and its key go together; set both cert and key";
            self.say(&["tls.backends.cert", "tls.backends.key"], message.to_owned());
        }
    }

    fn mounts(&mut self) {
        let settings = self.settings;
        let mut seen: Vec<(&str, String)> = Vec::new();
        for (name, mount) in &settings.mounts {
            let (path, folder) = (format!("static.{name}.path"), format!("static.{name}.folder"));
            if mount.folder.as_os_str().is_empty() {
                let message = "there is nothing to serve; name a folder";
                self.say(&[&folder, &path, &format!("static.{name}")], message.to_owned());
            }
            if let Some((_, other)) = seen.iter().find(|(known, _)| *known == mount.path) {
                let message =
                    format!("the path {:?} is that of {other} too; each needs its own", mount.path);
                self.say(&[&path, other], message);
            }
            seen.push((&mount.path, path));
        }
    }

    fn limits(&mut self) {
        for (name, limit) in &self.settings.limits {
            let key = format!("limits.{name}");
            if limit.rate.is_none() {
                let message = "the limit has no rate; give it one, as rate = \"5/min\"".to_owned();
                self.say(&[&format!("{key}.rate"), &format!("{key}.path"), &key], message);
            }
            self.are_regions(&format!("{key}.regions"), &limit.regions);
        }
    }

    fn rules(&mut self) {
        for (name, rule) in &self.settings.rules {
            let key = format!("rules.{name}");
            self.are_regions(&format!("{key}.regions"), &rule.regions);
            if rule.action == RuleAction::Deny && rule.max_body_bytes != 0 {
                let message = "a rule that denies lets no body through; leave max_body_bytes out";
                let keys = [format!("{key}.max_body_bytes"), format!("{key}.action")];
                self.say(&[&keys[0], &keys[1]], message.to_owned());
            }
        }
    }

    fn are_regions(&mut self, key: &str, names: &[RegionName]) {
        for name in names {
            if !self.settings.regions.contains_key(name) {
                let message = format!(
                    "region `{name}` is not configured; the regions are {}",
                    self.known_regions()
                );
                self.say(&[key], message);
            }
        }
    }

    fn hub(&mut self) {
        let hub = &self.settings.hub;
        if hub.pong_timeout >= hub.ping_interval {
            let message = format!(
                "hub.pong_timeout, {}, must be shorter than hub.ping_interval, {}",
                shown(hub.pong_timeout),
                shown(hub.ping_interval)
            );
            self.say(&["hub.pong_timeout", "hub.ping_interval"], message);
        }
        let frame = frame(hub.max_text_bytes);
        if hub.outbox_bytes.get() < frame {
            let message = format!(
                "hub.outbox_bytes, {}, must hold one frame of the longest text: with \
                 hub.max_text_bytes of {} that is {frame}",
                hub.outbox_bytes, hub.max_text_bytes
            );
            self.say(&["hub.outbox_bytes", "hub.max_text_bytes"], message);
        }
    }

    fn api(&mut self) {
        let api = &self.settings.api;
        if api.mount.ends_with('/') {
            let message =
                "leave the last / away; write it like /api, and / alone would hide every backend";
            self.say(&["api.mount"], message.to_owned());
        }
        let max_text_bytes = self.settings.hub.max_text_bytes;
        let longest = frame(max_text_bytes);
        if api.max_body_bytes.get() < longest {
            let message = format!(
                "api.max_body_bytes, {}, must hold one message of the longest text: with \
                 hub.max_text_bytes of {max_text_bytes} that is {longest}",
                api.max_body_bytes
            );
            self.say(&["api.max_body_bytes", "hub.max_text_bytes"], message);
        }
        if api.max_buffered_bytes < api.max_body_bytes {
            let message = format!(
                "api.max_buffered_bytes, {}, must hold one body of api.max_body_bytes, {}",
                api.max_buffered_bytes, api.max_body_bytes
            );
            self.say(&["api.max_buffered_bytes", "api.max_body_bytes"], message);
        }
    }

    fn bus(&mut self) {
        let bus = &self.settings.bus;
        let max_text_bytes = self.settings.hub.max_text_bytes;
        let frame = frame(max_text_bytes);
        if !bus.wants_redis() && bus.inbox.max_total_bytes.get() < frame {
            let message = format!(
                "bus.inbox.max_total_bytes, {}, must hold one frame of the longest text: with \
                 hub.max_text_bytes of {max_text_bytes} that is {frame}",
                bus.inbox.max_total_bytes
            );
            self.say(&["bus.inbox.max_total_bytes", "hub.max_text_bytes"], message);
        }
        let redis = &bus.redis;
        if bus.kind == BusKind::Redis && !redis.names_a_server() {
            let message = "the bus is redis, but no server is named; set REDIS_URL or REDIS_HOST";
            let keys = ["bus.kind", "bus.redis.host", "bus.redis.nodes", "bus.redis.url"];
            self.say(&keys, message.to_owned());
        }
        self.redis_place();
        let least = LEAST_LEASE.max(redis.command_timeout + redis.reconnect_max);
        if bus.wants_redis() && bus.lease < least {
            let message = format!(
                "bus.lease, {}, must be at least {}: a second, and long enough for a command to fail and be sent \
                 again (bus.redis.command_timeout and bus.redis.reconnect_max together)",
                shown(bus.lease),
                shown(least)
            );
            let keys = ["bus.lease", "bus.redis.command_timeout", "bus.redis.reconnect_max"];
            self.say(&keys, message);
        }
        if redis.reconnect_min > redis.reconnect_max {
            let message = format!(
                "bus.redis.reconnect_min, {}, must not be longer than bus.redis.reconnect_max, {}",
                shown(redis.reconnect_min),
                shown(redis.reconnect_max)
            );
            self.say(&["bus.redis.reconnect_min", "bus.redis.reconnect_max"], message);
        }
    }
}

impl Check<'_> {
    fn processes(&mut self) {
        let settings = self.settings;
        // Ports that are given out: of whom, the first, and behind the last.
        let mut taken: Vec<(String, u32, u32)> = Vec::new();
        for (region, of_region) in &settings.regions {
            for (name, process) in &of_region.processes {
                let key = |key: &str| format!("regions.{region}.processes.{name}.{key}");
                if process.command.is_empty() {
                    let message =
                        "the process has no command; write it like [\"node\", \"server.js\"]";
                    let section = format!("regions.{region}.processes.{name}");
                    self.say(&[&section, &key("command")], message.to_owned());
                }
                if let Some(dir) = process.dir.as_ref().filter(|dir| !dir.is_dir()) {
                    self.say(&[&key("dir")], format!("{} is not a folder", dir.display()));
                }
                if process.restart_min > process.restart_max {
                    let message = format!(
                        "restart_min, {}, must not be longer than restart_max, {}",
                        shown(process.restart_min),
                        shown(process.restart_max)
                    );
                    self.say(&[&key("restart_min"), &key("restart_max")], message);
                }
                let Some(base) = process.port_base else { continue };
                // One more, for the one that takes another's place.
                let (first, count) = (u32::from(base.get()), process.instances.count());
                let end = first + u32::try_from(count).unwrap_or(u32::MAX) + 1;
                let (this, instances) = (key("port_base"), key("instances"));
                if end > u32::from(u16::MAX) + 1 {
                    let message = format!(
                        "{count} instances and one in reserve need ports up to {}",
                        end - 1
                    );
                    self.say(&[&this, &instances], message);
                }
                if let Some((other, ..)) =
                    taken.iter().find(|(_, from, to)| first < *to && *from < end)
                {
                    let message = format!(
                        "the ports {first} to {} overlap with those of {}",
                        end - 1,
                        self.with_source(other)
                    );
                    let other = other.clone();
                    self.say(&[&this, &other, &instances], message);
                }
                taken.push((this, first, end));
            }
        }
    }
}

impl Check<'_> {
    /// Whether mode, servers and TLS go together.
    fn redis_place(&mut self) {
        let redis = &self.settings.bus.redis;
        if redis.host.is_some() && !redis.nodes.is_empty() && redis.url.is_none() {
            let message = "both bus.redis.host and bus.redis.nodes name servers; set one of them";
            self.say(&["bus.redis.nodes", "bus.redis.host"], message.to_owned());
        }
        let place = match redis.place() {
            Ok(place) => place,
            // What is wrong with the URL alone was said where it was read.
            Err(_) if redis.url.is_some() => return,
            Err(why) => {
                let keys = ["bus.redis.mode", "bus.redis.sentinel_master", "bus.redis.nodes"];
                return self.say(&keys, why);
            }
        };
        if redis.mode != RedisMode::Auto && redis.mode != place.mode {
            let message = format!(
                "the mode is {}, but {} is that of {}; leave the mode out, or change the URL",
                redis.mode.name(),
                self.with_source("bus.redis.url"),
                place.mode.name()
            );
            self.say(&["bus.redis.mode", "bus.redis.url"], message);
        }
        let files = [&redis.tls_ca, &redis.tls_cert, &redis.tls_key];
        if !place.tls && files.iter().any(|file| file.is_some()) {
            let message = "TLS is not on, so that its files have no use; write rediss:// in the URL, or set \
                           bus.redis.tls";
            let keys =
                ["bus.redis.tls", "bus.redis.tls_ca", "bus.redis.tls_cert", "bus.redis.tls_key"];
            self.say(&[&keys[..], &["bus.redis.url"]].concat(), message.to_owned());
        } else if redis.tls_cert.is_some() != redis.tls_key.is_some() {
            let message = "a certificate and its key go together; set both tls_cert and tls_key";
            self.say(&["bus.redis.tls_cert", "bus.redis.tls_key"], message.to_owned());
        }
    }
}

/// A development certificate where nobody develops.
pub(super) fn dev_tls(settings: &Settings, environment: Environment) -> Option<Contradiction> {
    let tls = &settings.tls;
    let wrong = tls.dev && !tls.dev_in_production && environment == Environment::Production;
    wrong.then(|| Contradiction {
        keys: vec!["tls.dev".to_owned(), "tls.dev_in_production".to_owned()],
        message: "a development certificate is for development; name a real one in [tls.certificates], or set \
                  tls.dev_in_production"
            .to_owned(),
    })
}

impl Check<'_> {
    /// Whether there is something to show on the TLS listener, and a listener to show it.
    fn tls(&mut self) {
        let tls = &self.settings.tls;
        for (name, files) in &tls.certificates {
            let key = format!("tls.certificates.{name}");
            let (cert, private) = (format!("{key}.cert"), format!("{key}.key"));
            if files.cert.is_none() || files.key.is_none() {
                let message = "a certificate and its key go together; set both cert and key";
                self.say(&[&cert, &private, &key], message.to_owned());
            }
        }
        let names = || tls.certificates.keys().map(String::as_str);
        if tls.port.is_some() && !tls.dev && tls.certificates.is_empty() {
            let message = "there is no certificate to show; add one, as [tls.certificates.example], or use --tls-dev";
            self.say(&["tls.port", "tls.certificates"], message.to_owned());
        }
        if tls.listens_on().is_none() && !tls.certificates.is_empty() {
            let message = "nobody is shown these certificates; set tls.port (PROXY_TLS_PORT)";
            self.say(&["tls.certificates", "tls.port"], message.to_owned());
        }
        if tls.redirect_port.is_some()
            && (tls.redirect_host.is_none() || tls.listens_on().is_none())
        {
            let message = "whom should it send where? Set tls.port, and tls.redirect_host to the name that clients know";
            self.say(&["tls.redirect_port", "tls.redirect_host", "tls.port"], message.to_owned());
        }
        if tls.dev && names().any(|name| name == TlsSettings::DEV_NAME) {
            let message =
                "the name dev is that of the development certificate; give this one another";
            self.say(&["tls.certificates.dev.cert", "tls.dev"], message.to_owned());
        }
        let dev = tls.dev.then_some(TlsSettings::DEV_NAME);
        if let Some(default) = &tls.default
            && !names().chain(dev).any(|name| name == default)
        {
            let known: Vec<&str> = names().chain(dev).collect();
            let message =
                format!("{default:?} is not one of the certificates: {}", known.join(", "));
            self.say(&["tls.default", "tls.certificates"], message);
        }
    }
}

/// Bytes of one frame of the longest text.
fn frame(max_text_bytes: NonZeroUsize) -> usize {
    max_text_bytes.get().saturating_mul(FRAME_FACTOR).saturating_add(FRAME_EXTRA)
}

/// Whether `path` is `above`, or begins with it and a slash; an empty one is nowhere.
fn is_below(path: &str, above: &str) -> bool {
    !above.is_empty()
        && path
            .strip_prefix(above)
            .is_some_and(|rest| above.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

/// Whether two listeners on one port get in each other's way.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    // The IPv6 wildcard takes IPv4 too, unless told not to, which we do not.
    let takes = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one == other || takes(one, other) || takes(other, one)
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
