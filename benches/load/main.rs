//! The load of `scripts/bench.sh idle`, `chat` and `cost`: WebSocket clients for any server, on one thread.
//!
//! Walk: the script starts a server and calls `load idle …` or `load chat …`; `idle` opens sockets and
//! reads the server's resident memory, `chat` sends between pairs and reads the processor time of the
//! processes named, `fill` leaves messages for many users. One line of `key=value` words goes to standard output.
//!
//! Absent on purpose: knowledge of the server. Its URL is a template (`{user}`, `{peer}`), and
//! whether it greets is a flag, so that both servers get the same load from the same code.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a load generator that cannot go on has no answer to give"
)]
#![expect(clippy::print_stdout, reason = "its result goes to the calling script")]

mod chat;
mod fill;
mod idle;
mod meter;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// One client socket, on the plain stream.
type Socket = WebSocketStream<TcpStream>;

/// A connection that is not open, and greeted, in this time fails the run.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Handshakes under way at once: enough to keep a server busy, far under its accept queue.
const CONNECTS_AT_ONCE: usize = 64;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What `cargo bench` hands to every benchmark; without a command there is nothing to do.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Holds idle sockets and prints the server's resident memory before and after.
    Idle(idle::Idle),
    /// Sends messages to users who are not there.
    Fill(fill::Fill),
    /// Sends messages between pairs of users and prints how many arrived for how much processor time.
    Chat(chat::Chat),
}

/// Where the sockets go.
#[derive(Args, Clone)]
struct Target {
    /// `ws://IP:PORT/…` with `{user}` and `{peer}` in it.
    #[arg(long)]
    url: String,
    /// The server greets each socket with a frame, which is awaited.
    #[arg(long)]
    welcome: bool,
}

impl Target {
    /// Opens one socket; returns when the server has taken it on.
    async fn connect(&self, user: &str, peer: &str) -> Socket {
        let url = self.url.replace("{user}", user).replace("{peer}", peer);
        let address = url.split('/').nth(2).expect("a URL with an address");
        // Small buffers: thousands of these live in one process, and every message is small.
        let config =
            WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(4 * 1024);
        let open = async {
            let stream = TcpStream::connect(address).await.expect("the server accepts");
            stream.set_nodelay(true).unwrap();
            let (mut socket, _) = client_async_with_config(url.as_str(), stream, Some(config))
                .await
                .expect("the server upgrades");
            if self.welcome {
                socket.next().await.expect("the server greets").expect("the greeting is a frame");
            }
            socket
        };
        timeout(CONNECT_LIMIT, open).await.expect("connected in time")
    }
}

fn main() {
    let Arguments { command, bench: _ } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match command {
        Some(Command::Idle(idle)) => println!("{}", runtime.block_on(idle.run())),
        Some(Command::Fill(fill)) => println!("{}", runtime.block_on(fill.run())),
        Some(Command::Chat(chat)) => println!("{}", runtime.block_on(chat.run())),
        None => println!("the load of scripts/bench.sh; see `load --help`"),
    }
}
