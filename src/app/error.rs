//! Why the process could not start, or did not end well.

use std::io;
use std::net::SocketAddr;

use crate::bus;
use crate::edge::TlsError;
use crate::files;
use crate::observability::AccessError;
use crate::proxy;

/// One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(
        "port {port} is in use: {listener} cannot listen on {address}; stop the other process, or set {variable} to a free port",
        port = address.port()
    )]
    PortInUse { listener: String, address: SocketAddr, variable: String },
    #[error("{listener} cannot listen on {address}: {source}; {variable} moves it")]
    Bind { listener: String, address: SocketAddr, variable: String, source: io::Error },
    #[error("the socket {name:?} that was handed over cannot be used: {source}")]
    Inherited { name: String, source: io::Error },
    #[error(
        "a socket named {name:?} was handed over; the names are proxy, tls, redirect, admin, api, and hub-REGION (FileDescriptorName=)"
    )]
    InheritedName { name: String },
    #[error("{0}")]
    Proxy(#[from] proxy::SetupError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Bus(#[from] bus::SetupError),
    #[error("{0}")]
    Access(#[from] AccessError),
    #[error("{0}")]
    Files(#[from] files::MountError),
    #[error("the runtime could not be started: {0}")]
    Runtime(io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    #[error("{task} ended: {why}")]
    Task { task: String, why: String },
    #[error("some tasks did not end after the cut")]
    DrainDeadline,
}
