//! Listening sockets that a service manager holds and hands over (`LISTEN_FDS`, see `sd_listen_fds(3)`).
//!
//! They stay open while processes come and go, so that nobody who connects meanwhile is refused. Each has a name
//! (`LISTEN_FDNAMES`): `proxy`, `admin`, `api`, `hub-<region>`, `tls`; a single socket without one is the proxy's.
//! Several of one name are dealt out to the workers; where they are fewer, workers share them, and where they are more, some
//! workers have several.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

use super::error::AppError;
use crate::settings::ServiceManager;

/// The sockets that were handed over and not taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, TcpListener)>,
}

impl Inherited {
    /// Takes them from the environment, once, before any thread is started.
    ///
    /// # Errors
    /// Where one is not a TCP socket.
    pub fn take_from(manager: &ServiceManager) -> Result<Self, AppError> {
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..given.len() {
            let name = manager.socket_names.get(index).map_or("", String::as_str).to_owned();
            let refused = |source| AppError::Inherited { name: name.clone(), source };
            let Some(socket) = given.take_tcp_listener(index).map_err(refused)? else { continue };
            // Those of a manager's may block, which a runtime's must not.
            socket.set_nonblocking(true).map_err(refused)?;
            sockets.push((name, socket));
        }
        if let [(name, _)] = sockets.as_mut_slice()
            && !is_ours(name)
        {
            // Named after its unit, as it is where nobody named it.
            "proxy".clone_into(name);
        }
        match sockets.iter().find(|(name, _)| !is_ours(name)) {
            Some((name, _)) => Err(AppError::InheritedName { name: name.clone() }),
            None => Ok(Self { sockets }),
        }
    }

    /// The sockets of a listener, one for each worker; nothing where none was handed over for it.
    pub(super) fn take(
        &mut self,
        name: &str,
        workers: usize,
    ) -> Result<Option<Vec<TcpListener>>, AppError> {
        let (ours, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sockets).into_iter().partition(|(given, _)| given == name);
        self.sockets = others;
        if ours.is_empty() {
            return Ok(None);
        }
        let dealt =
            ours.iter().cycle().take(workers.max(ours.len())).map(|(_, one)| one.try_clone());
        let dealt = dealt.collect::<io::Result<Vec<_>>>();
        dealt.map(Some).map_err(|source| AppError::Inherited { name: name.to_owned(), source })
    }

    /// Says which were handed over in vain.
    pub(super) fn warn_of_the_rest(&self) {
        for (name, _) in &self.sockets {
            tracing::warn!(target: "App", %name, "a socket was handed over that nothing here listens on");
        }
    }
}

fn is_ours(name: &str) -> bool {
    matches!(name, "proxy" | "tls" | "admin" | "api") || name.starts_with("hub-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited(names: &[&str]) -> Inherited {
        let socket = |name: &&str| ((*name).to_owned(), TcpListener::bind("127.0.0.1:0").unwrap());
        Inherited { sockets: names.iter().map(socket).collect() }
    }

    #[test]
    fn workers_share_what_is_less_than_they_are() {
        let mut given = inherited(&["proxy", "admin", "proxy"]);
        let dealt = given.take("proxy", 3).unwrap().unwrap();
        let addresses: Vec<_> = dealt.iter().map(|one| one.local_addr().unwrap()).collect();
        assert_eq!(addresses.len(), 3);
        assert!(addresses[0] == addresses[2] && addresses[0] != addresses[1]);
        assert!(given.take("proxy", 3).unwrap().is_none(), "they are taken once");
        assert_eq!(given.take("admin", 1).unwrap().unwrap().len(), 1);
        assert!(given.take("api", 1).unwrap().is_none());
    }
}
