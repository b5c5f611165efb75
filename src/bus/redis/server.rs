//! Which Redis, and as whom: from the settings, before anything connects; and how one server is dialled.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fred::types::RespVersion;
use fred::types::config::{Config, ServerConfig, TlsConfig, TlsConnector as FredConnector};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::settings::{RedisMode, RedisNode, RedisSettings, Secret};

/// Why the settings name no Redis that can be used. Says nothing of the URL itself, which holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("bus.redis names no place: {0}")]
    Place(String),
    #[error("TLS to Redis: {0}")]
    Tls(String),
}

impl SetupError {
    pub(super) fn tls(file: &Path, why: impl fmt::Display) -> Self {
        Self::Tls(format!("{}: {why}", file.display()))
    }
}

/// What the settings come to.
pub(super) struct Setup {
    pub(super) mode: RedisMode,
    /// The server, the Sentinels, or some nodes of the Cluster.
    pub(super) nodes: Vec<Server>,
    /// How to log in at the servers that Sentinels or the Cluster name.
    pub(super) login: Arc<Login>,
    /// The name that the Sentinels know; empty in other modes.
    pub(super) master: String,
}

/// How to log in, and whether by TLS.
pub(super) struct Login {
    username: Option<String>,
    password: Option<Secret>,
    database: u8,
    tls: Option<Arc<ClientConfig>>,
}

impl Setup {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, SetupError> {
        let place = settings.place().map_err(SetupError::Place)?;
        let tls = if place.tls { Some(tls::config(settings)?) } else { None };
        let login = Arc::new(Login {
            username: place.username,
            password: place.password,
            database: place.database,
            tls: tls.clone(),
        });
        let of_nodes = if place.mode == RedisMode::Sentinel {
            let username = settings.sentinel_username.clone();
            let password = settings.sentinel_password.clone();
            Arc::new(Login { username, password, database: 0, tls })
        } else {
            Arc::clone(&login)
        };
        let nodes = place.nodes.into_iter();
        Ok(Self {
            mode: place.mode,
            nodes: nodes.map(|node| Server::new(node, Arc::clone(&of_nodes))).collect(),
            login,
            master: place.master.unwrap_or_default(),
        })
    }
}

/// One server, and the name to log in with; clones are cheap.
#[derive(Clone)]
pub(super) struct Server {
    node: Arc<RedisNode>,
    login: Arc<Login>,
}

impl Server {
    pub(super) fn new(node: RedisNode, login: Arc<Login>) -> Self {
        Self { node: Arc::new(node), login }
    }

    pub(super) fn node(&self) -> &RedisNode {
        &self.node
    }

    /// For one client of the library: one server, tried once. When to try again is decided here.
    pub(super) fn config(&self) -> Config {
        let Login { username, password, database, tls } = &*self.login;
        let tls = tls.as_ref().map(|config| {
            TlsConfig::from(FredConnector::Rustls(TlsConnector::from(Arc::clone(config))))
        });
        Config {
            server: ServerConfig::new_centralized(&self.node.host, self.node.port),
            username: username.clone(),
            password: password.as_ref().map(|password| password.expose().to_owned()),
            database: (*database > 0).then_some(*database),
            version: RespVersion::RESP2,
            fail_fast: true,
            tls,
            ..Config::default()
        }
    }

    /// The arguments of `AUTH`, where a password is set.
    pub(super) fn credentials(&self) -> Option<Vec<&str>> {
        let password = self.login.password.as_ref()?.expose();
        Some(self.login.username.as_deref().into_iter().chain([password]).collect())
    }

    /// A connection of our own, not logged in yet.
    pub(super) async fn dial(&self) -> io::Result<Stream> {
        let RedisNode { host, port } = &*self.node;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.login.tls else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// `host:port`; never the password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RedisNode { host, port } = &*self.node;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Plain, or by TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_url(url: &str) -> Result<Setup, SetupError> {
        Setup::new(&RedisSettings { url: Some(Secret::new(url)), ..RedisSettings::default() })
    }

    #[test]
    fn one_server_as_the_url_says() {
        let setup = of_url("redis://me:s3cret%21@redis.example:7000/2").unwrap();
        let server = setup.nodes.first().unwrap();
        assert_eq!(server.credentials().unwrap(), ["me", "s3cret!"]);
        assert_eq!(server.to_string(), "redis.example:7000");
        assert_eq!(server.config().database, Some(2));
        assert_eq!(of_url("redis://[::1]:7").unwrap().nodes[0].to_string(), "[::1]:7");
        assert!(of_url("redis://h").unwrap().nodes[0].credentials().is_none());
    }

    #[test]
    fn sentinels_have_a_login_of_their_own() {
        let setup = Setup::new(&RedisSettings {
            url: Some(Secret::new("redis-sentinel://me:pw@s1,s2/m")),
            sentinel_password: Some(Secret::new("other")),
            ..RedisSettings::default()
        });
        let setup = setup.unwrap();
        assert_eq!(setup.nodes[1].credentials().unwrap(), ["other"]);
        let named = Server::new(RedisNode { host: "h".to_owned(), port: 1 }, setup.login);
        assert_eq!(named.credentials().unwrap(), ["me", "pw"]);
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_password() {
        let error = of_url("redis://me:geheim@h:notaport").err().unwrap();
        assert!(matches!(error, SetupError::Place(_)));
        assert!(!error.to_string().contains("geheim"), "{error}");
        let settings = RedisSettings {
            tls: true,
            tls_ca: Some("/nonexistent/ca.pem".into()),
            ..RedisSettings::default()
        };
        let error = Setup::new(&settings).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }
}
