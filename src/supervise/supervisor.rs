//! The handle on the supervised processes: what an operator, a reload, the status page and the way down ask for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::life::Launch;
use super::metrics::Families;
use super::ports::Ports;
use super::process::Reply;
use super::slot::Tools;
use super::spec::{Key, Spec};
use super::supervision::Supervision;
use super::{ActionError, ProcessSnapshot};
use crate::observability::{Readiness, Registry};
use crate::proxy::Shared;
use crate::settings::{Instances, Parts, RegionName, Settings, hidden_variables};

/// Words that wait for the supervisor, or for one process.
pub(super) const WAITING: usize = 64;
/// After the kill, for the kernel to let go.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// What readiness says of the processes.
pub(super) const CHECK: &str = "processes";

/// What an operator asks of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Restart,
    Stop,
    Start,
    Scale(usize),
}

/// What the supervisor is told.
#[derive(Debug)]
pub(super) enum Word {
    Apply(Vec<Spec>),
    Act(Key, Action, Reply),
}

/// Starts and keeps the supervised processes; clones are the same supervisor.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// Whether processes run here at all.
    enabled: bool,
    words: mpsc::Sender<Word>,
    board: Board,
    stop: CancellationToken,
    hurry: CancellationToken,
    ended: CancellationToken,
}

impl Supervisor {
    /// A supervisor of the processes of `settings`, and the task that it is. Where the proxy is not among the `parts` there
    /// are none. Nothing is started yet. The readiness of the
    /// gateway waits until the first start of every instance is decided, well or not.
    pub fn new(
        settings: &Settings,
        parts: &Parts,
        shared: &Arc<Shared>,
        readiness: Readiness,
        registry: &mut Registry,
    ) -> (Self, Supervision) {
        let (words, heard) = mpsc::channel(WAITING);
        let board = Board::new(Families::register(registry));
        let [stop, hurry, ended] = [(); 3].map(|()| CancellationToken::new());
        let enabled = parts.proxy;
        let first = if enabled { Spec::all(settings) } else { Vec::new() };
        if !first.is_empty() {
            readiness.await_word(CHECK);
        }
        let tools = Arc::new(Tools {
            launch: Launch { ports: Ports::default(), hidden: hidden_variables().into() },
            rotation: Box::new(Arc::clone(shared)),
            board: board.clone(),
            hurry: hurry.clone(),
        });
        let supervision = Supervision {
            heard,
            tools,
            first,
            begun: 0,
            readiness,
            stop: stop.clone(),
            ended: ended.clone(),
        };
        (Self { enabled, words, board, stop, hurry, ended }, supervision)
    }

    /// Brings the processes to what `settings` say; the unchanged are not touched. To be called after the regions were
    /// replaced. What follows (new instances, one after the other) goes on after this has ended.
    pub async fn apply(&self, settings: &Settings) {
        if !self.enabled {
            return;
        }
        // Once it has ended there is nothing to bring anywhere.
        drop(self.words.send(Word::Apply(Spec::all(settings))).await);
    }

    /// Replaces every instance, one after the other, without a request that fails for it; starts those that are stopped.
    /// Ends when that is done; it goes on where the caller does not wait.
    ///
    /// # Errors
    /// Where there is no such process, or a new instance was not ready: then the others are left as they are.
    pub async fn restart(&self, region: &str, process: &str) -> Result<(), ActionError> {
        self.act(region, process, Action::Restart).await
    }

    /// Stops every instance, after what it has begun, and keeps it so until a start or restart.
    ///
    /// # Errors
    /// Where there is no such process.
    pub async fn stop_process(&self, region: &str, process: &str) -> Result<(), ActionError> {
        self.act(region, process, Action::Stop).await
    }

    /// Starts what was stopped; what is waiting in a crash loop is tried at once.
    ///
    /// # Errors
    /// Where there is no such process, or an instance was not ready.
    pub async fn start_process(&self, region: &str, process: &str) -> Result<(), ActionError> {
        self.act(region, process, Action::Start).await
    }

    /// Runs so many instances from now on, until a reload names another number than before.
    ///
    /// # Errors
    /// Where there is no such process, the number is too high, or a new instance was not ready.
    pub async fn scale(
        &self,
        region: &str,
        process: &str,
        count: usize,
    ) -> Result<(), ActionError> {
        if count > usize::from(Instances::MOST) {
            return Err(ActionError::TooMany);
        }
        self.act(region, process, Action::Scale(count)).await
    }

    async fn act(&self, region: &str, process: &str, action: Action) -> Result<(), ActionError> {
        let unknown =
            || ActionError::Unknown { region: region.to_owned(), process: process.to_owned() };
        let name = RegionName::new(region).map_err(|_invalid| unknown())?;
        let key = Key::of_name(name, Arc::from(process));
        let (reply, answer) = oneshot::channel();
        let sent = self.words.send(Word::Act(key, action, reply)).await;
        sent.map_err(|_ended| ActionError::Gone)?;
        answer.await.unwrap_or(Err(ActionError::Gone))
    }

    /// What is known of every instance now.
    pub fn snapshot(&self) -> Vec<ProcessSnapshot> {
        self.board.snapshot()
    }

    /// Stops everything, and kills what is left after `grace`; ends when nothing is left.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        if timeout(grace, self.ended.cancelled()).await.is_err() {
            self.hurry.cancel();
            drop(timeout(AFTER_KILL, self.ended.cancelled()).await);
        }
    }
}
