//! Files, `.env`, variables and flags: which one wins, and what is said of each mistake.

use std::fs;
use std::time::Duration;

use meridian::settings::{
    BackendSettings, Balance, BusKind, Environment, HashBy, LoadOptions, Loaded, LogFormat,
    RegionName, SettingsErrors, load, render,
};
use tempfile::TempDir;

/// A working folder of its own, and what is said to the process.
struct Case {
    folder: TempDir,
    options: LoadOptions,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
        Self { folder, options }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.options.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn set(mut self, assignment: &str) -> Self {
        self.options.set.push(assignment.to_owned());
        self
    }

    fn only(mut self, parts: &str) -> Self {
        self.options.only.push(parts.to_owned());
        self
    }

    fn loaded(&self) -> Loaded {
        load(&self.options).unwrap_or_else(|errors| panic!("not valid:\n{errors}"))
    }

    fn problems(&self) -> Vec<String> {
        let errors: SettingsErrors = load(&self.options).expect_err("it should not be valid");
        errors.problems().iter().map(ToString::to_string).collect()
    }

    /// Exactly one problem, which begins with this text.
    fn is_told(&self, beginning: &str) {
        let problems = self.problems();
        assert_eq!(problems.len(), 1, "expected {beginning:?} alone: {problems:#?}");
        assert!(problems.concat().starts_with(beginning), "expected {beginning:?}: {problems:#?}");
    }
}

fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

fn hub_port(loaded: &Loaded, name: &str) -> Option<u16> {
    loaded.settings.regions.get(name).and_then(|region| region.hub.as_ref()).unwrap().port
}

#[test]
fn without_any_source_it_runs_like_development() {
    let loaded = Case::new().loaded();
    let settings = &loaded.settings;
    assert_eq!(loaded.environment, Environment::Development);
    assert_eq!((hub_port(&loaded, "1"), hub_port(&loaded, "2")), (Some(5001), Some(5002)));
    assert_eq!(settings.page.path, "/client/");
    assert_eq!(loaded.parts.names(), ["proxy", "hub-1", "hub-2", "api", "demo"]);
    let backends = &settings.regions[&region("2")].backends;
    assert_eq!(*backends, [BackendSettings::primary("http://127.0.0.1:4002")]);
}

#[test]
fn without_any_file_production_has_no_demo_and_no_page() {
    let loaded = Case::new().variable("NODE_ENV", "production").loaded();
    assert_eq!(loaded.parts.names(), ["proxy", "hub-1", "hub-2", "api"]);
    assert_eq!(loaded.settings.page.path, "");
}

#[test]
fn each_source_wins_over_the_one_before() {
    let port = |case: &Case| {
        let loaded = case.loaded();
        (loaded.settings.proxy.port, loaded.provenance.of("proxy.port").to_string())
    };
    let said = |port: u16, source: &str| (port, source.to_owned());
    let mut case = Case::new();
    assert_eq!(port(&case), said(3000, "built-in default"));
    case = case.file("config/default.toml", "[proxy]\nport = 3001");
    assert_eq!(port(&case), said(3001, "config/default.toml"));
    case = case.file("config/development.toml", "[proxy]\nport = 3002");
    assert_eq!(port(&case), said(3002, "config/development.toml"));
    case = case.file(".env", "PROXY_PORT=3003");
    assert_eq!(port(&case), said(3003, ".env: PROXY_PORT"));
    case = case.variable("CONF__PROXY__PORT", "3004");
    assert_eq!(port(&case), said(3004, "CONF__PROXY__PORT"));
    case = case.set("proxy.port=3005").set("proxy.port=3006");
    assert_eq!(port(&case), said(3006, "--set"));
}

#[test]
fn what_is_built_in_or_found_late_wins_over_nothing_that_was_said() {
    let file = "[page]\npath = ''\n[demo]\nenabled = false";
    let loaded = Case::new().file("config/default.toml", file).loaded();
    assert_eq!((loaded.settings.page.path.as_str(), loaded.parts.demo), ("", false));
    // The region of this variable is looked up after everything else was read.
    let case = Case::new().file(".env", "WS_SERVER_1_PORT=7001");
    assert_eq!(hub_port(&case.loaded(), "1"), Some(7001));
    let case = case.variable("WS_SERVER_1_PORT", "7002");
    assert_eq!(hub_port(&case.loaded(), "1"), Some(7002));
    let case = case.set("regions.1.hub.port=7003");
    assert_eq!(hub_port(&case.loaded(), "1"), Some(7003));
}

#[test]
fn the_environment_picks_its_file() {
    let files = |case: Case| {
        case.file("config/development.toml", "[log]\nformat = 'text'")
            .file("config/production.toml", "[log]\nformat = 'json'")
    };
    assert_eq!(files(Case::new()).loaded().settings.log.format, LogFormat::Text);
    for name in ["NODE_ENV", "APP_ENV"] {
        let case = files(Case::new()).variable(name, "production");
        assert_eq!(case.loaded().settings.log.format, LogFormat::Json, "{name}");
    }
    let case = files(Case::new()).file(".env", "APP_ENV=production");
    assert_eq!(case.loaded().environment, Environment::Production);
    let case = case.variable("NODE_ENV", "development");
    assert_eq!(case.loaded().environment, Environment::Development, "the process wins over .env");
}

#[test]
fn the_environment_has_two_names_and_two_values() {
    Case::new()
        .variable("NODE_ENV", "staging")
        .is_told("NODE_ENV: \"staging\" is not one of development, production");
    Case::new()
        .variable("NODE_ENV", "production")
        .variable("APP_ENV", "development")
        .is_told("APP_ENV: it says development, but its synonym NODE_ENV says production");
    let both = Case::new().variable("NODE_ENV", "production").variable("APP_ENV", "production");
    assert_eq!(both.loaded().environment, Environment::Production);
}

#[test]
fn the_variables_of_the_contract_set_their_keys() {
    let loaded = Case::new()
        .variable("PROXY_PORT", "1001")
        .variable("HTTP_SERVER_A_PORT", "1002")
        .variable("HTTP_SERVER_B_PORT", "1003")
        .variable("WS_SERVER_1_PORT", "1004")
        .variable("WS_SERVER_2_PORT", "1005")
        .variable("REDIS_HOST", "redis.internal")
        .variable("REDIS_PORT", "1006")
        .variable("REDIS_USERNAME", "u")
        .variable("REDIS_PASSWORD", "12345")
        .variable("REDIS_URL", "redis://u:p@h:1")
        .variable("ADMIN_PORT", "1007")
        .variable("LOG_LEVEL", "debug")
        .variable("LOG_FORMAT", "json")
        .loaded();
    let settings = &loaded.settings;
    assert_eq!((settings.proxy.port, settings.admin.port), (1001, 1007));
    assert_eq!((settings.demo.port_a, settings.demo.port_b), (1002, 1003));
    assert_eq!((hub_port(&loaded, "1"), hub_port(&loaded, "2")), (Some(1004), Some(1005)));
    let redis = &settings.bus.redis;
    assert_eq!((redis.host.as_deref(), redis.port), (Some("redis.internal"), 1006));
    assert_eq!(redis.username.as_deref(), Some("u"));
    assert_eq!(redis.password.as_ref().unwrap().expose(), "12345");
    assert_eq!(redis.url.as_ref().unwrap().expose(), "redis://u:p@h:1");
    assert_eq!(settings.log.format, LogFormat::Json);
    let demo = &settings.regions[&region("1")].backends;
    assert_eq!(*demo, [BackendSettings::primary("http://127.0.0.1:1002")]);
}

#[test]
fn an_empty_variable_is_not_set_and_a_platforms_service_is_not_a_port() {
    let loaded = Case::new()
        .variable("PROXY_PORT", "")
        .variable("NODE_ENV", "")
        .variable("CONF__PROXY__PORT", "")
        .variable("REDIS_PORT", "tcp://10.0.0.11:6379")
        .variable("WS_SERVER_1_PORT", "tcp://10.0.0.12:5001")
        .loaded();
    assert_eq!((loaded.settings.proxy.port, loaded.settings.bus.redis.port), (3000, 6379));
    assert_eq!(hub_port(&loaded, "1"), Some(5001));
}

#[test]
fn any_key_has_a_variable_and_lists_take_toml_or_commas() {
    let loaded = Case::new()
        .variable("CONF__HUB__PING_INTERVAL", "20s")
        .variable("CONF__LOG__ACCESS", "false")
        .variable("CONF__BUS__KIND", "embedded")
        .variable("CONF__PROXY__TRUSTED_PROXIES", "10.0.0.0/8, ::1/128")
        .variable(
            "CONF__REGIONS__euWest__BACKENDS",
            r#"["http://a:1", {url="http://b:2", backup=true}]"#,
        )
        .variable("CONF__REGIONS__euWest__HUB__PORT", "7001")
        .variable("WS_SERVER_EUWEST_PORT", "7002")
        .set("bus.redis.username=\"007\"")
        .set("proxy.health_path=")
        .loaded();
    let settings = &loaded.settings;
    assert_eq!(settings.hub.ping_interval, Duration::from_secs(20));
    assert!(!settings.log.access);
    assert_eq!(settings.bus.kind, BusKind::Embedded);
    assert_eq!(settings.proxy.trusted_proxies.len(), 2);
    assert_eq!(settings.bus.redis.username.as_deref(), Some("007"));
    assert_eq!(settings.proxy.health_path, "");
    let backends = &settings.regions[&region("euWest")].backends;
    let backup = BackendSettings::backup("http://b:2");
    assert_eq!(*backends, [BackendSettings::primary("http://a:1"), backup]);
    // Regions of one's own replace the built-in ones, and the demo with them.
    assert_eq!(settings.regions.len(), 1);
    assert!(!settings.demo.enabled);
}

#[test]
fn a_variable_for_a_region_that_is_not_there_is_a_mistake() {
    Case::new()
        .variable("WS_SERVER_3_PORT", "5003")
        .is_told("WS_SERVER_3_PORT: no region `3` is configured; the regions are 1, 2");
}

#[test]
fn two_variables_for_one_key_must_agree() {
    let case = Case::new().variable("PROXY_PORT", "1").variable("CONF__PROXY__PORT", "2");
    case.is_told("PROXY_PORT: proxy.port: CONF__PROXY__PORT says another value for it");
    let case = Case::new().variable("PROXY_PORT", "1").variable("CONF__PROXY__PORT", "1");
    assert_eq!(case.loaded().settings.proxy.port, 1);
}

#[test]
fn mistakes_in_all_sources_and_within_one_section_are_told_at_once() {
    let problems = Case::new()
        .file("config/default.toml", "[hub]\nping_interval = 'soon'\npings = 3\nmessage_burst = 0")
        .file("config/development.toml", "[log]\nlevel = 'loud'\n[nothing]\nx = 1")
        .file(".env", "PROXY_PORT=http\nbroken line")
        .variable("ADMIN_PORT", "70000")
        .variable("CONF__HUB__PONG", "1s")
        .set("default_region=mars")
        .set("page.path")
        .only("everything")
        .problems();
    for beginning in [
        "config/default.toml: hub.ping_interval: \"soon\" is not a duration; write it like 30s or 5m",
        "config/default.toml: hub.pings: unknown key; `hub` has ping_interval, ",
        "config/default.toml: hub.message_burst: 0 is not a whole number from 1 to ",
        "config/development.toml: log.level: \"loud\" is not one of error, warn, info, debug, trace",
        "config/development.toml: nothing: unknown key; at the top there are default_region, ",
        ".env: PROXY_PORT: proxy.port: \"http\" is not a port; write a number from 0 to 65535",
        ".env: line 2: ",
        "ADMIN_PORT: admin.port: \"70000\" is not a port",
        "CONF__HUB__PONG: hub.pong: unknown key; ",
        "--set: default_region: region `mars` is not configured; the regions are 1, 2",
        "--set: \"page.path\" is not an assignment",
        "--only: \"everything\" is not one of proxy, hub-1, hub-2, api, demo",
    ] {
        let told = problems.iter().filter(|problem| problem.starts_with(beginning)).count();
        assert_eq!(told, 1, "{beginning:?} in {problems:#?}");
    }
    assert_eq!(problems.len(), 12, "{problems:#?}");
}

#[test]
fn what_follows_from_a_refused_value_is_not_told_too() {
    let case = Case::new().file("config/default.toml", "[regions.eu]\nbackends = 5");
    case.is_told("config/default.toml: regions.eu.backends: 5 is not a list of backends");
    let case = Case::new().set("hub.pong_timeout=1m").set("hub.ping_interval=never");
    case.is_told("--set: hub.ping_interval: \"never\" is not a duration");
}

#[test]
fn what_is_wrong_with_a_backend_is_named() {
    for (backend, told) in [
        ("weigth = 2", "has the unknown key `weigth`; a backend has url, backup, tier, weight"),
        ("backup = true, tier = 0", "tier = 0 is that of the primaries"),
        ("weight = 1001", "a backend's weight of 1001 is not"),
    ] {
        let text = format!("[regions.1]\nbackends = [{{ url = \"http://a:1\", {backend} }}]");
        let problems = Case::new().file("config/default.toml", &text).problems();
        assert!(problems.len() == 1 && problems.concat().contains(told), "{told}: {problems:?}");
    }
}

#[test]
fn each_contradiction_is_told_with_its_source() {
    let cases = [
        ("hub.pong_timeout=30s", "hub.pong_timeout: hub.pong_timeout, 30s, must be shorter than"),
        ("hub.ping_interval=5s", "hub.ping_interval: hub.pong_timeout, 10s, must be shorter than"),
        ("hub.outbox_bytes=1000", "hub.outbox_bytes: hub.outbox_bytes, 1000, must hold one frame"),
        (
            "bus.inbox.max_total_bytes=1000",
            "bus.inbox.max_total_bytes: bus.inbox.max_total_bytes, 1000, must hold one frame",
        ),
        (
            "proxy.port=5001",
            "proxy.port: port 5001 is wanted by proxy.port (--set) and by regions.1",
        ),
        (
            "admin.port=4002",
            "admin.port: port 4002 is wanted by demo.port_b (built-in default) and",
        ),
        (
            "security.remove_headers=connection",
            "security.remove_headers: \"connection\" is of the message itself",
        ),
        ("access.file=/nowhere/a.log", "access.file: there is no folder /nowhere for it"),
        ("access.file=/tmp", "access.file: /tmp is a folder; name a file in it"),
        ("default_region=3", "default_region: region `3` is not configured"),
        ("demo.region_a=3", "demo.region_a: region `3` is not configured, but demo.enabled"),
        (
            "proxy.ws_path=/ready",
            "proxy.ws_path: the path \"/ready\" is wanted by proxy.ready_path",
        ),
        ("proxy.ws_path=/client/x", "proxy.ws_path: the path \"/client/\" is wanted by"),
        ("bus.kind=redis", "bus.kind: the bus is redis, but no server is named; set REDIS_URL"),
        (
            "bus.redis.reconnect_min=6s",
            "bus.redis.reconnect_min: bus.redis.reconnect_min, 6s, must",
        ),
        (
            "bus.redis.mode=sentinel",
            "bus.redis.mode: Sentinel needs the name of the master; name it",
        ),
        (
            "bus.redis.nodes=h1,h2",
            "bus.redis.nodes: 2 servers are named, but the mode is standalone",
        ),
        (
            "bus.redis.tls_ca=/ca.pem",
            "bus.redis.tls_ca: TLS is not on, so that its files have no use",
        ),
    ];
    for (assignment, told) in cases {
        Case::new().set(assignment).is_told(&format!("--set: {told}"));
    }
    Case::new()
        .set("bus.redis.url=rediss://h")
        .set("bus.redis.tls_key=/key.pem")
        .is_told("--set: bus.redis.tls_key: a certificate and its key go together");
    Case::new().set("bus.redis.url=redis-cluster://h").set("bus.redis.mode=sentinel").is_told(
        "--set: bus.redis.mode: the mode is sentinel, but bus.redis.url (--set) is that of cluster",
    );
}

#[test]
fn a_region_is_helped_by_others_that_are_there() {
    let two =
        "[regions.1]\nbackends = [\"http://h:1\"]\n[regions.2]\nbackends = [\"http://h:2\"]\n";
    let case = || Case::new().file("config/default.toml", two).variable("NODE_ENV", "production");
    for (assignment, told) in [
        ("regions.1.failover=ordered:3", "failover: region `3`: it is not configured; the regions"),
        ("regions.1.failover=spill:1", "failover: region `1`: a region is no help to itself"),
        ("regions.1.failover=ordered:2,2", "failover: region `2`: it is named twice"),
        (
            "regions.1.spill_factor=2.0",
            "spill_factor: it is for the policy spill, and regions.1.failover is strict",
        ),
    ] {
        case().set(assignment).is_told(&format!("--set: regions.1.{told}"));
    }
    let loaded = case().variable("CONF__REGIONS__1__FAILOVER", "ordered:2").loaded();
    let policy = &loaded.settings.regions[&region("1")].failover;
    assert_eq!(policy.to_string(), "ordered:2");
    let text = render(&loaded);
    assert!(text.contains("failover = \"ordered:2\""), "{text}");
    let loaded = case().variable("CONF__RETRY__STATUSES", "502, 503").loaded();
    assert_eq!(loaded.settings.retry.statuses, [502, 503]);
}

#[test]
fn each_value_that_its_type_would_take_but_nothing_could_use_is_told() {
    for (assignment, told) in [
        ("proxy.fail_timeout=0s", "\"0s\" is no time at all"),
        ("regions.1.failover=nobody", "\"nobody\" is not a failover policy; write strict"),
        ("retry.statuses=200", "200 does not belong in a list of statuses from 400 to 599"),
        ("retry.attempts=0", "\"0\" is not a whole number from 1 to 16"),
        ("proxy.via=a b", "\"a b\" is not a name"),
        ("proxy.ws_path=ws", "\"ws\" is not a path; begin it with /"),
        ("page.path=/client", "\"/client\" does not begin and end with /"),
        ("workers=2000", "2000 is not a whole number from 0 to 1024"),
        ("bus.redis.port=0", "0 is not a whole number from 1 to 65535"),
        ("bus.redis.url=http://h:1", "it does not begin with redis://"),
        (
            "bus.redis.url=redis-sentinel://h:1",
            "behind the hosts must stand the name of the master",
        ),
        ("bus.redis.nodes=h:x", "\"h:x\" is not a server; write it like 10.0.0.1:7000"),
        ("hub.allowed_origins=https://a/", "\"https://a/\" is not an origin"),
        ("regions.1.hash_by=header:", "\"header:\" is not a key; write client, header:NAME"),
        ("regions.1.balance=random", "\"random\" is not one of least_conn, p2c_ewma, round_robin"),
        (
            "regions.1.backends=[{url=\"http://a:1\",weight=1001}]",
            "a backend's weight of 1001 is not a whole number from 0 to 1000",
        ),
        ("backends.hold=400days", "\"400days\" is longer than a year"),
        ("backends.queue_timeout=0s", "\"0s\" is no time at all"),
    ] {
        let key = assignment.split('=').next().unwrap();
        Case::new().set(assignment).is_told(&format!("--set: {key}: {told}"));
    }
}

#[test]
fn how_a_region_balances_must_fit_together() {
    let file =
        |text: &str| Case::new().file("config/default.toml", &format!("[regions.eu]\n{text}"));
    file("backends = ['http://a:1', { url = 'http://a:1', backup = true }]").is_told(
        "config/default.toml: regions.eu.backends: \"http://a:1\" stands twice in the list",
    );
    file("backends = ['http://a:1']\nhash_by = 'cookie:sid'")
        .is_told("config/default.toml: regions.eu.hash_by: hash_by has no use without balance");
    let all = "backends = ['http://a:1', { url = 'http://b:1', weight = 3, max_connections = 9 }]\n\
               balance = 'consistent_hash'\nhash_by = 'cookie:sid'\n\
               [backends]\nqueue_length = 0\nslow_start = '30s'\nhold = '0s'";
    let loaded = file(all).loaded();
    let eu = &loaded.settings.regions[&region("eu")];
    assert_eq!(eu.balance, Balance::ConsistentHash);
    assert_eq!(eu.hash_by, HashBy::Cookie("sid".to_owned()));
    assert_eq!((eu.backends[1].weight, eu.backends[1].max_connections), (3, 9));
    assert!(loaded.settings.backends.hold.is_zero());
    let again = Case::new().file("config/default.toml", &render(&loaded)).loaded();
    assert_eq!(again.settings.regions, loaded.settings.regions);
    assert_eq!(again.settings.backends, loaded.settings.backends);
}

#[test]
fn what_programs_are_told_in_variables_is_not_printed() {
    let text = "[regions.1.processes.web]\ncommand = \"true\"\nenv = [\"DB=postgres://u:geheim@h\", \"A=b\"]\n";
    let printed = render(&Case::new().file("config/default.toml", text).loaded());
    assert!(
        printed.contains("# env = [\"DB=***\", \"A=***\"]  # from config/default.toml"),
        "{printed}"
    );
    assert!(!printed.contains("geheim"));
}

#[test]
fn a_region_has_no_more_backends_than_can_be_told_apart() {
    let web = |instances: u32| {
        format!("[regions.1.processes.web]\ncommand = \"true\"\ninstances = {instances}\n")
    };
    let list = |count: u32| {
        let urls: Vec<_> = (1..=count).map(|port| format!("\"http://a:{port}\"")).collect();
        format!("[regions.1]\nbackends = [{}]\n", urls.join(", "))
    };
    let case = |text: String| Case::new().file("config/default.toml", &text);
    drop(case(list(64)).loaded());
    case(list(65))
        .is_told("config/default.toml: regions.1.backends: the region may have 65 backends");
    drop(case(list(3) + &web(60)).loaded());
    case(list(4) + &web(60))
        .is_told("config/default.toml: regions.1.backends: the region may have 65 backends");
}

#[test]
fn a_region_needs_somewhere_to_send_its_traffic() {
    let file = |text: &str| Case::new().file("config/default.toml", text);
    file("[regions.eu]")
        .is_told("config/default.toml: regions.eu: the region has neither backends nor a hub");
    file("[regions.eu.hub]")
        .is_told("config/default.toml: regions.eu.hub: the hub has neither port");
    file("[regions]").is_told("config/default.toml: regions: there is no region");
    file("[regions.'a b']\nbackends = ['http://a:1']")
        .is_told("config/default.toml: regions: \"a b\" is not a region's name");
    file("[regions.eu]\nbackends = ['https://a:1', 'ws://b:2']").is_told(
        "config/default.toml: regions.eu.backends: \"ws://b:2\" does not begin with http://",
    );
    file("[regions.eu]\nbackends = ['https://a:1']\n[tls.backends]\ncert = 'a.pem'")
        .is_told("config/default.toml: tls.backends.cert: a certificate and its key go together");
    file("[regions.eu.hub]\nurl = 'http://a:1/ws'")
        .is_told("config/default.toml: regions.eu.hub.url: \"http://a:1/ws\" has a path");
    // The demo's servers are backends too.
    let demo = "[regions.1]\n[regions.2]\n[demo]\nenabled = true";
    assert_eq!(file(demo).loaded().settings.regions[&region("1")].backends.len(), 1);
}

#[test]
fn hubs_of_other_machines_may_share_a_port() {
    let shared = "[regions.a.hub]\nport = 5000\nurl = 'http://a:5000'\n\
                  [regions.b.hub]\nport = 5000\nurl = 'http://b:5000'";
    let case = Case::new().file("config/default.toml", shared);
    case.is_told("config/default.toml: regions.b.hub.port: port 5000 is wanted by");
    assert_eq!(case.only("hub-a,proxy").loaded().parts.names(), ["proxy", "hub-a"]);
}

#[test]
fn a_file_that_cannot_be_read_is_told_without_its_text() {
    let problems = Case::new()
        .file("config/default.toml", "[bus.redis]\npassword = 'geheim\n")
        .file("config/development.toml", "[log]\nlevel = 3")
        .problems();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("config/default.toml: line 2: it is not TOML: "));
    assert!(problems[1].starts_with("config/development.toml: log.level: 3 is not one of error"));
    assert!(!problems.concat().contains("geheim"), "{problems:#?}");
}

#[test]
fn a_folder_that_was_named_must_be_there() {
    let mut case = Case::new();
    case.options.config = Some("elsewhere".into());
    case.is_told("--config: elsewhere holds neither default.toml nor development.toml");
    let case = case.file("elsewhere/default.toml", "workers = 3");
    assert_eq!(case.loaded().provenance.of("workers").to_string(), "elsewhere/default.toml");
}

#[test]
fn a_secret_is_neither_printed_nor_told() {
    let loaded = Case::new()
        .variable("REDIS_PASSWORD", "geheim")
        .variable("REDIS_URL", "redis://user:geheim@host:6379")
        .loaded();
    let printed = render(&loaded);
    assert!(printed.contains("password = \"***\"  # from REDIS_PASSWORD"), "{printed}");
    assert!(
        printed.contains("url = \"redis://user:***@host:6379\"  # from REDIS_URL"),
        "{printed}"
    );
    let debugged = format!("{loaded:?}");
    assert!(!printed.contains("geheim") && !debugged.contains("geheim"));

    let problems = Case::new()
        .file("config/default.toml", "[bus.redis]\npassword = 1234567")
        .variable("REDIS_URL", "http://user:geheim@host")
        .problems()
        .concat();
    assert!(!problems.contains("1234567") && !problems.contains("geheim"), "{problems}");
}

#[test]
fn what_is_printed_can_be_read_back() {
    let case = Case::new()
        .variable("WS_SERVER_1_PORT", "7001")
        .set("regions.hub.backends=[{url=\"http://b:2\",backup=true}]")
        .set("regions.1.hub.url=http://a:1")
        .set("hub.allowed_origins=https://a, https://b")
        .set("default_region=hub");
    let loaded = case.loaded();
    let printed = render(&loaded);
    let again = Case::new().file("config/default.toml", &printed).loaded();
    let json = |loaded: &Loaded| serde_json::to_value(&loaded.settings).unwrap();
    assert_eq!(json(&again), json(&loaded), "{printed}");
    assert!(printed.contains("\nport = 7001  # from WS_SERVER_1_PORT\n"), "{printed}");
    assert!(printed.contains("\nworkers = 0  # built-in default\n"), "{printed}");
}

#[test]
fn the_files_of_the_project_are_valid_in_both_environments() {
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for (environment, parts) in [
        ("development", vec!["proxy", "hub-1", "hub-2", "api", "demo"]),
        ("production", vec!["proxy", "hub-1", "hub-2", "api"]),
    ] {
        let mut case = Case::new().variable("APP_ENV", environment);
        let built_in = case.loaded().settings;
        case.options.config = Some(config.clone());
        let loaded = case.loaded();
        assert_eq!(loaded.parts.names(), parts);
        if environment == "development" {
            // What development.toml shows is what is built in.
            let json = |settings| serde_json::to_value(settings).unwrap();
            assert_eq!(json(&loaded.settings), json(&built_in));
        }
    }
}

#[test]
fn api_keys_come_from_files_and_variables_and_are_never_shown() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let case = Case::new()
        .file("config/default.toml", &format!("[api.keys]\nshop = 'geheim-1'\nbank = '{digest}'"))
        .variable("API_KEY", "geheim-2")
        .set("api.keys.bank=geheim-3");
    let loaded = case.loaded();
    let names: Vec<_> = loaded.settings.api.keys.keys().map(String::as_str).collect();
    assert_eq!(names, ["bank", "default", "shop"]);
    let printed = render(&loaded);
    assert!(printed.contains("\n[api.keys]\n# bank = \"***\"  # from --set\n"), "{printed}");
    assert!(printed.contains("# default = \"***\"  # from API_KEY"), "{printed}");
    assert!(!printed.contains("geheim") && !format!("{loaded:?}").contains("geheim"));
    for (file, told) in [
        (
            "shop = 'ge heim'",
            "config/default.toml: api.keys.shop: the value (not shown) is not an API key",
        ),
        (
            "shop = 'sha256:geheim'",
            "config/default.toml: api.keys.shop: the value (not shown) is not",
        ),
        ("shop = ''", "config/default.toml: api.keys.shop: the value (not shown) is not"),
        ("'ge heim' = 'x'", "config/default.toml: api.keys: the name of a key is 1 to 64"),
    ] {
        let case = Case::new().file("config/default.toml", &format!("[api.keys]\n{file}"));
        case.is_told(told);
        assert!(!case.problems().concat().contains("heim"));
    }
}

#[test]
fn development_has_a_key_that_everybody_knows_until_another_is_named() {
    let names = |case: Case| case.loaded().settings.api.keys.into_keys().collect::<Vec<_>>();
    assert_eq!(names(Case::new()), ["dev"]);
    assert_eq!(names(Case::new().file("config/default.toml", "[api.keys]")), ["dev"]);
    assert_eq!(names(Case::new().variable("API_KEY", "mine")), ["default"]);
    assert_eq!(names(Case::new().set("api.keys.shop=mine")), ["shop"]);
    assert!(names(Case::new().variable("APP_ENV", "production")).is_empty());
}

#[test]
fn what_the_api_is_told_must_fit_together() {
    for (set, told) in [
        ("api.mount=/api/", "--set: api.mount: leave the last / away"),
        ("api.mount=/client", "--set: api.mount: the path \"/client\" is wanted by page.path"),
        ("api.mount=/ws", "--set: api.mount: the path \"/ws\" is wanted by proxy.ws_path"),
        ("api.mount=/health/api", "--set: api.mount: the path \"/health/api\" is wanted by"),
        (
            "api.max_body_bytes=1000",
            "--set: api.max_body_bytes: api.max_body_bytes, 1000, must hold one",
        ),
        (
            "api.max_buffered_bytes=1000",
            "--set: api.max_buffered_bytes: api.max_buffered_bytes, 1000,",
        ),
        ("api.port=3000", "--set: api.port: port 3000 is wanted by proxy.port"),
    ] {
        Case::new().set(set).is_told(told);
    }
    for set in ["api.mount=/api", "api.mount=/clients", "api.mount=/health-api", "api.mount="] {
        Case::new().set(set).loaded();
    }
    let off = Case::new().set("api.enabled=false").loaded();
    assert_eq!(off.parts.names(), ["proxy", "hub-1", "hub-2", "demo"]);
    assert_eq!(Case::new().only("api").loaded().parts.names(), ["api"]);
}
