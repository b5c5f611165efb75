//! Node, for the client library outside of browsers.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

/// A script of tests/client, with what this Node needs to have a `WebSocket`; killed when it is dropped.
///
/// # Panics
/// Where Node is missing: the message names the package.
pub(crate) async fn node(script: &str) -> Command {
    let asked = Command::new("node").arg("--version").output().await;
    let asked = asked.expect("node is missing: apt-get install nodejs");
    let version = String::from_utf8(asked.stdout).unwrap();
    let major = version.trim().trim_start_matches('v').split('.').next();
    let major: u32 = major.and_then(|number| number.parse().ok()).expect("node says its version");
    let mut command = Command::new("node");
    if (20..22).contains(&major) {
        command.arg("--experimental-websocket");
    }
    if script.ends_with(".test.mjs") {
        command.arg("--test");
    }
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "client", script].iter().collect();
    command.arg(path).stdin(Stdio::null()).kill_on_drop(true);
    command
}
