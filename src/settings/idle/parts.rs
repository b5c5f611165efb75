//! What does nothing of what is said about listeners, lines, chat, the bus, and what can be switched off.

use super::Idle;
use crate::settings::{DeliveryMode, HubPlace, LogLevel};

impl Idle<'_> {
    pub(super) fn tls(&mut self) {
        let tls = &self.settings.tls;
        if tls.listens_on().is_none() {
            let names =
                ["min_version", "http2", "max_streams", "handshake_timeout", "watch_interval"];
            self.tell_of("tls", &names, "there is no TLS listener; set tls.port (PROXY_TLS_PORT)");
            let why = "it is said over TLS only, and there is no TLS listener; set tls.port (PROXY_TLS_PORT)";
            self.tell_of("security", &["hsts"], why);
        } else if !tls.http2 {
            self.tell_of("tls", &["max_streams"], "HTTP/2 is not offered; set tls.http2 to true");
        }
        if tls.redirect_port.is_none() {
            let why = "nothing is redirected; set tls.redirect_port (PROXY_REDIRECT_PORT)";
            self.tell_of("tls", &["redirect_host"], why);
        }
        if !tls.dev {
            let why = "there is no development certificate; use --tls-dev, or set tls.dev to true";
            self.tell_of("tls", &["dev_in_production", "dev_folder"], why);
        }
        let regions = self.settings.regions.values();
        let backends = regions.clone().flat_map(|region| &region.backends).map(|one| &one.url);
        let hubs = regions.filter_map(|region| region.hub.as_ref()?.url.as_ref());
        if !backends.chain(hubs).any(|url| url.starts_with("https:")) {
            let why = "no backend or hub is reached by TLS; write https:// in its URL";
            self.tell_all("tls.backends", &[], why);
        }
    }

    /// Access lines.
    pub(super) fn lines(&mut self) {
        let (log, access) = (&self.settings.log, &self.settings.access);
        if !log.access {
            self.tell_all("access", &[], "no line is written; set log.access to true");
            return;
        }
        if access.file.is_none() {
            let why = "standard error is not put aside; name a file in access.file";
            self.tell_of("access", &["rotate_bytes", "rotate_daily", "rotate_keep"], why);
            if matches!(log.level, LogLevel::Error | LogLevel::Warn) {
                let why = "no line is written to standard error below log.level = \"info\"; set that, or access.file";
                self.tell_of("access", &["format", "queries", "client"], why);
            }
        } else if access.rotate_bytes == 0 && !access.rotate_daily {
            let why = "nothing is put aside; set access.rotate_bytes or access.rotate_daily";
            self.tell_of("access", &["rotate_keep"], why);
        }
    }

    pub(super) fn hub(&mut self) {
        let hubs =
            || self.settings.regions.iter().filter_map(|(name, of)| Some((name, of.hub.as_ref()?)));
        let elsewhere: Vec<String> = hubs()
            .filter(|(_, hub)| hub.port.is_none() && hub.bind != HubPlace::default().bind)
            .map(|(name, _)| format!("regions.{name}.hub.bind"))
            .collect();
        let is_hosted = hubs().any(|(_, hub)| hub.port.is_some());
        self.said.extend(elsewhere.iter().cloned());
        for key in &elsewhere {
            self.tell(&[key], "the hub is not hosted here; set its port");
        }
        if !is_hosted {
            // The API goes by these two wherever the hubs are.
            let save = ["max_text_bytes", "delivery"];
            self.tell_all("hub", &save, "no region has a hub here; give one hub.port");
        }
    }

    pub(super) fn bus(&mut self) {
        let bus = &self.settings.bus;
        if bus.wants_redis() {
            let why = "Redis holds the inboxes; use its own maxmemory";
            self.tell_of("bus.inbox", &["max_total_bytes"], why);
        } else {
            let why = if bus.redis.names_a_server() {
                "bus.kind is embedded; set it to auto or redis"
            } else {
                "the bus is embedded; name a Redis in REDIS_HOST or REDIS_URL"
            };
            self.tell_of("bus", &["lease"], why);
            self.tell_all("bus.redis", &[], why);
        }
        if bus.wants_redis() && bus.redis.url.is_some() {
            let names = ["host", "port", "nodes", "username", "password", "sentinel_master", "tls"];
            let why = "bus.redis.url (REDIS_URL) wins over it; say it there";
            self.tell_of("bus.redis", &names, why);
        }
        if self.settings.hub.delivery == DeliveryMode::AtMostOnce {
            let why = "nothing is stored under hub.delivery = \"at-most-once\"";
            self.tell_all("bus.inbox", &[], why);
        }
    }

    /// Sections that are switched off.
    pub(super) fn switches(&mut self) {
        let settings = self.settings;
        if !settings.api.enabled {
            self.tell_all("api", &["enabled"], "there is no API; set api.enabled to true");
        }
        if !settings.compression.enabled {
            let why = "nothing is compressed; set compression.enabled to true";
            self.tell_all("compression", &["enabled"], why);
        }
        if settings.security.hsts.is_none() {
            self.tell_of("security", &["hsts_subdomains"], "security.hsts is not set; set it");
        }
        if !settings.reload.watch {
            let why = "files are not watched; set reload.watch to true, or use --watch";
            self.tell_of("reload", &["watch_interval"], why);
        }
    }
}
