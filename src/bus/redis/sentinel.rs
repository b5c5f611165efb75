//! Who is the primary, as the Sentinels say.
//!
//! Walk: all of them are asked at once, and of the answers the one counts that is of the latest configuration: one that is cut off
//! from the others goes on naming a primary of the past. Whoever is named must say of itself that it is one. While a
//! connection stands, the question is repeated, so that a primary which lost its place without losing
//! its connections is left.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::ask::{Unanswered, ask};
use super::server::{Login, Server};
use crate::settings::RedisNode;

/// Between two looks at what the Sentinels say, while all is well.
const LOOK: Duration = Duration::from_secs(1);

/// A Sentinel that takes longer is not waited for.
const LONGEST: Duration = Duration::from_secs(1);

/// The Sentinels of one primary.
pub(super) struct Sentinels {
    nodes: Vec<Server>,
    master: String,
    /// At the servers that they name.
    login: Arc<Login>,
    patience: Duration,
}

impl Sentinels {
    pub(super) fn new(
        nodes: Vec<Server>,
        master: String,
        login: Arc<Login>,
        patience: Duration,
    ) -> Self {
        Self { nodes, master, login, patience: patience.min(LONGEST) }
    }

    /// The present primary, which says itself that it is one.
    pub(super) async fn find(&self) -> Result<Server, String> {
        let server = self.named().await?;
        let about = || format!("{server}, which the Sentinels name,");
        match tokio::time::timeout(self.patience, ask(&server, [&["ROLE"]])).await {
            Ok(Ok([role])) => match role.list().first().and_then(|role| role.text()) {
                Some("master") => Ok(server),
                role => Err(format!("{} says it is a {}", about(), role.unwrap_or("mystery"))),
            },
            Ok(Err(error)) => Err(format!("{} does not say what it is: {error}", about())),
            Err(_elapsed) => Err(format!("{} did not answer in time", about())),
        }
    }

    /// Whom the latest configuration names.
    async fn named(&self) -> Result<Server, String> {
        let answers = join_all(self.nodes.iter().map(|node| self.ask(node))).await;
        let mut why = "no Sentinel is named".to_owned();
        let mut best: Option<(u64, RedisNode)> = None;
        for (node, answer) in self.nodes.iter().zip(answers) {
            match answer {
                Ok(named) if best.as_ref().is_none_or(|best| best.0 < named.0) => {
                    best = Some(named);
                }
                Ok(_) => {}
                Err(error) => why = format!("the Sentinel at {node} names no primary: {error}"),
            }
        }
        best.map(|(_, node)| Server::new(node, Arc::clone(&self.login))).ok_or(why)
    }

    /// What one of them says: the number of the configuration, and the primary.
    async fn ask(&self, sentinel: &Server) -> Result<(u64, RedisNode), Unanswered> {
        let question = ["SENTINEL", "MASTER", &self.master];
        let asked = ask(sentinel, [&question[..]]);
        let Ok(answer) = tokio::time::timeout(self.patience, asked).await else {
            return Err(Unanswered::Io(std::io::ErrorKind::TimedOut.into()));
        };
        let [about] = answer?;
        let named = || {
            let host = about.field("ip")?.to_owned();
            let port = about.field("port")?.parse().ok()?;
            Some((about.field("config-epoch")?.parse().ok()?, RedisNode { host, port }))
        };
        named().ok_or(Unanswered::Malformed(super::resp::Malformed))
    }

    /// Tells `named` whom the Sentinels name, again and again, until `stop`.
    pub(super) async fn watch(&self, stop: &CancellationToken, named: impl Fn(&Server)) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Ok(server) = self.named().await {
                named(&server);
            }
        }
    }
}

/// `mymaster by 10.0.0.1:26379, 10.0.0.2:26379`
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by ", self.master)?;
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, "{}{node}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
