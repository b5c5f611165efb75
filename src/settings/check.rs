//! Contradictions: what two values can get wrong that are each good alone.

mod access;
mod chat;
mod health;
mod ports;
mod processes;

use std::time::Duration;

use super::problem::{Problem, Provenance};
use super::{
    Balance, Environment, HashBy, Parts, RegionName, RegionSettings, RuleAction, Settings,
    TlsSettings, failover, urls,
};

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
    check.access();
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
        let most = RegionSettings::MOST_BACKENDS;
        if region.most_at_once() > most {
            let message = format!(
                "the region may have {} backends at once (instances of processes, with one in reserve for each \
                 process, included), and {most} at the most; make it several regions",
                region.most_at_once()
            );
            let processes = region.processes.keys();
            let instances = processes
                .map(|name| format!("{key}.processes.{name}.instances"))
                .collect::<Vec<_>>();
            let keys = std::iter::once(&backends).chain(&instances).map(String::as_str);
            self.say(&keys.collect::<Vec<_>>(), message);
        }
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

/// Whether `path` is `above`, or begins with it and a slash; an empty one is nowhere.
fn is_below(path: &str, above: &str) -> bool {
    !above.is_empty()
        && path
            .strip_prefix(above)
            .is_some_and(|rest| above.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
