//! The guard of one supervised process: this same binary, started again, between the gateway and the program.
//!
//! Walk: [`run`] takes the hidden arguments. `guard` becomes the subreaper of all that will descend from it, starts the
//! program through a further `exec` stage, and waits; a thread beside it reads the gateway's orders. `exec` asks the kernel
//! to be killed with its guard, and becomes the program.
//!
//! Invariants: nothing below the guard outlives it by its own doing. The gateway's end is the end of the control socket,
//! whatever killed the gateway. A process is signalled only under the lock under which it is waited for, so that its id
//! is its own. Absent on purpose: an async runtime, settings, the log; a guard is as small as a process can be.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getppid, kill_process,
    kill_process_group, set_child_subreaper, set_parent_process_death_signal, wait, waitid,
};

use super::control::{MAX_LINE, Order, Report};
use super::exit::Exit;
use super::tree;

/// The first argument of the hidden command.
pub(super) const COMMAND: &str = "__child";
/// Its stages.
pub(super) const GUARD: &str = "guard";
const EXEC: &str = "exec";
/// This binary, also after another was put in its place.
pub(super) const OWN: &str = "/proc/self/exe";
/// As shells say that a program cannot be run.
const CANNOT_RUN: u8 = 127;
/// Between two looks at what is left to kill.
const LOOK: Duration = Duration::from_millis(10);
/// What cannot be killed in this many looks (a process in an uninterruptible wait) is left to the kernel.
const LOOKS: u32 = 500;

/// Runs a stage, where the arguments of this process name one; `None` where they are an operator's.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1)? != COMMAND {
        return None;
    }
    let stage = arguments.next().unwrap_or_default();
    let first = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let second = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let command: Vec<OsString> = arguments.collect();
    let (Some(first), Some(second)) = (first, second) else {
        return Some(ExitCode::from(CANNOT_RUN));
    };
    Some(if stage == GUARD { guard(first, second, &command) } else { exec(first, &command) })
}

/// Becomes the program, to be killed when `guard` is gone.
fn exec(guard: u64, command: &[OsString]) -> ExitCode {
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have gone before it could be told of.
    let parent = getppid().and_then(|pid| u64::try_from(pid.as_raw_pid()).ok());
    let why = match (bound, parent == Some(guard), command.split_first()) {
        (Err(error), ..) => error.to_string(),
        (_, false, _) => "its guard is gone".to_owned(),
        (.., None) => "there is no program".to_owned(),
        (.., Some((program, arguments))) => {
            let error = Command::new(program).args(arguments).exec();
            format!("{} cannot be run: {error}", program.to_string_lossy())
        }
    };
    // The gateway reads it as a line of the program's.
    drop(writeln!(io::stderr(), "{why}"));
    ExitCode::from(CANNOT_RUN)
}

/// Runs the program, and ends when nothing of it is left. `stop` is the number of the stop signal, `grace` how many
/// milliseconds the program has to follow it when the gateway is gone.
fn guard(stop: u64, grace: u64, command: &[OsString]) -> ExitCode {
    let control = rustix::stdio::stdin().try_clone_to_owned().map(UnixStream::from);
    let Ok(mut control) = control else {
        return ExitCode::from(CANNOT_RUN);
    };
    let program = match start(command) {
        Ok(program) => program,
        Err(error) => {
            drop(control.write_all(Report::Failed(error.to_string()).to_string().as_bytes()));
            return ExitCode::from(CANNOT_RUN);
        }
    };
    drop(control.write_all(Report::Started(program.as_raw_pid()).to_string().as_bytes()));
    let signal = i32::try_from(stop).ok().and_then(Signal::from_named_raw).unwrap_or(Signal::TERM);
    let watch =
        Arc::new(Watch { program, signal, state: Mutex::default(), changed: Condvar::new() });
    let orders = control.try_clone().and_then(|orders| {
        let watch = Arc::clone(&watch);
        let obey = move || watch.obey(orders, Duration::from_millis(grace));
        std::thread::Builder::new().name("orders".to_owned()).spawn(obey)
    });
    if orders.is_err() {
        watch.kill_all();
    }
    let exit = watch.wait();
    drop(control.write_all(Report::Ended(exit).to_string().as_bytes()));
    ExitCode::SUCCESS
}

/// From the main thread, which lives as long as the guard: the kernel ties the death signal to the thread that started.
fn start(command: &[OsString]) -> io::Result<Pid> {
    // Any process will do as the argument: it only says yes.
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let child = Command::new(OWN)
        .args([OsStr::new(COMMAND), OsStr::new(EXEC)])
        .arg(std::process::id().to_string())
        .arg("0")
        .args(command)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

/// One program, watched by the thread that waits for it and the one that obeys.
#[derive(Debug)]
struct Watch {
    program: Pid,
    /// What asks it to end.
    signal: Signal,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The program has been waited for: its id is nobody's now.
    ended: bool,
    /// It was told to stop, so what it leaves behind has time, too.
    stopping: bool,
    /// Nothing has time any more.
    killing: bool,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the program and for all that it leaves behind.
    fn wait(&self) -> Exit {
        let mut exit = Exit::Unknown;
        while !self.state().ended {
            // Wakes without taking anything away; what is taken, is under the lock.
            if waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {
                break;
            }
            let mut state = self.state();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if pid == self.program {
                    state.ended = true;
                    exit = exit_of(status);
                }
            }
        }
        self.changed.notify_all();
        self.sweep();
        exit
    }

    /// Sees to it that nothing of the program is left: at once, or as soon as its time is over.
    fn sweep(&self) {
        let mut kills = 0;
        loop {
            while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
            let left = below_own();
            if left.is_empty() || kills >= LOOKS {
                return;
            }
            let state = self.state();
            if state.killing || !state.stopping {
                kills += 1;
                kill_each(&left);
            }
            drop(self.changed.wait_timeout(state, LOOK));
        }
    }

    /// Does what the gateway says, until it says nothing any more.
    fn obey(&self, orders: UnixStream, grace: Duration) {
        let mut orders = BufReader::new(orders);
        let mut line = String::new();
        let mut read = |line: &mut String| {
            line.clear();
            orders.by_ref().take(MAX_LINE as u64).read_line(line).unwrap_or(0)
        };
        while read(&mut line) > 0 {
            match Order::parse(&line) {
                Some(Order::Stop) => self.stop(),
                Some(Order::Kill) => self.kill_all(),
                None => {}
            }
        }
        // The gateway is gone.
        self.stop();
        let (until, mut state) = (Instant::now() + grace, self.state());
        while !state.ended {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        drop(state);
        self.kill_all();
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        if !state.ended {
            // It may end at this very moment.
            kill_process_group(self.program, self.signal).ok();
        }
    }

    fn kill_all(&self) {
        let mut state = self.state();
        state.killing = true;
        if !state.ended {
            kill_process_group(self.program, Signal::KILL).ok();
            // Before it has its group, and what has left it.
            kill_each(&below_own());
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn below_own() -> Vec<tree::Seen> {
    tree::below(&tree::scan(), rustix::process::getpid().as_raw_pid())
}

fn kill_each(seen: &[tree::Seen]) {
    for pid in seen.iter().filter_map(|seen| Pid::from_raw(seen.pid)) {
        // Gone already is as good.
        kill_process(pid, Signal::KILL).ok();
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}
