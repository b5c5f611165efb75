//! `status`: how a gateway stands, for a person's eyes; the document itself is what `--json` prints.
//!
//! Pure: a document becomes text. What is not there, because the gateway is of another version, is left out.
//!
//! Invariant: no text of the document reaches a terminal with a character that it obeys.

use std::time::Duration;

use serde_json::Value;

use super::wording::one_line;

/// Under `status --json` the document is printed as it came.
#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// Print the whole document, as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// A document of `GET /status` in lines.
pub(super) fn in_words(status: &Value) -> String {
    let mut out = String::new();
    about(&mut out, status);
    for region in list(&status["regions"]) {
        of_region(&mut out, region);
    }
    for process in list(at(status, "/sections/processes")) {
        let title =
            format!("process {} of region {}", text(&process["process"]), text(&process["region"]));
        let rows: Vec<_> = list(&process["instances"]).iter().map(instance).collect();
        table(&mut out, &title, &rows);
    }
    let certificates = list(at(status, "/sections/certificates"));
    if !certificates.is_empty() {
        table(&mut out, "certificates", &certificates.iter().map(certificate).collect::<Vec<_>>());
    }
    out
}

fn about(out: &mut String, status: &Value) {
    let state =
        if status["ready"] == true { text(&status["state"]) } else { "not ready".to_owned() };
    let up = status["uptime"].as_f64().unwrap_or_default().max(0.0);
    let up = Duration::try_from_secs_f64(up.trunc()).unwrap_or_default();
    line(
        out,
        &format!(
            "{} {}, pid {}, up {}: {state}",
            text(&status["service"]),
            text(&status["version"]),
            text(&status["pid"]),
            humantime::format_duration(up),
        ),
    );
    for why in list(&status["notReady"]) {
        line(out, &format!("  not ready: {}", text(why)));
    }
    let (bus, hub) = (&status["bus"], &status["hub"]);
    let why = bus["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
    line(out, &format!("  bus: {}, {}{why}", text(&bus["kind"]), text(&bus["state"])));
    line(
        out,
        &format!(
            "  {} in flight; {} chat sockets of {} users",
            text(&status["inFlight"]),
            text(&hub["sockets"]),
            text(&hub["users"])
        ),
    );
    configuration(out, &status["configuration"]);
}

fn configuration(out: &mut String, of: &Value) {
    line(
        out,
        &format!(
            "  configuration: generation {}, since {}",
            text(&of["generation"]),
            text(&of["since"])
        ),
    );
    let last = &of["lastReload"];
    if last.is_object() {
        line(
            out,
            &format!(
                "  last reload: {} at {} by {}, in {} ms{}",
                text(&last["result"]),
                text(&last["at"]),
                text(&last["by"]),
                text(&last["tookMs"]),
                named("; changed: ", &last["changed"]),
            ),
        );
    }
    for problem in list(at(of, "/failure/problems")) {
        line(out, &format!("    refused: {}", said(problem)));
    }
    let restart = named("  waits for a restart: ", &of["restart"]);
    if !restart.is_empty() {
        line(out, &restart);
    }
    for warning in list(&of["warnings"]) {
        line(out, &format!("  warning: {}", said(warning)));
    }
}

fn of_region(out: &mut String, region: &Value) {
    let title = format!("region {}: {}", text(&region["region"]), joined(&region["facts"], ", "));
    let row = |backend: &Value| {
        [text(&backend["address"]), text(&backend["state"]), joined(&backend["facts"], ", ")]
    };
    table(out, &title, &list(&region["backends"]).iter().map(row).collect::<Vec<_>>());
}

fn instance(of: &Value) -> [String; 3] {
    let mut facts = vec![format!("since {}", text(&of["since"]))];
    if let Some(pid) = of["pid"].as_i64() {
        let up = Duration::from_secs(of["uptime"].as_u64().unwrap_or_default());
        let mebibytes = of["memory"].as_u64().unwrap_or_default() / (1024 * 1024);
        facts.push(format!(
            "pid {pid}, port {}, up {}, {mebibytes} MiB",
            text(&of["port"]),
            humantime::format_duration(up)
        ));
    }
    facts.push(format!("{} restarts", text(&of["restarts"])));
    if let Some(why) = of["lastExit"].as_str() {
        facts.push(format!("last end: {why}"));
    }
    [
        format!("instance {}", text(&of["instance"])),
        text(&of["state"]).replace('_', " "),
        facts.join(", "),
    ]
}

fn certificate(of: &Value) -> [String; 3] {
    let facts = format!("{}, from {}", joined(&of["hosts"], ", "), text(&of["source"]));
    [text(&of["name"]), format!("until {}", text(&of["notAfter"])), facts]
}

/// A title, and rows whose first two columns are as wide as the widest of each.
fn table(out: &mut String, title: &str, rows: &[[String; 3]]) {
    line(out, "");
    line(out, title);
    let widest = |of: fn(&[String; 3]) -> &String| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or_default()
    };
    let (first, second) = (widest(|[first, ..]| first), widest(|[_, second, _]| second));
    for [name, state, facts] in rows {
        line(out, &format!("  {name:first$}  {state:second$}  {facts}"));
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(&one_line(text.trim_end()));
    out.push('\n');
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What stands at this pointer (RFC 6901), or null.
fn at<'a>(of: &'a Value, pointer: &str) -> &'a Value {
    of.pointer(pointer).unwrap_or(&Value::Null)
}

/// A value as it is written in a sentence.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}

fn joined(values: &Value, between: &str) -> String {
    list(values).iter().map(text).collect::<Vec<_>>().join(between)
}

/// The values behind these words, or nothing where there are none.
fn named(words: &str, values: &Value) -> String {
    if list(values).is_empty() { String::new() } else { format!("{words}{}", joined(values, ", ")) }
}

/// A problem of the configuration, as `check` says it.
fn said(problem: &Value) -> String {
    let parts = ["source", "key", "message"].map(|part| problem[part].as_str().unwrap_or_default());
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_says_what_runs_and_why_what_does_not() {
        let status = json!({
            "service": "meridian", "version": "1.2.3", "pid": 7, "uptime": 3725.5, "state": "serving", "ready": false,
            "notReady": ["bus: refused"], "inFlight": 3,
            "configuration": {
                "generation": 2, "since": "2026-01-01T00:00:00Z", "restart": ["proxy.port"],
                "lastReload": {"result": "refused", "at": "then", "by": "SIGHUP", "tookMs": 4, "changed": []},
                "failure": {"problems": [{"source": "default.toml", "key": "hub.x", "message": "no\u{1b}[2J"}]},
                "warnings": [{"source": "default.toml", "key": "a.b", "message": "has no use"}],
            },
            "regions": [{"region": "1", "facts": ["the primaries serve"], "backends": [
                {"address": "a:1", "state": "in use", "facts": ["1 active"]},
                {"address": "longer:1", "state": "passed over", "facts": ["down since x: y"]},
            ]}],
            "hub": {"sockets": 1, "users": 1}, "bus": {"kind": "redis", "state": "down", "why": "refused"},
            "sections": {
                "processes": [{"region": "1", "process": "web", "instances": [{
                    "instance": 0, "state": "crash_loop", "since": "s", "pid": null, "restarts": 9, "memory": 0,
                    "lastExit": "exit code 3", "draining": [],
                }]}],
                "certificates": [{"name": "c", "hosts": ["a.example"], "notAfter": "n", "source": "/c.pem"}],
            },
        });
        let said = in_words(&status);
        let expected = "meridian 1.2.3, pid 7, up 1h 2m 5s: not ready
  not ready: bus: refused
  bus: redis, down: refused
  3 in flight; 1 chat sockets of 1 users
  configuration: generation 2, since 2026-01-01T00:00:00Z
  last reload: refused at then by SIGHUP, in 4 ms
    refused: default.toml: hub.x: no\u{241b}[2J
  waits for a restart: proxy.port
  warning: default.toml: a.b: has no use

region 1: the primaries serve
  a:1       in use       1 active
  longer:1  passed over  down since x: y

process web of region 1
  instance 0  crash loop  since s, 9 restarts, last end: exit code 3

certificates
  c  until n  a.example, from /c.pem
";
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_no_fault() {
        for status in [json!({}), json!(null), json!([1]), json!({"regions": [1, {"backends": 3}]})]
        {
            assert!(in_words(&status).contains("configuration: generation ?"), "{status}");
        }
    }
}
