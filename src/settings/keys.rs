//! Every key that can be configured, with what its value must be: the table that the loader walks.
//!
//! The types of the sections stay the authority on what a value may be; this table gives the words
//! for a refusal, the rules a type cannot say, and the order in which keys are printed. A test
//! holds it against the types, both ways.

use super::StopSignal;
use super::kinds::Kind;

/// One key; `*` stands for a name that the operator chooses.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

/// What a path is.
#[derive(Debug)]
pub(super) enum Found {
    Key(&'static Key),
    Section,
    Unknown,
}

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// In the order in which they are printed: the keys of a section stand together.
pub(super) const KEYS: &[Key] = &[
    key("default_region", Kind::Region),
    key("workers", Kind::Count(0, 1_024)),
    key("regions.*.backends", Kind::Backends),
    key("regions.*.failover", Kind::Failover),
    key("regions.*.spill_factor", Kind::Factor),
    key("regions.*.rebalance_rate", Kind::Count(0, 100_000)),
    key(
        "regions.*.balance",
        Kind::Choice(&["least_conn", "p2c_ewma", "round_robin", "consistent_hash"]),
    ),
    key("regions.*.hash_by", Kind::HashBy),
    key("regions.*.hub.bind", Kind::Address),
    key("regions.*.hub.port", Kind::Port),
    key("regions.*.hub.url", Kind::HttpUrl),
    key("regions.*.processes.*.command", Kind::Command),
    key("regions.*.processes.*.dir", Kind::Text),
    key("regions.*.processes.*.env", Kind::Pairs),
    key("regions.*.processes.*.instances", Kind::Instances),
    key("regions.*.processes.*.port_base", Kind::Count(1, 65_535)),
    key("regions.*.processes.*.ready_path", Kind::OwnPath),
    key("regions.*.processes.*.ready_timeout", Kind::Duration),
    key("regions.*.processes.*.stop_signal", Kind::Choice(StopSignal::NAMES)),
    key("regions.*.processes.*.stop_timeout", Kind::Duration),
    key("regions.*.processes.*.restart_min", Kind::Duration),
    key("regions.*.processes.*.restart_max", Kind::Duration),
    key("regions.*.processes.*.max_restarts", Kind::Count(1, 10_000)),
    key("regions.*.processes.*.restart_window", Kind::Duration),
    key("regions.*.processes.*.crash_loop_retry", Kind::Duration),
    key("regions.*.processes.*.max_memory", Kind::Count(0, 1 << 50)),
    key("regions.*.processes.*.weight", Kind::Count(1, 1_000)),
    key("regions.*.processes.*.backup", Kind::Flag),
    key("regions.*.health.active", Kind::Choice(PROBES)),
    key("regions.*.health.path", Kind::Target),
    key("regions.*.health.host", Kind::Authority),
    key("regions.*.health.expect", Kind::SomeStatuses),
    key("regions.*.health.expect_body", Kind::Text),
    key("regions.*.health.passive", Kind::Flag),
    key("regions.*.health.max_ejected_percent", Kind::Count(0, 100)),
    key("regions.*.health.when_exceeded", Kind::Choice(WHEN_EXCEEDED)),
    key("log.level", Kind::Choice(&["error", "warn", "info", "debug", "trace"])),
    key("log.format", Kind::Choice(&["text", "json"])),
    key("log.access", Kind::Flag),
    key("access.format", Kind::Choice(&["text", "json", "combined"])),
    key("access.file", Kind::Text),
    key("access.rotate_bytes", Kind::Count(0, 1 << 50)),
    key("access.rotate_daily", Kind::Flag),
    key("access.rotate_keep", Kind::Count(1, 1_000)),
    key("access.queries", Kind::Flag),
    key("access.client", Kind::Choice(&["full", "truncated", "none"])),
    key("proxy.bind", Kind::Address),
    key("proxy.port", Kind::Port),
    key("proxy.health_path", Kind::OwnPath),
    key("proxy.ready_path", Kind::OwnPath),
    key("proxy.ws_path", Kind::OwnPath),
    key("proxy.trusted_proxies", Kind::Networks),
    key("proxy.max_connections", Kind::Count(1, MANY)),
    key("proxy.header_timeout", Kind::Duration),
    key("proxy.keep_alive_timeout", Kind::Duration),
    key("proxy.body_idle_timeout", Kind::Duration),
    key("proxy.max_body_bytes", Kind::Count(0, 1 << 50)),
    key("proxy.max_target_bytes", Kind::Count(1, 1 << 24)),
    key("proxy.max_header_bytes", Kind::Count(1_024, 256 * 1_024)),
    key("proxy.max_headers", Kind::Count(1, 1_000)),
    key("proxy.max_answer_headers", Kind::Count(100, 1_000)),
    key("proxy.max_connections_per_client", Kind::Count(0, MANY)),
    key("proxy.min_rate", Kind::Count(0, MANY)),
    key("proxy.connect_timeout", Kind::Duration),
    key("proxy.tls_timeout", Kind::Duration),
    key("proxy.first_byte_timeout", Kind::Duration),
    key("proxy.total_timeout", Kind::Duration),
    key("proxy.pool_idle_timeout", Kind::Duration),
    key("proxy.pool_max_idle", Kind::Count(1, MANY)),
    key("proxy.tunnel_idle_timeout", Kind::Duration),
    key("proxy.tunnel_ping_interval", Kind::Pause),
    key("proxy.tunnel_pong_timeout", Kind::Duration),
    key("proxy.max_tunnel_age", Kind::Duration),
    key("proxy.max_tunnels", Kind::Count(1, MANY)),
    key("proxy.fail_timeout", Kind::Duration),
    key("proxy.retry_after_seconds", Kind::Count(0, 86_400)),
    key("proxy.via", Kind::Via),
    key("proxy.max_hops", Kind::Count(1, 255)),
    key("proxy.trace", Kind::Choice(&["off", "pass", "begin"])),
    key("proxy.proxy_protocol", Kind::Choice(&["off", "trusted", "required"])),
    key("retry.enabled", Kind::Flag),
    key("retry.attempts", Kind::Count(1, 16)),
    key("retry.budget_percent", Kind::Count(0, 100)),
    key("retry.floor_per_second", Kind::Count(0, 1_000_000)),
    key("retry.try_timeout", Kind::Duration),
    key("retry.statuses", Kind::ErrorStatuses),
    key("retry.hold_bytes", Kind::Count(0, 1 << 20)),
    key("backends.queue_length", Kind::Count(0, 100_000)),
    key("backends.queue_timeout", Kind::Duration),
    key("backends.slow_start", Kind::Pause),
    key("backends.hold", Kind::Pause),
    key("limits.*.path", Kind::PathPattern),
    key("limits.*.methods", Kind::Methods),
    key("limits.*.regions", Kind::Regions),
    key("limits.*.key", Kind::LimitKey),
    key("limits.*.rate", Kind::Rate),
    key("limits.*.burst", Kind::Count(1, 1_000_000)),
    key("limits.*.shared", Kind::Flag),
    key("limits.*.on_error", Kind::Choice(&["allow", "refuse"])),
    key("limits.*.timeout", Kind::Duration),
    key("limits.*.max_keys", Kind::Count(1, 100_000_000)),
    key("rules.*.path", Kind::PathPattern),
    key("rules.*.methods", Kind::Methods),
    key("rules.*.regions", Kind::Regions),
    key("rules.*.from", Kind::Networks),
    key("rules.*.action", Kind::Choice(&["allow", "deny"])),
    key("rules.*.max_body_bytes", Kind::Count(0, 1 << 50)),
    key("health.active", Kind::Choice(PROBES)),
    key("health.path", Kind::Target),
    key("health.host", Kind::Authority),
    key("health.expect", Kind::SomeStatuses),
    key("health.expect_body", Kind::Text),
    key("health.interval", Kind::Duration),
    key("health.timeout", Kind::Duration),
    key("health.rise", Kind::Count(1, 1_000)),
    key("health.fall", Kind::Count(1, 1_000)),
    key("health.passive", Kind::Flag),
    key("health.consecutive", Kind::Count(0, 1_000_000)),
    key("health.failure_percent", Kind::Count(0, 100)),
    key("health.window", Kind::Duration),
    key("health.min_requests", Kind::Count(1, 1_000_000)),
    key("health.early_close", Kind::Pause),
    key("health.count_statuses", Kind::Statuses),
    key("health.eject", Kind::Duration),
    key("health.eject_max", Kind::Duration),
    key("health.max_ejected_percent", Kind::Count(0, 100)),
    key("health.when_exceeded", Kind::Choice(WHEN_EXCEEDED)),
    key("breaker.enabled", Kind::Flag),
    key("breaker.consecutive", Kind::Count(0, 1_000_000)),
    key("breaker.failure_percent", Kind::Count(0, 100)),
    key("breaker.window", Kind::Duration),
    key("breaker.min_requests", Kind::Count(1, 1_000_000)),
    key("breaker.slow", Kind::Duration),
    key("breaker.open", Kind::Duration),
    key("breaker.open_max", Kind::Duration),
    key("breaker.trials", Kind::Count(1, 1_000_000)),
    key("breaker.close_after", Kind::Count(1, 1_000_000)),
    key("tls.port", Kind::Port),
    key("tls.min_version", Kind::Choice(&["1.2", "1.3"])),
    key("tls.http2", Kind::Flag),
    key("tls.max_streams", Kind::Count(1, 10_000)),
    key("tls.handshake_timeout", Kind::Duration),
    key("tls.watch_interval", Kind::Duration),
    key("tls.default", Kind::Text),
    key("tls.dev", Kind::Flag),
    key("tls.dev_in_production", Kind::Flag),
    key("tls.dev_folder", Kind::Text),
    key("tls.redirect_port", Kind::Port),
    key("tls.redirect_host", Kind::Authority),
    key("tls.certificates.*.cert", Kind::Text),
    key("tls.certificates.*.key", Kind::Text),
    key("tls.backends.ca", Kind::Text),
    key("tls.backends.cert", Kind::Text),
    key("tls.backends.key", Kind::Text),
    key("tls.backends.verify", Kind::Flag),
    key("hub.ping_interval", Kind::Duration),
    key("hub.pong_timeout", Kind::Duration),
    key("hub.max_text_bytes", Kind::Count(1, 1 << 26)),
    key("hub.max_bad_frames", Kind::Count(1, MANY)),
    key("hub.messages_per_second", Kind::Count(1, MANY)),
    key("hub.message_burst", Kind::Count(1, MANY)),
    key("hub.user_messages_per_second", Kind::Count(0, MANY)),
    key("hub.user_message_burst", Kind::Count(0, MANY)),
    key("hub.outbox_messages", Kind::Count(1, MANY)),
    key("hub.outbox_bytes", Kind::Count(1, MANY)),
    key("hub.max_connections", Kind::Count(1, MANY)),
    key("hub.max_connections_per_user", Kind::Count(1, 10_000)),
    key("hub.over_limit", Kind::Choice(&["refuse", "close-oldest"])),
    key("hub.max_presence_users", Kind::Count(1, 10_000)),
    key("hub.connects_per_second", Kind::Count(1, MANY)),
    key("hub.connect_burst", Kind::Count(1, MANY)),
    key("hub.max_connection_age", Kind::Duration),
    key("hub.delivery", Kind::Choice(&["exactly-once", "at-most-once"])),
    key("hub.allowed_origins", Kind::Origins),
    key("bus.kind", Kind::Choice(&["auto", "embedded", "redis"])),
    key("bus.lease", Kind::Duration),
    key("bus.redis.url", Kind::RedisUrl),
    key("bus.redis.mode", Kind::Choice(&["auto", "standalone", "sentinel", "cluster"])),
    key("bus.redis.host", Kind::Host),
    key("bus.redis.port", Kind::Count(1, 65_535)),
    key("bus.redis.nodes", Kind::Nodes),
    key("bus.redis.username", Kind::Text),
    key("bus.redis.password", Kind::Secret),
    key("bus.redis.sentinel_master", Kind::Text),
    key("bus.redis.sentinel_username", Kind::Text),
    key("bus.redis.sentinel_password", Kind::Secret),
    key("bus.redis.tls", Kind::Flag),
    key("bus.redis.tls_ca", Kind::Text),
    key("bus.redis.tls_cert", Kind::Text),
    key("bus.redis.tls_key", Kind::Text),
    key("bus.redis.command_timeout", Kind::Duration),
    key("bus.redis.reconnect_min", Kind::Duration),
    key("bus.redis.reconnect_max", Kind::Duration),
    key("bus.redis.fence", Kind::Choice(&["script", "connection", "off"])),
    key("bus.redis.min_replicas", Kind::Count(0, 100)),
    key("bus.redis.probe_interval", Kind::Duration),
    key("bus.inbox.max_messages", Kind::Count(1, MANY)),
    key("bus.inbox.max_age", Kind::Duration),
    key("bus.inbox.dedupe_window", Kind::Duration),
    key("bus.inbox.max_total_bytes", Kind::Count(1, 1 << 50)),
    key("admin.bind", Kind::Address),
    key("admin.port", Kind::Port),
    key("admin.hosts", Kind::Hosts),
    key("admin.token", Kind::Secret),
    key("admin.max_connections", Kind::Count(1, 100_000)),
    key("admin.idle_timeout", Kind::Duration),
    key("api.enabled", Kind::Flag),
    key("api.bind", Kind::Address),
    key("api.port", Kind::Port),
    key("api.mount", Kind::OwnPath),
    key("api.requests_per_second", Kind::Count(1, 1_000_000)),
    key("api.request_burst", Kind::Count(1, 1_000_000)),
    key("api.max_body_bytes", Kind::Count(1, 1 << 30)),
    key("api.max_buffered_bytes", Kind::Count(1, 1 << 40)),
    key("api.body_timeout", Kind::Duration),
    key("api.max_connections", Kind::Count(1, MANY)),
    key("api.keys.*", Kind::ApiKey),
    key("page.path", Kind::PagePath),
    key("static.*.path", Kind::MountPath),
    key("static.*.folder", Kind::Folder),
    key("static.*.index", Kind::Flag),
    key("static.*.spa", Kind::Flag),
    key("static.*.precompressed", Kind::Flag),
    key("static.*.cache_control", Kind::HeaderText),
    key("compression.enabled", Kind::Flag),
    key("compression.codings", Kind::Codings),
    key("compression.min_bytes", Kind::Count(0, 1 << 30)),
    key("compression.types", Kind::MediaTypes),
    key("compression.max_active", Kind::Count(1, MANY)),
    key("security.profile", Kind::Choice(&["off", "web", "strict", "api"])),
    key("security.hsts", Kind::Duration),
    key("security.hsts_subdomains", Kind::Flag),
    key("security.remove_headers", Kind::HeaderNames),
    key("demo.enabled", Kind::Flag),
    key("demo.port_a", Kind::Port),
    key("demo.region_a", Kind::Region),
    key("demo.port_b", Kind::Port),
    key("demo.region_b", Kind::Region),
    key("reload.watch", Kind::Flag),
    key("reload.watch_interval", Kind::Duration),
    key("shutdown.grace", Kind::Duration),
];

/// How backends can be probed.
const PROBES: &[&str] = &["off", "http", "tcp", "ws"];

/// What becomes of a region that fails as a whole.
const WHEN_EXCEEDED: &[&str] = &["panic", "fail"];

/// More of anything than one process can hold, and far from where sums and semaphores overflow.
const MANY: i64 = 1_000_000_000;

/// What stands at `path`.
pub(super) fn find(path: &[String]) -> Found {
    let mut found = Found::Unknown;
    for key in KEYS {
        let mut segments = key.path.split('.');
        let fits = path.iter().all(|name| segments.next().is_some_and(|s| s == "*" || s == name));
        if fits {
            if segments.next().is_none() {
                return Found::Key(key);
            }
            found = Found::Section;
        }
    }
    found
}

/// The names that may stand directly below the section `path`, in a sentence's form.
pub(super) fn names_below(path: &[String]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for key in KEYS {
        let mut segments = key.path.split('.');
        if path.iter().all(|name| segments.next().is_some_and(|s| s == "*" || s == name))
            && let Some(name) = segments.next()
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::settings::{
        ApiKey, BackendSettings, CertificateSettings, HubPlace, LimitSettings, ProcessSettings,
        RegionName, RegionSettings, RuleSettings, Settings, StaticSettings,
    };

    /// Every key of the types, `*` for a name of the operator's; JSON, because it shows what is not set.
    fn of_the_types() -> BTreeSet<String> {
        let mut settings = Settings::default();
        let region = RegionSettings {
            backends: vec![BackendSettings::primary("http://127.0.0.1:1")],
            hub: Some(HubPlace::default()),
            processes: [("p".to_owned(), ProcessSettings::default())].into(),
            ..RegionSettings::default()
        };
        settings.regions.insert(RegionName::literal("r"), region);
        settings.mounts.insert("s".to_owned(), StaticSettings::default());
        settings.api.keys.insert("k".to_owned(), ApiKey::new("secret"));
        settings.tls.certificates.insert("c".to_owned(), CertificateSettings::default());
        settings.limits.insert("l".to_owned(), LimitSettings::default());
        settings.rules.insert("r".to_owned(), RuleSettings::default());
        let mut keys = BTreeSet::new();
        collect(&serde_json::to_value(&settings).unwrap(), "", &mut keys);
        keys
    }

    /// Whether what stands below has names of the operator's.
    fn is_named(path: &str) -> bool {
        ["regions", "api.keys", "static", "limits", "rules", "tls.certificates"].contains(&path)
            || path.ends_with(".processes")
    }

    fn collect(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
        let Value::Object(members) = value else {
            keys.insert(path.to_owned());
            return;
        };
        for (name, member) in members {
            let name = if is_named(path) { "*" } else { name };
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            collect(member, &path, keys);
        }
    }

    #[test]
    fn the_table_and_the_types_name_the_same_keys() {
        let table: BTreeSet<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(table.len(), KEYS.len(), "a key stands twice in the table");
        assert_eq!(table, of_the_types());
    }

    #[test]
    fn a_path_is_a_key_a_section_or_nothing() {
        let path = |text: &str| -> Vec<String> { text.split('.').map(str::to_owned).collect() };
        assert!(matches!(find(&path("hub.ping_interval")), Found::Key(_)));
        assert!(matches!(find(&path("regions.eu.hub.port")), Found::Key(_)));
        assert!(matches!(find(&path("regions.eu")), Found::Section));
        assert!(matches!(find(&path("bus.redis")), Found::Section));
        for unknown in ["hub.ping", "hub.ping_interval.x", "regions.eu.port", "hubs", ""] {
            assert!(matches!(find(&path(unknown)), Found::Unknown), "{unknown}");
        }
        assert_eq!(names_below(&path("regions.eu.hub")), "bind, port, url");
    }
}
