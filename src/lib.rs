//! Meridian: a gateway for applications that live in several regions.
//!
//! The map of the house, in the order in which a reader needs it:
//!
//! - [`settings`]: what the operator says.
//! - [`app`]: the one place where parts are joined, and the life of the process.
//! - [`edge`]: accepts connections; this path to a hub, that one to the proxy.
//! - [`proxy`]: request → region → backend, and the answer back.
//! - [`supervise`]: programs that are started and kept running, as backends of a region.
//! - [`files`]: folders that are served here.
//! - [`hub`]: chat sockets: frames, seats, queues.
//! - [`protocol`]: the frames and their rules, shared by hubs, the API and the command line.
//! - [`api`]: the HTTP API for backends. [`identity`]: whose request it is.
//! - `limits`: what holds clients back. `rate`: how often something may happen.
//! - [`bus`]: what carries messages between hubs.
//! - [`admin`]: the private listener. [`observability`]: logs and metrics. [`shutdown`]: the way down.
//! - [`client`]: a client of the chat protocol. [`demo`]: sample backends. [`cli`]: arguments.
//!
//! Who may import whom is a table in `ARCHITECTURE.md`, held by a test.

pub mod admin;
pub mod api;
pub mod app;
pub mod bus;
pub mod cli;
pub mod client;
pub mod demo;
pub mod edge;
pub mod files;
pub mod hub;
pub mod identity;
mod limits;
pub mod observability;
pub mod protocol;
pub mod proxy;
mod rate;
pub mod settings;
pub mod shutdown;
pub mod supervise;
