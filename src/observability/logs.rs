//! Log lines: `[<RFC 3339>] [INFO] [Proxy] GET /x 200 - 2ms`, or one JSON object each.
//!
//! Lines go through a bounded queue to a thread that writes them in batches, so that a slow standard
//! error never holds a request up; what does not fit is dropped, and the count of it is said at the end.
//! The part a line is from is the event's `target`: `target: "Proxy"` and so on. Access lines are no events: they come
//! from `access`, which writes whole lines as this does, so that neither cuts into the other's.

use std::fmt;
use std::io::{self, BufWriter, Write as _, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::verbosity::Verbosity;
use crate::settings::{LogFormat, LogSettings};

/// Whether this process's log is the one of [`install`], and so standard error ours to write to.
static INSTALLED: AtomicBool = AtomicBool::new(false);

pub(super) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Relaxed)
}

/// Standard error, where what is written at once stays together.
struct Whole;

impl io::Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr().lock().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

/// Keeps the writer alive; when dropped, what is queued is written out.
#[derive(Debug)]
pub struct LogGuard {
    worker: Option<WorkerGuard>,
    dropped: ErrorCounter,
    verbosity: Verbosity,
}

impl LogGuard {
    /// What changes how much is logged.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        self.worker.take();
        if dropped > 0 {
            // Nobody is left to tell if standard error is gone too.
            drop(writeln!(
                stderr(),
                "{dropped} log lines were dropped because standard error was too slow"
            ));
        }
    }
}

/// Installs the process-wide log. Only the first call has an effect; a test process may call it often.
pub fn install(settings: &LogSettings) -> LogGuard {
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .finish(BufWriter::with_capacity(64 * 1024, Whole));
    let dropped = writer.error_counter();
    let verbosity = Verbosity::new(settings);
    // What is wanted, the layer on top says; a filter of the other's own would hide its hint.
    let lines = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let wanted = verbosity.clone();
    let installed = match settings.format {
        LogFormat::Text => {
            let layer = layer.fmt_fields(TextFields).event_format(TextLine);
            lines.with(layer).with(wanted).try_init()
        }
        LogFormat::Json => {
            let layer = layer.fmt_fields(JsonFields::new()).event_format(JsonLine);
            lines.with(layer).with(wanted).try_init()
        }
    };
    if installed.is_ok() {
        INSTALLED.store(true, Ordering::Relaxed);
    }
    LogGuard { worker: Some(worker), dropped, verbosity }
}

/// `message name=value …`, without quotes: values of ours have no spaces, and a client's are visible ASCII.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor { writer, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_err() {
            return;
        }
        self.result = match field.name() {
            "message" => self.writer.write_fmt(value),
            name => write!(self.writer, " {name}={value}"),
        };
    }
}

impl Visit for TextVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}

struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        write!(writer, "[{now}] [{}] [{}] ", event.metadata().level(), event.metadata().target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        write!(
            writer,
            r#"{{"timestamp":"{now}","level":"{}","component":"{}","fields":{fields}}}"#,
            event.metadata().level(),
            event.metadata().target()
        )?;
        writeln!(writer)
    }
}
