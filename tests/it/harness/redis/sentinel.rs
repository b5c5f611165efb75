//! A primary, its replicas, and the Sentinels that watch them.

use std::time::{Duration, Instant};

use super::{PATIENCE, RedisServer, SENTINEL_FILE};

/// The name under which the Sentinels know the primary.
pub(crate) const MASTER: &str = "mymaster";

/// Servers and Sentinels; all are gone when it is dropped.
pub(crate) struct SentinelSet {
    /// The first one begins as the primary.
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl SentinelSet {
    /// One primary, so many replicas whose links are up, and so many Sentinels that know of them all.
    pub(crate) async fn start(replicas: usize, sentinels: usize) -> Self {
        Self::start_with(replicas, sentinels, &[], "").await
    }

    /// With more arguments for each server, and more lines for each Sentinel's file.
    pub(crate) async fn start_with(
        replicas: usize,
        sentinels: usize,
        options: &[&str],
        lines: &str,
    ) -> Self {
        let primary = RedisServer::start_with(options).await;
        let of_replica = ["--replicaof", &format!("127.0.0.1 {}", primary.port())];
        let mut set = Self { servers: vec![primary], sentinels: Vec::new() };
        for _ in 0..replicas {
            let replica = RedisServer::start_with(&[options, &of_replica[..]].concat()).await;
            set.servers.push(replica);
        }
        for replica in &set.servers[1..] {
            replica.until(&["INFO", "replication"], "master_link_status:up").await;
        }
        for _ in 0..sentinels {
            let sentinel = set.sentinel(sentinels / 2 + 1, lines).await;
            set.sentinels.push(sentinel);
        }
        for sentinel in &set.sentinels {
            let about = ["SENTINEL", "MASTER", MASTER];
            let count = |name: &str, count: usize| {
                let digits = count.to_string();
                format!("{name}\r\n${}\r\n{digits}\r\n", digits.len())
            };
            sentinel.until(&about, &count("num-slaves", replicas)).await;
            sentinel.until(&about, &count("num-other-sentinels", sentinels - 1)).await;
        }
        set
    }

    async fn sentinel(&self, quorum: usize, lines: &str) -> RedisServer {
        let mut sentinel = RedisServer::prepare();
        sentinel.is_sentinel = true;
        let file = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {} {quorum}\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n{lines}\n",
            sentinel.port(),
            sentinel.folder.path().display(),
            self.servers[0].port(),
        );
        std::fs::write(sentinel.file(SENTINEL_FILE), file).unwrap();
        sentinel.up().await;
        sentinel
    }

    /// `redis-sentinel://127.0.0.1:1,127.0.0.1:2/mymaster`
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> =
            self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
        format!("redis-sentinel://{}/{MASTER}", nodes.join(","))
    }

    /// Which of the servers the Sentinels that run name as the primary.
    pub(crate) async fn primary(&self) -> usize {
        let sentinel = self.sentinels.iter().find(|one| one.is_running()).unwrap();
        let named = sentinel.run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await;
        let is_named = |one: &RedisServer| named.contains(&format!("\r\n{}\r\n", one.port()));
        self.servers.iter().position(is_named).unwrap()
    }

    /// Waits until another one than `old` is the primary, and takes writes.
    pub(crate) async fn promoted(&self, old: usize) -> usize {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let now = self.primary().await;
            if now != old && self.servers[now].run(&["ROLE"]).await.contains("master") {
                return now;
            }
            assert!(Instant::now() < deadline, "nobody was promoted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
