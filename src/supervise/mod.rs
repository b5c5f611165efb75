//! Programs that the gateway starts, keeps running, and sends the traffic of a region to.
//!
//! Walk: [`Supervision::run`] owns a task for each process (`process`), which owns one for each instance (`slot`), which
//! has a life at a time (`life`): a guard with the program below it (`guard`). What is ready joins the backends of its
//! region (`rotation`).
//!
//! Invariants: an instance is balanced only between ready and its end; a process is replaced one instance after the
//! other, each new one ready before the old one drains; nothing of a process outlives the gateway, however that ends.
//! Absent on purpose: watching files for changes, which is a matter of development tools.

mod board;
mod control;
mod exit;
pub mod guard;
mod life;
mod metrics;
mod output;
mod ports;
mod process;
mod ready;
mod restarts;
mod retire;
mod rotation;
mod slot;
mod spec;
mod supervision;
mod supervisor;
mod tree;

use crate::settings::Instances;

pub use self::board::{InstanceSnapshot, ProcessSnapshot, State};
pub use self::supervision::Supervision;
pub use self::supervisor::Supervisor;

/// Why what an operator asked for is not so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("no process `{process}` is configured in region `{region}`")]
    Unknown { region: String, process: String },
    #[error("there are 0 to {most} instances of a process", most = Instances::MOST)]
    TooMany,
    /// An instance was not ready; the others were left as they are.
    #[error("not done: {0}")]
    Failed(String),
    #[error("the process is no longer configured, or the gateway stops")]
    Gone,
}
