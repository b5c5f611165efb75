//! The addresses of a backend's name: looked up off the workers, known to all of them, and put in the order in which
//! they are dialled.
//!
//! Walk: whoever dials asks [`Name::addresses`]. What was found is used for [`FRESH`]; then the next dial has the name
//! looked up anew, and so does one that follows a failed one, so that a name which leads elsewhere is noticed. How each dial
//! went comes back by [`Name::dialed`] and [`Name::failed`].
//!
//! Invariants: a name is looked up by one thread at a time, whoever waits and however long it takes, so that a resolver
//! that hangs holds one thread a name and no more; addresses that were found serve on while it hangs or fails.
//!
//! Absent on purpose: the records' own lifetimes, which the system's resolver keeps to itself.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long what was found is used before it is looked up anew.
const FRESH: Duration = Duration::from_secs(5);

/// How long a dial waits for a lookup while it has older addresses: counted from the lookup's begin, so that one that
/// hangs holds up those only who were there then.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long an address that failed, or was overtaken by another, comes behind the others (RFC 8305, 4: some ten minutes).
const BEHIND_FOR: Duration = Duration::from_mins(10);

/// Addresses of one name that are dialled at most.
const MOST: usize = 32;

/// Finds the addresses of `host:port`; may block.
type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The name of a backend.
pub(in crate::proxy) struct Name {
    host: Box<str>,
    port: u16,
    resolve: Box<Resolve>,
    known: watch::Sender<Known>,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    /// As the system orders them (RFC 6724).
    addresses: Vec<SocketAddr>,
    /// Of them those that come behind the others, and since when.
    behind: Vec<(SocketAddr, Instant)>,
    /// Until when they are used without asking anew.
    fresh_until: Option<Instant>,
    /// When the lookup began that is going on.
    asked: Option<Instant>,
    /// Why the last lookup found nothing.
    error: Option<Arc<io::Error>>,
    lookups: Lookups,
}

/// How lookups of a name have gone so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Lookups {
    pub(in crate::proxy) found: u64,
    pub(in crate::proxy) failed: u64,
}

impl Name {
    pub(in crate::proxy) fn new(host: &str, port: u16) -> Arc<Self> {
        let resolve = |host: &str, port| Ok((host, port).to_socket_addrs()?.collect());
        Self::resolved_by(host, port, Box::new(resolve))
    }

    fn resolved_by(host: &str, port: u16, resolve: Box<Resolve>) -> Arc<Self> {
        Arc::new(Self { host: Box::from(host), port, resolve, known: watch::Sender::default() })
    }

    pub(in crate::proxy) fn host(&self) -> &str {
        &self.host
    }

    /// What was found last.
    pub(in crate::proxy) fn found(&self) -> Vec<SocketAddr> {
        self.known.borrow().addresses.clone()
    }

    pub(in crate::proxy) fn lookups(&self) -> Lookups {
        self.known.borrow().lookups
    }

    /// The addresses in the order in which to dial them; not empty. To be bounded by whoever awaits it.
    ///
    /// # Errors
    /// Those of a lookup, where none has ever found anything.
    pub(super) async fn addresses(self: &Arc<Self>) -> io::Result<Vec<SocketAddr>> {
        let now = Instant::now();
        let mut seen = self.known.subscribe();
        self.look_up(now);
        let (asked, has_any) = {
            let known = seen.borrow_and_update();
            (known.asked, !known.addresses.is_empty())
        };
        if let Some(asked) = asked {
            let found = seen.wait_for(|known| known.asked != Some(asked));
            if has_any {
                drop(timeout_at(asked + PATIENCE, found).await);
            } else {
                drop(found.await);
            }
        }
        let known = self.known.borrow();
        if known.addresses.is_empty() {
            let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let error = known.error.as_ref();
            return Err(error.map_or_else(nothing, |e| io::Error::new(e.kind(), e.to_string())));
        }
        Ok(known.in_order(now))
    }

    /// Begins a lookup where one is due and none is going on.
    fn look_up(self: &Arc<Self>, now: Instant) {
        let is_due = |known: &Known| {
            known.asked.is_none() && known.fresh_until.is_none_or(|until| until <= now)
        };
        // Looked at first, since nearly always nothing is due.
        if !is_due(&self.known.borrow()) {
            return;
        }
        let begun = self.known.send_if_modified(|known| {
            let due = is_due(known);
            if due {
                known.asked = Some(now);
            }
            due
        });
        if !begun {
            return;
        }
        let name = Arc::clone(self);
        // A thread of its own and not one of the runtime's: those are for files, too, and a runtime waits for its own when
        // it ends.
        let thread = std::thread::Builder::new().name("lookup".to_owned());
        let spawned = thread.spawn(move || name.learn((name.resolve)(&name.host, name.port)));
        if let Err(error) = spawned {
            self.learn(Err(error));
        }
    }

    /// A lookup has ended.
    fn learn(&self, found: io::Result<Vec<SocketAddr>>) {
        let nothing = || Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        let found = found.and_then(|all| if all.is_empty() { nothing() } else { Ok(all) });
        self.known.send_modify(|known| {
            let asked = known.asked.take();
            match found {
                Ok(addresses) => {
                    if known.addresses != addresses {
                        tracing::debug!(target: "Proxy", backend = %self, ?addresses, "its name was looked up");
                    }
                    known.behind.retain(|(address, _)| addresses.contains(address));
                    known.addresses = addresses;
                    known.fresh_until = asked.map(|asked| asked + FRESH);
                    known.error = None;
                    known.lookups.found += 1;
                }
                Err(error) => {
                    if known.error.is_none() {
                        let known = known.addresses.len();
                        tracing::warn!(target: "Proxy", backend = %self, known, "its name cannot be looked up: {error}");
                    }
                    known.fresh_until = None;
                    known.error = Some(Arc::new(error));
                    known.lookups.failed += 1;
                }
            }
        });
    }

    /// A connection was made to one address, after `passed` were begun before and came to nothing or not soon enough.
    pub(super) fn dialed(&self, won: SocketAddr, passed: &[SocketAddr]) {
        let was_behind = self.known.borrow().behind.iter().any(|(one, _)| *one == won);
        if passed.is_empty() && !was_behind {
            return;
        }
        let now = Instant::now();
        self.known.send_if_modified(|known| {
            known.behind.retain(|(one, _)| *one != won && !passed.contains(one));
            known.behind.extend(passed.iter().map(|one| (*one, now)));
            known.behind.truncate(MOST);
            false
        });
    }

    /// No address has led to a connection: perhaps the name leads elsewhere by now.
    pub(super) fn failed(&self) {
        self.known.send_if_modified(|known| {
            known.fresh_until = None;
            known.behind.clear();
            false
        });
    }
}

impl Known {
    fn in_order(&self, now: Instant) -> Vec<SocketAddr> {
        let is_behind = |address: &SocketAddr| {
            let mut behind = self.behind.iter();
            behind.any(|(one, since)| one == address && now - *since < BEHIND_FOR)
        };
        let (behind, first): (Vec<_>, Vec<_>) = self.addresses.iter().partition(|a| is_behind(a));
        let mut order = interleaved(&first);
        order.extend(interleaved(&behind));
        order.truncate(MOST);
        order
    }
}

/// The families by turns, beginning with that of the first address (RFC 8305, 4), each in the order it has.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().rev().partition(|address| address.is_ipv6() == first);
    let mut order = Vec::with_capacity(addresses.len());
    while one.len() + other.len() > 0 {
        order.extend(one.pop());
        order.extend(other.pop());
    }
    order
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

impl Eq for Name {}

#[cfg(test)]
mod tests;
