//! Idle sockets: how much resident memory the server holds for each.

use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::meter::Process;
use crate::{CONNECTS_AT_ONCE, Socket, Target};

/// Both servers do a little after the last handshake (subscriptions, freed buffers); this lets them.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    target: Target,
    /// Sockets to hold; each is a user of its own.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// The server, as `server=PID`.
    #[arg(long)]
    process: Process,
    /// Seconds to hold them after that.
    #[arg(long, default_value_t = 0.0)]
    hold: f64,
}

impl Idle {
    /// Opens the sockets, reads the server's memory, and lets them go.
    pub(crate) async fn run(self) -> String {
        let Self { target, count, process, hold } = self;
        // What the first socket alone brings in (code pages, tables) is not a cost of each socket.
        drop(target.connect("first", "first").await);
        sleep(SETTLE).await;
        let before = process.resident_bytes();
        let target = &target;
        let sockets: Vec<Socket> = stream::iter(0..count)
            .map(|number| async move { target.connect(&format!("user-{number}"), "nobody").await })
            .buffer_unordered(CONNECTS_AT_ONCE)
            .collect()
            .await;
        sleep(SETTLE).await;
        let after = process.resident_bytes();
        sleep(Duration::from_secs_f64(hold)).await;
        let each = after.saturating_sub(before) / sockets.len().max(1) as u64;
        format!("sockets={} before={before} after={after} bytes_each={each}", sockets.len())
    }
}
