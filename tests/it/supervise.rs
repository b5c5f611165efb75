//! Supervised backends: real programs below the built binary, killed, grown, replaced and orphaned.

use std::collections::BTreeSet;

use crate::harness::http::{Http, get};
use crate::harness::port::Port;
use crate::harness::supervised::Supervised;
use crate::harness::{eventually, within};

const TWO_NODES: &str = "command = \"node server.js\"\ninstances = 2\nenv = [\"OWN=yes\"]";

#[tokio::test]
async fn instances_share_the_traffic_and_know_who_they_are() {
    let gateway = Supervised::start(TWO_NODES).await;
    gateway.is_ready().await;
    gateway.has_up(2).await;
    let (mut pids, mut instances) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..8 {
        let answer = get(gateway.proxy, "/", "").await.json();
        assert_eq!((&answer["region"], &answer["own"]), (&"1".into(), &"yes".into()));
        assert!(answer["secret"].is_null(), "a secret of the gateway is handed on: {answer}");
        pids.insert(answer["pid"].as_i64().unwrap());
        instances.insert(answer["instance"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        (pids.len(), instances.into_iter().collect::<Vec<_>>().join(" ")),
        (2, "0 1".into())
    );
}

#[tokio::test]
async fn a_killed_instance_costs_what_was_in_flight_and_is_back() {
    const CLIENTS: usize = 8;
    let gateway = Supervised::start(TWO_NODES).await;
    gateway.has_up(2).await;
    let (load, gets) = (gateway.load(CLIENTS), gateway.load_of_gets(CLIENTS));
    let killed = gateway.pid("/").await;
    Supervised::signal(killed, "KILL").await;
    gateway.says("why=signal KILL").await;
    gateway.has_up(2).await;
    let (good, bad) = load.finish().await;
    assert!(good > 0 && bad.len() <= CLIENTS, "{good} good, {}: {bad:?}", bad.len());
    // What may be sent again is, to the other one.
    let (good, bad) = gets.finish().await;
    assert!(good > 0 && bad.is_empty(), "{good} good, but {bad:?}");
    let after = gateway.pids(2).await;
    assert!(!after.contains(&killed) && after.len() == 2, "{after:?} after {killed}");
    let restarts =
        "meridian_process_restarts_total{region=\"1\",process=\"web\",cause=\"crash\"} 1";
    assert!(gateway.metrics().await.contains(restarts));
}

#[tokio::test]
async fn one_that_grows_too_big_is_replaced_without_a_failed_request() {
    let gateway = Supervised::start(&format!("{TWO_NODES}\nmax_memory = 180_000_000")).await;
    gateway.has_up(2).await;
    let load = gateway.load(4);
    let big = gateway.pid("/grow").await;
    gateway.says("it holds more memory than it may").await;
    let stopped = |line: &str| {
        line.contains("stopped region=1 process=web instance=")
            && line.contains(&format!("pid={big} exit=exit code 0"))
    };
    eventually("its end in the log", async || gateway.log().lines().any(stopped)).await;
    gateway.has_up(2).await;
    let (good, bad) = load.finish().await;
    assert!(good > 0 && bad.is_empty(), "{good} good, but {bad:?}");
    let told = gateway.log().matches("it holds more memory than it may").count();
    assert_eq!(told, 1, "once, however long it takes");
    let replaced =
        "meridian_process_restarts_total{region=\"1\",process=\"web\",cause=\"memory\"} 1";
    assert!(gateway.metrics().await.contains(replaced));
}

#[tokio::test]
async fn a_stop_lets_exchanges_end_and_then_the_programs() {
    let mut gateway = Supervised::start(TWO_NODES).await;
    gateway.has_up(2).await;
    let mut slow = Http::connect(gateway.proxy).await;
    let request = "GET /slow HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    slow.send(request).await;
    // Its backend has it when another request has been answered after it.
    gateway.pid("/").await;
    let (ended, answer) = tokio::join!(gateway.terminate(), slow.answer(request));
    assert_eq!(answer.status, 200);
    let log = gateway.log();
    assert!(ended.success(), "{log}");
    assert_eq!(log.matches("exit=exit code 0").count(), 2, "{log}");
    assert!(log.contains("[Process] told to stop region=1 process=web"), "{log}");
    assert_eq!(gateway.below(), []);
}

#[tokio::test]
async fn nothing_outlives_a_gateway_that_is_killed() {
    let mut gateway =
        Supervised::start("command = [\"python3\", \"server.py\"]\ninstances = 2").await;
    gateway.has_up(2).await;
    gateway.pid("/").await;
    // Of each instance: the guard, Python, its shell, and a sleep in a session of its own and one that is not.
    eventually("all of two trees", async || {
        let sleeps = gateway.below().iter().filter(|(_, line)| line.starts_with("sleep")).count();
        sleeps == 4
    })
    .await;
    gateway.child.kill().await.unwrap();
    gateway.leaves_nothing().await;
}

#[tokio::test]
async fn what_an_instance_leaves_behind_goes_with_it() {
    let gateway = Supervised::start("command = [\"python3\", \"server.py\"]").await;
    gateway.has_up(1).await;
    let count = || gateway.below().iter().filter(|(_, line)| line.starts_with("sleep")).count();
    eventually("its children", async || count() == 2).await;
    let before: BTreeSet<_> = gateway.below().into_iter().map(|(pid, _)| pid).collect();
    Supervised::signal(gateway.pid("/").await, "KILL").await;
    gateway.says("why=signal KILL").await;
    eventually("the same once more", async || {
        let now: BTreeSet<_> = gateway.below().into_iter().map(|(pid, _)| pid).collect();
        count() == 2 && now.is_disjoint(&before)
    })
    .await;
}

#[tokio::test]
async fn a_program_does_not_outlive_its_guard() {
    let gateway = Supervised::start("command = \"node server.js\"").await;
    gateway.has_up(1).await;
    let orphan = gateway.pid("/").await;
    let guard = gateway.below().into_iter().find(|(_, line)| line.contains("guard of 1/web#0"));
    Supervised::signal(guard.unwrap().0, "KILL").await;
    gateway.says("its guard was killed").await;
    gateway.has_up(1).await;
    assert!(!gateway.below().iter().any(|(pid, _)| *pid == orphan));
    assert_ne!(gateway.pid("/").await, orphan);
}

#[tokio::test]
async fn a_program_that_never_holds_is_in_a_crash_loop() {
    let gateway = Supervised::start(
        "command = [\"sh\", \"-c\", \"echo so be it; exit 3\"]\nmax_restarts = 3\nrestart_min = \"1ms\"",
    )
    .await;
    gateway.says("[ERROR] [Process] crash loop").await;
    // The first starts are decided, if not well: the gateway serves what else it has.
    gateway.is_ready().await;
    assert_eq!(get(gateway.proxy, "/", "").await.status, 503);
    let log = gateway.log();
    assert_eq!(
        log.matches("[Process] so be it region=1 process=web instance=0 stream=stdout").count(),
        4
    );
    assert_eq!(
        log.matches("it ended before it was ready: exit code 3 again_in=").count(),
        4,
        "{log}"
    );
    assert!(
        gateway.metrics().await.contains("meridian_process_up{region=\"1\",process=\"web\"} 0")
    );
}

#[tokio::test]
async fn a_program_that_cannot_be_run_says_why() {
    let gateway = Supervised::start("command = \"no-such-program\"").await;
    gateway.says("no-such-program cannot be run: No such file or directory").await;
    gateway.says("exit code 127").await;
}

#[tokio::test]
async fn nobody_is_sent_to_an_instance_that_is_not_ready() {
    let gateway = Supervised::start(
        "command = \"node server.js\"\nready_path = \"/up\"\nenv = [\"LATE=4000\"]",
    )
    .await;
    gateway.says("listening").await;
    assert_eq!(get(gateway.proxy, "/", "").await.status, 503);
    gateway.is_ready().await;
    assert_eq!(get(gateway.proxy, "/", "").await.json()["up"], true);
    // One that is not ready in its time is not let be.
    let never = Supervised::start(
        "command = \"node server.js\"\nready_path = \"/up\"\nenv = [\"LATE=600000\"]\nready_timeout = \"1s\"",
    )
    .await;
    never.says("it was not ready within 1s").await;
}

#[tokio::test]
async fn ports_are_those_that_were_asked_for() {
    let port = Port::reserve();
    let free = port.number();
    let gateway =
        Supervised::start(&format!("command = \"node server.js\"\nport_base = {free}")).await;
    gateway.has_up(1).await;
    assert!(gateway.log().contains(&format!("port={free}")), "{}", gateway.log());
}

async fn act(gateway: &Supervised, action: &str) -> crate::harness::http::Answer {
    let request = format!(
        "POST /processes/1/web/{action} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    );
    crate::harness::http::exchange(gateway.admin, &request).await
}

#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_request() {
    let gateway = Supervised::start(TWO_NODES).await;
    gateway.has_up(2).await;
    let before = gateway.pids(2).await;
    let load = gateway.load(8);
    let answer = act(&gateway, "restart").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (good, bad) = load.finish().await;
    assert!(good > 0 && bad.is_empty(), "{good} good, but {bad:?}");
    let after = gateway.pids(2).await;
    assert!(after.len() == 2 && after.is_disjoint(&before), "{after:?} after {before:?}");
    let seen = answer.json();
    let states: Vec<_> =
        seen["instances"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["ready", "ready"]);
}

#[tokio::test]
async fn an_operator_stops_starts_and_scales() {
    let gateway = Supervised::start(TWO_NODES).await;
    gateway.has_up(2).await;
    assert_eq!(act(&gateway, "scale?count=3").await.status, 200);
    gateway.has_up(3).await;
    assert_eq!(act(&gateway, "stop").await.status, 200);
    gateway.has_up(0).await;
    assert_eq!(get(gateway.proxy, "/", "").await.status, 503);
    assert_eq!(act(&gateway, "start").await.status, 200);
    gateway.has_up(3).await;
    assert_eq!(act(&gateway, "scale?count=1").await.status, 200);
    gateway.has_up(1).await;
    assert_eq!(act(&gateway, "scale?count=0").await.status, 200);
    gateway.has_up(0).await;
    assert_eq!(act(&gateway, "start").await.status, 200);
    gateway.has_up(2).await;
    assert_eq!(act(&gateway, "scale?count=61").await.code(), "count_invalid");
    assert_eq!(act(&gateway, "scale?count=x").await.code(), "count_invalid");
}

#[tokio::test]
async fn the_command_line_restarts_and_scales() {
    let gateway = Supervised::start(TWO_NODES).await;
    gateway.has_up(2).await;
    let before = gateway.pids(2).await;
    let said = async |arguments: &[&str]| {
        let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_meridian"))
            .arg("process")
            .args(arguments)
            .env_clear()
            .env("ADMIN_PORT", gateway.admin.port().to_string())
            .output();
        let output = within("the command", run).await.unwrap();
        let json = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
        (output.status.code(), json)
    };
    assert_eq!(said(&["restart", "1", "web"]).await.0, Some(0));
    let after = gateway.pids(2).await;
    assert!(after.is_disjoint(&before), "{after:?} after {before:?}");
    let (code, process) = said(&["scale", "1", "web", "1"]).await;
    assert_eq!((code, &process["process"]), (Some(0), &"web".into()));
    gateway.has_up(1).await;
    let (code, refused) = said(&["stop", "1", "nobody"]).await;
    assert_eq!((code, &refused["error"]["code"]), (Some(1), &"process_unknown".into()));
}

#[tokio::test]
async fn a_reload_replaces_what_it_changes_and_keeps_what_works() {
    let gateway = Supervised::start(TWO_NODES).await;
    gateway.has_up(2).await;
    let first = gateway.pids(2).await;
    // What asks for no start touches nobody.
    gateway.reload(&format!("{TWO_NODES}\nmax_memory = 900_000_000")).await;
    let same = gateway.pids(2).await;
    assert_eq!(same, first);
    let load = gateway.load(4);
    gateway.reload(&TWO_NODES.replace("OWN=yes", "OWN=other")).await;
    eventually("the new environment everywhere", async || {
        let old = gateway.below().into_iter().any(|(pid, _)| first.contains(&pid));
        !old && gateway.pids(2).await.is_disjoint(&first)
    })
    .await;
    assert_eq!(get(gateway.proxy, "/", "").await.json()["own"], "other");
    // One that does not start takes nobody's place.
    let kept = gateway.pids(2).await;
    gateway.reload(&TWO_NODES.replace("server.js", "no-such-file.js")).await;
    gateway.says("its replacement could not be started: it stays").await;
    let (good, bad) = load.finish().await;
    assert!(good > 0 && bad.is_empty(), "{good} good, but {bad:?}");
    let still = gateway.pids(2).await;
    assert_eq!(still, kept);
    let why = async || {
        let request = "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let status = crate::harness::http::exchange(gateway.admin, request).await.json();
        let instances = status["sections"]["processes"][0]["instances"].as_array().unwrap().clone();
        instances.into_iter().find_map(|one| one["notReplaced"].as_str().map(str::to_owned))
    };
    // It is said in the log first.
    let said = "it ended before it was ready: exit code 1";
    eventually(said, async || why().await.as_deref() == Some(said)).await;
    let failures = "meridian_process_replacement_failures_total{region=\"1\",process=\"web\"} 1";
    eventually(failures, async || gateway.metrics().await.contains(failures)).await;
    gateway.reload(&TWO_NODES.replace("OWN=yes", "OWN=third")).await;
    eventually("one that starts", async || why().await.is_none()).await;
}
