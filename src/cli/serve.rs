//! `serve`: runs the gateway until a signal ends it.

use std::process::ExitCode;

use super::{FAILED, complain};
use crate::app;
use crate::settings::Loaded;

/// Blocks for the life of the gateway.
pub(super) fn run(loaded: &Loaded) -> ExitCode {
    match app::run(&loaded.settings, &loaded.parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(FAILED)
        }
    }
}
