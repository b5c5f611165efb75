//! `serve`: runs the gateway until a signal ends it.

use std::process::ExitCode;

use super::{FAILED, complain};
use crate::app;
use crate::settings::{LoadOptions, Loaded};

/// Blocks for the life of the gateway.
pub(super) fn run(options: LoadOptions, loaded: Loaded) -> ExitCode {
    match app::run(options, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(FAILED)
        }
    }
}
