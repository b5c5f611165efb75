//! Which Redis, and as whom: from the settings, before anything connects.

use std::fmt;

use fred::types::config::{Config, ServerConfig};

use crate::settings::RedisSettings;

/// Why the settings name no Redis that can be used. Says nothing of the URL itself, which holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("REDIS_URL is not a URL of the form redis://user:password@host:port: {0}")]
    Url(String),
    #[error(
        "REDIS_URL asks for TLS (rediss://), which this build does not speak; use redis:// within a \
         private network, or a local TLS tunnel"
    )]
    Tls,
    #[error("REDIS_URL must begin with redis://; Cluster and Sentinel are not supported")]
    Scheme,
}

/// One Redis server, and the name to log in with.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    host: String,
    port: u16,
}

impl Server {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, SetupError> {
        let mut config = match &settings.url {
            Some(url) => parse(url.expose())?,
            None => Config {
                server: ServerConfig::new_centralized(
                    settings.host.as_deref().unwrap_or("127.0.0.1"),
                    settings.port,
                ),
                username: settings.username.clone(),
                password: settings.password.as_ref().map(|password| password.expose().to_owned()),
                ..Config::default()
            },
        };
        // The first attempt fails like any other: when to try again is decided here, not in the library.
        config.fail_fast = true;
        let ServerConfig::Centralized { server } = &config.server else {
            return Err(SetupError::Scheme);
        };
        // An IPv6 address has brackets in a URL and none where it is dialled.
        let host = server.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = server.port;
        Ok(Self { config, host, port })
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }

    /// Where to dial.
    pub(super) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The arguments of `AUTH`, where a password is set.
    pub(super) fn credentials(&self) -> Option<Vec<&str>> {
        let password = self.config.password.as_deref()?;
        Some(self.config.username.as_deref().into_iter().chain([password]).collect())
    }
}

fn parse(url: &str) -> Result<Config, SetupError> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("redis" | "valkey") => {}
        Some("rediss" | "valkeys") => return Err(SetupError::Tls),
        _ => return Err(SetupError::Scheme),
    }
    Config::from_url_centralized(url).map_err(|error| SetupError::Url(error.details().to_owned()))
}

/// `host:port`; never the password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    fn of_url(url: &str) -> Result<Server, SetupError> {
        Server::new(&RedisSettings { url: Some(Secret::new(url)), ..RedisSettings::default() })
    }

    #[test]
    fn the_url_wins() {
        let server = of_url("redis://me:s3cret%21@redis.example:7000/2").unwrap();
        assert_eq!(server.address(), ("redis.example", 7000));
        assert_eq!(server.credentials().unwrap(), ["me", "s3cret!"]);
        assert_eq!(server.to_string(), "redis.example:7000");
        assert_eq!(of_url("redis://h").unwrap().address(), ("h", 6379));
        assert_eq!(of_url("redis://:pw@h").unwrap().credentials().unwrap(), ["pw"]);
        assert_eq!(of_url("redis://[::1]:7").unwrap().address(), ("::1", 7));
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_password() {
        assert_eq!(of_url("rediss://h").err(), Some(SetupError::Tls));
        assert_eq!(of_url("http://h").err(), Some(SetupError::Scheme));
        assert_eq!(of_url("redis-cluster://h").err(), Some(SetupError::Scheme));
        assert_eq!(of_url("localhost:6379").err(), Some(SetupError::Scheme));
        let error = of_url("redis://me:s3cret@h:notaport").err().unwrap();
        assert!(matches!(error, SetupError::Url(_)));
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn without_a_url_the_fields_count() {
        let settings = RedisSettings {
            host: Some("h".to_owned()),
            port: 1,
            password: Some(Secret::new("pw")),
            ..RedisSettings::default()
        };
        let server = Server::new(&settings).unwrap();
        assert_eq!(server.address(), ("h", 1));
        assert_eq!(server.credentials().unwrap(), ["pw"]);
        assert!(Server::new(&RedisSettings::default()).unwrap().credentials().is_none());
    }
}
