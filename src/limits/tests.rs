//! Limits and rules as a request meets them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, Method};

use super::*;
use crate::settings::{InboxSettings, RuleSettings};

/// One request.
struct Request {
    method: Method,
    path: &'static str,
    region: Option<&'static str>,
    client: IpAddr,
    headers: HeaderMap,
    user: Option<&'static str>,
}

fn request(method: &Method, path: &'static str) -> Request {
    Request {
        method: method.clone(),
        path,
        region: None,
        client: "10.0.0.1".parse().unwrap(),
        headers: HeaderMap::new(),
        user: None,
    }
}

fn get(path: &'static str) -> Request {
    request(&Method::GET, path)
}

impl Request {
    fn from(self, client: &str) -> Self {
        Self { client: client.parse().unwrap(), ..self }
    }

    fn ask<T>(&self, ask: impl FnOnce(&Asked<'_>) -> T) -> T {
        ask(&Asked {
            method: &self.method,
            path: &Readings::of(self.path),
            region: self.region,
            client: self.client,
            headers: &self.headers,
            user: self.user.map(Into::into),
        })
    }
}

fn table<T: serde::de::DeserializeOwned>(text: &str) -> BTreeMap<String, T> {
    toml::from_str(text).unwrap()
}

fn rules(text: &str) -> Rules {
    Rules::new(&table::<RuleSettings>(text))
}

fn limiter() -> Limiter {
    let mut registry = Registry::default();
    let bus = Bus::embedded(&InboxSettings::default(), &mut registry);
    Limiter::new(bus, &mut registry)
}

fn limits(text: &str) -> Limits {
    limiter().limits(&table(text), None)
}

fn passes(limits: &Limits, request: &Request) -> bool {
    request.ask(|asked| limits.take_here(asked).1.is_ok())
}

#[test]
fn the_most_specific_path_decides() {
    let rules = rules(
        r#"
        all = { path = "/*", action = "deny" }
        public = { path = "/public/*" }
        secret = { path = "/public/secret/*", action = "deny" }
        page = { path = "/public/secret/page" }
        "#,
    );
    for (path, passes) in [
        ("/", false),
        ("/a", false),
        ("/public", true),
        ("/public/a", true),
        ("/publicity", false),
        ("/public/secret", false),
        ("/public/secret/a", false),
        ("/public/secret/page", true),
    ] {
        assert_eq!(get(path).ask(|asked| rules.check(asked, u64::MAX)).is_ok(), passes, "{path}");
    }
}

#[test]
fn networks_and_regions_narrow_a_rule() {
    let rules = rules(
        r#"
        admin-1 = { path = "/admin/*", from = ["10.0.0.0/8", "2001:db8::/32"] }
        admin-2 = { path = "/admin/*", action = "deny" }
        far = { path = "/near", regions = ["2"], action = "deny" }
        "#,
    );
    assert!(rules.need_region());
    let check = |request: Request| request.ask(|asked| rules.check(asked, u64::MAX));
    assert_eq!(check(get("/admin")), Ok(None));
    assert_eq!(check(get("/admin").from("::ffff:10.9.9.9")), Ok(None));
    assert_eq!(check(get("/admin").from("2001:db8::1")), Ok(None));
    assert_eq!(check(get("/admin/x").from("11.0.0.1")), Err(Refusal::Forbidden));
    assert_eq!(check(get("/near")), Ok(None));
    assert_eq!(check(Request { region: Some("1"), ..get("/near") }), Ok(None));
    let far = Request { region: Some("2"), ..get("/near") };
    assert_eq!(check(far), Err(Refusal::Forbidden));
}

#[test]
fn where_only_the_method_is_wrong_the_others_are_named() {
    let rules = rules(
        r#"
        read = { path = "/files/*", methods = ["GET"] }
        write = { path = "/files/*", methods = ["PUT"], from = ["10.0.0.0/8"] }
        keep = { path = "/kept", methods = ["DELETE"], action = "deny" }
        none = { path = "/none", action = "deny" }
        "#,
    );
    let check = |method: &Method, path, from: &str| match request(method, path)
        .from(from)
        .ask(|asked| rules.check(asked, u64::MAX))
    {
        Ok(_) => "pass".to_owned(),
        Err(Refusal::MethodNotAllowed(list)) => list.to_str().unwrap().to_owned(),
        Err(refusal) => format!("{refusal:?}"),
    };
    assert_eq!(check(&Method::GET, "/files/a", "11.0.0.1"), "pass");
    assert_eq!(check(&Method::HEAD, "/files/a", "11.0.0.1"), "pass");
    assert_eq!(check(&Method::CONNECT, "/files/a", "11.0.0.1"), "pass");
    assert_eq!(check(&Method::PUT, "/files/a", "10.0.0.1"), "pass");
    assert_eq!(check(&Method::PUT, "/files/a", "11.0.0.1"), "GET, HEAD");
    assert_eq!(check(&Method::POST, "/files/a", "10.0.0.1"), "GET, HEAD, PUT");
    let others = "GET, HEAD, POST, PUT, PATCH, OPTIONS";
    assert_eq!(check(&Method::DELETE, "/kept", "10.0.0.1"), others);
    assert_eq!(check(&Method::POST, "/none", "10.0.0.1"), "Forbidden");
    assert_eq!(check(&Method::POST, "/elsewhere", "10.0.0.1"), "pass");
}

#[test]
fn no_spelling_leads_around_a_rule() {
    let rules = rules(r#"admin = { path = "/admin/*", action = "deny" }"#);
    let check = |path| get(path).ask(|asked| rules.check(asked, u64::MAX));
    for path in
        ["/admin", "/admin/", "/admin/x", "/%61dmin", "/x/../admin", "//admin", "/x/%2e%2e/admin/y"]
    {
        assert_eq!(check(path), Err(Refusal::Forbidden), "{path}");
    }
    for path in [
        "/x%2f..%2fadmin",
        "/x\\..\\admin",
        "/x/..;/admin",
        "/%2561dmin",
        "/admin;a",
        "/admin/%2e%2e/x",
    ] {
        assert!(check(path).is_err() || path == "/admin/%2e%2e/x", "{path}");
    }
    for path in ["/x%2f..%2fadmin", "/Admin", "/ADMIN/x", "/x%2F..%2FAdmin"] {
        assert_eq!(check(path), Err(Refusal::AmbiguousPath), "{path}");
    }
    // What is odd and has nothing to do with a rule is the backend's to judge.
    for path in ["/a%2fb", "/a;b/c", "//a", "/Administration", "/.well-known/a", "*"] {
        assert_eq!(check(path), Ok(None), "{path}");
    }
}

#[test]
fn capitals_of_a_rule_are_its_own() {
    let rules = rules(
        r#"
        all = { path = "/*", action = "deny" }
        shown = { path = "/Shown/*" }
        hidden = { path = "/Shown/Not", action = "deny" }
        "#,
    );
    let check = |path| get(path).ask(|asked| rules.check(asked, u64::MAX));
    assert_eq!(check("/Shown/a"), Ok(None));
    assert_eq!(check("/shown/a"), Err(Refusal::Forbidden), "what is not allowed by name is not");
    assert_eq!(check("/Shown/Not"), Err(Refusal::Forbidden));
    assert_eq!(check("/Shown/not"), Err(Refusal::AmbiguousPath));
}

#[test]
fn what_leaves_a_denied_folder_again_is_denied_where_a_backend_may_not_see_that() {
    let rules = rules(r#"admin = { path = "/admin/*", action = "deny" }"#);
    // Read as it stands, this is in /admin.
    let refused = get("/admin/%2e%2e/x").ask(|asked| rules.check(asked, u64::MAX));
    assert_eq!(refused, Err(Refusal::AmbiguousPath));
}

#[test]
fn a_rule_bounds_bodies_and_the_narrowest_reading_counts() {
    let rules = rules(
        r#"
        all = { path = "/*", max_body_bytes = 100 }
        upload = { path = "/upload", max_body_bytes = 5000 }
        "#,
    );
    let check = |path| get(path).ask(|asked| rules.check(asked, u64::MAX));
    assert_eq!(check("/x"), Ok(Some(100)));
    assert_eq!(check("/upload"), Ok(Some(5000)));
    assert_eq!(check("/upload;x"), Ok(Some(100)));
    assert_eq!(check("/Upload"), Ok(Some(100)));
}

#[test]
fn no_spelling_gets_the_bound_of_another_path() {
    let rules = rules(r#"upload = { path = "/upload", max_body_bytes = 5000 }"#);
    let check = |path, usual| get(path).ask(|asked| rules.check(asked, usual));
    assert_eq!(check("/upload", 10), Ok(Some(5000)));
    for path in ["/upload;x", "/x%2f..%2fupload", "/Upload"] {
        assert_eq!(check(path, 10), Ok(Some(10)), "{path}");
        assert_eq!(check(path, u64::MAX), Ok(Some(5000)), "{path}");
    }
    assert_eq!(check("/x", 10), Ok(None));
}

#[test]
fn a_limit_counts_its_path_in_any_case() {
    let limits = limits(r#"login = { path = "/login", rate = "1/min" }"#);
    assert!(passes(&limits, &get("/login")));
    assert!(!passes(&limits, &get("/LogIn")));
    assert!(passes(&limits, &get("/logins")));
}

#[tokio::test(start_paused = true)]
async fn the_sixth_login_in_a_minute_is_refused() {
    let limits = limits(r#"login = { path = "/login", methods = ["POST"], rate = "5/min" }"#);
    let login = request(&Method::POST, "/login");
    for _ in 0..5 {
        assert!(passes(&limits, &login));
    }
    let (tally, refused) = login.ask(|asked| limits.take_here(asked));
    assert_eq!(refused, Err(Refusal::RateLimited { retry_after: 12 }));
    let mut headers = HeaderMap::new();
    tally.unwrap().write(&mut headers);
    for (name, value) in [
        ("ratelimit-policy", r#""login";q=5;w=60"#),
        ("ratelimit", r#""login";r=0;t=12"#),
        ("ratelimit-limit", "5"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "60"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    // Other spellings, methods, paths and clients.
    assert!(!passes(&limits, &request(&Method::POST, "//%6cogin/")));
    assert!(!passes(&limits, &request(&Method::POST, "/x%2f..%2flogin")));
    assert!(passes(&limits, &get("/login")));
    assert!(passes(&limits, &request(&Method::POST, "/login/x")));
    assert!(passes(&limits, &request(&Method::POST, "/login").from("10.0.0.2")));
    tokio::time::advance(std::time::Duration::from_secs(12)).await;
    assert!(passes(&limits, &login));
    assert!(!passes(&limits, &login));
}

#[tokio::test(start_paused = true)]
async fn of_several_limits_the_strictest_answers_and_a_refusal_costs_the_others_nothing() {
    let limits = limits(
        r#"
        all = { rate = "100/min" }
        login = { path = "/login", rate = "2/min", burst = 1 }
        "#,
    );
    let write = |tally: Option<Tally>| {
        let mut headers = HeaderMap::new();
        tally.unwrap().write(&mut headers);
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        [text("ratelimit-policy"), text("ratelimit"), text("ratelimit-remaining")]
    };
    let (tally, passed) = get("/login").ask(|asked| limits.take_here(asked));
    assert_eq!(passed, Ok(()));
    let policies = r#""all";q=100;w=60, "login";q=1;w=30"#;
    assert_eq!(write(tally), [policies, r#""all";r=99;t=1, "login";r=0;t=30"#, "0"]);
    for _ in 0..10 {
        let (tally, refused) = get("/login").ask(|asked| limits.take_here(asked));
        assert_eq!(refused, Err(Refusal::RateLimited { retry_after: 30 }));
        assert_eq!(write(tally)[1], r#""all";r=99;t=1, "login";r=0;t=30"#);
    }
    let (tally, _) = get("/x").ask(|asked| limits.take_here(asked));
    assert_eq!(write(tally)[2], "98");
}

#[tokio::test(start_paused = true)]
async fn keys_part_those_who_ask() {
    let limits = limits(
        r#"
        header = { path = "/h", key = "header:x-tenant", rate = "1/h" }
        region = { path = "/r", key = "region", rate = "1/h" }
        user = { path = "/u", key = "user", rate = "1/h" }
        "#,
    );
    assert!(limits.need_region() && limits.need_user());
    let tenant = |name| {
        let mut request = get("/h");
        request.headers.insert("x-tenant", http::HeaderValue::from_static(name));
        request
    };
    assert!(passes(&limits, &tenant("a")) && passes(&limits, &tenant("b")));
    assert!(!passes(&limits, &tenant("a").from("10.9.9.9")));
    assert!(passes(&limits, &get("/h")) && !passes(&limits, &get("/h")));
    // A tenant who calls himself as an address is none.
    assert!(passes(&limits, &tenant("10.0.0.1")));
    let region = |name| Request { region: Some(name), ..get("/r") };
    assert!(passes(&limits, &region("1")) && passes(&limits, &region("2")));
    assert!(!passes(&limits, &region("1").from("10.9.9.9")));
    let user = |name| Request { user: Some(name), ..get("/u") };
    assert!(passes(&limits, &user("alice")) && passes(&limits, &user("bob")));
    assert!(!passes(&limits, &user("bob").from("10.9.9.9")));
    assert!(passes(&limits, &get("/u")) && !passes(&limits, &get("/u")));
}

#[tokio::test(start_paused = true)]
async fn counts_outlive_a_reload_where_they_are_the_same() {
    let limiter = limiter();
    let edition = |text: &str, previous: Option<&Limits>| limiter.limits(&table(text), previous);
    let first = edition(r#"a = { rate = "1/h" }"#, None);
    assert!(passes(&first, &get("/")));
    let same = edition(r#"a = { path = "/x", rate = "1/h" }"#, Some(&first));
    assert!(!passes(&same, &get("/x")));
    for other in [
        r#"a = { rate = "2/h" }"#,
        r#"a = { rate = "1/h", key = "header:x" }"#,
        r#"b = { rate = "1/h" }"#,
    ] {
        assert!(passes(&edition(other, Some(&first)), &get("/")), "{other}");
    }
}

#[tokio::test]
async fn shared_limits_are_asked_over_the_bus() {
    let limiter = limiter();
    let text = r#"a = { rate = "3/h", shared = true, timeout = "10s" }"#;
    // Two gateways on one bus.
    let (one, two) = (limiter.limits(&table(text), None), limiter.limits(&table(text), None));
    let request = get("/");
    let path = Readings::of(request.path);
    let asked = Asked {
        method: &request.method,
        path: &path,
        region: None,
        client: request.client,
        headers: &request.headers,
        user: None,
    };
    assert!(one.are_shared());
    for limits in [&one, &two, &one] {
        assert_eq!(limits.take(&asked).await.1, Ok(()));
    }
    for limits in [&one, &two, &two] {
        let (_, refused) = limits.take(&asked).await;
        assert!(matches!(refused, Err(Refusal::RateLimited { retry_after }) if retry_after > 1100));
    }
    // What the bus has refused is known here, and is refused without it.
    let limit = &two.all[0];
    assert!(!limit.counts.table.peek(limit.by.of(&asked), limit.counts.now()).granted);
}

#[test]
fn an_edition_that_is_not_adopted_changes_no_series() {
    let mut registry = Registry::default();
    let bus = Bus::embedded(&InboxSettings::default(), &mut registry);
    let limiter = Limiter::new(bus, &mut registry);
    let told = |what: &str| crate::observability::encode(&registry).unwrap().contains(what);
    let text = r#"login = { rate = "5/min" }"#;
    let running = limiter.limits(&table(text), None);
    limiter.adopt(&running, None);
    assert!(passes(&running, &get("/")));
    for refused in [r#"login = { rate = "6/min" }"#, r#"other = { rate = "5/min" }"#] {
        drop(limiter.limits(&table(refused), Some(&running)));
        assert!(told(r#"limit_keys{limit="login"} 1"#), "{refused}");
        assert!(told(r#"limited_requests_total{limit="login",outcome="passed"} 1"#), "{refused}");
    }
    let next = limiter.limits(&table(r#"other = { rate = "5/min" }"#), Some(&running));
    limiter.adopt(&next, Some(&running));
    drop(running);
    assert!(!told("login") && told(r#"limit_keys{limit="other"} 0"#));
}
