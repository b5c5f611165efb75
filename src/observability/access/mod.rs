//! The record of exchanges and sockets: one line each, written where it costs the request least.
//!
//! Walk: whoever has finished something calls [`AccessLog::write`] with an [`Entry`]; `line` formats it straight into a
//! buffer of this thread's own, which a thread of the log's takes in batches and gives to standard error or to a `file`.
//! So a line costs a clock, some copying and a lock that nobody else wants at that moment; no allocation.
//!
//! Invariants: no request waits for a disk; a buffer has a bound, and what comes over it is dropped and counted; with lines
//! turned off, a request pays one load.

mod entry;
mod file;
mod line;
mod writer;

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;

pub use self::entry::{Entry, Part, Socket, protocol};
use self::file::{LogFile, Rotation};
use self::line::{Stamp, Style};
pub use self::writer::AccessWriter;
use super::Registry;
use crate::settings::{
    AccessFormat, AccessSettings, ClientShown, LogFormat, LogLevel, LogSettings,
};

/// Buffers; each thread that writes lines has one of them, and up to so many threads one for itself.
const SHARDS: usize = 16;
/// Bytes of lines that wait in a buffer.
const MAX_WAITING: usize = 2 << 20;

/// Bits of [`Inner::style`].
const FORMAT: u16 = 0b11;
const QUERIES: u16 = 1 << 2;
const TRUNCATED: u16 = 1 << 3;
const NO_CLIENT: u16 = 1 << 4;

/// Why there are no lines.
#[derive(Debug, thiserror::Error)]
#[error("access.file: {path}: {source}", path = path.display())]
pub struct AccessError {
    path: PathBuf,
    source: io::Error,
}

/// Where lines are written to; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// What lines look like; 0: there are none.
    style: AtomicU16,
    shards: [Mutex<Shard>; SHARDS],
    /// The writer has been told that there is something to do.
    is_told: AtomicBool,
    orders: Mutex<Orders>,
    /// Lines that did not fit into their buffer, or could not be written.
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Shard {
    lines: Vec<u8>,
    stamp: Stamp,
}

/// What the writer is to do besides writing.
#[derive(Debug, Default)]
struct Orders {
    writer: Option<Thread>,
    target: Option<Target>,
    /// Lines from before the change of the target.
    before: Vec<u8>,
    reopen: bool,
    stop: bool,
}

/// Where lines go.
#[derive(Debug)]
enum Target {
    Nowhere,
    Stderr,
    File(Box<LogFile>),
}

thread_local! {
    /// The buffer of this thread; one more than there are until it has asked for one.
    static SHARD: Cell<usize> = const { Cell::new(SHARDS) };
}

/// Which buffer the next thread gets.
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AccessLog {
    /// Whether there are lines; where not, nothing for them needs to be found out.
    pub fn is_on(&self) -> bool {
        self.0.style.load(Ordering::Relaxed) != 0
    }

    /// Whether lines have `Referer` and `User-Agent`.
    pub fn wants_agent(&self) -> bool {
        self.0.style.load(Ordering::Relaxed) & FORMAT == 3
    }

    /// Writes the line of something that is over.
    pub fn write(&self, entry: &Entry<'_>) {
        let Some(style) = style_of(self.0.style.load(Ordering::Relaxed)) else { return };
        let now = SystemTime::now();
        let Some(shard) = self.0.shards.get(shard_of_thread()) else { return };
        let mut shard = lock(shard);
        if shard.lines.len() >= MAX_WAITING {
            self.0.dropped.inc();
            return;
        }
        let Shard { lines, stamp } = &mut *shard;
        line::write(entry, style, now, stamp, lines);
        drop(shard);
        self.tell();
    }

    /// Wakes the writer, unless it was told already and has not looked since.
    fn tell(&self) {
        let told = &self.0.is_told;
        if !told.load(Ordering::Relaxed)
            && !told.swap(true, Ordering::AcqRel)
            && let Some(writer) = &lock(&self.0.orders).writer
        {
            writer.unpark();
        }
    }

    /// Goes by these settings from now on.
    ///
    /// # Errors
    /// Where the file cannot be opened; nothing is changed then.
    pub fn set(&self, log: &LogSettings, access: &AccessSettings) -> Result<(), AccessError> {
        self.prepare(log, access).map(|prepared| self.adopt(prepared))
    }

    /// Opens what these settings name.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn prepare(
        &self,
        log: &LogSettings,
        access: &AccessSettings,
    ) -> Result<PreparedAccess, AccessError> {
        let (target, is_on) = match &access.file {
            Some(path) if log.access => {
                let rotation = Rotation {
                    bytes: access.rotate_bytes,
                    daily: access.rotate_daily,
                    keep: access.rotate_keep.get(),
                };
                let opened = LogFile::open(path, rotation)
                    .map_err(|source| AccessError { path: path.clone(), source })?;
                (Target::File(Box::new(opened)), true)
            }
            // Among the lines of the log, they are of the level info.
            None if log.access && super::logs::is_installed() => {
                let is_on = !matches!(log.level, LogLevel::Error | LogLevel::Warn);
                (Target::Stderr, is_on)
            }
            _ => (Target::Nowhere, false),
        };
        let format = access.format.unwrap_or(match log.format {
            LogFormat::Text => AccessFormat::Text,
            LogFormat::Json => AccessFormat::Json,
        });
        let style = Style { format, queries: access.queries, client: access.client };
        Ok(PreparedAccess { target, style: is_on.then_some(style) })
    }

    /// Puts it in place.
    pub fn adopt(&self, prepared: PreparedAccess) {
        let bits = prepared.style.map_or(0, bits_of);
        let mut orders = lock(&self.0.orders);
        self.0.style.store(bits, Ordering::Relaxed);
        for shard in &self.0.shards {
            orders.before.append(&mut lock(shard).lines);
        }
        orders.target = Some(prepared.target);
        drop(orders);
        self.tell();
    }

    /// One that keeps its lines for [`Self::taken`].
    #[cfg(test)]
    pub(crate) fn kept(format: AccessFormat) -> Self {
        let log = Self::default();
        let style = Style { format, queries: false, client: ClientShown::Full };
        log.0.style.store(bits_of(style), Ordering::Relaxed);
        log
    }

    /// The lines since the last time.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> String {
        let lines = self.0.shards.iter().flat_map(|shard| std::mem::take(&mut lock(shard).lines));
        String::from_utf8(lines.collect()).unwrap()
    }

    /// Looks whether the file was moved, and begins it anew then.
    pub fn reopen(&self) {
        lock(&self.0.orders).reopen = true;
        self.tell();
    }
}

/// What [`AccessLog::adopt`] puts in place.
#[derive(Debug)]
pub struct PreparedAccess {
    target: Target,
    style: Option<Style>,
}

fn shard_of_thread() -> usize {
    SHARD.with(|shard| {
        if shard.get() == SHARDS {
            shard.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

fn bits_of(style: Style) -> u16 {
    let format = match style.format {
        AccessFormat::Text => 1,
        AccessFormat::Json => 2,
        AccessFormat::Combined => 3,
    };
    let client = match style.client {
        ClientShown::Full => 0,
        ClientShown::Truncated => TRUNCATED,
        ClientShown::None => NO_CLIENT,
    };
    format | client | if style.queries { QUERIES } else { 0 }
}

fn style_of(bits: u16) -> Option<Style> {
    let format = match bits & FORMAT {
        0 => return None,
        1 => AccessFormat::Text,
        2 => AccessFormat::Json,
        _ => AccessFormat::Combined,
    };
    let client = match bits & (TRUNCATED | NO_CLIENT) {
        0 => ClientShown::Full,
        TRUNCATED => ClientShown::Truncated,
        _ => ClientShown::None,
    };
    Some(Style { format, queries: bits & QUERIES != 0, client })
}

#[cfg(test)]
mod tests;
