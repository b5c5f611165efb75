//! Where a fault takes place: two nodes, the pairs on them, and a single Redis that each node reaches through a relay
//! of its own.

use std::time::Duration;

use crate::harness::gateway_process::Node;
use crate::harness::pairs::{Pairs, Plan};
use crate::harness::redis::RedisServer;
use crate::harness::relay::Relay;
use crate::harness::report::{Line, Losses};

/// How much of it all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) pairs: usize,
    /// Between two messages of a user.
    pub(crate) every: Duration,
    /// How long something is broken: longer than a command may take.
    pub(crate) outage: Duration,
    pub(crate) command_timeout: Duration,
    /// For recovery, and for the last message to arrive.
    pub(crate) patience: Duration,
}

impl Size {
    /// Messages that all users together send within a second.
    pub(crate) fn messages_a_second(&self) -> u64 {
        let users = u64::try_from(self.pairs * 2).unwrap();
        users * 1_000 / u64::try_from(self.every.as_millis()).unwrap()
    }
}

/// One Redis, with a relay before it for each node.
pub(crate) struct Single {
    pub(crate) redis: RedisServer,
    pub(crate) relays: [Relay; 2],
}

impl Single {
    pub(crate) async fn start() -> Self {
        let redis = RedisServer::start().await;
        let relays =
            [Relay::before_port(redis.port()).await, Relay::before_port(redis.port()).await];
        Self { redis, relays }
    }

    pub(crate) fn urls(&self) -> [String; 2] {
        [&self.relays[0], &self.relays[1]].map(|relay| format!("redis://{}", relay.address()))
    }
}

/// The nodes, and the pairs that talk over them.
pub(crate) struct Stage {
    pub(crate) nodes: [Node; 2],
    pub(crate) pairs: Pairs,
    size: Size,
    connections: u64,
}

impl Stage {
    /// Two nodes, each with its way to the bus, and everybody talking for a while.
    pub(crate) async fn open(size: &Size, urls: [String; 2]) -> Self {
        let timeout = format!("{}ms", size.command_timeout.as_millis());
        let grace = format!("{}ms", size.outage.as_millis());
        let variables = [
            ("CONF__BUS__REDIS__COMMAND_TIMEOUT", timeout.as_str()),
            ("CONF__SHUTDOWN__GRACE", grace.as_str()),
        ];
        let nodes = urls.map(|url| Node::start(&url, &variables));
        for node in &nodes {
            node.is_ready(true).await;
        }
        let plan = Plan {
            pairs: size.pairs,
            every: size.every,
            hubs: nodes.iter().map(Node::hub).collect(),
            patience: size.patience,
        };
        let pairs = Pairs::start(&plan).await;
        pairs.talked(size.messages_a_second() / 2).await;
        let connections = pairs.connections();
        Self { nodes, pairs, size: *size, connections }
    }

    /// The fault is over: waits for the recovery, lets them talk a little more, and settles all accounts.
    pub(crate) async fn close(self, fault: &'static str, losses: Losses) -> Line {
        let recovery = self.pairs.recovered(self.pairs.now()).await;
        self.pairs.talked(self.size.messages_a_second() / 2).await;
        let reconnects = self.pairs.connections() - self.connections;
        let account = self.pairs.finish().await;
        let logs = self.nodes.iter().map(Node::log).collect();
        Line { fault, losses, account, reconnects, recovery, logs }
    }
}

/// Waits until a replica is in step with its primary.
pub(crate) async fn in_step(replica: &RedisServer) {
    replica.until(&["INFO", "replication"], "master_link_status:up").await;
}
