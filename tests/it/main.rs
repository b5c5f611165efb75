//! The gateway as its users meet it: real sockets on ephemeral ports, a real Redis, the built binary.
//!
//! One binary, so that the crate is linked once. A line for each module says what belongs in it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::unused_async,
    reason = "a test fails by panicking, also in its helper functions, and its end is the end of its tasks"
)]

/// The plumbing.
mod harness;

/// The line of each exchange, and its file.
mod access;
/// The line of each end over TLS and HTTP/2.
mod access_http2;
/// What an operator sees and does on the admin listener.
mod admin;
/// The API for backends.
mod api;
/// Who the API lets in, and what it bears.
mod api_bounds;
/// What the API says of itself, and its page.
mod api_description;
/// The backends of a region, with real nginx behind the gateway: shares, tiers, bounds, keys.
mod backends;
/// Backends behind TLS: Node, by HTTP/1.1 and HTTP/2.
mod backends_tls;
/// Bodies both ways, trailers, reuse, and backends that fail.
mod bodies;
/// Faults with real processes: talking pairs while something breaks.
mod chaos;
/// `send` and `chat`: the built binary against a gateway.
mod cli_talk;
/// `chat` on a terminal.
mod cli_terminal;
/// Compressed answers, and the headers of the security profiles.
mod compression;
/// Chat as its users meet it.
mod conversation;
/// Storms, floods and readers that do not read, against the built binary.
mod crowds;
/// Devices and presence over two processes.
mod devices;
/// The way down.
mod drain;
/// Which region serves, how often it is tried, and within which time.
mod failover;
/// Folders that are served.
mod files;
/// The same files, here and at nginx.
mod files_like_nginx;
/// Message framing, where it takes more than bytes in and out.
mod framing;
/// Listening sockets that outlive a process.
mod handover;
/// What the gateway says of a request, and what it leaves alone.
mod headers;
/// Backends that fall ill: real nginx, stopped, spoilt and brought back.
mod health;
/// HTTP/2: what good clients see, what floods get, WebSockets over it.
mod http2;
/// HTTP/2 and HPACK, rule by rule, as raw frames.
mod http2_frames;
/// Who may import whom: the table of ARCHITECTURE.md, held against every `crate::` path.
mod import_directions;
/// The client library in Node.
mod library;
/// Rate limits, rules, and bounds on slow clients.
mod limits;
/// Random schedules of faults against a simple model.
mod model;
/// Outages as operators fear them: the split under each policy, and no storm of repeats.
mod outages;
/// What the gateway answers itself.
mod own_paths;
/// The chat page in a real browser.
mod page;
/// The built binary: what it prints, where, and its exit codes.
mod process;
/// The PROXY protocol with a real HAProxy, and the redirect to TLS.
mod proxy_protocol;
/// Real backends behind the gateway, real clients before it.
mod real;
/// Region → backend.
mod region;
/// The harness's own relay: a fault test is worth no more than its fault.
mod relay;
/// Another configuration without a restart.
mod reload;
/// The rules of HTTP, row by row, as raw bytes.
mod rows;
/// The built binary, running.
mod running;
/// Files, `.env`, variables and flags: precedence, and what is said of each mistake.
mod settings;
/// How even a stop with a thousand sockets is.
mod spread;
/// Programs that the gateway starts and keeps running.
mod supervise;
/// TLS: handshakes, certificates, changed files.
mod tls;
/// Two gateways over one Redis.
mod two_nodes;
/// WebSocket tunnels to a backend.
mod upgrade;
