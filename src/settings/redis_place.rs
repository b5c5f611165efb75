//! Where Redis is and how it is reached: what the URL and the fields of `[bus.redis]` come to. Pure.
//!
//! A URL says everything about the place in one; where there is one, the fields of the place are not looked at, but
//! for the files and names that no URL has. Texts of errors repeat nothing of a URL, which holds a password.

use http::uri::Authority;
use serde::{Deserialize, Serialize};

use super::{RedisSettings, Secret};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// How an error goes on.
const LIKE: &str = "write it like redis://user:password@host:6379, \
                    redis-sentinel://user:password@sentinel1:26379,sentinel2:26379/mymaster or \
                    redis-cluster://user:password@host1:6379,host2:6379 (rediss… for TLS)";

/// How Redis is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// As the URL says; without one, Sentinel where a master is named, else a single server.
    #[default]
    Auto,
    /// One server.
    Standalone,
    /// One primary at a time, which the Sentinels name.
    Sentinel,
    /// Several primaries that share the users among them.
    Cluster,
}

impl RedisMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Standalone => "standalone",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }
}

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedisNode {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPlace {
    /// Never `Auto`.
    pub mode: RedisMode,
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// The server, the Sentinels, or some nodes of the Cluster; at least one.
    pub nodes: Vec<RedisNode>,
    /// The name under which the Sentinels know the primary; there in Sentinel mode alone.
    pub master: Option<String>,
    /// The numbered database; of a Cluster there is none but 0.
    pub database: u8,
}

impl RedisSettings {
    /// What the URL, or else the fields, come to.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence; without any secret.
    pub fn place(&self) -> Result<RedisPlace, String> {
        if let Some(url) = &self.url {
            return parse(url.expose());
        }
        let mode = match self.mode {
            RedisMode::Auto if self.sentinel_master.is_some() => RedisMode::Sentinel,
            RedisMode::Auto => RedisMode::Standalone,
            mode => mode,
        };
        let nodes = if self.nodes.is_empty() {
            let host = self.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
            vec![RedisNode { host, port: self.port }]
        } else {
            let parsed = self.nodes.iter().map(|text| node(text, port(mode)));
            parsed.collect::<Option<_>>().ok_or("a node is not host:port")?
        };
        let place = RedisPlace {
            mode,
            tls: self.tls,
            username: self.username.clone(),
            password: self.password.clone(),
            nodes,
            master: self.sentinel_master.clone(),
            database: 0,
        };
        place.checked()
    }
}

impl RedisPlace {
    fn checked(self) -> Result<Self, String> {
        let count = self.nodes.len();
        match self.mode {
            RedisMode::Sentinel if self.master.is_none() => {
                Err("Sentinel needs the name of the master; name it in bus.redis.sentinel_master, \
                     or behind the hosts of the URL, as in /mymaster"
                    .to_owned())
            }
            RedisMode::Standalone | RedisMode::Cluster if self.master.is_some() => Err(format!(
                "a master is named, but the mode is {}; set bus.redis.mode to sentinel, or name none",
                self.mode.name()
            )),
            RedisMode::Standalone if count > 1 => Err(format!(
                "{count} servers are named, but the mode is standalone; set bus.redis.mode to sentinel or \
                 cluster, or name one"
            )),
            RedisMode::Cluster if self.database > 0 => {
                Err("a Cluster has no databases with numbers".to_owned())
            }
            _ => Ok(self),
        }
    }
}

fn port(mode: RedisMode) -> u16 {
    if mode == RedisMode::Sentinel { SENTINEL_PORT } else { PORT }
}

/// `host`, `host:port`, `[::1]:port`
pub(super) fn node(text: &str, default: u16) -> Option<RedisNode> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let port = match authority.port_u16() {
        Some(0) => return None,
        Some(port) => port,
        // Something stands there that is no port.
        None if text.len() > host.len() => return None,
        None => default,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| RedisNode { host: host.to_owned(), port })
}

/// Reads a URL.
pub(super) fn parse(text: &str) -> Result<RedisPlace, String> {
    let wrong = |what: &str| format!("{what}; {LIKE}");
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(wrong("it has spaces; percent-encode what is special in a password"));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it is not a URL"))?;
    let (mode, tls) = match scheme {
        "redis" | "valkey" => (RedisMode::Standalone, false),
        "rediss" | "valkeys" => (RedisMode::Standalone, true),
        "redis-sentinel" => (RedisMode::Sentinel, false),
        "rediss-sentinel" => (RedisMode::Sentinel, true),
        "redis-cluster" => (RedisMode::Cluster, false),
        "rediss-cluster" => (RedisMode::Cluster, true),
        _ => return Err(wrong("it does not begin with redis:// or one of its kin")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    let nodes: Option<Vec<_>> = hosts.split(',').map(|host| node(host, port(mode))).collect();
    let nodes = nodes.ok_or_else(|| wrong("it has no valid host and port"))?;
    let (username, password) = match user {
        Some(user) => {
            credentials(user).ok_or_else(|| wrong("its user or password is not percent-encoded"))?
        }
        None => (None, None),
    };
    let (master, database) = path(mode, after).ok_or_else(|| wrong(after_hosts(mode)))?;
    RedisPlace { mode, tls, username, password, nodes, master, database }.checked()
}

fn after_hosts(mode: RedisMode) -> &'static str {
    match mode {
        RedisMode::Sentinel => "behind the hosts must stand the name of the master",
        RedisMode::Cluster => "nothing may stand behind the hosts of a Cluster",
        _ => "what follows the port must be a database's number, or nothing",
    }
}

/// The master and the database in what follows the hosts.
fn path(mode: RedisMode, after: &str) -> Option<(Option<String>, u8)> {
    let names = after.strip_prefix('/').unwrap_or(after);
    if names.contains(['?', '#']) {
        return None;
    }
    let (master, database) = match mode {
        RedisMode::Sentinel => {
            let (master, database) = names.split_once('/').unwrap_or((names, ""));
            (Some(decode(master).filter(|master| !master.is_empty())?), database)
        }
        _ => (None, names),
    };
    let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
    Some((master, database?))
}

fn credentials(user: &str) -> Option<(Option<String>, Option<Secret>)> {
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(Secret::new(decode(password)?))),
        None => (user, None),
    };
    let name = decode(name)?;
    Some(((!name.is_empty()).then_some(name), password))
}

/// Undoes percent-encoding (RFC 3986, 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(place: &RedisPlace) -> Vec<(&str, u16)> {
        place.nodes.iter().map(|node| (node.host.as_str(), node.port)).collect()
    }

    #[test]
    fn a_url_says_everything() {
        let one = parse("rediss://me:s3cret%21@redis.example:7000/2").unwrap();
        assert_eq!((one.mode, one.tls, one.database), (RedisMode::Standalone, true, 2));
        assert_eq!(nodes(&one), [("redis.example", 7000)]);
        assert_eq!(one.username.as_deref(), Some("me"));
        assert_eq!(one.password.unwrap().expose(), "s3cret!");
        let watched = parse("redis-sentinel://:pw@s1,s2:5/mymaster").unwrap();
        assert_eq!(
            (watched.mode, watched.master.as_deref()),
            (RedisMode::Sentinel, Some("mymaster"))
        );
        assert_eq!(nodes(&watched), [("s1", 26379), ("s2", 5)]);
        assert_eq!((watched.username, watched.password.unwrap().expose()), (None, "pw"));
        let cluster = parse("rediss-cluster://[::1]:1,h").unwrap();
        assert_eq!((cluster.mode, cluster.tls), (RedisMode::Cluster, true));
        assert_eq!(nodes(&cluster), [("::1", 1), ("h", 6379)]);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (bad, why) in [
            ("h:6379", "not a URL"),
            ("http://h:1", "does not begin with"),
            ("redis://", "no valid host"),
            ("redis://u:geheim@", "no valid host"),
            ("redis://h:0", "no valid host"),
            ("redis://h:geheim/0", "no valid host"),
            ("redis://h:99999", "no valid host"),
            ("redis://h:", "no valid host"),
            ("redis://h:6379/geheim", "database"),
            ("redis://h?geheim", "database"),
            ("redis://a,b", "2 servers"),
            ("redis://u:ge heim@h", "spaces"),
            ("redis://u:geheim%zz@h", "percent-encoded"),
            ("redis-sentinel://h", "name of the master"),
            ("redis-sentinel://h,/m", "no valid host"),
            ("redis-cluster://h/1", "no databases"),
            ("redis-cluster://h/m", "nothing may stand"),
        ] {
            let said = parse(bad).expect_err(bad);
            assert!(said.contains(why), "{bad}: {said}");
            assert!(!said.contains("geheim"), "{said}");
        }
    }

    #[test]
    fn without_a_url_the_fields_count() {
        let fields = RedisSettings::default();
        let place = fields.place().unwrap();
        assert_eq!((place.mode, nodes(&place)), (RedisMode::Standalone, vec![("127.0.0.1", 6379)]));
        let mut fields = RedisSettings {
            nodes: vec!["s1".to_owned(), "[::1]:7".to_owned()],
            sentinel_master: Some("m".to_owned()),
            ..fields
        };
        let place = fields.place().unwrap();
        assert_eq!(place.mode, RedisMode::Sentinel);
        assert_eq!(nodes(&place), [("s1", 26379), ("::1", 7)]);
        fields.mode = RedisMode::Cluster;
        assert!(fields.place().unwrap_err().contains("a master is named"));
        fields.sentinel_master = None;
        assert_eq!(fields.place().unwrap().mode, RedisMode::Cluster);
        fields.mode = RedisMode::Standalone;
        assert!(fields.place().unwrap_err().contains("2 servers"));
    }
}
