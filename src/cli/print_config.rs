//! `print-config`: what is in effect, and who said so.

use std::io::Write;
use std::process::ExitCode;

use super::answer;
use crate::settings::{self, Loaded};

pub(super) fn run(out: &mut impl Write, loaded: &Loaded) -> ExitCode {
    answer(out, &settings::render(loaded), ExitCode::SUCCESS)
}
