//! The gateway as its users meet it: real sockets on ephemeral ports, a real Redis, the built binary.
//!
//! One binary, so that the crate is linked once. A line for each module says what belongs in it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helper functions"
)]

/// Who may import whom: the table of ARCHITECTURE.md, held against every `crate::` path.
mod import_directions;
