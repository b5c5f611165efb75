//! What the service manager that started this process said in its environment: where to report, and which sockets it hands
//! over. Not settings of ours, but the environment is read nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

/// What systemd, or something like it, set for this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceManager {
    /// `NOTIFY_SOCKET`.
    pub notify_socket: Option<String>,
    /// `WATCHDOG_USEC`: how often it wants to hear that the process lives.
    pub watchdog: Option<Duration>,
    /// `WATCHDOG_PID`: who is meant.
    pub watchdog_pid: Option<u32>,
    /// `LISTEN_FDNAMES`: the names of the sockets that it hands over, in order.
    pub socket_names: Vec<String>,
}

impl ServiceManager {
    pub(super) fn of(variables: &BTreeMap<String, String>) -> Self {
        let said = |name: &str| variables.get(name).filter(|text| !text.is_empty());
        let micros = said("WATCHDOG_USEC").and_then(|text| text.parse().ok());
        let names = said("LISTEN_FDNAMES");
        Self {
            notify_socket: said("NOTIFY_SOCKET").cloned(),
            watchdog: micros.filter(|micros| *micros > 0).map(Duration::from_micros),
            watchdog_pid: said("WATCHDOG_PID").and_then(|text| text.parse().ok()),
            // One without a name keeps its place: those behind it must not get each other's.
            socket_names: names
                .map(|names| names.split(':').map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_or_is_nonsense_is_nothing() {
        let of = |said: &[(&str, &str)]| {
            let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
            ServiceManager::of(&said.iter().map(own).collect())
        };
        assert_eq!(of(&[]), ServiceManager::default());
        assert_eq!(of(&[("WATCHDOG_USEC", "soon"), ("NOTIFY_SOCKET", "")]), of(&[]));
        let all = of(&[
            ("NOTIFY_SOCKET", "@x"),
            ("WATCHDOG_USEC", "2000000"),
            ("WATCHDOG_PID", "7"),
            ("LISTEN_FDNAMES", "proxy:hub-1"),
        ]);
        assert_eq!(all.watchdog, Some(Duration::from_secs(2)));
        assert_eq!((all.watchdog_pid, all.socket_names.len()), (Some(7), 2));
        assert_eq!(of(&[("LISTEN_FDNAMES", "proxy::admin")]).socket_names, ["proxy", "", "admin"]);
    }
}
