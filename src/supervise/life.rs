//! One life of an instance: a guard with the program below it, from the start to the end of both.
//!
//! Invariants: whoever drops a [`Life`] ends it, because the guard kills what it guards when its control socket closes.
//! The end is told after the last line of output was read, and after nothing of the program is left.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::control::{MAX_LINE, Order, Report};
use super::exit::Exit;
use super::output::{self, Origin};
use super::ports::Lease;
use super::spec::Spec;
use super::{guard, ports::Ports};

/// For a guard to start the program, or to say why it cannot.
const START: Duration = Duration::from_secs(10);
/// For the last lines of a program that has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A program that runs, and its guard.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) pid: i32,
    pub(super) guard: i32,
    pub(super) began: Instant,
    lease: Lease,
    control: OwnedWriteHalf,
    exit: watch::Receiver<Option<Exit>>,
    /// Reads what the guard and the program say.
    _tasks: JoinSet<()>,
}

impl Life {
    /// Starts the program of `spec` as this instance, on a port of its own.
    ///
    /// # Errors
    /// Where there is no port, or the guard cannot be started or cannot start the program.
    pub(super) async fn begin(
        spec: &Spec,
        instance: usize,
        ports: &Ports,
        hidden: &[String],
    ) -> io::Result<Self> {
        let settings = &spec.settings;
        let lease = ports.lease(settings.port_base, settings.instances.count())?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let began = Instant::now();
        let mut child = command(spec, instance, &lease, hidden)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // The command held an end of the socket; it is gone by now.
        let guard = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        let (heard, control) = UnixStream::from_std(ours)?.into_split();
        let mut heard = BufReader::new(heard);
        let origin = |stream| Origin { key: spec.key.clone(), instance, stream };
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(output::follow(stdout, origin("stdout")));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(output::follow(stderr, origin("stderr")));
        }
        let first = timeout(START, report(&mut heard)).await;
        let pid = match first.unwrap_or_default() {
            Some(Report::Started(pid)) => pid,
            Some(Report::Failed(why)) => return Err(io::Error::other(why)),
            Some(Report::Ended(_)) | None => {
                return Err(io::Error::other("its guard did not start"));
            }
        };
        let (tell, exit) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(heard, child, output, tell));
        Ok(Self { pid, guard, began, lease, control, exit, _tasks: tasks })
    }

    pub(super) fn port(&self) -> u16 {
        self.lease.port
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port())
    }

    /// Ends when the program has, and nothing of it is left.
    pub(super) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        // Without a teller nobody can say how.
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }

    /// Asks it to end, gives it `patience` (less, where `hurry` ends sooner), and kills what is left then.
    pub(super) async fn stop(
        mut self,
        patience: Duration,
        hurry: impl Future<Output = ()>,
    ) -> Exit {
        self.order(Order::Stop).await;
        let ended = tokio::select! {
            ended = timeout(patience, self.ended()) => ended.ok(),
            () = hurry => None,
        };
        match ended {
            Some(exit) => exit,
            None => self.kill().await,
        }
    }

    /// Kills it with all that it has started.
    pub(super) async fn kill(mut self) -> Exit {
        self.order(Order::Kill).await;
        // What the kernel does not let go of in this time, its guard waits for.
        timeout(START, self.ended()).await.unwrap_or(Exit::Unknown)
    }

    async fn order(&mut self, order: Order) {
        // A guard that is gone has nothing left to guard.
        drop(self.control.write_all(order.line().as_bytes()).await);
    }
}

/// The guard with the program's command and its environment.
fn command(spec: &Spec, instance: usize, lease: &Lease, hidden: &[String]) -> Command {
    let (settings, key) = (&spec.settings, &spec.key);
    let mut command = Command::new(guard::OWN);
    // What `ps` shows.
    command.arg0(format!("meridian: guard of {key}#{instance}"));
    command.args([guard::COMMAND, guard::GUARD]);
    let grace = spec.orphan_grace().as_millis();
    command.args([spec.stop_signal().to_string(), grace.to_string()]);
    command.args(settings.command.iter().map(OsString::from));
    if let Some(dir) = &settings.dir {
        command.current_dir(dir);
    }
    for name in hidden {
        command.env_remove(name);
    }
    command.env("HOST", Ipv4Addr::LOCALHOST.to_string());
    command.envs(settings.env.iter().filter_map(|pair| pair.split_once('=')));
    command.env("PORT", lease.port.to_string());
    command.env("MERIDIAN_REGION", key.region.as_str());
    command.env("MERIDIAN_INSTANCE", instance.to_string());
    // A terminal's Ctrl-C is for the gateway, which stops the program in its turn.
    command.process_group(0);
    command
}

/// The next report of a guard; `None` when it is gone.
async fn report(heard: &mut BufReader<OwnedReadHalf>) -> Option<Report> {
    let mut line = String::new();
    heard.take(MAX_LINE as u64).read_line(&mut line).await.ok()?;
    Report::parse(&line)
}

/// Waits for the guard's last word and its end.
async fn follow(
    mut heard: BufReader<OwnedReadHalf>,
    mut guard: Child,
    mut output: JoinSet<()>,
    tell: watch::Sender<Option<Exit>>,
) {
    let exit = match report(&mut heard).await {
        Some(Report::Ended(exit)) => exit,
        _ => Exit::Unknown,
    };
    // How a guard ended says nothing that it has not said.
    drop(guard.wait().await);
    let lines = async { while output.join_next().await.is_some() {} };
    // A process that left the tree may hold the pipe for ever.
    drop(timeout(LAST_LINES, lines).await);
    tell.send_replace(Some(exit));
}

/// What every start needs.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) ports: Ports,
    /// Variables that are not handed on.
    pub(super) hidden: Arc<[String]>,
}
