//! The plumbing of the tests: real gateways, clients, backends and servers, so that a test says only what matters.

pub(crate) mod backend;
/// A real Chromium, for the page.
pub(crate) mod browser;
pub(crate) mod chat;
pub(crate) mod gateway;
pub(crate) mod gateway_process;
/// HTTP/2, frame by frame.
pub(crate) mod h2;
/// A real HAProxy, before the gateway.
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod ledger;
/// A real nginx, as a backend.
pub(crate) mod nginx;
/// Node, for the client library.
pub(crate) mod node;
pub(crate) mod pairs;
/// Ports that are known before anybody listens.
pub(crate) mod port;
#[expect(dead_code, reason = "the tests of the bus use the rest")]
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod report;
/// The built binary with programs below it.
pub(crate) mod supervised;
/// The built binary, talked to over pipes.
pub(crate) mod talk;
/// TLS as a client, and programs that speak it.
pub(crate) mod tls;

use std::future::Future;
use std::time::Duration;

/// Every wait of a test ends, with a message that says what was waited for.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Awaits `future`, and fails the test where it takes longer than [`DEADLINE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else {
        panic!("waited {DEADLINE:?} in vain for {what}")
    };
    value
}

/// Asks again and again until `condition` holds, and fails the test where it never does.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
