//! Whether the server's data is still the history that positions were given out in.
//!
//! Walk: before a connection is used, [`Lineage::settle`] asks the server who it is (`INFO`), looks at the line that is
//! recorded in it, [`judge`]s, has the witnesses heard where that is the question, and writes the verdict with
//! one script that takes nothing that changed meanwhile. The *line* is part of every epoch: another line,
//! and every client learns that something may be missing.
//!
//! Invariants: a promoted replica is always another line, since what its primary had acknowledged may be missing
//! in it, and be given out again. A restart goes on only where the data proves that nothing is lost: by the
//! witnesses of this process, or, where there are none, by an append-only file. Scripts name the replication id that
//! was settled, so that a server which became another one under a standing connection answers nothing.

use std::sync::{Arc, Mutex, PoisonError};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike as _, LuaInterface as _};
use fred::types::{ClusterHash, CustomCommand, Key, Value};
use futures_util::future::join_all;

use super::names;
use super::script::Scripts;
use super::witness::{Claim, Witnesses};
use crate::settings::Fence;

/// How often somebody else may be first, or the server may turn into another one, while we settle.
const ATTEMPTS: usize = 8;

/// What one connection may rely on.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Ends the epoch of every user; empty where there is no fence.
    pub(super) line: String,
    /// What `INFO replication` must contain, for scripts; empty where they are not to look.
    pub(super) fence: String,
    /// The replication id; empty where there is no fence.
    pub(super) replid: String,
    /// Which process the server is; empty where there is no fence.
    pub(super) run_id: String,
    /// The number of the connection, for the witnesses.
    pub(super) generation: u64,
    /// Positions given out before may be void: everybody must look again.
    pub(super) changed: bool,
}

/// Why a connection cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsettled {
    #[error("{}", .0.details())]
    Redis(#[from] Error),
    #[error(
        "it refuses INFO, by which its history is told ({0}); allow it, or set bus.redis.fence = \"off\""
    )]
    NoInfo(String),
    #[error("it refuses INFO in scripts ({0}); allow it, or set bus.redis.fence = \"connection\"")]
    NoInfoInScripts(String),
    #[error("{0}")]
    Nowhere(String),
    #[error("its INFO names no {0}; set bus.redis.fence = \"off\"")]
    Unknown(&'static str),
    #[error("it is a replica and takes no writes (READONLY)")]
    Replica,
    #[error("others settle its history at the same time, again and again")]
    Contested,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    replid: String,
    run_id: String,
    /// It went on from another server's history, as a promoted replica does.
    inherits: bool,
    /// It writes an append-only file.
    appends: bool,
}

/// What is recorded in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recorded {
    line: String,
    replid: String,
    run_id: String,
}

/// What this process settled last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    line: String,
    replid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// The recorded line goes on.
    Same,
    /// Nothing is recorded any more, but this server is the one whose line this process knows.
    Known,
    /// It goes on if every witness is there; where there is no witness, only if nothing is said here.
    Hear(Option<&'static str>),
    /// Another line begins.
    New(&'static str),
}

/// What the witnesses say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    Nothing,
    AllThere,
    Missing,
}

/// The line of one primary, as this process knows it.
pub(super) struct Lineage {
    fence: Fence,
    /// How long the record lives in Redis.
    life_ms: i64,
    known: Mutex<Option<Known>>,
    pub(super) witnesses: Witnesses,
}

impl Lineage {
    pub(super) fn new(fence: Fence, life_ms: i64, witnesses: Witnesses) -> Self {
        Self { fence, life_ms, known: Mutex::new(None), witnesses }
    }

    /// Finds the line that a new connection belongs to. `tag` puts the record into a slot of this server.
    pub(super) async fn settle(
        &self,
        client: &Client,
        scripts: &Scripts,
        tag: &str,
    ) -> Result<Arc<History>, Unsettled> {
        let generation = self.witnesses.turn();
        if self.fence == Fence::Off {
            return Ok(Arc::new(History { generation, ..History::default() }));
        }
        for _ in 0..ATTEMPTS {
            let settled = self.attempt(client, scripts, &names::lineage(tag), generation).await?;
            if let Some(history) = settled {
                return Ok(Arc::new(history));
            }
        }
        Err(Unsettled::Contested)
    }

    async fn attempt(
        &self,
        client: &Client,
        scripts: &Scripts,
        key: &str,
        generation: u64,
    ) -> Result<Option<History>, Unsettled> {
        let server = identity(client).await?;
        let recorded = recorded(client, key).await?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (line, why) = self.line(client, &server, recorded.as_ref(), known.as_ref()).await?;
        let fence = match self.fence {
            Fence::Script => format!("master_replid:{}", server.replid),
            Fence::Connection | Fence::Off => String::new(),
        };
        if !self.write(client, scripts, key, (&fence, &line, &server, recorded.as_ref())).await? {
            return Ok(None);
        }
        if self.fence == Fence::Connection && identity(client).await? != server {
            return Ok(None);
        }
        match why {
            Some(why) if recorded.is_some() => tracing::warn!(
                target: "Bus",
                "Redis goes on with another history ({why}): positions of before are void, and clients are told",
            ),
            Some(why) => tracing::info!(target: "Bus", "Redis begins a history: {why}"),
            None => {}
        }
        let changed = known.is_some_and(|known| known.line != line || recorded.is_none());
        if changed {
            self.witnesses.forget();
        }
        let Identity { replid, run_id, .. } = server;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Known { line: line.clone(), replid: replid.clone() });
        Ok(Some(History { line, fence, replid, run_id, generation, changed }))
    }

    /// The line that goes on, or a new one and why.
    async fn line(
        &self,
        client: &Client,
        server: &Identity,
        recorded: Option<&Recorded>,
        known: Option<&Known>,
    ) -> Result<(String, Option<&'static str>), Error> {
        let new = |why| Ok((names::line(), Some(why)));
        let same = recorded.map(|recorded| recorded.line.clone()).unwrap_or_default();
        match judge(server, recorded, known) {
            Judgement::Same => Ok((same, None)),
            Judgement::Known => {
                Ok((known.map(|known| known.line.clone()).unwrap_or_default(), None))
            }
            Judgement::New(why) => new(why),
            Judgement::Hear(otherwise) => {
                let ours = known.is_some_and(|known| known.line == same);
                let claims = if ours { self.witnesses.claims() } else { Vec::new() };
                match (hear(client, claims).await?, otherwise) {
                    (Evidence::AllThere, _) | (Evidence::Nothing, None) => Ok((same, None)),
                    (Evidence::Missing, _) => new("it was restarted without all that it had"),
                    (Evidence::Nothing, Some(why)) => new(why),
                }
            }
        }
    }

    /// Records the verdict; false where what it rests on has changed.
    async fn write(
        &self,
        client: &Client,
        scripts: &Scripts,
        key: &str,
        (fence, line, server, recorded): (&str, &str, &Identity, Option<&Recorded>),
    ) -> Result<bool, Unsettled> {
        let (old_line, old_replid) =
            recorded.map_or(("", ""), |recorded| (&recorded.line, &recorded.replid));
        let texts = [fence, old_line, old_replid, line, &server.replid, &server.run_id];
        let mut values: Vec<Value> = texts.map(Value::from).to_vec();
        values.push(Value::Integer(self.life_ms));
        let settle = scripts.settle.hash.as_str();
        let answer: Result<i64, Error> = client.evalsha(settle, Key::from(key), values).await;
        match answer {
            Ok(written) => Ok(written == 1),
            Err(error) => match error.details().split_once("NOINFO ") {
                Some((_, why)) => Err(Unsettled::NoInfoInScripts(why.to_owned())),
                None => Err(error.into()),
            },
        }
    }
}

/// Makes sure that a second connection leads to the same process as the first, whose history this is.
pub(super) async fn same_process(client: &Client, history: &History) -> Result<(), Unsettled> {
    let same = history.run_id.is_empty() || identity(client).await?.run_id == history.run_id;
    if same { Ok(()) } else { Err(Unsettled::Contested) }
}

/// What becomes of the line, as far as the server's own word goes.
fn judge(server: &Identity, recorded: Option<&Recorded>, known: Option<&Known>) -> Judgement {
    let known_here = known.is_some_and(|known| known.replid == server.replid);
    let Some(recorded) = recorded else {
        return if known_here {
            Judgement::Known
        } else {
            Judgement::New("none was recorded in it")
        };
    };
    if recorded.replid == server.replid {
        // Somebody settled it after a restart that this process has not seen yet: our witnesses count, too.
        let ours = known.is_some_and(|known| known.line == recorded.line);
        return if ours && !known_here { Judgement::Hear(None) } else { Judgement::Same };
    }
    if known_here {
        // What is recorded is another server's: in a Cluster it may have come here with its slot.
        return Judgement::Known;
    }
    if server.inherits {
        return Judgement::New("a replica was promoted, or a replicated server restarted");
    }
    if recorded.run_id == server.run_id || server.appends {
        // A primary without replicas takes another id by itself after a while.
        return Judgement::Hear(None);
    }
    Judgement::Hear(Some(
        "it was restarted without an append-only file, and nobody can tell what it lost",
    ))
}

async fn identity(client: &Client) -> Result<Identity, Unsettled> {
    let text: String = call(client, "INFO", Vec::new()).await.map_err(|error| {
        if error.details().starts_with("NOPERM") {
            Unsettled::NoInfo(error.details().to_owned())
        } else {
            Unsettled::Redis(error)
        }
    })?;
    parse(&text)
}

fn parse(info: &str) -> Result<Identity, Unsettled> {
    let find = |name: &str| {
        info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    };
    let need = |name| find(name).map(str::to_owned).ok_or(Unsettled::Unknown(name));
    if find("role").is_some_and(|role| role != "master") {
        return Err(Unsettled::Replica);
    }
    Ok(Identity {
        replid: need("master_replid")?,
        run_id: need("run_id")?,
        inherits: find("master_replid2").is_some_and(|id| id.bytes().any(|digit| digit != b'0')),
        appends: find("aof_enabled") == Some("1"),
    })
}

async fn recorded(client: &Client, key: &str) -> Result<Option<Recorded>, Error> {
    let fields = ["line", "replid", "run_id"];
    let words = [key].into_iter().chain(fields).map(Value::from).collect();
    let fields: Vec<Option<String>> = call(client, "HMGET", words).await?;
    Ok(match <[Option<String>; 3]>::try_from(fields) {
        Ok([Some(line), Some(replid), Some(run_id)]) => Some(Recorded { line, replid, run_id }),
        _ => None,
    })
}

/// Holds what must be there against the data.
async fn hear(client: &Client, claims: Vec<Claim>) -> Result<Evidence, Error> {
    let mut evidence = Evidence::Nothing;
    let answers = join_all(claims.into_iter().map(|claim| is_there(client, claim))).await;
    for answer in answers {
        match answer {
            Ok(true) if evidence == Evidence::Nothing => evidence = Evidence::AllThere,
            Ok(true) => {}
            Ok(false) => evidence = Evidence::Missing,
            // In a Cluster, a user whose slot has gone to another server: nothing is known of him here.
            Err(error) if is_elsewhere(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(evidence)
}

async fn is_there(client: &Client, claim: Claim) -> Result<bool, Error> {
    match claim {
        Claim::Receipt { key, value } => {
            let there: Option<String> = call(client, "GET", vec![key.into()]).await?;
            Ok(there.is_some_and(|there| there == value))
        }
        Claim::Counter { key, birth, seq } => {
            let words = vec![key.into(), "birth".into(), "seq".into()];
            let there: (Option<String>, Option<u64>) = call(client, "HMGET", words).await?;
            Ok(there.0.is_some_and(|there| there == birth) && there.1 >= Some(seq))
        }
        Claim::Probe { key, number } => {
            let there: Option<u64> = call(client, "GET", vec![key.into()]).await?;
            Ok(there >= Some(number))
        }
    }
}

fn is_elsewhere(error: &Error) -> bool {
    ["MOVED", "ASK", "TRYAGAIN"].iter().any(|word| error.details().starts_with(word))
}

pub(super) async fn call<R: fred::types::FromValue>(
    client: &Client,
    verb: &'static str,
    words: Vec<Value>,
) -> Result<R, Error> {
    client.custom(CustomCommand::new_static(verb, ClusterHash::FirstKey, false), words).await
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
