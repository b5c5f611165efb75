//! Faults with real processes: talking pairs on two nodes, while something breaks.
//!
//! Walk: each fault of [`faults`] builds its servers and nodes, lets the pairs talk ([`stage`]), breaks something,
//! mends it, and gives a line of the report. Here each runs at a small size; `scripts/chaos.sh` runs the same
//! functions with 200 pairs, through [`at_full_size`], and prints the table.
#![expect(clippy::print_stdout, reason = "the report is what one comes here for")]

use std::time::Duration;

use crate::harness::report::{Line, table};
use stage::Size;

mod faults;
mod stage;

/// Few pairs and short outages.
const SMALL: Size = Size {
    pairs: 6,
    every: Duration::from_millis(60),
    outage: Duration::from_millis(2_500),
    command_timeout: Duration::from_secs(1),
    patience: Duration::from_secs(40),
};

/// Runs one fault at the small size; fails with the table where it shows anything.
async fn small(fault: impl AsyncFnOnce(&Size) -> Line) {
    let line = fault(&SMALL).await;
    let lines = [line];
    let table = table(&lines);
    println!("{table}");
    let [line] = lines;
    assert!(line.is_clean(), "\n{table}\nthe nodes said:\n{}", line.logs.join("\n"));
}

#[tokio::test]
async fn redis_is_killed_and_started_again() {
    small(faults::restart).await;
}

#[tokio::test]
async fn redis_is_paused() {
    small(faults::pause).await;
}

#[tokio::test]
async fn subscribers_are_disconnected() {
    small(faults::kill_subscribers).await;
}

#[tokio::test]
async fn commanding_clients_are_disconnected() {
    small(faults::kill_clients).await;
}

#[tokio::test]
async fn replies_of_redis_get_lost() {
    small(faults::lost_replies).await;
}

#[tokio::test]
async fn one_node_cannot_reach_redis() {
    small(faults::black_hole_one).await;
}

#[tokio::test]
async fn no_node_can_reach_redis() {
    small(faults::black_hole_all).await;
}

#[tokio::test]
async fn a_node_is_stopped() {
    small(faults::stop_node).await;
}

#[tokio::test]
async fn a_node_is_killed() {
    small(faults::kill_node).await;
}

#[tokio::test]
async fn a_replica_without_the_last_writes_is_promoted() {
    small(faults::promotion).await;
}

#[tokio::test]
async fn sentinels_promote_a_replica() {
    small(faults::sentinel_failover).await;
}

#[tokio::test]
async fn a_cluster_loses_a_primary() {
    small(faults::cluster_failover).await;
}

/// `CHAOS_FAULTS` (names, parted by spaces; all where it is empty), `CHAOS_PAIRS`, `CHAOS_EVERY_MS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; scripts/chaos.sh runs it"]
async fn at_full_size() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let size = Size {
        pairs: variable("CHAOS_PAIRS").parse().unwrap_or(200),
        every: Duration::from_millis(variable("CHAOS_EVERY_MS").parse().unwrap_or(250)),
        outage: Duration::from_secs(5),
        command_timeout: Duration::from_secs(3),
        patience: Duration::from_mins(2),
    };
    let wanted = variable("CHAOS_FAULTS");
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let known: Vec<&str> = faults::ALL.iter().map(|(name, _)| *name).collect();
    for name in &wanted {
        assert!(known.contains(name), "no fault is called {name}; there are: {}", known.join(" "));
    }
    let mut lines = Vec::new();
    for (name, fault) in faults::ALL {
        if wanted.is_empty() || wanted.contains(name) {
            println!("{name} …");
            lines.push(fault(size).await);
        }
    }
    println!("\n{} pairs on two nodes, a message each {:?} a user\n", size.pairs, size.every);
    println!("{}", table(&lines));
    assert!(lines.iter().all(Line::is_clean), "a column that must be zero is not");
}
