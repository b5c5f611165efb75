//! How a commanding connection is made: found, logged in, taught the scripts, and its history settled.
//!
//! Invariant: a connection is handed out only when whatever was sent over the one before it is done, or never will be.

use std::sync::{Arc, PoisonError};

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike as _, LuaInterface as _};
use fred::types::Value;
use fred::types::config::{ConnectionConfig, PerformanceConfig};

use super::{Commands, IN_FLIGHT};
use crate::bus::redis::barrier::Barrier;
use crate::bus::redis::breaker::Breaker;
use crate::bus::redis::lineage::{self, History, Unsettled};
use crate::bus::redis::link::{Link, Running};
use crate::bus::redis::server::Server;

/// A connection that was just made, and what runs it.
pub(super) struct Opened {
    pub(super) link: Arc<Link>,
    pub(super) running: Running,
    /// Of the connection that waits for replicas.
    pub(super) waiting: Option<Running>,
}

impl Commands {
    /// A connection that knows the scripts, and whose history is settled.
    pub(super) async fn open(&self) -> Result<Opened, Unsettled> {
        let server = self.finder.find().await.map_err(Unsettled::Nowhere)?;
        let (client, running) = self.connect(&server).await?;
        for script in self.scripts.all() {
            client.script_load::<(), _>(script.text.as_str()).await?;
        }
        let tag = &self.tag.get();
        let history = self.lineage.settle(&client, &self.scripts, tag).await?;
        self.supersede(&client, &history).await;
        let breaker = Breaker::default();
        let mut waiting = None;
        let mut barrier = None;
        if self.min_replicas > 0 {
            let (client, running) = self.connect(&server).await?;
            lineage::same_process(&client, &history).await?;
            let (replicas, history) = (self.min_replicas, Arc::clone(&history));
            let demands = (replicas, self.patience);
            barrier = Some(Barrier::new(client, demands, tag, history, breaker.clone()));
            waiting = Some(running);
        }
        let link = Arc::new(Link { server, client, breaker, history, barrier });
        Ok(Opened { link, running, waiting })
    }

    /// Ends the connection before this one in the server, too, which may not have heard that it was given up: what was
    /// sent over it and is still on its way would be done after what is sent over this one, as a seat that is taken after
    /// it was given back. Where the server does not let us do that, or there is no fence, it stays as it is.
    async fn supersede(&self, client: &Client, history: &History) {
        if history.run_id.is_empty() {
            return;
        }
        let ask = |words: Vec<Value>| lineage::call::<u64>(client, "CLIENT", words);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The numbers of connections begin anew with each process.
        if let Some((_, number)) = last.filter(|(run_id, _)| *run_id == history.run_id) {
            let words = vec!["KILL".into(), "ID".into(), number.to_string().into()];
            if let Err(error) = ask(words).await {
                tracing::debug!(target: "Bus", "the last connection was not ended: {}", error.details());
            }
        }
        let number = ask(vec!["ID".into()]).await.ok();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            number.map(|number| (history.run_id.clone(), number));
    }

    /// One client of the library, for one connection.
    async fn connect(&self, server: &Server) -> Result<(Client, Running), Error> {
        let performance = PerformanceConfig {
            default_command_timeout: self.patience,
            ..PerformanceConfig::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: self.patience,
            internal_command_timeout: self.patience,
            max_command_attempts: 1,
            max_command_buffer_len: IN_FLIGHT * 2,
            ..ConnectionConfig::default()
        };
        // Without a policy the library ends the client when its connection ends, and retries nothing.
        let client = Client::new(server.config(), Some(performance), Some(connection), None);
        let mut running = Running(client.connect());
        tokio::select! {
            connected = client.wait_for_connect() => connected?,
            // Its own error says more than any wait for it.
            result = &mut running.0 => return Err(result.ok().and_then(Result::err).unwrap_or_else(ended)),
            // Several steps, each with its own time.
            () = tokio::time::sleep(self.patience * 3) => return Err(ended()),
        }
        Ok((client, running))
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Canceled, "the connection ended before it was ready")
}
