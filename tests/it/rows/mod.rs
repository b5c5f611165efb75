//! The rules of HTTP that a gateway must keep, row by row, sent as raw bytes: by plain HTTP/1.1 and by the same over TLS.
//!
//! Each row is an entry of the tables here or, where it takes more than bytes in and bytes out, a test that [`ELSEWHERE`]
//! names. `compare` sends the same tables to other gateways.

mod answers;
mod case;
mod compare;
mod fields;
mod grammar;
mod requests;
mod upgrades;
mod wire;

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use meridian::settings::{CertificateSettings, Settings};
use tokio::net::TcpStream;

use self::case::{After, Case, Outcome};
use self::wire::Wire;
use crate::harness::backend::Backend;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http;
use crate::harness::tls::Authority;

/// How many rows there are.
const ROWS: u8 = 51;
/// A gateway for each entry: so many at once.
const AT_ONCE: usize = 8;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// What is asked to see that a connection still serves.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\nx-region: 1\r\nConnection: close\r\n\r\n";

/// The tests of what no table can say, by row: the file and the function.
const ELSEWHERE: &[(u8, &str, &str)] = &[
    (
        10,
        "src/edge/messages/tests.rs",
        "a_bare_line_feed_is_found_in_any_line_of_a_head_and_in_no_body",
    ),
    (12, "src/edge/messages/tests.rs", "a_fragment_is_found_in_any_request_of_a_read"),
    (20, "tests/it/http2.rs", "a_request_becomes_one_of_the_next_hops"),
    (20, "tests/it/http2.rs", "fields_of_a_connection_end_their_stream"),
    (28, "src/proxy/tests/bodies.rs", "a_client_waits_for_the_backends_word_to_go_on"),
    (33, "tests/it/upgrade.rs", "early_bytes_arrive_once"),
    (35, "tests/it/http2.rs", "a_tunnel_over_http_2"),
    (35, "tests/it/http2.rs", "a_handshake_over_http_2_is_judged_like_any_other"),
    (
        33,
        "src/proxy/tests/tunnels.rs",
        "bytes_right_behind_the_handshake_are_delivered_once_and_in_order",
    ),
    (37, "src/proxy/tunnel/tests.rs", "a_half_close_lets_the_other_side_finish"),
    (37, "src/proxy/tunnel/tests.rs", "silence_ends_it_and_after_a_half_close_sooner"),
    (39, "tests/it/failover.rs", "a_circle_of_gateways_is_found"),
    (40, "tests/it/bodies.rs", "a_backend_that_refuses_is_a_bad_gateway"),
    (40, "tests/it/failover.rs", "every_timeout_is_told_as_what_it_was"),
    (43, "tests/it/framing.rs", "slow_clients_are_closed_in_every_phase_and_others_are_not"),
    (43, "tests/it/limits.rs", "a_slow_head_is_told_and_a_silent_connection_closed"),
    (45, "tests/it/http2.rs", "a_flood_of_resets_ends_the_connection"),
    (45, "tests/it/http2.rs", "a_flood_of_continuations_ends_the_connection"),
    (45, "tests/it/http2.rs", "a_flood_of_made_resets_ends_the_connection"),
    (45, "tests/it/http2.rs", "header_bombs_are_refused_and_the_connection_lives"),
    (45, "tests/it/http2.rs", "a_closed_window_costs_its_stream"),
    (46, "tests/it/framing.rs", "a_client_that_leaves_cancels_its_request"),
    (47, "tests/it/framing.rs", "a_client_that_has_said_all_still_gets_its_answer"),
    (48, "tests/it/proxy_protocol.rs", "plain_http_is_sent_to_the_configured_host"),
    (49, "tests/it/tls.rs", "a_connection_for_one_host_is_not_used_for_another"),
    (49, "tests/it/tls.rs", "versions_below_the_least_are_refused"),
    (50, "tests/it/limits.rs", "the_sixth_login_and_the_hundred_and_first_call_are_refused"),
    (50, "tests/it/limits.rs", "the_client_is_whom_trusted_proxies_name_and_nobody_else"),
    (50, "tests/it/limits.rs", "handshakes_of_web_sockets_count"),
];

fn tables() -> Vec<Case> {
    let tables =
        [requests::table(), grammar::table(), fields::table(), answers::table(), upgrades::table()];
    tables.into_iter().flatten().collect()
}

/// What an entry's request is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Plain,
    Tls,
}

/// Sends an entry over a connection, and looks at what comes.
async fn exchange(case: &Case, mut wire: Wire, backend: &Backend) -> Outcome {
    wire.send(&case.sends).await;
    let reply = wire.reply(case.sends.starts_with(b"HEAD ")).await;
    if case.after == After::Stays && reply.is_some() {
        wire.send(NEXT).await;
    }
    let mut next = Vec::new();
    if matches!(case.after, After::Stays | After::Answers(_)) {
        while let Some(reply) = wire.reply(false).await {
            next.push(reply.status);
        }
    }
    let (surplus, open) = match case.after {
        After::Either => (Vec::new(), false),
        _ => wire.rest().await,
    };
    let heads =
        backend.heads().into_iter().filter(|head| !head.starts_with("GET /next ")).collect();
    Outcome { reply, next, surplus, open, heads }
}

/// Runs an entry against a gateway and a backend of its own; what breaks the rule, in words.
async fn run(
    case: &Case,
    door: Door,
    authority: &Authority,
    files: &CertificateSettings,
) -> Result<(), String> {
    let backend = Backend::scripted(case.script.iter().cloned()).await;
    let change = |settings: &mut Settings| {
        add_backend(settings, "1", backend.address);
        (case.settings)(settings);
    };
    let (gateway, wire) = if door == Door::Tls {
        let gateway = Gateway::start(|settings| {
            settings.tls.port = Some(0);
            settings.tls.certificates.insert("a".into(), files.clone());
            change(settings);
        })
        .await;
        let stream = authority.connect(gateway.addresses.tls.unwrap(), "a", &["http/1.1"]).await;
        (gateway, Wire::over(stream, PATIENCE))
    } else {
        let gateway = Gateway::start(change).await;
        let stream = TcpStream::connect(gateway.proxy()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        (gateway, Wire::over(stream, PATIENCE))
    };
    let outcome = exchange(case, wire, &backend).await;
    case.judge(&outcome)?;
    blames_nobody(&outcome, &gateway).await
}

/// A client's fault is counted against no backend.
async fn blames_nobody(outcome: &Outcome, gateway: &Gateway) -> Result<(), String> {
    if !(400..500).contains(&outcome.status()) {
        return Ok(());
    }
    let metrics = http::get(gateway.admin(), "/metrics", "").await;
    let blamed = |line: &&str| line.contains("upstream_errors_total{") && !line.ends_with(" 0");
    let found = metrics.text().lines().find(blamed).map(str::to_owned);
    found.map_or(Ok(()), |line| Err(format!("counted against the backend: {line}")))
}

/// Runs all entries, and tells of every one that breaks its rule.
async fn all(door: Door) {
    let (authority, cases) = (Authority::new(), tables());
    let files = authority.sign("a", &["a", "b"]);
    let (authority, files) = (&authority, &files);
    let broken: Vec<String> = futures_util::stream::iter(&cases)
        .map(|case| async move {
            let ran = run(case, door, authority, files).await;
            ran.err().map(|why| format!("row {} ({}): {why}", case.row, case.name))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|broken| async move { broken })
        .collect()
        .await;
    assert!(
        broken.is_empty(),
        "{} of {} entries:\n{}",
        broken.len(),
        cases.len(),
        broken.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_holds_by_plain_http() {
    all(Door::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_holds_by_tls() {
    all(Door::Tls).await;
}

/// Each row has an entry or a test that is there.
#[test]
fn every_row_is_held() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (row, file, test) in ELSEWHERE {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(text.contains(&format!("fn {test}(")), "row {row}: {file} has no {test}");
    }
    let cases = tables();
    for row in 1..=ROWS {
        let held = cases.iter().any(|case| case.row == row)
            || ELSEWHERE.iter().any(|(elsewhere, _, _)| *elsewhere == row);
        assert!(held, "row {row} is held by nothing");
    }
}
