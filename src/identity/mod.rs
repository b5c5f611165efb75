//! Who is calling: what a request shows, held against what the configuration knows.
//!
//! Walk: [`bearer()`] finds the credential in a request; [`Keys::verify`] says whose it is.
//!
//! Invariants: secrets are kept as digests alone; what is compared takes the same time whatever was sent; no error
//! and no log line repeats a credential. Absent on purpose: HTTP answers (`edge`).

mod bearer;
mod keys;

pub use self::bearer::bearer;
pub use self::keys::{KeyId, Keys, Unauthorized};
