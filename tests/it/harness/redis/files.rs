//! What a server keeps on disk and hands to replicas: snapshots, copies of its files, links that are cut.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{PATIENCE, RedisServer};

impl RedisServer {
    /// A server that keeps nothing on disk but the snapshots that it is told to make.
    pub(crate) async fn start_with_snapshots() -> Self {
        Self::start_with(&["--appendonly", "no"]).await
    }

    /// A replica of `primary`, with all that it has.
    pub(crate) async fn start_replica(primary: &Self) -> Self {
        let replica = Self::start().await;
        replica.follow(primary).await;
        replica
    }

    /// Makes it a replica of `primary`; ends when both say that it follows.
    pub(crate) async fn follow(&self, primary: &Self) {
        self.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
        self.until(&["INFO", "replication"], "master_link_status:up").await;
        let online = format!("port={},state=online", self.port());
        primary.until(&["INFO", "replication"], &online).await;
    }

    /// Waits until a replica has all that `primary` has now.
    pub(crate) async fn has_what(&self, primary: &Self) {
        let deadline = Instant::now() + PATIENCE;
        let wanted = primary.offset("master_repl_offset:").await;
        while self.offset("slave_repl_offset:").await < wanted {
            assert!(Instant::now() < deadline, "the replica stays behind");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn offset(&self, name: &str) -> u64 {
        let told = self.run(&["INFO", "replication"]).await;
        let value = told.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {told}")).parse().unwrap()
    }

    /// Ends the link to its primary, without making it one: it has what it had.
    pub(crate) async fn cut(&self) {
        // Nobody listens there.
        self.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    }

    /// Makes a replica a primary.
    pub(crate) async fn promote(&self) {
        self.run(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// A copy of what it has on disk now.
    pub(crate) fn copy_files(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    /// Puts an earlier copy in the place of what it has on disk; while it is down.
    pub(crate) fn replace_files(&mut self, copy: &TempDir) {
        assert!(self.child.is_none(), "it runs");
        self.folder = TempDir::new().unwrap();
        copy_folder(copy.path(), self.folder.path());
    }

    /// Ends it in order, with a snapshot of all that it has.
    pub(crate) async fn shut_down_with_snapshot(&mut self) {
        drop(self.connect(&["SHUTDOWN", "SAVE"]).await.unwrap());
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "redis-server does not shut down");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success(), "cp: {status}");
}
