//! Arguments in, exit code out; nothing else.

use std::process::ExitCode;

/// Many small buffers, often freed by another thread than the one that took them: what mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meridian::cli::run()
}
