//! `check`: whether the configuration is valid, or everything that is wrong with it.

use std::io::Write;
use std::process::ExitCode;

use super::{MISCONFIGURED, answer};
use crate::settings::{Loaded, SettingsErrors};

/// Loading has done the work; this says its outcome.
pub(super) fn run(
    out: &mut impl Write,
    err: &mut impl Write,
    outcome: &Result<Loaded, SettingsErrors>,
) -> ExitCode {
    match outcome {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                // A warning that nobody can read changes nothing.
                drop(writeln!(err, "warning: {warning}"));
            }
            answer(out, "configuration is valid\n", ExitCode::SUCCESS)
        }
        Err(errors) => answer(err, &format!("{errors}\n"), ExitCode::from(MISCONFIGURED)),
    }
}
