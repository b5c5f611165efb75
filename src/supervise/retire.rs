//! The end of an instance that is not wanted any more: first nothing new comes, then what goes on is finished, then it
//! is asked to end.
//!
//! Invariant: its place among the backends is given up before the program is told to stop, and each of the two waits has the
//! patience that the settings give.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::life::Life;
use super::rotation::Place;
use super::spec::Key;

/// From the word that nothing new comes until nothing is on its way any more.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two looks at the exchanges that go on.
const LOOK: Duration = Duration::from_millis(20);

/// Takes a life out of the backends, lets it finish, and ends it.
pub(super) async fn retire(
    life: Life,
    place: Option<Place>,
    (key, instance): (&Key, usize),
    patience: Duration,
    hurry: CancellationToken,
) {
    if let Some(place) = place {
        place.drain();
        let idle = async {
            sleep(SETTLE).await;
            while place.active() > 0 {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            waited = timeout(patience, idle) => if waited.is_err() {
                tracing::warn!(
                    target: "Process", region = %key.region, process = %key.process, instance,
                    pid = life.pid, exchanges = place.active(), "stop_timeout is over: it is stopped with exchanges going on"
                );
            },
            () = hurry.cancelled() => {}
        }
    }
    let pid = life.pid;
    let exit = life.stop(patience, hurry.cancelled()).await;
    tracing::info!(
        target: "Process", region = %key.region, process = %key.process, instance, pid, %exit,
        "stopped"
    );
}
