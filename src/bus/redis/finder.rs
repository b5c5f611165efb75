//! Where the primary of a shard is at this moment: asked before each attempt to connect.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::sentinel::Sentinels;
use super::server::Server;

/// Who knows.
#[derive(Clone)]
pub(super) enum Finder {
    /// The settings.
    Fixed(Server),
    Sentinels(Arc<Sentinels>),
    /// The layout of the Cluster, as it was looked at last.
    Placed(Arc<Placed>),
}

/// A place that its owner changes.
pub(super) struct Placed {
    server: RwLock<Server>,
}

impl Placed {
    pub(super) fn new(server: Server) -> Self {
        Self { server: RwLock::new(server) }
    }

    pub(super) fn get(&self) -> Server {
        self.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, server: Server) {
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = server;
    }
}

impl Finder {
    /// The server to connect to now, or why none is known.
    pub(super) async fn find(&self) -> Result<Server, String> {
        match self {
            Self::Fixed(server) => Ok(server.clone()),
            Self::Sentinels(sentinels) => sentinels.find().await,
            Self::Placed(placed) => Ok(placed.get()),
        }
    }
}

/// What it is called in logs.
impl fmt::Display for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(server) => server.fmt(f),
            Self::Sentinels(sentinels) => sentinels.fmt(f),
            Self::Placed(placed) => placed.get().fmt(f),
        }
    }
}
