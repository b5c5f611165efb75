//! `check`: whether the configuration is valid, or everything that is wrong with it.

use std::io::Write;
use std::process::ExitCode;

use super::{MISCONFIGURED, answer};
use crate::app;
use crate::settings::{Loaded, Problem, SettingsErrors};

#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// Take warnings for errors, too: values that have no effect, and programs that are not there.
    #[arg(long)]
    strict: bool,
}

/// Loading has done most of the work; the files that the settings name are looked at here, because only who serves needs
/// to read them.
pub(super) fn run(
    out: &mut impl Write,
    err: &mut impl Write,
    args: &CheckArgs,
    outcome: &Result<Loaded, SettingsErrors>,
) -> ExitCode {
    let refused = |err, errors: &SettingsErrors| {
        answer(err, &format!("{errors}\n"), ExitCode::from(MISCONFIGURED))
    };
    match outcome {
        Ok(loaded) => match files(loaded) {
            Ok(()) => {
                for warning in &loaded.warnings {
                    // A warning that nobody can read changes nothing.
                    drop(writeln!(err, "warning: {warning}"));
                }
                if args.strict && !loaded.warnings.is_empty() {
                    return ExitCode::from(MISCONFIGURED);
                }
                answer(out, "configuration is valid\n", ExitCode::SUCCESS)
            }
            Err(errors) => refused(err, &errors),
        },
        Err(errors) => refused(err, errors),
    }
}

/// Whether the files that the settings name are what they should be.
pub(super) fn files(loaded: &Loaded) -> Result<(), SettingsErrors> {
    let problem = |(key, message): (String, String)| {
        let source = loaded.provenance.of(&format!("{key}.cert")).to_string();
        Problem { source, key, message }
    };
    let problems: Vec<_> =
        app::check(&loaded.settings, &loaded.parts).into_iter().map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(SettingsErrors::new(problems)) }
}
