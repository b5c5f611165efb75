//! The ports that instances listen on: each is given out once, and comes back when its instance is gone.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};

/// How often the system is asked for a free port, where it names one that an instance is about to take.
const ASKS: usize = 100;

/// Ports that systems do not give out by themselves (RFC 6335 leaves them to users; Linux begins at 32768).
const BELOW_EPHEMERAL: std::ops::Range<u16> = 10_240..32_000;

/// What is given out now; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports(Arc<Mutex<BTreeSet<u16>>>);

/// One port, until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    ports: Ports,
    pub(super) port: u16,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ports.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

impl Ports {
    /// A port that nobody listens on now: the first free one of `count` and one in reserve from `base` on, or any.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn lease(&self, base: Option<NonZeroU16>, count: usize) -> io::Result<Lease> {
        let found = match base {
            // Between the look and the instance's own bind nobody holds it, so it is none of those that the system
            // hands to whoever asks for any.
            None => (0..ASKS)
                .find_map(|_| self.take(fastrand::u16(BELOW_EPHEMERAL)))
                .or_else(|| (0..ASKS).find_map(|_| self.take(0))),
            Some(base) => {
                let last = base.get().saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
                (base.get()..=last).find_map(|port| self.take(port))
            }
        };
        found.ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrInUse, "every port that it may have is in use")
        })
    }

    fn take(&self, port: u16) -> Option<Lease> {
        if port != 0 && self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&port) {
            return None;
        }
        // The system says whether it is free; the instance binds it for itself.
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        let port = bound.local_addr().ok()?.port();
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        is_new.then(|| Lease { ports: self.clone(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that somebody has, with four behind it that nobody has, nor is given by the system.
    fn first_of_five() -> TcpListener {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let five = |_| {
            let first = fastrand::u16(BELOW_EPHEMERAL);
            (first..first + 5).map(bind).collect::<Option<Vec<_>>>()
        };
        (0..ASKS).find_map(five).expect("five free ports in a row").swap_remove(0)
    }

    #[test]
    fn a_port_is_given_out_once_and_comes_back() {
        let ports = Ports::default();
        let held = first_of_five();
        let taken = held.local_addr().unwrap().port();
        // Of a range whose first port somebody else has, the others.
        let base = NonZeroU16::new(taken);
        let first = ports.lease(base, 4).unwrap();
        assert!(first.port > taken && first.port <= taken + 4);
        let second = ports.lease(base, 4).unwrap();
        assert_ne!(first.port, second.port);
        let port = first.port;
        drop(first);
        assert_eq!(ports.lease(base, 4).unwrap().port, port);
        assert!(ports.lease(base, 0).is_err());
        assert!(ports.lease(None, 1).unwrap().port > 0);
    }
}
