//! Node, for the client library outside of browsers.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

/// A script of tests/client, with what this Node needs to have a `WebSocket`; killed when it is dropped.
///
/// # Panics
/// Where Node is missing: the message names the package.
pub(crate) async fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    // One that knows the flag has the class, with it or since it is no longer needed; an older one says that it knows none.
    let flag = "--experimental-websocket";
    let asked = Command::new("node").args([flag, "-e", "0"]).output().await;
    if asked.expect("node is missing: apt-get install nodejs").status.success() {
        command.arg(flag);
    }
    if script.ends_with(".test.mjs") {
        command.arg("--test");
    }
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "client", script].iter().collect();
    command.arg(path).stdin(Stdio::null()).kill_on_drop(true);
    command
}
