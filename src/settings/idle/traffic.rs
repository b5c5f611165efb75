//! What does nothing of what is said about regions, and about how requests are served.

use super::Idle;
use crate::settings::{
    Failover, ProbeKind, ProxyProtocol, RegionSettings, RuleAction, RuleSettings,
};

/// What the regions agree in.
struct Agreed {
    /// The kinds of probes that there are.
    probes: Vec<ProbeKind>,
    passive: bool,
}

impl Idle<'_> {
    fn agreed(&self) -> Agreed {
        let settings = self.settings;
        let of = |region: &RegionSettings| region.health.active.unwrap_or(settings.health.active);
        Agreed {
            probes: settings.regions.values().map(of).filter(|kind| kind.is_on()).collect(),
            passive: settings
                .regions
                .values()
                .any(|region| region.health.passive.unwrap_or(settings.health.passive)),
        }
    }

    pub(super) fn regions(&mut self) {
        let settings = self.settings;
        for (name, region) in &settings.regions {
            let key = format!("regions.{name}");
            let is_alone = settings.regions.len() == 1;
            if is_alone && matches!(region.failover, Failover::Any | Failover::Spill(_)) {
                self.tell_of(
                    &key,
                    &["failover"],
                    "there is no other region that could serve; add one",
                );
            }
            let section = format!("{key}.health");
            match region.health.active.unwrap_or(settings.health.active) {
                ProbeKind::Off => {
                    let why = "nothing is probed; set active to http, tcp or ws";
                    self.tell_of(&section, &["path", "host", "expect", "expect_body"], why);
                }
                ProbeKind::Tcp => {
                    let why = "a tcp probe asks for nothing; set active to http";
                    self.tell_of(&section, &["path", "host", "expect", "expect_body"], why);
                }
                ProbeKind::Ws => {
                    let why = "a ws probe looks at the handshake alone; set active to http";
                    self.tell_of(&section, &["expect", "expect_body"], why);
                }
                ProbeKind::Http => {}
            }
            if !region.health.passive.unwrap_or(settings.health.passive) {
                let why = "nothing is ejected here; set passive to true";
                self.tell_of(&section, &["max_ejected_percent", "when_exceeded"], why);
            }
        }
    }

    pub(super) fn health(&mut self) {
        let (health, agreed) = (&self.settings.health, self.agreed());
        let has = |kind| agreed.probes.contains(&kind);
        if agreed.probes.is_empty() {
            let names =
                ["path", "host", "expect", "expect_body", "interval", "timeout", "rise", "fall"];
            self.tell_of(
                "health",
                &names,
                "nothing is probed; set health.active to http, tcp or ws",
            );
        } else if !has(ProbeKind::Http) {
            let why = "no probe looks at an answer; set health.active to http";
            self.tell_of("health", &["expect", "expect_body"], why);
            if !has(ProbeKind::Ws) {
                self.tell_of("health", &["path", "host"], why);
            }
        }
        if !agreed.passive {
            let names = [
                "consecutive",
                "failure_percent",
                "window",
                "min_requests",
                "eject",
                "eject_max",
                "max_ejected_percent",
                "when_exceeded",
            ];
            self.tell_of("health", &names, "nothing is ejected; set health.passive to true");
            if !self.settings.breaker.enabled {
                let why = "nobody counts failures; set health.passive or breaker.enabled to true";
                self.tell_of("health", &["count_statuses"], why);
            }
        } else if health.failure_percent == 0 {
            let why = "health.failure_percent is 0, so that no share of failures ejects; set it";
            self.tell_of("health", &["window", "min_requests"], why);
            if health.consecutive == 0 {
                let why = "health.consecutive is 0 too, so that nothing ejects; set one of them, or health.passive to false";
                self.tell_of("health", &["failure_percent"], why);
            }
        }
    }

    pub(super) fn breaker(&mut self) {
        let breaker = &self.settings.breaker;
        if !breaker.enabled {
            self.tell_all(
                "breaker",
                &["enabled"],
                "the breaker is off; set breaker.enabled to true",
            );
        } else if breaker.failure_percent == 0 {
            let why = "breaker.failure_percent is 0, so that no share of failures opens it; set it";
            self.tell_of("breaker", &["window", "min_requests"], why);
        }
    }

    pub(super) fn retry(&mut self) {
        let retry = &self.settings.retry;
        if !retry.enabled {
            self.tell_all(
                "retry",
                &["enabled"],
                "nothing is sent again; set retry.enabled to true",
            );
        } else if retry.attempts.get() == 1 {
            let why = "retry.attempts is 1, so that nothing is sent again; set it to 2 or more";
            self.tell_all("retry", &["enabled", "attempts"], why);
        } else if retry
            .try_timeout
            .is_some_and(|try_| try_ >= self.settings.proxy.first_byte_timeout)
        {
            let why = "it is not below proxy.first_byte_timeout, which ends the wait before it";
            self.tell_of("retry", &["try_timeout"], why);
        }
    }

    pub(super) fn backends(&mut self) {
        let regions = &self.settings.regions;
        let mut backends = regions.values().flat_map(|region| &region.backends);
        let mut processes = regions.values().flat_map(|region| region.processes.values());
        let has_backup =
            backends.clone().any(|one| one.tier > 0) || processes.any(|one| one.backup);
        if !backends.any(|one| one.max_connections > 0) {
            let why = "no backend can be full; give one max_connections";
            self.tell_of("backends", &["queue_length", "queue_timeout"], why);
        } else if self.settings.backends.queue_length == 0 {
            self.tell_of(
                "backends",
                &["queue_timeout"],
                "nothing waits; set backends.queue_length",
            );
        }
        if !has_backup {
            self.tell_of("backends", &["hold"], "there is no backup; give a backend backup = true");
        }
    }

    pub(super) fn proxy(&mut self) {
        let proxy = &self.settings.proxy;
        if proxy.proxy_protocol == ProxyProtocol::Trusted && proxy.trusted_proxies.is_empty() {
            let why = "no connection comes from a trusted proxy; name their networks in proxy.trusted_proxies";
            self.tell_of("proxy", &["proxy_protocol"], why);
        }
    }

    pub(super) fn limits(&mut self) {
        let settings = self.settings;
        let own = [&settings.proxy.health_path, &settings.proxy.ready_path];
        for (name, limit) in &settings.limits {
            let section = format!("limits.{name}");
            if !limit.shared {
                let why = "the limit is counted by this process alone; set shared to true";
                self.tell_of(&section, &["on_error", "timeout"], why);
            } else if !settings.bus.wants_redis() {
                let why = "the bus is embedded, so that this process counts alone; name a Redis";
                self.tell_of(&section, &["shared"], why);
            }
            if own.contains(&&limit.path) {
                let why = "the gateway answers this path itself, which is not counted";
                self.tell_of(&section, &["path"], why);
            }
        }
    }

    /// Without another rule, what no rule fits passes: one that only lets through changes nothing then.
    pub(super) fn rules(&mut self) {
        let lets_through = |rule: &RuleSettings| {
            rule.action == RuleAction::Allow && rule.methods.is_empty() && rule.max_body_bytes == 0
        };
        if !self.settings.rules.values().all(lets_through) {
            return;
        }
        let why = "what it lets through passes without it; add a rule with action = \"deny\" for all others";
        for name in self.settings.rules.keys() {
            let section = format!("rules.{name}");
            self.tell_of(&section, &["path"], why);
            if !self.said.contains(&format!("{section}.path")) {
                self.tell_of(&section, &["from"], why);
            }
        }
    }
}
