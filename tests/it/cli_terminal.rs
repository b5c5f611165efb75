//! `meridian chat` on a terminal: the built binary on a pseudo-terminal of the test's own.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use serde_json::json;
use tokio::sync::mpsc;

use crate::cli_talk::join;
use crate::harness::gateway::Gateway;
use crate::harness::talk::command;
use crate::harness::{DEADLINE, within};

/// A terminal, as its other side sees it.
struct Terminal {
    keys: std::fs::File,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
    /// Held, so that its mode can be looked at afterwards.
    inner: std::fs::File,
}

impl Terminal {
    fn open() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let path = ptsname(&outer, Vec::new()).unwrap().into_string().unwrap();
        let inner = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let keys = std::fs::File::from(outer);
        let mut reader = keys.try_clone().unwrap();
        let (sender, output) = mpsc::channel(1_024);
        std::thread::spawn(move || {
            let mut block = [0; 4_096];
            while let Ok(length) = std::io::Read::read(&mut reader, &mut block) {
                if length == 0 || sender.blocking_send(block[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keys, output, seen: String::new(), inner }
    }

    fn end(&self) -> Stdio {
        Stdio::from(OwnedFd::from(self.inner.try_clone().unwrap()))
    }

    fn types(&mut self, keys: &str) {
        std::io::Write::write_all(&mut self.keys, keys.as_bytes()).unwrap();
    }

    /// Waits until `text` was printed, and forgets what came up to it.
    async fn shows(&mut self, text: &str) {
        let seen = async {
            loop {
                if let Some((_, after)) = self.seen.split_once(text) {
                    return Ok(after.to_owned());
                }
                match self.output.recv().await {
                    Some(block) => self.seen += &String::from_utf8_lossy(&block),
                    None => return Err(()),
                }
            }
        };
        let waited = tokio::time::timeout(DEADLINE, seen).await;
        self.seen = waited
            .unwrap_or(Err(()))
            .unwrap_or_else(|()| panic!("{text:?} is not in {:?}", self.seen));
    }
}

/// Offline, everything waits; and the keys are still listened to.
#[tokio::test]
async fn on_a_terminal_ctrl_c_ends_whatever_waits() {
    let mut terminal = Terminal::open();
    let mut chat = command(1, &["chat", "--as", "alice", "--with", "bob"])
        .stdin(terminal.end())
        .stdout(terminal.end())
        .stderr(terminal.end())
        .spawn()
        .unwrap();
    terminal.shows("-- no connection").await;
    for _ in 0..100 {
        terminal.types("hi\r");
    }
    terminal.shows("(not connected) (100 waiting) bob> ").await;
    terminal.types("/quit\r");
    terminal.shows("waiting for 100 messages to be acknowledged; Ctrl-C leaves").await;
    terminal.types("\x03");
    assert_eq!(within("the end", chat.wait()).await.unwrap().code(), Some(1));
    terminal.shows("100 messages not acknowledged").await;
}

#[tokio::test]
async fn on_a_terminal_what_comes_does_not_garble_what_is_typed() {
    let gateway = Gateway::start(|_| ()).await;
    let mut bob = join(gateway.proxy(), "bob").await;
    let mut terminal = Terminal::open();
    let before = rustix::termios::tcgetattr(&terminal.inner).unwrap();
    let mut chat = command(gateway.proxy().port(), &["chat", "--as", "alice", "--with", "bob"])
        .stdin(terminal.end())
        .stdout(terminal.end())
        .stderr(terminal.end())
        .spawn()
        .unwrap();
    terminal.shows("-- connected as alice in region 1\r\n").await;
    terminal.types("hal");
    terminal.shows("bob> hal\r\x1b[8C").await;
    // Bob is told that something is being written; his answer comes while it is.
    assert_eq!(bob.hears_type("typing").await["from"], "alice");
    bob.say("alice", "first\nbob: second\x1b[2J", "c1").await;
    terminal.shows("\r\x1b[Kbob: first\r\n    bob: second␛[2J\r\nbob> hal\r\x1b[8C").await;
    bob.send(json!({"type": "typing", "to": "alice"})).await;
    terminal.shows("\r\x1b[K(bob is typing) bob> hal").await;
    terminal.types("\x7fllo\x1b[D\x1b[Do ");
    terminal.types("\r");
    terminal.shows("alice to bob: halo lo ✓\r\n").await;
    assert_eq!(bob.hears_type("message").await["text"], "halo lo");
    terminal.types("/quit\r");
    let status = within("the end", chat.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let after = rustix::termios::tcgetattr(&terminal.inner).unwrap();
    assert_eq!(before.local_modes, after.local_modes, "the terminal is as it was");
    assert_eq!(before.input_modes, after.input_modes);
    gateway.stop().await.unwrap();
}
