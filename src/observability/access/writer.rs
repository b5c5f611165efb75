//! The thread that takes lines out of their buffers and writes them.
//!
//! It sleeps until it is told, gathers for a moment, and then takes each buffer whole, leaving an empty one. Where nothing
//! is written it does nothing, not even look.

use std::io::{Write as _, stderr};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::park_timeout;
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use super::file::{self, Lost};
use super::{AccessLog, Orders, Registry, Target, lock};

/// So long lines are gathered for one write: a busy gateway would otherwise wake this thread for each.
const GATHER: Duration = Duration::from_millis(5);
/// What a buffer keeps of its room after a burst.
const KEPT_ROOM: usize = 256 * 1024;
/// Between complaints about lines that are lost.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);
/// For the last lines, when the process ends: a disk that hangs must not hold it.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Keeps the thread alive; when dropped, what waits is written out.
#[derive(Debug)]
pub struct AccessWriter {
    log: AccessLog,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl AccessWriter {
    /// Starts the thread; there are no lines before [`AccessLog::set`].
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(registry: &mut Registry) -> io::Result<Self> {
        let log = AccessLog::default();
        registry.register(
            "access_lines_dropped",
            "Access lines that nobody could take in time, or that could not be written",
            log.0.dropped.clone(),
        );
        let (ends, ended) = sync_channel(0);
        let writing = log.clone();
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            run(&writing);
            drop(ends);
        })?;
        lock(&log.0.orders).writer = Some(thread.thread().clone());
        Ok(Self { log, ended })
    }

    pub fn log(&self) -> AccessLog {
        self.log.clone()
    }
}

impl Drop for AccessWriter {
    fn drop(&mut self) {
        lock(&self.log.0.orders).stop = true;
        self.log.0.is_told.store(false, Ordering::Relaxed);
        self.log.tell();
        if self.ended.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(target: "App", "the last access lines could not be written in time");
        }
    }
}

fn run(log: &AccessLog) {
    let mut target = Target::Nowhere;
    let mut spare = Vec::new();
    let mut complained = None;
    loop {
        while !log.0.is_told.load(Ordering::Acquire) {
            thread::park();
        }
        park_timeout(GATHER);
        // Before anything is looked at: what comes behind that look tells again.
        log.0.is_told.store(false, Ordering::SeqCst);
        let Orders { target: next, before, reopen, stop, .. } = orders(log);
        let mut outcome = write(&mut target, &before);
        if let Some(next) = next {
            target = next;
        }
        if reopen
            && let Target::File(file) = &mut target
            && let Err(error) = file.reopen()
        {
            tracing::warn!(target: "App", %error, "the file of access lines cannot be opened again");
        }
        for shard in &log.0.shards {
            std::mem::swap(&mut lock(shard).lines, &mut spare);
            if !spare.is_empty() {
                outcome = write(&mut target, &spare).and(outcome);
                spare.clear();
                spare.shrink_to(KEPT_ROOM);
            }
        }
        if let Err(lost) = outcome {
            complain(log, &lost, &mut complained);
        }
        if stop {
            return;
        }
    }
}

/// What is to be done, which is thereby taken over.
fn orders(log: &AccessLog) -> Orders {
    let mut orders = lock(&log.0.orders);
    let rest = Orders { writer: orders.writer.clone(), stop: orders.stop, ..Orders::default() };
    std::mem::replace(&mut *orders, rest)
}

fn write(target: &mut Target, lines: &[u8]) -> Result<(), Lost> {
    match target {
        Target::Nowhere => Ok(()),
        _ if lines.is_empty() => Ok(()),
        Target::Stderr => {
            let written = stderr().lock().write_all(lines);
            written.map_err(|error| Lost { lines: file::count(lines), error })
        }
        Target::File(file) => file.write(lines, SystemTime::now()),
    }
}

fn complain(log: &AccessLog, lost: &Lost, complained: &mut Option<Instant>) {
    log.0.dropped.inc_by(lost.lines);
    if complained.is_none_or(|at: Instant| at.elapsed() >= COMPLAIN_EVERY) {
        *complained = Some(Instant::now());
        tracing::warn!(target: "App", error = %lost.error, "access lines cannot be written, and are lost");
    }
}
