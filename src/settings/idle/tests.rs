//! Each value that does nothing, by the words that set it.

use crate::settings::{LoadOptions, load};

/// With the two regions of the defaults, unless region 9 is there alone.
fn warned(set: &[&str]) -> Vec<String> {
    let regions: &[&str] = if set.iter().any(|text| text.starts_with("regions.9")) {
        &[]
    } else {
        &["regions.1.hub.port=5001", "regions.2.hub.port=5002"]
    };
    let variables = [("NODE_ENV".to_owned(), "production".to_owned())].into();
    let set = regions.iter().chain(set).map(|&text| text.to_owned()).collect();
    let folder = "/nonexistent".into();
    let loaded = load(&LoadOptions { folder, variables, set, ..LoadOptions::default() }).unwrap();
    loaded.warnings.into_iter().map(|warning| warning.key).collect()
}

#[test]
fn what_does_something_is_not_told_of() {
    let quiet: &[&[&str]] = &[
        &[],
        // As by default.
        &["health.path=/health", "breaker.trials=3", "reload.watch_interval=5s"],
        &["health.active=http", "health.path=/up", "health.expect=200"],
        &["regions.1.health.active=http", "health.path=/up", "regions.1.health.path=/x"],
        &["breaker.enabled=true", "breaker.trials=9"],
        &["regions.1.failover=any"],
        &["tls.dev=true", "tls.dev_in_production=true", "tls.max_streams=9", "security.hsts=1day"],
        &["access.file=/tmp/x.log", "access.rotate_keep=3"],
        &["rules.a.path=/x", "rules.a.action=deny", "rules.b.path=/x/y"],
        &["rules.a.path=/x", "rules.a.methods=GET"],
        &["limits.a.rate=1/s", "limits.a.shared=true", "bus.redis.host=h", "limits.a.timeout=1s"],
        &["regions.1.backends=https://a:1", "tls.backends.verify=false"],
        &["reload.watch=true", "reload.watch_interval=1s"],
    ];
    for set in quiet {
        assert_eq!(warned(set), [""; 0], "{set:?}");
    }
}

#[test]
fn what_does_nothing_is_told_of_by_its_key() {
    let one_region = "regions.9.hub.port=0";
    // What is set besides, what does nothing.
    let cases: &[(&[&str], &str)] = &[
        (&[one_region], "regions.9.failover=any"),
        (&[one_region], "regions.9.failover=spill"),
        (&[], "regions.1.health.path=/x"),
        (&["health.active=tcp"], "regions.1.health.expect=200"),
        (&["health.active=ws"], "health.expect=200"),
        (&["health.active=tcp"], "health.path=/x"),
        (&[], "health.interval=9s"),
        (&["health.passive=false"], "health.eject=20s"),
        (&["health.passive=false"], "health.count_statuses=500"),
        (&["regions.1.health.passive=false"], "regions.1.health.when_exceeded=fail"),
        (&["health.failure_percent=0"], "health.window=20s"),
        (&["health.consecutive=0"], "health.failure_percent=0"),
        (&[], "breaker.trials=9"),
        (&["breaker.enabled=true", "breaker.failure_percent=0"], "breaker.window=9s"),
        (&["retry.enabled=false"], "retry.attempts=2"),
        (&["retry.attempts=1"], "retry.hold_bytes=2"),
        (&[], "retry.try_timeout=2m"),
        (&[], "backends.queue_length=9"),
        (&[], "backends.hold=9s"),
        (&[], "proxy.proxy_protocol=trusted"),
        (&["limits.a.rate=1/s"], "limits.a.on_error=refuse"),
        (&["limits.a.rate=1/s"], "limits.a.shared=true"),
        (&["limits.a.rate=1/s"], "limits.a.path=/health"),
        (&[], "rules.a.path=/admin"),
        (&[], "rules.a.from=10.0.0.0/8"),
        (&[], "tls.min_version=1.3"),
        (&["tls.dev=true", "tls.dev_in_production=true", "tls.http2=false"], "tls.max_streams=9"),
        (&[], "tls.redirect_host=a.example"),
        (&[], "tls.dev_in_production=true"),
        (&[], "tls.backends.verify=false"),
        (&[], "security.hsts=1day"),
        (&[], "security.hsts_subdomains=true"),
        (&["log.access=false"], "access.queries=true"),
        (&[], "access.rotate_daily=true"),
        (&["log.level=warn"], "access.queries=true"),
        (&["access.file=/tmp/x.log", "access.rotate_bytes=0"], "access.rotate_keep=3"),
        (&["regions.9.backends=http://a:1"], "hub.ping_interval=1m"),
        (&["regions.9.hub.url=http://a:1"], "regions.9.hub.bind=127.0.0.1"),
        (&[], "bus.lease=20s"),
        (&[], "bus.redis.port=7000"),
        (&["bus.kind=embedded"], "bus.redis.host=h"),
        (&["bus.redis.url=redis://h"], "bus.redis.username=u"),
        (&["bus.redis.host=h"], "bus.inbox.max_total_bytes=999999999"),
        (&["hub.delivery=at-most-once"], "bus.inbox.max_age=1h"),
        (&["api.enabled=false"], "api.mount=/api"),
        (&[], "compression.min_bytes=9"),
        (&[], "reload.watch_interval=9s"),
    ];
    for (besides, idle) in cases {
        let set: Vec<&str> = besides.iter().chain([idle]).copied().collect();
        let key = idle.split_once('=').unwrap().0;
        assert_eq!(warned(&set), [key], "{set:?}");
    }
}
