//! A Redis Cluster: primaries that share the slots, and a replica for each where wanted.

use std::time::{Duration, Instant};

use super::{PATIENCE, RedisServer};

const SLOTS: usize = 16_384;

/// Servers of one cluster; all are gone when it is dropped.
pub(crate) struct RedisCluster {
    /// First those that begin as primaries, each with an equal share of the slots, then their replicas in the same order.
    pub(crate) servers: Vec<RedisServer>,
    primaries: usize,
}

impl RedisCluster {
    /// A cluster that works. Where a primary is lost, the other slots stay served
    /// (`cluster-require-full-coverage no`); a replica is promoted after about two seconds.
    pub(crate) async fn start(primaries: usize, with_replicas: bool) -> Self {
        let count = if with_replicas { 2 * primaries } else { primaries };
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(member().await);
        }
        let cluster = Self { servers, primaries };
        cluster.join().await;
        if with_replicas {
            for index in primaries..count {
                let id = cluster.id(index - primaries).await;
                let replicate = ["CLUSTER", "REPLICATE", &id];
                cluster.servers[index].until(&replicate, "+OK").await;
            }
            for replica in &cluster.servers[primaries..] {
                replica.until(&["INFO", "replication"], "master_link_status:up").await;
            }
        }
        cluster.works().await;
        cluster
    }

    /// The servers meet, and the primaries share the slots.
    async fn join(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            let epoch = (index + 1).to_string();
            server.run(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            if index < self.primaries {
                let edge = |index: usize| SLOTS * index / self.primaries;
                let (from, to) = (edge(index), edge(index + 1) - 1);
                let add = ["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()];
                assert_eq!(server.run(&add).await, "+OK\r\n");
            }
        }
        for server in &self.servers[1..] {
            let port = server.port().to_string();
            let bus = server.options[3].as_str();
            self.servers[0].run(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        for server in &self.servers {
            let known = format!("cluster_known_nodes:{}\r\n", self.servers.len());
            server.until(&["CLUSTER", "INFO"], &known).await;
        }
    }

    /// Waits until every server that runs says that the cluster works.
    pub(crate) async fn works(&self) {
        for server in self.servers.iter().filter(|server| server.is_running()) {
            server.until(&["CLUSTER", "INFO"], "cluster_state:ok").await;
        }
    }

    /// `redis-cluster://127.0.0.1:1,127.0.0.1:2,…`
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> =
            self.servers.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
        format!("redis-cluster://{}", nodes.join(","))
    }

    /// The slot of a key or channel, as the servers reckon it.
    pub(crate) async fn slot(&self, key: &str) -> u16 {
        let server = self.servers.iter().find(|one| one.is_running()).unwrap();
        let answer = server.run(&["CLUSTER", "KEYSLOT", key]).await;
        answer.trim_start_matches(':').trim().parse().unwrap()
    }

    /// Which server is the primary of `slot`, as the first that runs says; while it takes that one for gone, it is asked again.
    pub(crate) async fn owner(&self, slot: u16) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let server = self.servers.iter().find(|one| one.is_running()).unwrap();
        loop {
            let nodes = server.run(&["CLUSTER", "NODES"]).await;
            if let Some(owner) = self.owner_in(&nodes, slot) {
                return owner;
            }
            assert!(Instant::now() < deadline, "nobody serves slot {slot}: {nodes}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn owner_in(&self, nodes: &str, slot: u16) -> Option<usize> {
        for line in nodes.lines().filter(|line| !line.contains("fail")) {
            let holds = |range: &str| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                let edges = (from.parse::<u16>(), to.parse::<u16>());
                matches!(edges, (Ok(from), Ok(to)) if (from..=to).contains(&slot))
            };
            if line.split(' ').skip(8).any(holds) {
                let is_it = |one: &RedisServer| line.contains(&format!(":{}@", one.port()));
                return self.servers.iter().position(is_it);
            }
        }
        None
    }

    /// Waits until another one than `old` is the primary of `slot`.
    pub(crate) async fn promoted(&self, slot: u16, old: usize) -> usize {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let nodes = self.servers.iter().find(|one| one.is_running()).unwrap();
            let info = nodes.run(&["CLUSTER", "INFO"]).await;
            // While it is only suspected to be gone, nobody serves the slot in the eyes of `owner`.
            let known = ["cluster_slots_pfail:0\r", "cluster_slots_fail:0\r"];
            if known.iter().all(|known| info.contains(known)) && self.owner(slot).await != old {
                return self.owner(slot).await;
            }
            assert!(Instant::now() < deadline, "nobody was promoted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Begins to move `slot`: from now on both sides know of it, and keys go over one by one.
    pub(crate) async fn begin_migration(&self, slot: u16, from: usize, to: usize) {
        let (slot, old, new) = (slot.to_string(), self.id(from).await, self.id(to).await);
        for (server, words) in [(to, ["IMPORTING", &old]), (from, ["MIGRATING", &new])] {
            let words = ["CLUSTER", "SETSLOT", &slot, words[0], words[1]];
            assert_eq!(self.servers[server].run(&words).await, "+OK\r\n");
        }
    }

    /// Moves the keys of `slot`, and gives it to its new server.
    pub(crate) async fn finish_migration(&self, slot: u16, from: usize, to: usize) {
        let (number, port) = (slot.to_string(), self.servers[to].port().to_string());
        loop {
            let keys = ["CLUSTER", "GETKEYSINSLOT", &number, "100"];
            let answer = self.servers[from].run(&keys).await;
            let keys: Vec<&str> = answer.lines().skip(1).skip(1).step_by(2).collect();
            if keys.is_empty() {
                break;
            }
            let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let moved = self.servers[from].run(&[&words[..], &keys[..]].concat()).await;
            assert_eq!(moved, "+OK\r\n");
        }
        let new = self.id(to).await;
        for server in [to, from].into_iter().chain(0..self.primaries) {
            self.servers[server].run(&["CLUSTER", "SETSLOT", &number, "NODE", &new]).await;
        }
    }

    /// A server without slots joins, to be given some; gives its place among the servers.
    pub(crate) async fn grow(&mut self) -> usize {
        let server = member().await;
        let port = server.port().to_string();
        self.servers[0].run(&["CLUSTER", "MEET", "127.0.0.1", &port, &server.options[3]]).await;
        self.servers.push(server);
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let known = format!("cluster_known_nodes:{}\r\n", self.servers.len());
            server.until(&["CLUSTER", "INFO"], &known).await;
        }
        self.works().await;
        self.servers.len() - 1
    }

    async fn id(&self, index: usize) -> String {
        let answer = self.servers[index].run(&["CLUSTER", "MYID"]).await;
        answer.lines().nth(1).unwrap().to_owned()
    }
}

async fn member() -> RedisServer {
    let mut server = RedisServer::prepare();
    let bus_port = server.reserve_second_port().to_string();
    server.set_options(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus_port,
        "--cluster-node-timeout",
        "1000",
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-require-full-coverage",
        "no",
        // One that gave its last slot away stays a primary, to be given others.
        "--cluster-allow-replica-migration",
        "no",
    ]);
    server.up().await;
    server
}
