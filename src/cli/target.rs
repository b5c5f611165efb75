//! Which gateway `send` and `chat` talk to, and as whom: arguments, then variables, then the configuration.

use std::process::ExitCode;

use super::{FAILED, MISCONFIGURED, complain};
use crate::client::{Address, Client, Options, Start};
use crate::protocol;
use crate::settings::{Loaded, Settings};

/// What `send` and `chat` share. No `Debug`: the token is a secret.
#[derive(Clone, clap::Args)]
pub(super) struct Target {
    /// The gateway, as ws://, wss://, http:// or https:// [default: the configured proxy on this machine].
    #[arg(long, value_name = "URL", env = "MERIDIAN_URL", hide_env_values = true)]
    url: Option<String>,
    /// The region to connect in [default: the configured default, else the first that has a hub].
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Sent as `Authorization: Bearer`, where the gateway asks for it.
    #[arg(long, value_name = "TOKEN", env = "MERIDIAN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Target {
    /// A client of `user`; where the arguments are wrong, that was said, and the exit code is given.
    pub(super) fn client(
        self,
        loaded: &Loaded,
        user: String,
        start: Start,
    ) -> Result<Client, ExitCode> {
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let address = self.address(&loaded.settings).map_err(|why| wrong(&why))?;
        let region = said(self.region)
            .or_else(|| (!address.names_region()).then(|| region(&loaded.settings)).flatten());
        let options = Options { address, user, region, token: said(self.token), start };
        Client::new(options).map_err(|error| {
            complain(&format!("TLS cannot be used: {error}"));
            ExitCode::from(FAILED)
        })
    }

    fn address(&self, settings: &Settings) -> Result<Address, String> {
        if let Some(url) = self.url.as_ref().filter(|url| !url.is_empty()) {
            return Address::parse(url).map_err(|error| format!("--url: {error}"));
        }
        let proxy = &settings.proxy;
        if proxy.port == 0 {
            return Err(
                "the system chooses the port of the proxy: say where it is with --url".into()
            );
        }
        let host = match proxy.bind {
            std::net::IpAddr::V4(any) if any.is_unspecified() => "127.0.0.1".to_owned(),
            std::net::IpAddr::V6(any) if any.is_unspecified() => "127.0.0.1".to_owned(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
            address @ std::net::IpAddr::V4(_) => address.to_string(),
        };
        let url = format!("ws://{host}:{}{}", proxy.port, proxy.ws_path);
        Address::parse(&url).map_err(|error| format!("{url}: {error}"))
    }
}

/// The region of who names none.
fn region(settings: &Settings) -> Option<String> {
    let first = || settings.regions.iter().find(|(_, region)| region.hub.is_some());
    settings.default_region.as_ref().or_else(|| Some(first()?.0)).map(ToString::to_string)
}

/// Says what is wrong with the arguments.
pub(super) fn wrong(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(MISCONFIGURED)
}

/// Reads a user from the command line.
pub(super) fn user(text: &str) -> Result<String, String> {
    let why = "a user is 1 to 128 visible ASCII characters, without { and }";
    if protocol::is_user(text) { Ok(text.to_owned()) } else { Err(why.to_owned()) }
}

/// Reads a duration from the command line.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 30s, 5m"))
        .and_then(|duration| {
            if duration.is_zero() {
                Err("it must be longer than nothing".into())
            } else {
                Ok(duration)
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: Option<&str>, change: impl FnOnce(&mut Settings)) -> Result<String, String> {
        let mut settings = Settings::default();
        change(&mut settings);
        let target = Target { url: url.map(str::to_owned), region: None, token: None };
        target.address(&settings).map(|address| address.to_string())
    }

    #[test]
    fn the_configured_proxy_is_the_default() {
        let at = |bind: &str, port| {
            address(None, |settings| {
                settings.proxy.bind = bind.parse().unwrap();
                settings.proxy.port = port;
            })
        };
        assert_eq!(at("0.0.0.0", 3000).as_deref(), Ok("ws://127.0.0.1:3000/ws"));
        assert_eq!(at("10.0.0.7", 80).as_deref(), Ok("ws://10.0.0.7:80/ws"));
        assert_eq!(at("::1", 1).as_deref(), Ok("ws://[::1]:1/ws"));
        assert!(at("0.0.0.0", 0).unwrap_err().contains("--url"));
        assert_eq!(address(Some("https://h/"), |_| ()).as_deref(), Ok("wss://h:443/ws"));
        assert_eq!(address(Some(""), |_| ()).as_deref(), Ok("ws://127.0.0.1:3000/ws"));
        assert!(address(Some("h:1"), |_| ()).unwrap_err().starts_with("--url: "));
    }

    #[test]
    fn durations_are_not_empty() {
        assert_eq!(duration("1m"), Ok(std::time::Duration::from_mins(1)));
        assert!(duration("0s").is_err() && duration("soon").is_err());
    }
}
