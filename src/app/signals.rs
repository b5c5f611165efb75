//! Who may ask the process to stop: SIGTERM and SIGINT, or a test.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::error::AppError;

/// Where requests to stop come from.
#[derive(Debug)]
pub enum StopRequests {
    Process { terminate: Signal, interrupt: Signal },
    Channel(mpsc::Receiver<()>),
}

impl StopRequests {
    /// SIGTERM and SIGINT of this process.
    ///
    /// # Errors
    /// Where the system does not let them be received.
    pub fn of_process() -> Result<Self, AppError> {
        let of = |kind| signal(kind).map_err(AppError::Signals);
        Ok(Self::Process {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
        })
    }

    /// Ends with the next request; never, when there can be none any more.
    pub(super) async fn next(&mut self) {
        let came = match self {
            Self::Process { terminate, interrupt } => tokio::select! {
                came = terminate.recv() => came,
                came = interrupt.recv() => came,
            },
            Self::Channel(requests) => requests.recv().await,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
