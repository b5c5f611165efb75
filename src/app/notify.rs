//! Telling the service manager how it goes: `READY`, `RELOADING`, `STOPPING`, and that the process still lives.
//!
//! One datagram a message to the socket that `NOTIFY_SOCKET` names (see `sd_notify(3)`); nothing where it names none. A
//! message that cannot be sent is said once in the log and otherwise ignored: a gateway does not stop for its audience.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::settings::ServiceManager;

/// The other end of `NOTIFY_SOCKET`; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifier {
    place: Option<Arc<Place>>,
    watchdog: Option<Duration>,
}

#[derive(Debug)]
struct Place {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    pub(super) fn new(manager: &ServiceManager) -> Self {
        let place = manager.notify_socket.as_deref().and_then(|name| {
            let opened = open(name).inspect_err(|error| {
                tracing::warn!(target: "App", %error, "the service manager cannot be told how it goes");
            });
            opened.ok().map(Arc::new)
        });
        let is_ours = manager.watchdog_pid.is_none_or(|pid| pid == std::process::id());
        Self { place, watchdog: manager.watchdog.filter(|_| is_ours) }
    }

    /// It serves, or serves again after a reload.
    pub(super) fn ready(&self) {
        self.say("READY=1");
    }

    pub(super) fn reloading(&self) {
        // The manager tells by the time which reload of several this is.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says often enough that the process lives, where somebody wants to know; by the runtime that would be the
    /// first to hang.
    pub(super) async fn keep_alive(self, stop: CancellationToken) {
        let Some(every) = self.watchdog.map(|limit| limit / 2) else {
            stop.cancelled().await;
            return;
        };
        loop {
            self.say("WATCHDOG=1");
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn say(&self, message: &str) {
        if let Some(place) = &self.place
            && let Err(error) = place.socket.send_to_addr(message.as_bytes(), &place.address)
        {
            tracing::debug!(target: "App", %error, "the service manager did not take a message");
        }
    }
}

fn open(name: &str) -> io::Result<Place> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(Place { socket, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_a_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify_socket = Some(path.to_str().unwrap().to_owned());
        let told = Notifier::new(&ServiceManager { notify_socket, ..ServiceManager::default() });
        let hear = || {
            let mut buffer = [0; 256];
            let read = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..read].to_vec()).unwrap()
        };
        told.ready();
        assert_eq!(hear(), "READY=1");
        told.reloading();
        let said = hear();
        let micros = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        told.stopping();
        assert_eq!(hear(), "STOPPING=1");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_said_twice_in_each_interval_that_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let told = Notifier::new(&ServiceManager {
            notify_socket: Some(path.to_str().unwrap().to_owned()),
            watchdog: Some(Duration::from_secs(10)),
            watchdog_pid: Some(std::process::id()),
            ..ServiceManager::default()
        });
        let stop = CancellationToken::new();
        let until = stop.clone();
        tokio::join!(told.keep_alive(until), async {
            tokio::time::sleep(Duration::from_secs(21)).await;
            stop.cancel();
        });
        manager.set_nonblocking(true).unwrap();
        let mut count = 0;
        while manager.recv(&mut [0; 64]).is_ok() {
            count += 1;
        }
        assert_eq!(count, 5);
        let others = ServiceManager {
            watchdog: Some(Duration::from_secs(10)),
            watchdog_pid: Some(1),
            ..ServiceManager::default()
        };
        assert!(Notifier::new(&others).watchdog.is_none(), "it was meant for another process");
    }

    #[test]
    fn without_a_manager_nothing_is_said() {
        let silent = Notifier::new(&ServiceManager::default());
        silent.ready();
        assert!(silent.place.is_none());
    }
}
