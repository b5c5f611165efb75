//! The owner of the long-lived tasks: their names, the first that fails, and the deadline of their end.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::AppError;

/// Tasks that live as long as the process.
#[derive(Debug)]
pub(super) struct Tasks {
    set: JoinSet<Result<(), AppError>>,
    stop: CancellationToken,
}

impl Tasks {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { set: JoinSet::new(), stop }
    }

    /// Starts one. Its end before the stop is an error, whatever it says.
    pub(super) fn spawn<E: Display>(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (name, stop) = (name.into(), self.stop.clone());
        self.set.spawn(async move {
            match work.await {
                Ok(()) if stop.is_cancelled() => Ok(()),
                Ok(()) => Err(AppError::Task { task: name, why: "unasked".to_owned() }),
                Err(error) => Err(AppError::Task { task: name, why: error.to_string() }),
            }
        });
    }

    /// Starts one that cannot fail; its end before the stop is an error all the same.
    pub(super) fn run(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, async move {
            work.await;
            Ok::<_, AppError>(())
        });
    }

    /// Ends with the first task that does, which is a failure, while the process runs.
    pub(super) async fn first_end(&mut self) -> AppError {
        match self.set.join_next().await {
            Some(ended) => match flat(ended) {
                Err(error) => error,
                Ok(()) => AppError::Task { task: "a task".to_owned(), why: "unasked".to_owned() },
            },
            None => std::future::pending().await,
        }
    }

    /// Awaits the end of all, after the stop; the first error is the answer, later ones are logged.
    pub(super) async fn finish(mut self, deadline: Duration) -> Result<(), AppError> {
        let mut first = Ok(());
        let rest = async {
            while let Some(ended) = self.set.join_next().await {
                match (&first, flat(ended)) {
                    (_, Ok(())) => {}
                    (Ok(()), Err(error)) => first = Err(error),
                    (Err(_), Err(error)) => tracing::error!(target: "App", "{error}"),
                }
            }
        };
        if tokio::time::timeout(deadline, rest).await.is_err() {
            self.set.abort_all();
            first = first.and(Err(AppError::DrainDeadline));
        }
        first
    }
}

fn flat(ended: Result<Result<(), AppError>, JoinError>) -> Result<(), AppError> {
    ended.unwrap_or_else(|error| {
        Err(AppError::Task { task: "a task".to_owned(), why: error.to_string() })
    })
}
