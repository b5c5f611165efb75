//! File descriptors: a socket is one, and the soft limit of a shell or a service is often 1,024.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Below this, a gateway runs out on an ordinary day.
const FEW: u64 = 4_096;

/// Raises the soft limit to the hard one, which every process may; says so where that is little.
pub(super) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(target: "App", %error, "the limit of open files could not be raised");
            limit = getrlimit(Resource::Nofile);
        }
    }
    if let Some(files) = limit.current.filter(|files| *files < FEW) {
        tracing::warn!(
            target: "App",
            files,
            "few files may be open, and each connection is one: raise the limit (ulimit -Hn, LimitNOFILE)"
        );
    }
}
