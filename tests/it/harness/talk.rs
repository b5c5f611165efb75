//! A running `meridian` with pipes: what is typed to it, and what it prints.

use std::process::Stdio;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStdin, Command};

use super::within;

/// A running command with pipes.
pub(crate) struct Talk {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) out: Reader,
    pub(crate) notes: Reader,
}

/// What a pipe has brought.
pub(crate) struct Reader {
    pipe: BufReader<Box<dyn AsyncRead + Unpin + Send>>,
}

impl Reader {
    pub(crate) fn of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        Self { pipe: BufReader::new(Box::new(pipe)) }
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        within("a line", self.pipe.read_line(&mut line)).await.unwrap();
        assert!(line.ends_with('\n'), "the output ended with {line:?}");
        line.pop();
        line
    }

    /// Reads on to a line that contains `part`.
    pub(crate) async fn comes_to(&mut self, part: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) async fn rest(mut self) -> String {
        let mut rest = String::new();
        within("the end of the output", self.pipe.read_to_string(&mut rest)).await.unwrap();
        rest
    }
}

pub(crate) fn command(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
    command.args(arguments).env_clear().env("PROXY_PORT", port.to_string());
    // Where no `.env` and no `config` of somebody's are read.
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/empty");
    std::fs::create_dir_all(folder).unwrap();
    command.current_dir(folder).kill_on_drop(true);
    command
}

impl Talk {
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        Self::spawn(&mut command(port, arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Reader::of(child.stdout.take().unwrap());
        let notes = Reader::of(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, out, notes }
    }

    pub(crate) async fn types(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// The input ends.
    pub(crate) fn hangs_up(&mut self) {
        self.stdin = None;
    }

    /// Its exit code, and what it wrote that was not read: results, and notes.
    pub(crate) async fn end(mut self) -> (Option<i32>, String, String) {
        self.hangs_up();
        let (status, out, notes) =
            tokio::join!(within("the end", self.child.wait()), self.out.rest(), self.notes.rest());
        (status.unwrap().code(), out, notes)
    }
}

pub(crate) async fn ran(port: u16, arguments: &[&str]) -> (Option<i32>, String, String) {
    Talk::start(port, arguments).end().await
}
